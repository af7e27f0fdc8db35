"""Provenance, test result and summary, each by itself: what is written, and how strictly it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import attested
import pytest
from attested import BAKED_AT, POLICY, VERIFIED_AT, sha
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import digest
from factory.bake import closure, key
from factory.errors import TamperedError
from factory.trust import statements
from factory.trust.facts import Ancestor, Artifact, CheckOutcome
from factory.trust.predicates import provenance, subjects_of, summary, test_result
from factory.trust.statements import Statement

BAKE = attested.bake()
SUBJECTS = subjects_of(BAKE.image)
INPUTS = summary.Inputs(sha("provenance"), sha("tests"), sha("sbom"))
MADE = provenance.statement(BAKE)
TESTS = test_result.statement(SUBJECTS, attested.verification())
PASSED = summary.statement(SUBJECTS, INPUTS, POLICY.digest, VERIFIED_AT)
READERS: dict[str, tuple[Statement, Callable[[Statement], Any]]] = {
    "provenance": (MADE, provenance.read),
    "test result": (TESTS, test_result.read),
    "summary": (PASSED, summary.read),
}


def through_bytes(statement: Statement) -> Statement:
    return statements.loads(statements.dumps(statement))


def changed(statement: Statement, path: tuple[Any, ...], value: Any) -> Statement:
    """The statement with another value at a path of its predicate; `...` takes the field away."""
    said = json.loads(statements.dumps(statement))["predicate"]
    place = said
    for part in path[:-1]:
        place = place[part]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return replace(statement, predicate=said)


# --- subjects


def test_subjects_are_the_raw_disk_and_each_stored_form() -> None:
    image = BAKE.image
    assert [(subject.name, subject.sha256, subject.uri) for subject in SUBJECTS] == [
        ("web/amd64", image.digest, None),
        ("qcow2", sha("web qcow2"), None),
        ("raw", image.digest, None),
        ("aws/eu-west-1", image.digest, "ami-0123456789abcdef0"),
    ]


@pytest.mark.parametrize(
    ("subject", "match"),
    [
        (statements.Subject("aws", sha("another disk"), "ami-1"), "id of another disk"),
        (statements.Subject("aws", BAKE.image.digest, sha("x")), "id of another disk"),
    ],
)
def test_native_id_of_another_disk_is_refused(subject: statements.Subject, match: str) -> None:
    with pytest.raises(TamperedError, match=match):
        provenance.read(replace(MADE, subjects=(SUBJECTS[0], subject)))


@pytest.mark.parametrize(
    "name", ["web", "web/", "/amd64", "Web/amd64", "web/amd64/x", "w b/amd64", "x" * 64 + "/amd64"]
)
def test_first_subject_must_be_called_by_name_and_architecture(name: str) -> None:
    for statement, read in ((MADE, provenance.read), (PASSED, summary.read)):
        with pytest.raises(TamperedError):
            read(replace(statement, subjects=(replace(SUBJECTS[0], name=name), *SUBJECTS[1:])))


# --- provenance


def test_provenance_gives_back_what_was_attested() -> None:
    read = provenance.read(through_bytes(MADE))
    assert read.image == BAKE.image
    assert (read.builder, read.run, read.versions) == ("rootfs", BAKE.run, BAKE.versions)
    assert (read.started_at, read.finished_at) == (BAKE.started_at, BAKE.finished_at)
    assert read.parameters["secrets"] == ["REPO_TOKEN"]
    assert read.inputs["packages"] == digest.of_json(dict(BAKE.inputs["packages"]))


def test_bake_key_can_be_computed_from_the_inputs() -> None:
    inputs = dict(provenance.read(through_bytes(MADE)).inputs)
    assert inputs == key.Inputs(BAKE.inputs).digests
    del inputs["checks"]
    assert digest.of_json(inputs) == key.Inputs(BAKE.inputs).bake_key


def test_digest_of_a_file_is_what_the_docs_say(tmp_path: Path) -> None:
    plain, program, link = tmp_path / "plain", tmp_path / "program", tmp_path / "link"
    plain.write_bytes(b"text")
    program.write_bytes(b"text")
    program.chmod(0o755)
    link.symlink_to("plain")
    assert closure.file_digest(plain) == sha("-:text")
    assert closure.file_digest(program) == sha("x:text")
    assert closure.file_digest(link) == sha("link:plain")


def test_every_dependency_has_a_digest_and_files_are_grouped() -> None:
    found = {entry["name"]: entry for entry in MADE.predicate["buildDefinition"]["resolvedDependencies"]}
    assert list(found) == [
        "hardened", "base", "debian-12", "packages", "template", "checks", "playbooks/web.yml",
        "collection community.general: MANIFEST.json", "other files", "playbooks/roles/tls", "playbooks/roles/web",
    ]  # fmt: skip
    web = {path: value for path, value in BAKE.inputs["playbook"].items() if path.startswith("playbooks/roles/web/")}
    assert found["playbooks/roles/web"] == {
        "annotations": {"count": 20, "role": "files"},
        "digest": {"factoryInput": digest.hex_of(digest.of_json(web))},
        "name": "playbooks/roles/web",
    }
    assert found["playbooks/web.yml"]["digest"] == {"factoryFile": digest.hex_of(sha("playbooks/web.yml"))}
    manifest = found["collection community.general: MANIFEST.json"]
    assert manifest["digest"] == {"factoryFile": digest.hex_of(sha("manifest"))}
    assert found["other files"]["annotations"]["count"] == 1
    assert found["debian-12"] == {
        "annotations": {"depth": 3, "role": "base"},
        "digest": {"sha256": digest.hex_of(sha("debian tree"))},
        "name": "debian-12",
        "uri": "urn:x-factory:base:debian-12/amd64",
    }


def test_versions_have_no_digest_and_stand_by_themselves() -> None:
    inner = MADE.predicate["buildDefinition"]["internalParameters"]
    assert inner["versions"] == {"ansible-core": "2.17.1", "collection community.general": "9.0.0"}


def test_playbook_at_the_top_of_the_factory_has_its_roles_beside_it() -> None:
    playbook = {"site.yml": sha("site"), "roles/web/tasks/main.yml": sha("web"), "roles.txt": sha("text")}
    bake = replace(BAKE, parameters={"playbook": "site.yml"}, inputs={"playbook": playbook})
    entries = provenance.statement(bake).predicate["buildDefinition"]["resolvedDependencies"]
    assert [entry["name"] for entry in entries[3:]] == ["site.yml", "other files", "roles/web"]


def test_numbers_that_json_cannot_hold_exactly_become_text() -> None:
    said = provenance.plain({"a": 0.5, "b": 2**60, "c": [1.0, True, {"d": -(2**53)}], "e": 2**53 - 1, "f": "x"})
    assert said == {
        "a": "0.5", "b": str(2**60), "c": ["1.0", True, {"d": str(-(2**53))}], "e": 2**53 - 1, "f": "x",
    }  # fmt: skip
    assert said["c"][1] is True


_VARS = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text("abc_", min_size=1, max_size=8), _VARS, max_size=4))
def test_whatever_images_toml_says_can_be_attested(variables: dict[str, Any]) -> None:
    made = provenance.statement(replace(BAKE, parameters={**BAKE.parameters, "vars": variables}))
    assert provenance.read(through_bytes(made)).parameters["vars"] == provenance.plain(variables)


_DEPENDENCIES = ("buildDefinition", "resolvedDependencies")
_NO_BASES = MADE.predicate["buildDefinition"]["resolvedDependencies"][3:]


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("buildDefinition",), ..., "buildDefinition is missing"),
        (("runDetails",), [], "runDetails is not an object"),
        (("more",), 1, "'more' is not known"),
        (("buildDefinition", "buildType"), "https://example.com/other", "buildType is not"),
        (("buildDefinition", "externalParameters", "image"), ..., "image is missing"),
        (("buildDefinition", "externalParameters", "image"), "x", "image is not an object"),
        (("buildDefinition", "externalParameters", "arch"), "arm64", "is of web/arm64, but speaks of web/amd64"),
        (("buildDefinition", "internalParameters", "bakeKey"), "sha256:12", "bakeKey is no sha256"),
        (("buildDefinition", "internalParameters", "inputs", "vars"), "0.5", "inputs.vars is no sha256"),
        (("buildDefinition", "internalParameters", "inputs"), [], "inputs is no object"),
        (("buildDefinition", "internalParameters", "versions", "x"), "a\nb", "versions: x is no text"),
        (_DEPENDENCIES, {}, "is not a list"),
        (_DEPENDENCIES, _NO_BASES, "name no base"),
        (_DEPENDENCIES, [_NO_BASES[0]] * 1025, "too long"),
        ((*_DEPENDENCIES, 0, "digest"), {}, "sha256 is missing"),
        ((*_DEPENDENCIES, 0, "digest", "sha256"), "123", "no whole sha256"),
        ((*_DEPENDENCIES, 0, "digest", "sha512"), "0" * 128, "'sha512' is not known"),
        ((*_DEPENDENCIES, 0, "uri"), "urn:x-factory:image:other/amd64", "the uri of hardened"),
        ((*_DEPENDENCIES, 0, "uri"), ..., "the uri of hardened"),
        ((*_DEPENDENCIES, 0, "annotations", "depth"), 2, "not in their order"),
        ((*_DEPENDENCIES, 0, "annotations", "depth"), True, "no whole number"),
        ((*_DEPENDENCIES, 0, "annotations", "role"), "friend", "role of 'hardened' is not known"),
        ((*_DEPENDENCIES, 0, "annotations", "role"), [], "role of 'hardened' is not known"),
        ((*_DEPENDENCIES, 3, "digest"), {"sha256": "0" * 64}, "factoryInput is missing"),
        ((*_DEPENDENCIES, 3, "name"), "", "name is no text"),
        (("runDetails", "builder", "id"), "https://example.com/builder", "no builder of ours"),
        (("runDetails", "builder", "id"), "urn:x-factory:builder:Root FS", "is no name"),
        (("runDetails", "builder", "version"), {"factory": 1}, "factory is no text"),
        (("runDetails", "metadata", "finishedOn"), "2026-11-24", "finishedOn is no time"),
        (("runDetails", "metadata", "finishedOn"), "2020-01-01T00:00:00Z", "ends before it begins"),
        (("runDetails", "metadata", "invocationId"), "x" * 513, "invocationId is no text"),
        (("runDetails", "byproducts"), [], "name no tree"),
        (("runDetails", "byproducts", 0, "name"), "log", "name is not 'tree'"),
    ],
)
def test_provenance_with_a_wrong_field_is_refused(path: tuple[Any, ...], value: Any, match: str) -> None:
    with pytest.raises(TamperedError, match=match):
        provenance.read(changed(MADE, path, value))


def test_base_with_ancestors_is_refused() -> None:
    ancestors = (Ancestor(sha("debian tree"), "debian-12", "base"), Ancestor(sha("base disk"), "base", "image"))
    image = replace(BAKE.image, base=sha("debian tree"), ancestors=ancestors)
    with pytest.raises(TamperedError, match="a base has no ancestors"):
        provenance.read(provenance.statement(replace(BAKE, image=image)))


def test_image_directly_on_a_base_has_one_ancestor() -> None:
    ancestors = (Ancestor(sha("debian tree"), "debian-12", "base"),)
    image = replace(BAKE.image, base=sha("debian tree"), ancestors=ancestors, artifacts=(Artifact("raw", sha("x")),))
    assert provenance.read(through_bytes(provenance.statement(replace(BAKE, image=image)))).image == image


# --- test result


def test_test_result_gives_back_every_check_with_its_outcome() -> None:
    read = test_result.read(through_bytes(TESTS))
    verification = attested.verification()
    assert read.passed
    assert set(read.checks) == set(verification.checks)
    assert len(read.checks) == len(verification.checks)
    assert (read.verified_at, read.configuration) == (VERIFIED_AT, verification.configuration)


def test_exemptions_stand_where_everyone_sees_them() -> None:
    assert TESTS.predicate["exemptTests"] == ["base: test_time", "web: test_time[ntp]"]
    assert TESTS.predicate["skippedTests"] == ["web: test_ipv6"]
    assert (TESTS.predicate["warnedTests"], TESTS.predicate["failedTests"]) == ([], [])
    assert TESTS.predicate["result"] == "PASSED"


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        (["passed", "exempt"], "exempt"),
        (["exempt", "passed"], "exempt"),
        (["skipped", "passed"], "skipped"),
        (["failed", "exempt", "passed"], "failed"),
        (["passed", "passed"], "passed"),
    ],
)
def test_checks_of_one_name_stand_once_with_the_worst_outcome(outcomes: list[str], said: str) -> None:
    checks = tuple(CheckOutcome("web", "test_x", outcome) for outcome in outcomes)
    read = test_result.read(test_result.statement(SUBJECTS, attested.verification(checks=checks)))
    assert read.checks == (CheckOutcome("web", "test_x", said),)


def test_outcome_that_is_not_known_is_never_attested() -> None:
    with pytest.raises(ValueError, match="error"):
        test_result.statement(SUBJECTS, attested.verification(checks=(CheckOutcome("web", "test_x", "error"),)))


def test_names_of_pages_or_with_control_characters_can_be_attested() -> None:
    long, other = "test_x[" + "a" * 5000 + "]", "test_x[" + "a" * 5000 + "b]"
    checks = tuple(CheckOutcome("web", name, "passed") for name in (long, other, "test_y[\x1b\n]"))
    read = test_result.read(test_result.statement(SUBJECTS, attested.verification(checks=checks)))
    assert len(read.checks) == 3
    assert read.checks[2].name == r"test_y[\x1b\n]"


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("result",), "WARNED", "not what its checks make"),
        (("result",), ["PASSED"], "not what its checks make"),
        (("result",), ..., "result is missing"),
        (("url",), "x", "'url' is not known"),
        (("warnedTests",), ["web: test_x"], "warnedTests is not empty"),
        (("passedTests", 0), "test_x", "no check"),
        (("passedTests", 0), "web: ", "no check"),
        (("passedTests", 0), "Web: test_x", "whose check it is is no name"),
        (("passedTests", 0), 1, "passedTests is no text"),
        (("exemptTests", 0), "web: test_ipv6", "stands there twice"),
        (("passedTests",), {}, "passedTests is not a list"),
        (("passedTests",), [f"web: test_{n}" for n in range(10_001)], "too long"),
        (("configuration",), "x", "configuration is not a list"),
        (("configuration", 0, "name"), "hardened", "'hardened' stands there twice"),
        (("configuration", 0, "digest"), {"sha256": "0" * 64}, "factoryInput is missing"),
        (("timeVerified",), 0, "timeVerified is no time"),
    ],
)
def test_test_result_with_a_wrong_field_is_refused(path: tuple[Any, ...], value: Any, match: str) -> None:
    with pytest.raises(TamperedError, match=match):
        test_result.read(changed(TESTS, path, value))


_CHECKS = st.lists(
    st.builds(
        CheckOutcome,
        st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True),
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=500),
        st.sampled_from(["passed", "failed", "skipped", "exempt"]),
    )
)


@given(_CHECKS)
def test_any_checks_can_be_attested_and_never_turn_out_better(checks: list[CheckOutcome]) -> None:
    said = test_result.statement(SUBJECTS, attested.verification(checks=tuple(checks)))
    read = test_result.read(through_bytes(said))
    outcomes = {check.outcome for check in checks}
    assert ("failed" in outcomes) == ("failed" in {check.outcome for check in read.checks})
    assert ("exempt" in {check.outcome for check in read.checks}) or "exempt" not in outcomes or "failed" in outcomes
    assert not (read.passed and "failed" in outcomes)


# --- summary


def test_summary_gives_back_what_was_attested() -> None:
    read = summary.read(through_bytes(PASSED))
    assert (read.name, read.arch, read.inputs, read.policy) == ("web", "amd64", INPUTS, POLICY.digest)
    assert read.verified_at == VERIFIED_AT
    assert PASSED.predicate["verifiedLevels"] == ["SLSA_BUILD_LEVEL_1"]


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("verificationResult",), "FAILED", "verificationResult is not 'PASSED'"),
        (("verificationResult",), ..., "verificationResult is missing"),
        (("verifiedLevels",), [], "verifiedLevels"),
        (("slsaVersion",), "0.1", "slsaVersion"),
        (("resourceUri",), "urn:x-factory:image:web/arm64", "resourceUri"),
        (("dependencyLevels",), {}, "'dependencyLevels' is not known"),
        (("verifier", "id"), "https://example.com", "verifier.id"),
        (("verifier", "version"), {str(n): "1" for n in range(17)}, "verifier.version"),
        (("policy", "uri"), "x", "policy.uri"),
        (("policy", "digest"), {"sha1": "0"}, "sha256 is missing"),
        (("inputAttestations",), [], "must name 3 envelopes"),
        (("inputAttestations", 0), ..., "must name 3 envelopes"),
        (("inputAttestations", 0, "uri"), "urn:x-factory:attestation:sbom", "uri is not"),
        (("inputAttestations", 2, "digest", "sha256"), "x", "no whole sha256"),
        (("timeVerified",), "yesterday", "timeVerified is no time"),
    ],
)
def test_summary_with_a_wrong_field_is_refused(path: tuple[Any, ...], value: Any, match: str) -> None:
    with pytest.raises(TamperedError, match=match):
        summary.read(changed(PASSED, path, value))


# --- all of them

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([path] if path else []), *(found for key, item in inner for found in _places(item, (*path, key)))]


@settings(max_examples=300)
@given(st.sampled_from(sorted(READERS)), st.data())
def test_any_value_in_any_place_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    statement, read = READERS[kind]
    said = json.loads(statements.dumps(statement))["predicate"]
    path = data.draw(st.sampled_from(_places(said)))
    with suppress(TamperedError):
        read(changed(statement, path, data.draw(_JSON)))


@given(st.sampled_from(sorted(READERS)), st.dictionaries(st.text(max_size=10), _JSON, max_size=5))
def test_any_predicate_that_is_none_is_refused(kind: str, predicate: dict[str, Any]) -> None:
    statement, read = READERS[kind]
    with pytest.raises(TamperedError):
        read(replace(statement, predicate=predicate))


def test_times_of_the_facts_are_cut_to_the_second() -> None:
    bake = replace(BAKE, finished_at=BAKED_AT + timedelta(microseconds=999_999))
    assert provenance.read(provenance.statement(bake)).finished_at == BAKED_AT
