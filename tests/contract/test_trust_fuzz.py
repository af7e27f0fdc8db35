"""A short run of the fuzzer over every reader of factory/trust; `python -m benchmarks.fuzz_trust` runs on and on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.fuzz_trust import Run, Target, report, targets

INPUTS = 3000


def fuzzed(table: Iterable[Target], seed: int, inputs: int) -> Run:
    run = Run(table, seed)
    while run.tried < inputs:
        run.step()
    return run


def test_readers_of_trust_let_nothing_out_and_nothing_through(tmp_path: Path) -> None:
    run = fuzzed(targets(tmp_path), 3, INPUTS)
    assert run.breaches == []
    assert run.tried >= INPUTS
    read = sum(tally.read for tally in run.tallies.values())
    assert INPUTS / 50 < read < INPUTS / 2, report(run)  # else the damage gets nowhere, or does none


def test_fuzzer_tries_the_same_inputs_again(tmp_path: Path) -> None:
    def tried(seed: int) -> list[bytes]:
        inputs: list[bytes] = []

        def read(raw: bytes) -> Iterable[object]:
            inputs.append(raw)
            return ()

        fuzzed([Target("all", (b'{"a": [1, {"b": "QUJD"}], "c": {}}\n{"d": null}', b"text"), read)], seed, 2000)
        return inputs

    assert tried(1) == tried(1)
    assert tried(1) != tried(2)


def test_fuzzer_finds_what_escapes() -> None:
    def read(raw: bytes) -> Iterable[object]:
        return [raw.decode("utf-8")[:0]]

    run = fuzzed([Target("careless", (b'"hello"',), read)], 1, 500)
    assert "UnicodeDecodeError" in run.breaches[0]


def test_fuzzer_finds_what_is_trusted_and_was_not_signed() -> None:
    run = fuzzed([Target("trusting", (b'"hello"',), lambda raw: [raw.strip()])], 1, 100)
    assert "is not what was signed" in run.breaches[0]
