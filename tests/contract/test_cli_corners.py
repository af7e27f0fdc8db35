"""Corners of the command line that people get into: mistyped options, names that are prefixes, a host that refuses."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from factory import cli
from factory.catalog.database import Catalog
from factory.model import Layout

FACTORY = [sys.executable, "-c", "from factory.cli import main; main()"]


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _a_run(root: Path, name: str, *images: str) -> None:
    for image in images:
        (root / ".factory/runs" / name / image).mkdir(parents=True)
        (root / ".factory/runs" / name / image / "junit.xml").touch()
    (root / ".factory/runs" / name / "journal.jsonl").touch()


def test_no_command_shows_the_help_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _run(capsys)
    assert (code, out) == (2, "")
    assert "Commands:" in err
    assert "error:" not in err


@pytest.mark.parametrize("option", ["-v", "-C"])
def test_option_of_the_whole_behind_the_command_is_told_its_place(
    capsys: pytest.CaptureFixture[str], option: str
) -> None:
    code, _, err = _run(capsys, "bake", option)
    assert code == 2
    assert f"{option} goes before the command" in err


def test_option_without_its_value_names_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "factory bake --help" in _run(capsys, "bake", "-j")[2]


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_folder_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    code, _, err = _run(capsys, "-C", str(tmp_path / folder), "bake")
    assert code == 2
    assert "there is no folder" in err


def test_bake_outside_a_factory_says_what_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = _run(capsys, "-C", str(tmp_path), "bake")
    assert code == 2
    assert "-C DIR" in err
    assert "factory init DIR" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "run", "files"),
    [
        (["web"], "20260102T000000Z-aaaa", 1),
        (["web/amd64"], "20260102T000000Z-aaaa", 1),
        (["web-front"], "20260103T000000Z-aaaa", 1),
        (["2026", "web"], "20260102T000000Z-aaaa", 1),
        (["20260101", "web"], "20260101T000000Z-aaaa", 1),
        (["20260102"], "20260102T000000Z-aaaa", 2),
        ([], "20260103T000000Z-aaaa", 1),
    ],
)
def test_logs_finds_the_run_and_the_files_of_the_image_that_is_meant(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, asked: list[str], run: str, files: int
) -> None:
    _a_run(tmp_path, "20260101T000000Z-aaaa", "web-amd64")
    _a_run(tmp_path, "20260102T000000Z-aaaa", "web-amd64", "web-front-amd64")
    _a_run(tmp_path, "20260103T000000Z-aaaa", "web-front-amd64")
    code, out, _ = _run(capsys, "-C", str(tmp_path), "logs", *asked, "--json")
    told = json.loads(out)
    assert (code, told["run"], len(told["files"])) == (0, run, files)


@pytest.mark.parametrize("asked", [["/"], ["/x"], ["../x"], ["*"], ["nope"], ["2026", "nope"], ["nope", "web"]])
def test_logs_of_what_there_is_not_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, asked: list[str]
) -> None:
    _a_run(tmp_path, "20260101T000000Z-aaaa", "web-amd64")
    code, _, err = _run(capsys, "-C", str(tmp_path), "logs", *asked)
    assert code == 2
    assert "Traceback" not in err


def test_repair_from_a_catalog_that_saw_no_bake_leaves_the_lock(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "images.lock").write_text("lock-version = 1\n# what somebody else baked\n")
    with Catalog.open(Layout(tmp_path).catalog):
        pass
    code, _, err = _run(capsys, "-C", str(tmp_path), "lock", "--repair")
    assert code == 5
    assert "has seen no bake" in err
    assert "somebody else" in (tmp_path / "images.lock").read_text()


def test_reader_that_leaves_early_is_no_failure(tmp_path: Path) -> None:
    for number in range(2000):
        _a_run(tmp_path, "20260101T000000Z-aaaa", f"image-with-a-long-name-{number}-amd64")
    process = subprocess.Popen(
        [*FACTORY, "-C", str(tmp_path), "logs"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 0)
    process.stderr.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_host_that_refuses_is_no_bug(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    def refuse(_: Path) -> list[str]:
        raise OSError(number, "no", "/some/where")

    monkeypatch.setattr("factory.skeleton.lay_out", refuse)
    code, out, err = _run(capsys, "init", str(tmp_path / "new"), "--json")
    error = json.loads(out)["error"]
    assert (code, error["where"]) == (3, "/some/where")
    assert error["hint"]
    assert "Traceback" not in err


def test_file_where_a_folder_should_be_is_no_bug(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "images.toml").touch()
    (tmp_path / ".factory").touch()
    code, _, err = _run(capsys, "-C", str(tmp_path), "lock", "--prune")
    assert code == 3
    assert ".factory" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("target", ["/dev/full", None])
def test_answer_that_cannot_be_written_is_no_success(target: str | None) -> None:
    project = Path(__file__).resolve().parents[2]
    redirect = f">{target}" if target else ">&-"
    command = f'"$0" -c "from factory.cli import main; main()" -C "$1" resolve web --frozen --json {redirect}'
    argv = ["bash", "-c", command, sys.executable, str(project)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode not in (0, 1)
    assert "Traceback" not in done.stderr
