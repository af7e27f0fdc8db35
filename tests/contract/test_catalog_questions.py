"""factory images, show, lineage, packages, where, diff as they are typed, over a catalog of a signed factory."""

from __future__ import annotations

import csv
import io
import json
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catalogued
import pytest
import signed_factory
from catalogued import HOSTILE, Catalogued
from signed_factory import ARCH, sha

from factory import cli
from factory.catalog import fleets
from factory.catalog.database import Catalog
from factory.catalog.fleets import Instance
from factory.tabular import visible
from factory.trust import statements


@dataclass(frozen=True)
class Result:
    """What a command printed."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def csv(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out)))


class Asker:
    """Types commands in a factory."""

    def __init__(self, made: Catalogued, capsys: pytest.CaptureFixture[str]) -> None:
        self.made, self._capsys = made, capsys

    def __call__(self, *arguments: str, code: int = 0) -> Result:
        self._capsys.readouterr()
        got = cli.run(["-C", str(self.made.root), *arguments])
        captured = self._capsys.readouterr()
        assert got == code, captured.err
        assert "Traceback" not in captured.err
        return Result(captured.out, captured.err)


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Asker:
    return Asker(catalogued.build(tmp_path), capsys)


# --- images


def test_images_says_where_each_stands(ask: Asker) -> None:
    rows = ask("images", "--json").json["images"]
    assert [row["name"] for row in rows] == ["web", "web", "hardened", "base"]
    newest, old = rows[0], rows[1]
    assert (newest["digest"], newest["channels"], newest["instances"]) == (ask.made.digests["web"], ["dev", "prod"], 1)
    assert (old["digest"], old["channels"], old["instances"]) == (ask.made.digests["old"], [], 2)
    assert old["checks"] == {"passed": 1, "skipped": 1}
    assert old["base"] == "hardened/amd64"
    assert old["packages"] == 5
    assert old["revoked_by"] is None


def test_question_does_not_wait_for_who_writes(ask: Asker) -> None:
    began = time.monotonic()
    with ask.made.catalog() as catalog, catalog.writing():
        answer = ask("images", "--json")
    assert time.monotonic() - began < 20
    assert "what trust/ gained is not told to the catalog: another process holds the catalog" in answer.err
    assert len(answer.json["images"]) == 4


def test_images_as_of_a_time_says_what_was_then(ask: Asker) -> None:
    rows = ask("images", "--as-of", "2026-01-05", "--json").json["images"]
    assert [(row["name"], row["channels"], row["instances"]) for row in rows] == [
        ("web", [], 3),
        ("hardened", [], 0),
        ("base", [], 0),
    ]


def test_images_of_a_name_a_channel_a_number(ask: Asker) -> None:
    assert len(ask("images", "web", "--csv").csv) == 2
    assert len(ask("images", f"web/{ARCH}", "--limit", "1", "--csv").csv) == 1
    assert [row["digest"] for row in ask("images", "--channel", "prod", "--csv").csv] == [ask.made.digests["web"]]


def test_images_of_an_unknown_name_or_channel_is_refused_and_none_of_a_known_one_told(ask: Asker) -> None:
    for form in ((), ("--json",), ("--csv",)):
        assert "knows no image 'wbe'; did you mean \"web\"?" in told(ask("images", "wbe", *form, code=2))
        assert "no channel 'prd'; did you mean \"prod\"?" in told(ask("images", "--channel", "prd", *form, code=2))
        none = ask("images", "web", "--channel", "prod", "--as-of", "2026-01-02", *form)
        assert "no image called web is recorded in prod as of 2026-01-02T00:00:00.000Z" in none.err
    assert ask("images", "debian-12").err == "no image called debian-12 is recorded\n"


def told(result: Result) -> str:
    """What an error says, in whichever form."""
    return result.out.replace('\\"', '"') + result.err


def test_images_table_csv_and_json_say_the_same(ask: Asker) -> None:
    rows = ask("images", "--json").json["images"]
    table = ask("images").out.splitlines()
    assert table[0].split()[:3] == ["name", "arch", "digest"]
    assert len(table) == len(rows) + 1
    assert [row["digest"] for row in ask("images", "--csv").csv] == [row["digest"] for row in rows]


def test_revoked_ancestor_shows_on_every_descendant(ask: Asker) -> None:
    factory, hardened = ask.made.factory, ask.made.digests["hardened"]
    reason = HOSTILE.partition("\x1b")[0]  # what is signed has no control characters
    factory.revoke(factory.revocation(hardened, f"hardened/{ARCH}", reason=reason))
    rows = {row["digest"]: row for row in ask("images", "--json").json["images"]}
    revoked = {name: rows[digest]["revoked_by"] for name, digest in ask.made.digests.items()}
    assert revoked == {"base": None, "hardened": hardened, "old": hardened, "web": hardened}
    said = ask("lineage", "web", "--json").json
    assert said["revoked_by"] == hardened
    assert said["revoked"]["reason"] == reason
    relatives = ask("lineage", "hardened", "--csv").csv
    assert [row["revoked_by"] for row in relatives] == ["", "", *[hardened] * 3]
    document = ask("lineage", "hardened", "--json").json
    assert {one["revoked_by"] for one in document["ancestors"]} == {None}
    assert {one["revoked_by"] for one in document["descendants"]} == {hardened}
    assert reason in ask("images").out
    before = ask("images", "--as-of", "2026-02-01", "--json").json["images"]
    assert {row["revoked_by"] for row in before} == {None}


# --- show


def test_show_says_all_of_an_image(ask: Asker) -> None:
    said = ask("show", "web", "--json").json
    assert said["digest"] == ask.made.digests["web"]
    assert said["base"] == {"digest": ask.made.digests["hardened"], "name": "hardened/amd64"}
    assert said["spec"]["vars"] == {"server": "new"}
    assert said["inputs"] == {"playbook": sha("playbooks/web.yml")}
    assert {one["format"] for one in said["artifacts"]} == {"qcow2", "raw"}
    assert said["locations"] == [{"place": "aws/eu-west-1", "native": "ami-0123456789abcdef0"}]
    assert {(one["channel"], one["in_force"]) for one in said["promotions"]} == {("dev", True), ("prod", True)}
    assert [one["native"] for one in said["instances"]] == ["i-4"]
    kinds = {one["predicate_type"] for one in said["attestations"]}
    assert kinds == {statements.PROVENANCE, statements.TEST_RESULT, statements.SUMMARY, statements.PROMOTION}
    assert [one["outcome"] for one in said["checks"]] == ["passed", "skipped"]


def test_show_says_who_promoted_and_what_was_waived(ask: Asker) -> None:
    catalogued.waive(ask.made)
    (said,) = [one for one in ask("show", "web", "--json").json["promotions"] if one["number"] == 2]
    assert (said["channel"], said["signers"], said["verdict"]) == ("prod", ["alice", "bob"], "verified")
    assert said["requirements"] == {"no-cve:low": "waived", "verified": "passed"}
    assert said["waivers"] == [
        {"requirement": "no-cve:low", "owner": "bob", "reason": "<b>because</b>", "expires_at": "2030-01-01T00:00:00Z"}
    ]
    assert "no-cve:low (bob, until 2030-01-01T00:00:00Z: <b>because</b>)" in ask("show", "web").out
    ask.made.layout.policy.unlink()
    (said,) = [one for one in ask("show", "web", "--json").json["promotions"] if one["number"] == 2]
    assert (said["verdict"], said["problem"]) == (
        "not verified", "nobody can judge it: there is no trust/policy.toml here",
    )  # fmt: skip


def test_show_of_a_shortened_digest_and_its_forms(ask: Asker) -> None:
    old = ask.made.digests["old"]
    assert ask("show", old[:19], "--json").json["digest"] == old
    fields = {row["field"]: row["value"] for row in ask("show", old, "--csv").csv}
    assert fields["digest"] == old
    assert fields["checks.1.message"] == visible(HOSTILE)
    assert "\x1b" not in ask("show", old, "--csv").out
    table = ask("show", old).out
    assert "1 passed, 1 skipped" in table
    assert "\x1b[31m" not in table
    assert "i-3" in table


def test_show_of_an_ended_instance_as_of_when_it_ran(ask: Asker) -> None:
    said = ask("show", ask.made.digests["old"], "--as-of", "2026-01-05T12:00:00Z", "--json").json
    assert {one["native"]: one["ended_at"] for one in said["instances"]} == {"i-1": None, "i-2": None, "i-3": None}
    now = ask("show", ask.made.digests["old"], "--json").json
    assert {one["native"]: one["reason"] for one in now["instances"]}["i-3"] == "scaled down"


@pytest.mark.parametrize("target", ["nosuch", "web/arm64", "sha256:" + "0" * 64, "x" * 300, "we'b", "000000"])
def test_unknown_image_is_refused_with_a_hint(ask: Asker, target: str) -> None:
    for command in ("show", "lineage", "packages"):
        said = ask(command, target, "--json", code=2).json["error"]
        assert said["hint"] == "factory images lists them"
        assert len(said["message"]) < 300


def test_image_that_was_recorded_later_is_told_apart_from_an_unknown_one(ask: Asker) -> None:
    assert "no web was recorded by 2025-01-01" in ask("show", "web", "--as-of", "2025-01-01", code=2).err
    assert "knows no image 'nosuch'" in ask("show", "nosuch", "--as-of", "2025-01-01", code=2).err


# --- lineage


def test_lineage_names_both_directions(ask: Asker) -> None:
    said = ask("lineage", "hardened", "--json").json
    assert [(one["name"], one["role"], one["depth"]) for one in said["ancestors"]] == [
        ("base", "image", 1),
        ("debian-12", "base", 2),
    ]
    assert {one["digest"] for one in said["descendants"]} == {ask.made.digests["old"], ask.made.digests["web"]}
    assert ask("lineage", "hardened", "--ancestors", "--json").json["descendants"] == []
    assert ask("lineage", "hardened", "--descendants", "--json").json["ancestors"] == []
    then = ask("lineage", "hardened", "--as-of", "2026-01-05", "--json").json
    assert [one["digest"] for one in then["descendants"]] == [ask.made.digests["old"]]


def test_lineage_in_every_form(ask: Asker, tmp_path: Path) -> None:
    relations = [row["relation"] for row in ask("lineage", "hardened", "--csv").csv]
    assert relations == ["ancestor"] * 2 + ["itself"] + ["descendant"] * 2
    tree = ask("lineage", "hardened").out
    assert tree.index("debian-12") < tree.index("base/amd64") < tree.index("web/amd64")
    assert ask("lineage", "hardened", "--dot").out.startswith("digraph ")
    picture = tmp_path / "lineage.svg"
    ask("lineage", "hardened", "--svg", str(picture))
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert ask("lineage", "hardened", "--svg", "-").out.rstrip("\n") == picture.read_text().rstrip("\n")
    assert "web" not in ask("lineage", "hardened", "--ancestors", "--dot").out


@pytest.mark.parametrize(
    "options",
    [("--json", "--csv"), ("--dot", "--svg", "x"), ("--ancestors", "--descendants"), ("--svg", "nosuch/x.svg"),
     ("--svg", "."), ("--as-of", "yesterday")],
)  # fmt: skip
def test_lineage_refuses_what_does_not_fit(ask: Asker, options: tuple[str, ...]) -> None:
    ask("lineage", "web", *options, code=2)


# --- packages and where


def test_packages_of_an_image(ask: Asker) -> None:
    said = ask("packages", "web", "--json").json
    assert said["digest"] == ask.made.digests["web"]
    assert [package["name"] for package in said["packages"]] == ["adduser", "libc6", "libssl3", "nginx", "openssl"]
    assert said["packages"][1]["source"] == "glibc"
    assert "does not know what is installed" in ask("packages", "debian-12").err


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("openssl", {("old", "3.0.11-1"), ("web", "3.0.15-1")}),
        ("openssl < 3.0.15", {("old", "3.0.11-1")}),
        ("openssl<3.0.15-1", {("old", "3.0.11-1")}),
        ("openssl <= 3.0.15-1", {("old", "3.0.11-1"), ("web", "3.0.15-1")}),
        ("openssl >> 3.0.11-1", {("web", "3.0.15-1")}),
        ("openssl >= 3.0.11, < 3.0.12", {("old", "3.0.11-1")}),
        ("openssl < 3.0.11-1~", set()),
        ("src:nginx", {("old", "1.22.1-9"), ("web", "1.24.0-1")}),
        ("libc6 = 2.36-9", {(name, "2.36-9") for name in ("base", "hardened", "old", "web")}),
    ],
)
def test_packages_find_goes_by_the_order_of_dpkg(ask: Asker, asked: str, found: set[tuple[str, str]]) -> None:
    names: dict[str, str] = {digest: name for name, digest in ask.made.digests.items()}
    said = ask("packages", "--find", asked, "--json").json
    assert {(names[one["digest"]], one["version"]) for one in said["images"]} == found
    assert said["images_count"] == len(found)
    rows = ask("packages", "--find", asked, "--csv").csv
    assert {(names[row["digest"]], row["version"]) for row in rows} == found


def test_packages_wants_one_question(ask: Asker) -> None:
    ask("packages", code=2)
    ask("packages", "web", "--find", "openssl", code=2)
    assert "names like it: libssl3, openssl" in ask("packages", "--find", "opens", code=2).err


def test_where_names_the_running_instances(ask: Asker) -> None:
    said = ask("where", "openssl < 3.0.15", "--json").json
    assert [one["native"] for one in said["instances"]] == ["i-1", "i-2"]
    assert said["channels"] == []
    assert [one["digest"] for one in said["images"]] == [ask.made.digests["old"]]
    then = ask("where", "openssl < 3.0.15", "--as-of", "2026-01-05", "--json").json
    assert [one["native"] for one in then["instances"]] == ["i-1", "i-2", "i-3"]
    good = ask("where", "openssl >= 3.0.15", "--json").json
    assert [(one["channel"], one["digest"]) for one in good["channels"]] == [
        ("dev", ask.made.digests["web"]),
        ("prod", ask.made.digests["web"]),
    ]
    before = ask("where", "openssl", "--as-of", "2026-01-02", "--json").json
    assert (before["images_count"], before["images"], before["instances"]) == (0, [], [])


def test_where_of_an_image_has_what_descends_from_it(ask: Asker) -> None:
    said = ask("where", ask.made.digests["hardened"], "--json").json
    assert {one["native"] for one in said["instances"]} == {"i-1", "i-2", "i-4"}
    assert [one["depth"] for one in said["images"]] == [0, 1, 1]
    assert ask("where", "hardened", "--json").json["images"] == said["images"]


def test_where_knows_every_name_an_image_has(ask: Asker) -> None:
    web = ask.made.digests["web"]
    artifact = ask("show", "web", "--json").json["artifacts"][0]["digest"]
    for asked in (web, web[:20], artifact, "ami-0123456789abcdef0"):
        assert ask("where", asked, "--json").json["digest"] == web
    file = sha("openssl 3.0.11-1 amd64")
    assert [one["digest"] for one in ask("where", file, "--json").json["images"]] == [ask.made.digests["old"]]


def test_where_in_a_table_and_as_csv(ask: Asker) -> None:
    table = ask("where", "openssl").out
    assert "Running instances (3)" in table
    assert "i-1" in table
    assert "no running instance" in ask("where", "base", "--as-of", "2026-01-02").out
    rows = ask("where", "openssl", "--csv").csv
    images = {row["digest"]: row for row in rows if row["what"] == "image"}
    assert images[ask.made.digests["old"]]["packages"] == "openssl=3.0.11-1"
    assert images[ask.made.digests["web"]]["channels"] == "dev prod"
    machines = [(row["fleet"], row["native"], row["packages"]) for row in rows if row["what"] == "instance"]
    old, new = "openssl=3.0.11-1", "openssl=3.0.15-1"
    assert machines == [("shop", "i-1", old), ("shop", "i-2", old), ("shop", "i-4", new)]
    assert [row["channels"] for row in rows if row["what"] == "channel"] == ["dev", "prod"]


def test_where_tells_what_runs_of_images_that_are_not_known(ask: Asker) -> None:
    stranger = sha("baked elsewhere")
    with ask.made.catalog() as catalog:
        for native, digest, on in (("i-8", stranger, 5), ("i-9", ask.made.digests["web"], 5)):
            fleets.add_instance(catalog, Instance("shop", 1, "local", native, digest, catalogued.day(on)))
    for asked, lacking in (("openssl < 3.0.15", "packages"), ("hardened", "ancestors")):
        for form in ((), ("--csv",)):
            told = f"1 running instance and 0 channels are of an image whose {lacking} are not known here"
            assert told in ask("where", asked, *form).err
        unknown = ask("where", asked, "--json").json["unknown"]
        assert (unknown["instances_count"], unknown["channels_count"], unknown["channels"]) == (1, 0, [])
        assert [(one["native"], one["digest"]) for one in unknown["instances"]] == [("i-8", stranger)]
        assert "not known here" not in ask("where", asked, "--as-of", "2026-01-04").err
        assert ask("where", asked, "--as-of", "2026-01-06", "--json").json["unknown"]["instances_count"] == 1
    assert "1 running instance and 0 channels" in ask("where", "nosuch", code=2).err


def test_where_tells_channels_of_images_that_are_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a deploy host nothing was baked: the catalog knows what trust/ says, and no image."""
    factory = signed_factory.build(tmp_path)
    factory.layout.catalog.unlink(missing_ok=True)
    Catalog.open(factory.layout.catalog).close()
    assert cli.run(["-C", str(factory.root), "where", "openssl"]) == 2
    assert "0 running instances and 2 channels are of images whose packages are not known" in capsys.readouterr().err


@pytest.mark.parametrize(
    "asked", ["", "<3", "openssl <", "openssl < <", "openssl ~ 3", "a b c", "open ssl < 3", "x" * 500]
)
def test_what_is_no_package_is_refused(ask: Asker, asked: str) -> None:
    assert ask("where", asked, "--json", code=2).json["error"]["hint"]


def test_bound_that_is_no_version_is_refused(ask: Asker) -> None:
    for command in (["where"], ["packages", "--find"]):
        said = ask(*command, "openssl < v3.0.15", "--json", code=2).json["error"]
        assert "'v3.0.15' in 'openssl < v3.0.15' is no version of a Debian package" in said["message"]
        assert "openssl < 3.0.15" in said["hint"]


# --- diff


def test_diff_names_packages_inputs_settings_and_files(ask: Asker) -> None:
    made = ask.made
    with made.catalog() as catalog:  # the same web once more, with a manifest that is in the store
        locked = made.factory.locked("web")
        new = type(locked)(
            "web", ARCH, sha("third web"), sha("key"), locked.base, catalogued.tree(made.factory, "new!"), inputs={}
        )
        catalogued.put(catalog, made.factory, new, 12, catalogued.NEW, server="new")
    said = ask("diff", made.digests["old"], sha("third web"), "--json").json
    assert {(one["name"], one["kind"], one["old"], one["new"]) for one in said["packages"]} == {
        ("libssl3:amd64", "newer", "3.0.11-1", "3.0.15-1"),
        ("openssl:amd64", "newer", "3.0.11-1", "3.0.15-1"),
        ("nginx-light:amd64", "removed", "1.22.1-9", None),
        ("nginx:amd64", "added", None, "1.24.0-1"),
    }
    assert ("playbook: web.yml", "changed") in {(one["name"], one["kind"]) for one in said["inputs"]}
    assert [one["name"] for one in said["settings"]] == ["vars"]
    assert [(one["name"], one["kind"]) for one in said["files"]] == [("/etc/motd", "changed")]
    assert said["files_unknown"] is None
    back = ask("diff", sha("third web"), made.digests["old"], "--csv").csv
    assert {row["kind"] for row in back if row["name"] == "openssl:amd64"} == {"older"}


def test_diff_without_manifests_says_so(ask: Asker) -> None:
    said = ask("diff", ask.made.digests["old"], "web")
    assert "the files were not compared: the manifest of web/amd64" in said.err
    assert "openssl:amd64" in said.out


def test_diff_of_one_image_with_itself_is_empty(ask: Asker) -> None:
    said = ask("diff", "web", "web")
    assert said.out == ""
    assert "are the same in all of it" in said.err


def test_diff_as_a_changelog(ask: Asker) -> None:
    text = ask("diff", ask.made.digests["old"], "web", "--markdown").out
    assert text.startswith("# web/amd64: what changed\n")
    assert "| openssl:amd64 | 3.0.11-1 | 3.0.15-1 | newer |" in text
    assert "## Files (not compared)\n\nThe files were not compared" in text
    assert '- changed: vars: {"server": "old"} → {"server": "new"}\n' in text
    assert f"- changed: playbook: {sha('old playbook')[:19]}… → {sha('playbooks/web.yml')[:19]}…\n" in text
    ask("diff", "web", "web", "--markdown", "--json", code=2)


def test_questions_without_a_catalog_say_how_to_begin_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["images"], ["show", "web"], ["lineage", "web"], ["packages", "web"], ["where", "openssl"],
                    ["diff", "a", "b"], ["report", "--all", "--to", str(tmp_path / "report")]):  # fmt: skip
        assert cli.run(["-C", str(tmp_path), *command]) == 3
        assert "factory bake begins one" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
