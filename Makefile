# The conveniences of this repository. Everything they need they install: system packages by apt (with sudo where you
# are not root), Python packages into .venv at the versions of constraints.txt. A second run installs nothing.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
SYSTEM_PACKAGES := binutils chromium dosfstools e2fsprogs fdisk fonts-dejavu-core git haproxy iproute2 mmdebstrap mtools \
  openssh-client ovmf packer python3-venv qemu-system-x86 qemu-utils systemd-boot-efi uidmap util-linux xorriso zstd
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help setup demo test quick lint bench fuzz soak clean

help: ## Show these lines
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: $(STAMPS)/system $(STAMPS)/python

demo: setup ## Bake, boot and verify the three example images
	@scripts/demo.sh

test: setup quick ## Run the whole test suite, end-to-end bakes included
	$(BIN)/pytest -q -n 2 --dist loadfile tests/contract/test_bases.py tests/integration tests/e2e

quick: setup lint ## The part of the tests that boots nothing
	$(BIN)/pytest -q -n 2 --ignore tests/contract/test_bases.py tests/unit tests/contract tests/golden

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup ## Measure against a hand-written Packer build (takes a quarter of an hour without KVM)
	$(BIN)/python -m benchmarks.run

FUZZ_SECONDS ?= 60
fuzz: setup ## Throw damaged input at every reader of signed papers for FUZZ_SECONDS, from a new seed
	$(BIN)/python -m benchmarks.fuzz_trust --seconds $(FUZZ_SECONDS)

MINUTES ?= 30
soak: setup ## kill -9 of rollouts and of bakes for MINUTES, half of them each: what is lost, what leaks
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES)

clean: ## Remove what a factory keeps here: store, caches, logs
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m benchmarks.clean; else echo "nothing to remove: nothing is set up"; fi

$(STAMPS)/system: Makefile
	@missing=$$(comm -23 <(printf '%s\n' $(SYSTEM_PACKAGES) | sort) \
	  <(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(SYSTEM_PACKAGES) 2>/dev/null \
	    | awk '$$2 == "installed" {print $$1}' | sort)); \
	if [ -n "$$missing" ]; then \
	  echo "installing system packages:" $$missing; \
	  $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/python: pyproject.toml constraints.txt $(STAMPS)/system
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt \
	  --config-settings editable_mode=compat -e '.[dev]'
	@mkdir -p $(STAMPS) && touch $@
