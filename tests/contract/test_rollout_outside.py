"""State outside of the instances, from fleets.toml to the guest, by the command: nothing else has it.

Real HAProxy, real processes; in QEMU's place a program that behaves like it, and hands back what SMBIOS was given.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import faked_local
import pytest
import rollout_factory
from local_fleets import free_port, get
from rollout_factory import Shop

from factory import proc
from factory.rollout import providers
from factory.rollout.providers.local import folder_of, tags
from factory.rollout.providers.local.guests import is_ours, tagged

SECRET = "postgres://user:0123456789@db.internal/web"
BASE64 = base64.b64encode(SECRET.encode()).decode()
HEALTH = """
[fleet.web.health]
http = { port = 80, body = "web qcow2" }
successes = 1
interval_s = 0.1
[fleet.web.external]
DATABASE_URL = { path = "secrets/database" }
"""


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A factory whose fleet has a database outside, and does not run yet."""
    monkeypatch.setitem(providers.KINDS, "local", faked_local.NAME)
    monkeypatch.delenv("FACTORY_KEY", raising=False)
    made = rollout_factory.build(tmp_path, capsys)
    made.fleet("blue-green")
    text = (made.signed.root / "fleets.toml").read_text().partition("[fleet.web.health]")[0]
    for was, wanted in (("127.0.0.1:8099", f"127.0.0.1:{free_port()}"), ("size = 3\nmin = 3", "size = 2\nmin = 2")):
        assert was in text
        text = text.replace(was, wanted)
    (made.signed.root / "fleets.toml").write_text(text + HEALTH)
    secret = made.signed.root / "secrets/database"
    secret.parent.mkdir()
    secret.touch(mode=0o600)
    secret.write_text(SECRET)
    yield made
    folder = folder_of(made.signed.layout, "web")
    for pid, tag in tagged(folder):
        proc.kill(pid, lambda pid=pid, tag=tag: is_ours(pid, tag))  # type: ignore[misc]


def test_external_state_reaches_the_guest_and_is_nowhere_else(shop: Shop) -> None:
    root = shop.signed.root
    said = [shop.rollout("plan", "web", "--json"), shop.rollout("apply", "web", "--events")]
    (listen,) = [line.split('"')[1] for line in (root / "fleets.toml").read_text().splitlines() if "listen" in line]
    assert get(listen, "/credentials", 10) == (200, f"io.systemd.credential.binary:DATABASE_URL={BASE64}")

    shop.release("second")
    said += [shop.rollout("apply", "web", "--json"), shop.rollout("status", "web", "--json"), shop.run("audit")]
    said += [shop.rollout("metrics", "web"), shop.run("drift", "web", "--json"), shop.run("fleet", "show", "web")]
    assert get(listen, "/credentials", 10)[1].endswith(BASE64), "the new generation has it too"

    hidden = (SECRET.encode(), BASE64.encode(), b"0123456789@db")
    assert not any(word in (one.out + one.err).encode() for one in said for word in hidden)
    processes = {tag.id: pid for pid, tag in tagged(folder_of(shop.signed.layout, "web"))}
    assert len(processes) == 2 + 1
    for name, pid in processes.items():
        told = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert (b"type=11,path=" in told) == (name != tags.FRONT)
        assert not any(word in told for word in hidden), name
    files = [path for path in root.rglob("*") if path.is_file() and path != root / "secrets/database"]
    assert root / ".factory/catalog.db" in files
    assert root / ".factory/fleets/web/events.jsonl" in files
    assert [path for path in files if any(word in path.read_bytes() for word in hidden)] == []
    assert folder_of(shop.signed.layout, "web").stat().st_mode & 0o077 == 0


def test_state_that_is_gone_or_open_to_others_is_refused_and_the_fleet_goes_on(shop: Shop) -> None:
    shop.rollout("apply", "web")
    before = shop.rollout("status", "web", "--json").json["instances"]
    shop.release("second")
    secret = shop.signed.root / "secrets/database"
    secret.chmod(0o644)
    assert "can be read or changed by others; chmod 600" in shop.rollout("apply", "web", code=2).err
    secret.chmod(0o600)
    secret.write_text("")
    assert "is empty" in shop.rollout("apply", "web", code=2).err
    secret.unlink()
    assert "No such file" in shop.rollout("apply", "web", code=2).err
    assert shop.rollout("status", "web", "--json").json["instances"] == before
