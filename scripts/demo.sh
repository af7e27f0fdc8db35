#!/usr/bin/env bash
# Bakes, boots and verifies the example images of this repository, and tells what came of it. `make demo` sets up what
# it needs and calls it. Where pinned packages are gone from the repository it refreshes the pins, and says so.
set -euo pipefail
cd "$(dirname "$0")/.."

factory=.venv/bin/factory
readonly pins_gone=5
report=$(mktemp)
trap 'rm -f "$report"' EXIT

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  bold=$'\e[1m' plain=$'\e[0m'
else
  bold='' plain=''
fi

bake() {
  "$factory" bake -j 2 --json "$@" >"$report"
}

printf '%sBaking what images.toml names: base, hardened on base, web on hardened%s\n' "$bold" "$plain"

status=0
bake || status=$?
if ((status == pins_gone)); then
  printf '\n%sPackages pinned in images.lock are gone from the repository: pinning what it offers now.%s\n' \
    "$bold" "$plain"
  status=0
  bake --refresh || status=$?
  refreshed=--refreshed
fi

if ((status != 0)); then
  printf '\nThe demo ended with exit code %s; what went wrong stands above.\n' "$status" >&2
  printf 'What this host lacks: %s doctor      what the run did: %s logs\n' "$factory" "$factory" >&2
  exit "$status"
fi

.venv/bin/python scripts/demo_summary.py ${refreshed:+"$refreshed"} "$report"
