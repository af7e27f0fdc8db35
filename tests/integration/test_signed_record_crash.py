"""A signed record killed at any moment: lock, ticket, channel and catalog agree once the next bake has mended it."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import attested
from test_record_crash import bake, ended, in_child, killed_at

from factory import lockfile
from factory.catalog import attestations
from factory.catalog.database import Catalog
from factory.catalog.pending import pending
from factory.catalog.record import BakeRecord, record_bake, recover
from factory.digest import of_bytes
from factory.model import Layout, LockedImage
from factory.release import attest, resolve, standing, vouching
from factory.release.signing import Signing
from factory.store import Store
from factory.trust import ticket
from factory.trust.facts import BASE, Ancestor, CheckOutcome


def signing_of(layout: Layout) -> Signing:
    return Signing.open(layout, say=lambda _: None)


def signed(layout: Layout, salt: str) -> BakeRecord:
    """A bake of `web` with its ticket, to be promoted to dev."""
    made = bake(layout, "web", salt)
    locked: LockedImage = made.image
    line = (Ancestor(locked.base, "debian-12", BASE),)
    image = attest.image_facts(locked, line, Store(layout.store))
    signing = signing_of(layout)
    found = attest.verification([CheckOutcome("web", "it runs", "passed")], {"web": of_bytes(b"checks")}, signing)
    now = standing.this_moment()
    facts = replace(attested.bake(), image=image, started_at=now, finished_at=now)
    text = ticket.dumps([attest.attest(facts, found, attested.packages(), signing).ticket]).decode()
    return replace(made, ticket=text, facts={**made.facts, "channel": "dev"})


def record(layout: Layout, made: BakeRecord) -> None:
    publish = partial(attest.publish, layout, signing_of(layout), lambda _: None)
    with Catalog.open(layout.catalog) as catalog:
        record_bake(catalog, layout, made, publish=publish)


def mend(layout: Layout) -> None:
    """What the next bake does first."""
    publish = partial(attest.publish, layout, signing_of(layout), lambda _: None)
    with Catalog.open(layout.catalog) as catalog:
        recover(catalog, layout, publish)


def assert_agree(layout: Layout) -> str:
    """Lock, ticket, channel and catalog say the same; which digest."""
    (locked,) = lockfile.read(layout.lock).images.values()
    assert vouching.read(layout).objection(locked) is None
    assert resolve.resolve(layout, resolve.Asked("web")).digest == locked.digest
    assert resolve.resolve(layout, resolve.Asked("web", channel="dev")).digest == locked.digest
    with Catalog.open(layout.catalog) as catalog:
        assert attestations.history(catalog, "dev")[0][0].digest == locked.digest
    assert not pending(layout.catalog)
    assert not [
        path for path in layout.trust.rglob("*") if path.name.endswith(".tmp") and not path.name.startswith(".")
    ]
    return locked.digest


def test_signed_record_killed_at_any_moment_agrees_after_recovery(tmp_path: Path) -> None:
    def attempt(number: int, moment: int) -> tuple[int, bool]:
        """(exit code, whether the new image stands after recovery)."""
        layout = Layout(tmp_path / str(number))
        layout.root.mkdir()
        attest.ready(layout, signing_of(layout))
        old, new = signed(layout, "old"), signed(layout, "new")
        record(layout, old)
        code = ended(in_child(killed_at(moment, partial(record, layout, new))))
        mend(layout)
        is_new = assert_agree(layout) == new.image.digest
        record(layout, new)
        assert assert_agree(layout) == new.image.digest
        return code, is_new

    last = 1
    while attempt(-last, last)[0] == -signal.SIGKILL:
        last *= 2
    outcomes = [attempt(moment, moment) for moment in range(1, last, max(1, last // 60))]
    killed = [is_new for code, is_new in outcomes if code == -signal.SIGKILL]
    assert len(killed) > 20
    assert set(killed) == {True, False}
