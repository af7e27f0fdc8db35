"""What is judged of a bake: pins, files that changed meanwhile, digests, the exit code of several failures."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.bake import judge
from factory.bake.flow import _in_order
from factory.bake.key import Inputs
from factory.bake.report import ImageResult, Report
from factory.digest import of_bytes
from factory.errors import PRECEDENCE, ProvisionError, VerifyError, worst_exit_code
from factory.model import ImageSpec, LockedImage, Package

OLD = Package("nginx-light", "1.22.1-9", "amd64", of_bytes(b"old"))
NEW = Package("nginx-light", "1.22.1-10", "amd64", of_bytes(b"new"))
OTHER = Package("tree", "2.1.0", "amd64", of_bytes(b"tree"))
LOCKED = LockedImage("web", "amd64", of_bytes(b"1"), of_bytes(b"key"), of_bytes(b"base"), of_bytes(b"tree"))


def test_the_images_own_pin_wins_over_its_parents() -> None:
    assert judge.held_pins([OLD, OTHER], [NEW]) == (NEW, OTHER)
    assert judge.held_pins([OLD], []) == (OLD,)


def test_a_pin_is_broken_by_another_version_and_not_by_its_absence() -> None:
    assert judge.broken_pins([OLD, OTHER], [NEW]) == [OLD]
    assert judge.broken_pins([OLD], []) == []
    error = judge.pins_gone("web", "debian-12", [OLD])
    assert (error.exit_code, "nginx-light 1.22.1-9" in error.message) == (5, True)
    assert "factory lock --refresh debian-12" in (error.hint or "")


def test_files_changed_while_baking_fail_the_bake_and_are_named() -> None:
    before = Inputs({"playbook": {"a.yml": "1", "b.yml": "1"}, "vars": {"x": "1"}})
    judge.require_unchanged("web", before, replace(before, parts={**before.parts, "vars": {}}), "playbook")
    for now in ({"a.yml": "1", "b.yml": "2"}, {"a.yml": "1"}):
        with pytest.raises(ProvisionError, match=r"b\.yml was changed while web was baked"):
            judge.require_unchanged("web", before, Inputs({"playbook": now}), "playbook")


def test_another_digest_of_the_same_key_is_said() -> None:
    other = replace(LOCKED, digest=of_bytes(b"2"))
    assert "same bake key" in (judge.other_digest(LOCKED, other) or "")
    assert judge.other_digest(LOCKED, LOCKED) is None
    assert judge.other_digest(None, other) is None
    assert judge.other_digest(LOCKED, replace(other, bake_key=of_bytes(b"other key"))) is None


@given(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7]), max_size=6))
def test_exit_code_of_several_failures_follows_the_contract(codes: list[int]) -> None:
    code = worst_exit_code(codes)
    ranked = [wanted for wanted in PRECEDENCE if wanted in codes]
    assert code == (ranked[0] if ranked else min([c for c in codes if c], default=0))
    assert all(worst_exit_code(list(order)) == code for order in list(permutations(codes))[:20])


class _Quiet:
    def stage(self, image: str, stage: str) -> None: ...
    def detail(self, image: str, detail: str) -> None: ...
    def done(self, image: str, status: str, detail: str = "") -> None: ...
    def note(self, text: str) -> None: ...


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=10), st.integers(1, 4))
def test_parents_come_first_and_children_of_failures_are_skipped(shape: list[tuple[int, bool]], jobs: int) -> None:
    """A random forest: image i stands on an earlier image or on the base; some fail."""
    images, fails = [], set()
    for number, (parent, bad) in enumerate(shape):
        layered = parent < number
        base = f"i{parent}" if layered else "debian"
        images.append(ImageSpec(f"i{number}", "amd64", base, layered, "rootfs", "p.yml"))
        fails |= {f"i{number}"} if bad else set()
    started: list[str] = []

    def one(image: ImageSpec) -> ImageResult:
        started.append(image.name)
        if image.name in fails:
            return ImageResult(image, "failed", error=VerifyError("no"))
        return ImageResult(image, "baked")

    results = _in_order(images, one, jobs=jobs, listener=_Quiet())
    assert set(results) == {image.name for image in images}
    for image in images:
        below = results.get(image.base)
        if image.layered and below is not None and not below.is_done:
            assert results[image.name].status == "skipped"
            assert image.base in results[image.name].reasons[0]
            assert image.name not in started
        else:
            assert results[image.name].status == ("failed" if image.name in fails else "baked")
            if image.layered:
                assert started.index(image.base) < started.index(image.name)
    report = Report("run", tuple(results.values()))
    assert report.exit_code == (4 if any(result.status == "failed" for result in results.values()) else 0)
