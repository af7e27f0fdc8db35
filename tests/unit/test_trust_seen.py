"""What was seen before: never lowered, never forgotten in silence; and with it, no old answer is ever taken again."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from attested import ALICE, BAKED_AT, POLICY, TESTER, Key, sha
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from factory.digest import Digest
from factory.errors import ExpiredError, RevokedError, TamperedError, TrustError
from factory.trust import heads, promotions, revocations, seen
from factory.trust.authority import Authority
from factory.trust.policy import ChannelRule, TrustedKey
from factory.trust.promotions import Promotion
from factory.trust.revocations import KeyRevocation, Revocation

COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 5))


@given(COUNTS, COUNTS)
def test_merge_is_never_lower_than_either(one: dict[str, int], other: dict[str, int]) -> None:
    merged = seen.merge(one, other)
    seen.check(one, merged)
    seen.check(other, merged)
    assert set(merged.values()) <= {*one.values(), *other.values()}


@given(COUNTS, COUNTS)
def test_check_refuses_exactly_what_is_lower(before: dict[str, int], shown: dict[str, int]) -> None:
    lower = [name for name in shown if shown[name] < before.get(name, 0)]
    if not lower:
        seen.check(before, shown)
        return
    with pytest.raises(ExpiredError, match="rollback"):
        seen.check(before, shown)


def test_set_that_lacks_what_was_seen_revoked_is_refused() -> None:
    before = {"revocations": 4, f"revoked {sha('a')}": 1, f"revoked {sha('b')}": 2}
    seen.check(before, {"policy": 1})  # no set was looked at
    seen.check(before, {**before, "revocations": 5})
    with pytest.raises(ExpiredError, match=f"lacks the revocation of {sha('a')}"):
        seen.check(before, {"revocations": 5, f"revoked {sha('b')}": 2})
    with pytest.raises(ExpiredError, match="is of number 1, but 2"):
        seen.check(before, {**before, f"revoked {sha('b')}": 1})


def test_only_what_was_verified_of_the_newest_bake_is_kept() -> None:
    old = {"image web/amd64: baked at": 10, "image web/amd64: verified at, a": 20}
    other = {"image db/amd64: baked at": 1, "image db/amd64: verified at, a": 2}
    new = {"image web/amd64: baked at": 15, "image web/amd64: verified at, b": 16}
    assert seen.merge({**old, **other}, new) == {**new, **other}
    assert seen.merge(new, {**old, **other}) == {**new, **other}
    with pytest.raises(ExpiredError, match="baked at is of 1970-01-01T00:00:10Z, but 1970-01-01T00:00:15Z was seen"):
        seen.check(new, old)
    with pytest.raises(ExpiredError, match="verified at"):
        seen.check(new, {**new, "image web/amd64: verified at, b": 15})


def test_number_that_is_no_time_is_refused_all_the_same() -> None:
    name = "image web/amd64: baked at"
    with pytest.raises(ExpiredError, match="second 9007199254740991"):
        seen.check({name: 2**53 - 1}, {name: 5})


def test_file_that_is_not_there_is_made_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    assert seen.read(path) == {}
    seen.remember(path, {"policy": 3, "channel prod: web/amd64": 2})
    assert seen.read(path) == {"policy": 3, "channel prod: web/amd64": 2}
    seen.remember(path, {"policy": 4})
    assert seen.read(path) == {"policy": 4, "channel prod: web/amd64": 2}


def test_file_that_already_says_so_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    seen.remember(path, {"policy": 3})
    before = path.stat().st_mtime_ns
    (tmp_path / ".seen.json.lock").unlink()
    seen.remember(path, {"policy": 3})
    assert path.stat().st_mtime_ns == before
    assert not (tmp_path / ".seen.json.lock").exists()


def test_older_is_refused_and_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    seen.remember(path, {"policy": 3, "revocations": 7})
    raw = path.read_bytes()
    with pytest.raises(ExpiredError, match="revocations is of number 6, but 7 was seen before"):
        seen.remember(path, {"policy": 4, "revocations": 6})
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"null", b'{"seen": 2, "highest": {}}', b'{"seen": 1, "highest": {"policy": -1}}',
     b'{"seen": 1, "highest": {"policy": "3"}}', b'{"seen": 1, "highest": {"policy": true}}', b'{"seen": 1}',
     b'{"seen": 1, "highest": [1]}', b'{"seen": 1, "highest": {"a": 1, "a": 0}}', b'{"seen": 1, "highest": {"policy"'],
)  # fmt: skip
def test_damaged_file_is_an_error_and_stays(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "seen.json"
    path.write_bytes(raw)
    with pytest.raises(TamperedError) as caught:
        seen.remember(path, {"policy": 3})
    assert caught.value.where == str(path)
    assert "restore it" in str(caught.value.hint)
    assert path.read_bytes() == raw


def test_link_or_endless_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(seen.MAX_BYTES + 1)
    for name in ("link", "large"):
        with pytest.raises(TamperedError):
            seen.read(tmp_path / name)


PROCESS = """
import sys
from pathlib import Path
from factory.errors import ExpiredError
from factory.trust import seen
for number in range(1, 41):
    try:
        seen.remember(Path(sys.argv[1]), {"shared": number, sys.argv[2]: number})
    except ExpiredError:
        pass  # the other process is ahead
    assert seen.read(Path(sys.argv[1]))["shared"] >= number
"""


def test_several_processes_at_once_never_lower_it(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    running = [subprocess.Popen([sys.executable, "-c", PROCESS, str(path), name]) for name in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    found = seen.read(path)
    assert found["shared"] == 40
    assert set(found) == {"shared", "a", "b"}
    assert stat.S_ISREG(path.lstat().st_mode)
    assert json.loads(path.read_text())["seen"] == seen.VERSION


# --- a deployer with --seen, a factory that works, an attacker who has every file that ever was

BOB, ROOT = Key(5), Key(4)
TRUSTED = replace(
    POLICY,
    keys={
        **POLICY.keys,
        "bob": TrustedKey("bob", BOB.public, frozenset({"approver"})),
        "root": TrustedKey("root", ROOT.public, frozenset({"root"})),
    },
)
RULE = ChannelRule("prod", approvals=1)
WHO = "web/amd64"
IMAGES = tuple(sha(f"image {number}") for number in range(4))
DAYS = 14


@dataclass(frozen=True)
class State:
    """The two files at one moment, and what was true then."""

    channel: bytes
    revocations: bytes
    revoked: frozenset[Digest]
    digest: Digest | None


class Replay(RuleBasedStateMachine):
    """Whatever is replayed: nothing older than what was seen is taken, and nothing that was seen to be revoked."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.seen = self.folder / "seen.json"
        self.now = BAKED_AT
        self.channel_head = heads.nothing("channel", "prod")
        self.set_head = heads.nothing("revocations")
        self.promotion: Promotion | None = None
        self.number = 0
        self.revoked: frozenset[Digest] = frozenset()
        self.stolen = False
        self.states: list[State] = []
        self.known_revoked: frozenset[Digest] = frozenset()
        self.taken: list[tuple[int, int]] = []
        self._sign_set({})
        self._sign_channel({})
        self._keep()

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def _sign_set(self, events: dict[str, bytes]) -> None:
        self.set_head = heads.following(self.set_head, {**self.set_head.events, **events}, self.now, DAYS)
        self.set_raw = heads.make(self.set_head, ROOT).raw

    def _sign_channel(self, events: dict[str, bytes], by: Key = TESTER) -> None:
        self.channel_head = heads.following(self.channel_head, {**self.channel_head.events, **events}, self.now, DAYS)
        self.channel_raw = heads.make(self.channel_head, by).raw

    def _keep(self) -> None:
        digest = None if self.promotion is None else self.promotion.digest
        self.states.append(State(self.channel_raw, self.set_raw, self.revoked, digest))

    @rule(seconds=st.integers(0, 400_000))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(image=st.sampled_from(IMAGES))
    def promote(self, image: Digest) -> None:
        before = self.promotion
        number = 1 if before is None else before.number + 1
        self.promotion = Promotion("prod", WHO, image, number, self.now, BAKED_AT)
        key = ALICE if self.stolen else BOB
        self._sign_channel({WHO: promotions.make(self.promotion, key).raw})
        self._keep()

    @rule(image=st.sampled_from(IMAGES))
    def revoke(self, image: Digest) -> None:
        if image in self.revoked:
            return
        self.number += 1
        event = Revocation(image, WHO, "bad", self.now, self.now, self.number)
        self.revoked |= {image}
        self._sign_set({image: revocations.make(event, ALICE).raw})
        self._keep()

    @rule()
    def refresh(self) -> None:
        self._sign_set({})
        self._sign_channel({})
        self._keep()

    @precondition(lambda self: not self.stolen)
    @rule()
    def lose_a_key(self) -> None:
        self.stolen = True
        self.number += 1
        event = KeyRevocation(BOB.public.fingerprint, "bob", "stolen", self.now, self.number)
        self._sign_set({event.digest: revocations.make(event, ROOT).raw})
        self._keep()

    @rule(data=st.data())
    def thief_signs_with_the_lost_key(self, data: st.DataObject) -> None:
        """Somebody with bob's key promotes what is revoked, with any number; it may be handed out with any set."""
        image, number = data.draw(st.sampled_from(IMAGES)), data.draw(st.integers(1, 50))
        forged = Promotion("prod", WHO, image, number, self.now, BAKED_AT)
        head = replace(
            self.channel_head,
            version=self.channel_head.version + 100,
            issued_at=self.now,
            expires_at=self.now + timedelta(days=DAYS),
            events={WHO: promotions.make(forged, BOB).raw},
        )
        if self.stolen:
            state = State(heads.make(head, BOB).raw, self.set_raw, self.revoked, image)
            with pytest.raises((RevokedError, TrustError)):
                self._ask(state, self.now)

    @rule(data=st.data(), hours=st.integers(0, 24 * 20))
    def deploy(self, data: st.DataObject, hours: int) -> None:
        """Any channel file with any set, old ones too, at some moment later."""
        one, other = data.draw(st.sampled_from(self.states)), data.draw(st.sampled_from(self.states))
        state = replace(one, revocations=other.revocations, revoked=other.revoked)
        now = self.now + timedelta(hours=hours)
        with_seen = seen.read(self.seen)
        try:
            digest = self._ask(state, now)
        except TrustError:
            assert seen.merge(with_seen, seen.read(self.seen)) == seen.read(self.seen)
            return
        assert digest not in self.known_revoked
        assert not state.revoked < self.known_revoked

    @rule()
    def deploy_what_is_true_now(self) -> None:
        """The newest files are always taken, but for what they themselves refuse."""
        newest = self.states[-1]
        fresh = min(self.set_head.expires_at, self.channel_head.expires_at) > self.now
        void = self.stolen and self.promotion is not None and self._promoted_by_bob()
        if not fresh or newest.digest is None or newest.digest in self.revoked or void:
            with pytest.raises((TrustError, KeyError)):
                self._ask(newest, self.now)
        else:
            assert self._ask(newest, self.now) == newest.digest

    def _promoted_by_bob(self) -> bool:
        raw = self.channel_head.events[WHO]
        return BOB.public.fingerprint.encode() in raw

    def _ask(self, state: State, now: datetime) -> Digest:
        """What a deployer does with the two files, and --seen."""
        revoked = revocations.verify(state.revocations, TRUSTED, now)
        seen.remember(self.seen, seen.observe(TRUSTED, revoked))
        self.known_revoked |= frozenset(revoked.images)
        channel = promotions.verify(state.channel, RULE, Authority(TRUSTED, revoked.compromised), now)
        seen.remember(self.seen, seen.observe(TRUSTED, revoked, channel, WHO))
        promotion = channel.promotions.get(WHO)
        if promotion is None:
            raise TrustError("never promoted")
        revoked.refuse_revoked(promotion.digest, (), now)
        self.taken.append((channel.version, revoked.version))
        return promotion.digest

    @invariant()
    def what_is_taken_never_goes_back(self) -> None:
        if hasattr(self, "taken"):
            assert self.taken == sorted(self.taken, key=lambda pair: pair[0])
            assert self.taken == sorted(self.taken, key=lambda pair: pair[1])


TestReplay = Replay.TestCase
TestReplay.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_refresher_that_hands_out_an_old_promotion_under_a_new_version_is_found(tmp_path: Path) -> None:
    """Whoever may only sign heads can put an old event into a new one; its number gives it away."""
    path, now = tmp_path / "seen.json", BAKED_AT + timedelta(hours=1)

    def shown(version: int, number: int) -> Callable[[], None]:
        promotion = Promotion("prod", WHO, IMAGES[0], number, BAKED_AT, BAKED_AT)
        head = heads.following(
            heads.nothing("channel", "prod"), {WHO: promotions.make(promotion, ALICE).raw}, now, DAYS
        )
        raw = heads.make(replace(head, version=version), TESTER).raw
        channel = promotions.verify(raw, RULE, Authority(TRUSTED), now)
        empty = revocations.verify(
            heads.make(heads.following(heads.nothing("revocations"), {}, now, DAYS), ROOT).raw, TRUSTED, now
        )
        return lambda: seen.remember(path, seen.observe(TRUSTED, empty, channel))

    shown(3, 5)()
    with pytest.raises(ExpiredError, match="channel prod: web/amd64 is of number 4, but 5"):
        shown(9, 4)()
    shown(9, 5)()
