"""factory report, as it is typed: the folder an auditor takes away."""

from __future__ import annotations

import csv
import html
import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import catalogued
import pytest
from catalogued import HOSTILE, Catalogued, waive

from factory import cli
from factory.catalog.database import Catalog
from factory.compliance import report
from factory.errors import ToolError
from factory.tabular import visible


@pytest.fixture
def made(tmp_path: Path) -> Catalogued:
    return catalogued.build(tmp_path)


def run(made: Catalogued, *arguments: str) -> int:
    return cli.run(["-C", str(made.root), "report", *arguments])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_report_of_one_image_has_all_of_it(
    made: Catalogued, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "report"
    assert run(made, "web", "--to", str(to)) == 0
    assert capsys.readouterr().out == f"{to}/index.html\n"
    assert {path.name for path in to.iterdir()} == {
        "index.html", "image.csv", "lineage.csv", "sbom.csv", "sbom.cdx.json", "checks.csv", "signers.csv",
        "promotions.csv", "instances.csv",
    }  # fmt: skip
    facts = {row["field"]: row["value"] for row in rows(to / "image.csv")}
    assert facts["digest"] == made.digests["web"]
    assert facts["signatures"] == "verified"
    assert facts["channels"] == "dev prod"
    assert [row["name"] for row in rows(to / "lineage.csv")] == ["hardened", "base", "debian-12"]
    assert {row["name"] for row in rows(to / "sbom.csv")} == {package.name for package in catalogued.NEW}
    assert json.loads((to / "sbom.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    signers = {(row["what"], row["signers"]) for row in rows(to / "signers.csv")}
    assert {("provenance", "nightly"), ("test result", "tester"), ("promotion to prod", "alice bob")} <= signers
    assert {row["problem"] for row in rows(to / "signers.csv")} == {""}
    assert {row["verdict"] for row in rows(to / "signers.csv")} == {"verified", "holds"}
    assert all(re.fullmatch(r"[-0-9]+T[.:0-9]+Z|", row["made_at"]) for row in rows(to / "signers.csv"))
    assert facts["checks"] == "1 passed, 1 skipped"
    promoted = {row["channel"]: (row["signers"], row["verdict"], row["waivers"]) for row in rows(to / "promotions.csv")}
    assert promoted == {"dev": ("tester", "verified", ""), "prod": ("alice bob", "verified", "")}
    assert [row["native"] for row in rows(to / "instances.csv")] == ["i-4"]


def test_page_needs_nothing_else_and_runs_nothing(made: Catalogued, tmp_path: Path) -> None:
    to = tmp_path / "report"
    assert run(made, "--all", "--to", str(to)) == 0
    for page in to.rglob("*.html"):
        text = page.read_text()
        assert "<script" not in text
        assert "DROP TABLE" not in text or html.escape(HOSTILE.partition("'")[0]) in text
        targets = re.findall(r'(?:href|src)="([^"]*)"', text)
        assert all((page.parent / target).exists() for target in targets if not target.startswith("#"))
        assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)", text.partition("<body>")[0])
    checks = rows(next(to.glob("web-*")) / "checks.csv")
    assert [row["message"] for row in checks if row["test"] == "test_old"] == [visible(HOSTILE)]


def test_report_of_all_lists_every_image(made: Catalogued, tmp_path: Path) -> None:
    to = tmp_path / "report"
    assert run(made, "--all", "--to", str(to)) == 0
    listed = rows(to / "images.csv")
    assert {row["digest"] for row in listed} == set(made.digests.values())
    assert all((to / row["report"] / "index.html").is_file() for row in listed)
    by_digest = {row["digest"]: row["signatures"] for row in listed}
    assert by_digest[made.digests["old"]] == "no ticket"
    assert {row["checks"] for row in listed} == {"1 passed, 1 skipped"}
    assert by_digest[made.digests["base"]] == "verified"
    only = tmp_path / "only"
    assert run(made, "--all", "--channel", "prod", "--to", str(only)) == 0
    assert [row["digest"] for row in rows(only / "images.csv")] == [made.digests["web"]]


def test_tampered_ticket_and_revocation_show(made: Catalogued, tmp_path: Path) -> None:
    factory = made.factory
    factory.revoke(factory.revocation(made.digests["base"], "base/amd64", reason="a <b>bad</b> base"))
    factory.attest("web", builder="mallory")
    to = tmp_path / "report"
    assert run(made, made.digests["web"], "--to", str(to)) == 0
    problems = {row["what"]: row["problem"] for row in rows(to / "signers.csv")}
    assert problems["provenance"]
    assert "was revoked" in problems["neither it nor what it descends from is revoked"]
    page = (to / "index.html").read_text()
    assert "a &lt;b&gt;bad&lt;/b&gt; base" in page
    assert "<b>bad" not in page


def test_revocation_makes_no_signature_worth_less(made: Catalogued, tmp_path: Path) -> None:
    made.factory.revoke(made.factory.revocation(made.digests["base"], "base/amd64", reason="bad"))
    assert run(made, "--all", "--to", str(tmp_path / "all")) == 0
    (row,) = [row for row in rows(tmp_path / "all" / "images.csv") if row["digest"] == made.digests["web"]]
    assert (row["signatures"], row["revoked"]) == ("verified", "bad")
    signers = rows(tmp_path / "all" / row["report"] / "signers.csv")
    assert [one["what"] for one in signers if one["problem"]] == ["neither it nor what it descends from is revoked"]


def test_waivers_show_in_a_report(made: Catalogued, tmp_path: Path) -> None:
    waive(made)
    to = tmp_path / "report"
    assert run(made, "web", "--to", str(to)) == 0
    said = {row["channel"]: row for row in rows(to / "promotions.csv")}["prod"]
    assert said["waivers"] == "no-cve:low (bob, until 2030-01-01T00:00:00Z: <b>because</b>)"
    page = (to / "index.html").read_text()
    assert "no-cve:low</span>: bob, until 2030-01-01 00:00:00 UTC: &lt;b&gt;because&lt;/b&gt;" in page
    assert "<b>because" not in page


def test_report_of_a_broken_log_says_so(made: Catalogued, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(made.layout.catalog)) as connection:
        connection.executescript("DROP TRIGGER events_no_update; UPDATE events SET actor = '<b>' WHERE seq = 15")
    assert run(made, "web", "--to", str(tmp_path / "one")) == 6
    assert run(made, "--all", "--to", str(tmp_path / "all"), "--json") == 6
    said = capsys.readouterr()
    assert "the log is not as it was written" in said.err
    assert "event 16: it does not follow event 15" in json.loads(said.out.partition("\n")[2])["faults"][0]
    for page in (tmp_path / "one", tmp_path / "all"):
        text = (page / "index.html").read_text()
        assert "The catalog's log is not as it was written" in text
        assert "event 16: it does not follow event 15" in text
        assert "It is not as it was written; no promotion proves any of it." in text


def test_report_never_goes_over_what_is_there(made: Catalogued, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    assert run(made, "web", "--to", str(there)) == 0  # an empty folder will do
    before = (there / "image.csv").stat().st_mtime_ns
    assert run(made, "web", "--to", str(there)) == 2
    assert (there / "image.csv").stat().st_mtime_ns == before
    assert run(made, "web", "--to", str(tmp_path / "no" / "such")) == 2
    assert run(made, "nosuch", "--to", str(tmp_path / "none")) == 2
    assert run(made, "web", "--all", "--to", str(tmp_path / "none")) == 2
    assert run(made, "--to", str(tmp_path / "none")) == 2
    assert not (tmp_path / "none").exists()


def test_report_that_fails_leaves_nothing(made: Catalogued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    whole = report._csv

    def full(path: Path, *rest: object) -> None:
        written.append(path)
        if len(written) > 9:
            raise OSError(28, "No space left on device", str(path))
        whole(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(report, "_csv", full)
    before = set(tmp_path.iterdir())
    asked = report.Asked(None, tmp_path / "report")
    with Catalog.read(made.layout.catalog) as catalog, pytest.raises(ToolError, match="No space left"):
        report.write(made.layout, catalog, asked, datetime.now(UTC), lambda _: None)
    assert set(tmp_path.iterdir()) == before
