"""The README's section on replacing what runs, each command as it is written, on this repository's own images.

A copy of what is committed, with the caches of this checkout; the fleet listens where fleets.toml says.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import workshop
from workshop import CACHE, PROJECT

sys.path.append(str(PROJECT))

from benchmarks.load import load
from factory import proc
from factory.model import Layout
from factory.rollout.providers.local import folder_of, tags
from factory.rollout.providers.local.guests import is_ours, tagged

pytestmark = [pytest.mark.boots, pytest.mark.usefixtures("alone")]

SECTION = "## Replace what runs\n"
URL = "http://127.0.0.1:8080/"
DEADLINE_S = 900
SOURCES = ("images.toml", "fleets.toml", "images.lock", "playbooks", "templates", "trust")


def commands() -> list[tuple[str, int]]:
    """The commands of the section, and how each ends."""
    readme = (PROJECT / "README.md").read_text()
    section = readme.partition(SECTION)[2].partition("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    told = [re.fullmatch(r"(.*?)(?: +# exits (\d+))?", line) for line in lines]
    return [(one[1], int(one[2] or 0)) for one in told if one is not None]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[workshop.Workshop]:
    root = tmp_path / "factory"
    root.mkdir()
    for name in SOURCES:
        subprocess.run(["cp", "-a", "--", str(PROJECT / name), str(root)], check=True)
    (root / ".factory").mkdir()
    (root / ".factory/cache").symlink_to(CACHE)
    shop = workshop.Workshop(root, {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"})
    yield shop
    for pid, tag in tagged(folder_of(Layout(root), "web")):
        proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]
    workshop.take_down(tmp_path)


def run(shop: workshop.Workshop, line: str, code: int) -> str:
    done = subprocess.run(
        line, shell=True, cwd=shop.root, env=shop.env, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == code, f"{line} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_commands_of_the_section_do_what_it_says_and_nothing_is_lost(shop: workshop.Workshop) -> None:
    baked = shop.factory("bake", "--refresh", "--json")
    assert baked.code == 0, baked.out + baked.err
    written = commands()
    assert len(written) == 13, written
    (plan, apply, _load, *changes), drift, status, scale, destroy = written[:-4], *written[-4:]
    assert "launch until 3 of generation 1 are healthy" in run(shop, *plan)
    run(shop, *apply)
    said = ""
    with load(URL) as outcome:
        for line, code in [*changes, drift, status, scale]:
            said += run(shop, line, code)
    assert outcome.lost == []
    words = {one: sum(count for body, count in outcome.answers.items() if one in body) for one in
             ("by a golden image", "the second golden image", "somebody")}  # fmt: skip
    assert words["by a golden image"] > 0
    assert words["the second golden image"] > 0
    assert words["somebody"] == 0, "the broken image had traffic"
    assert "its answer lacks the body that is wanted" in said
    assert {tag.id.partition("-g")[0] for _, tag in tagged(folder_of(Layout(shop.root), "web"))} == {"web", tags.FRONT}
    run(shop, *destroy)
    assert tagged(folder_of(Layout(shop.root), "web")) == []
