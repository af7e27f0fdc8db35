"""The bake of one image, stage by stage: base, provision, seal, disk, verify, record.

Holds the image's lock from the decision to the record. Each finished stage is remembered with what it left, so that a
run that was killed is gone on with; a tree that was only half provisioned is thrown away. Nothing is recorded
unless the very bytes that are in the store booted and passed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from factory import builders, namespace, proc
from factory.bake import assess, attesting, checking, closure, journal, judge, key, plan, reaper, secrets
from factory.bake.parents import Parent, parent_of, tree_path
from factory.bake.recording import bake_record, locked_image
from factory.bake.report import ImageResult
from factory.bake.sealed import Sealed, sealed_of
from factory.bake.session import Session
from factory.builders import BuildJob, Provisioned, qemu, tree_env
from factory.catalog import events
from factory.digest import Digest
from factory.disk import formats, work
from factory.disk.image import DiskPlan
from factory.disk.seal import SealFacts
from factory.disk.work import SealedTree
from factory.errors import (
    DiskError,
    FactoryError,
    InterruptedRunError,
    LockMismatchError,
    VerifyError,
)
from factory.model import ImageSpec, Lock, LockedImage, Package
from factory.provision import read_tasks
from factory.redact import Redactor
from factory.release import vouching
from factory.verify.report import VerifyReport
from factory.vm.session import Way
from factory.vm.way import way_into


class ImageBake:
    """One image in one run. `result` does everything and never raises a FactoryError."""

    def __init__(self, session: Session, image: ImageSpec, *, forced: bool) -> None:
        self.session = session
        self.image = image
        self.forced = forced
        self.id = f"{image.name}-{image.arch}"
        self.work = session.layout.work / self.id
        self.logs = session.run.logs(self.id)
        self.stage_s: dict[str, float] = {}
        self.notes: list[str] = []
        self.reasons: tuple[str, ...] = ()
        self.seen = Lock()  # the lock that the decision was made by
        self.started_at = datetime.now(UTC).replace(microsecond=0)

    def result(self) -> ImageResult:
        """Bake, verify or leave the image as its assessment says."""
        began = time.monotonic()
        error: FactoryError | None = None
        status, locked = "failed", None
        try:
            with journal.image_lock(
                self.session.layout, self.id, wait=self.session.options.wait, on_wait=self._say_waiting
            ):
                try:
                    status, locked = self._decide_and_do()
                finally:
                    reaper.sweep(self.work)
        except InterruptedRunError:
            raise
        except (FactoryError, OSError) as caught:
            error = caught if isinstance(caught, FactoryError) else judge.refused(caught)
            self.session.run.event("failed", image=self.id, error=error.as_json())
        result = ImageResult(
            self.image,
            status,
            locked,
            {},
            time.monotonic() - began,
            self.stage_s,
            self.reasons,
            tuple(self.notes),
            error,
        )
        return replace(result, artifacts=assess.stored(self.session.store, locked)) if locked else result

    def _say_waiting(self) -> None:
        self.session.listener.stage(self.image.name, "waiting for another run")

    def _decide_and_do(self) -> tuple[str, LockedImage]:
        self.work.mkdir(parents=True, exist_ok=True)
        reaper.sweep(self.work)
        session, image = self.session, self.image
        closure.forget()
        self.seen = session.lock()
        objection = vouching.read(session.layout).objection
        found = assess.one_image(
            session.layout, session.factory, image, self.seen, forced=self.forced, objection=objection
        )
        self.reasons = found.decision.reasons
        session.run.event("decided", image=self.id, action=found.decision.action, reasons=list(self.reasons))
        if found.decision.action == plan.UNCHANGED:
            assert found.locked is not None
            return plan.UNCHANGED, found.locked
        if found.decision.action == plan.FETCH and found.locked is not None:
            if self._fetch(found.locked):
                found = assess.one_image(
                    session.layout, session.factory, image, session.lock(), forced=False, objection=objection
                )
                if found.decision.action == plan.UNCHANGED and found.locked is not None:
                    self.reasons = (*self.reasons, "fetched")
                    return plan.UNCHANGED, found.locked
            else:
                self.reasons = (*self.reasons, "and cannot be fetched")
        if (
            found.decision.action == plan.VERIFY
            and found.locked is not None
            and attesting.can_sign_again(session, found.locked, objected=objection(found.locked) is not None)
        ):
            return "verified", self._verify_again(found.locked, found.inputs)
        return "baked", self._bake(found)

    def _fetch(self, locked: LockedImage) -> bool:
        """Get the locked files from the shared store; whether all of them are here now."""
        if self.session.factory.store_url is None:
            return False
        self._enter("fetch")
        return all(self.session.fetch(Digest(name)) for name in (*locked.artifacts.values(), locked.tree))

    # --- the stages

    def _bake(self, found: assess.Assessment) -> LockedImage:
        values = secrets.read(self.session.layout, self.image)
        with self._stage("base"):
            parent = parent_of(self.session, self.image, self.work)
            line = attesting.line_of(self.session, self.image, parent.digest)
            inputs = found.inputs.with_base(parent.key_parts)
        expected = assess.expected_packages(found.locked)
        stages = journal.Stages(self.work, inputs.bake_key, values)
        done = stages.get("seal")
        if self.forced or done is None or not self._sealed_is_here(done):
            stages.forget("seal", "disk")
            try:
                sealed = self._provision_and_seal(parent, inputs, expected, values)
            except DiskError as error:
                if error.where != str(parent.tree):
                    raise
                self.session.listener.note(f"{self.image.name}: {error.message}; it is made anew")
                parent.tree.unlink(missing_ok=True)
                parent = parent_of(self.session, self.image, self.work)
                sealed = self._provision_and_seal(parent, inputs, expected, values)
            stages.finish("seal", sealed.as_json())
        else:
            sealed = Sealed.from_json(done)
            self.notes.append("went on after the stage seal, which an earlier run had finished")
        disk = stages.get("disk")
        if disk is None or not all(self.session.store.has(name) for name in disk["artifacts"].values()):
            disk = self._disk(sealed, values)
            stages.finish("disk", disk)
        locked = locked_image(self.image, sealed, disk, parent.digest)
        self._judge_digest(found.locked, locked)
        try:
            report = self._verify(locked, values, Way(**disk["way"]))
        except checking.LeakError:
            stages.forget("seal", "disk")
            self._destroy(locked)
            raise
        self._require_unchanged(inputs, "checks")
        with self._stage("record"):
            for name in {*locked.artifacts.values(), locked.tree}:
                self.session.share(Digest(name))
            record = bake_record(
                self.session.factory, self.image, locked, self.session.run.id, sealed.inputs,
                installed=sealed.installed, base=parent.locked_base,
            )  # fmt: skip
            attested = attesting.of_bake(self.session, record, line, report, sealed.installed, self.started_at)
            attesting.record(self.session, record, attested, self.seen)
        namespace.remove(self.work)
        return locked

    def _sealed_is_here(self, done: dict[str, Any]) -> bool:
        return (
            self.session.store.has(done["tree_digest"]) and tree_path(self.session.layout, done["tree_digest"]).exists()
        )

    def _provision_and_seal(
        self, parent: Parent, inputs: key.Inputs, expected: Sequence[Package], values: dict[str, str]
    ) -> Sealed:
        session = self.session
        repositories = session.repositories(self.image)
        self._require_pins(repositories.missing(expected))
        started_at = time.time()
        with self._stage("provision"), self._keeping_logs(values):
            provisioned = self._provision(parent, expected, values)
        self._require_unchanged(inputs, "playbook", "template")
        with self._stage("seal"):
            tree = provisioned.tree
            installed = repositories.installed(tree, (*expected, *parent.packages))
            added = tuple(sorted({item.package for item in installed} - set(parent.packages)))
            self._require_pins(judge.broken_pins(expected, added))
            complete = inputs.with_packages(added)
            sealed = self._seal(tree, SealFacts(self.image.name, complete.bake_key, started_at))
        return sealed_of(sealed, complete, added, installed)

    def _seal(self, tree: Path, facts: SealFacts) -> SealedTree:
        """Seal the tree; keep its tar in the cache, for its children, and its manifest in the store."""
        out = self.work / "sealed"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        sealed = work.seal_tree(tree, out, facts)
        kept = tree_path(self.session.layout, sealed.tree_digest)
        kept.parent.mkdir(parents=True, exist_ok=True)
        sealed.tar.replace(kept)
        self.session.store.put(sealed.manifest)
        out.rmdir()
        return sealed

    def _provision(self, parent: Parent, expected: Sequence[Package], values: dict[str, str]) -> Provisioned:
        session = self.session
        pins = judge.held_pins(parent.packages, expected)
        misses = len(session.proxy.misses)
        job = BuildJob(
            image=self.image,
            layout=session.layout,
            work=self.work,
            parent=builders.Parent(parent.tree, parent.tree_digest, parent.disk),
            lent_files=session.lent_files(pins),
            secrets=values,
            on_task=lambda task: session.listener.detail(self.image.name, task),
            on_process=lambda pid: session.run.process(self.id, pid),
            keep_failed=session.options.keep_failed,
        )
        try:
            provisioned = builders.get(self.image.builder).provision(job)
        except InterruptedRunError:
            raise
        except FactoryError as error:
            raise self._explained(error, misses) from error
        finally:
            self._note_tasks()
        session.run.event("provisioned", image=self.id, via=list(provisioned.via))
        return provisioned

    def _note_tasks(self) -> None:
        """Write the tasks that ran, of a playbook that failed too, into the catalog."""
        tasks = [
            events.Task(
                record.play, record.task, record.path, record.started_at, record.duration_s, record.outcome,
                record.outcome == "changed", record.message,
            )
            for record in read_tasks(self.work)
        ]  # fmt: skip
        session = self.session
        events.add_tasks(session.catalog, session.run.id, (self.image.name, self.image.arch), tasks)

    def _explained(self, error: FactoryError, misses: int) -> FactoryError:
        """A failed bake: what apt could not get is said first; --keep-failed keeps the tree and says how to get in."""
        missed = self.session.proxy.why_not(misses)
        message = f"{error.message}\n{missed}" if missed else error.message
        hint = error.hint
        if self.session.options.keep_failed and (how := self._keep()) is not None:
            hint = f"look around in what was built: {how}"
        return type(error)(message, hint=hint, where=error.where)

    def _keep(self) -> str | None:
        """Keep the tree or the guest's disk that a failed playbook left; the command to get into it. None: nothing."""
        kept = self.work / "kept"
        namespace.remove(kept)
        kept.mkdir()
        tree, disk = self.work / "tree", self.work / qemu.OUTPUT / qemu.DISK
        if disk.exists():
            disk.rename(kept / qemu.DISK)
            return proc.paste(["factory", "-C", str(self.session.layout.root), "boot", str(kept / qemu.DISK)])
        if not tree.exists():
            return None
        tree.rename(kept / "tree")
        shell = ["chroot", str(kept / "tree"), "/bin/bash", "-l"]
        tree_env.write_request(
            kept / "enter.json", tree_env.TreeRequest(str(kept / "tree"), self.image.name, shell, interactive=True)
        )
        return proc.paste(tree_env.command(kept / "enter.json"))

    def _disk(self, sealed: Sealed, values: dict[str, str]) -> dict[str, Any]:
        session, image = self.session, self.image
        with self._stage("disk"):
            raw = self.work / "disk.raw"
            raw.unlink(missing_ok=True)
            disk_plan = DiskPlan(image.name, image.arch, sealed.bake_key, image.disk_mib, sealed.epoch)
            tree = self.work / "tree"
            if not tree.exists():
                work.unpack(tree_path(session.layout, sealed.tree_digest), tree, sealed.tree_digest)
            work.build_disk(tree, session.store.path(sealed.tree_digest), disk_plan, raw)
            way = way_into(raw)
            artifacts: dict[str, str] = {}
            with ThreadPoolExecutor(
                1
            ) as pool:  # beside qemu-img; it starts no process, which would die with its thread
                digesting = pool.submit(formats.raw_digest, raw, "raw")
                stored_as = {format_: self._store_as(raw, format_) for format_ in image.formats}
                digest = digesting.result()
            for format_, stored in stored_as.items():
                if formats.raw_digest(stored, format_) != digest:
                    raise VerifyError(
                        f"the stored {format_} does not hold the disk it was made from", where=str(stored),
                        hint="bake again; if it stays, qemu-img or this host's storage is at fault",
                    )  # fmt: skip
                artifacts[format_] = session.store.put(stored)
            raw.unlink()
            namespace.remove(tree)
        return {"digest": digest, "artifacts": artifacts, "way": vars(way)}

    def _store_as(self, raw: Path, format_: str) -> Path:
        stored = self.work / f"disk-as.{format_}"
        formats.convert(raw, format_, stored)
        return stored

    def _verify(self, locked: LockedImage, values: dict[str, str], way: Way | None = None) -> VerifyReport:
        with self._stage("verify"):
            return checking.verify(
                self.session, checking.Subject(self.image, locked, self.logs, self.work / "verify", way, values)
            )

    def _verify_again(self, locked: LockedImage, inputs: key.Inputs) -> LockedImage:
        values: dict[str, str] = {}
        with suppress(FactoryError):
            values = secrets.read(self.session.layout, self.image)
        report = self._verify(locked, values)
        verified = replace(locked, inputs={**locked.inputs, "checks": inputs.digests["checks"]})
        with self._stage("record"):
            session = self.session
            record = bake_record(
                session.factory, self.image, verified, session.run.id, inputs.parts, verified_only=True
            )
            attesting.record(session, record, attesting.again(session, self.image, record, report), self.seen)
        namespace.remove(self.work)
        return verified

    # --- judgements

    def _require_unchanged(self, inputs: key.Inputs, *names: str) -> None:
        """The files that were baked (or checked) from must be those that the key was computed from."""
        closure.forget()
        session = self.session
        now = assess.one_image(session.layout, session.factory, self.image, self.seen, forced=False).inputs
        judge.require_unchanged(self.image.name, inputs, now, *names)

    def _destroy(self, locked: LockedImage) -> None:
        """Remove everything made of an image that holds a secret, unless it is what the lock has anyway."""
        kept = {
            name for image in self.session.lock().images.values() for name in (*image.artifacts.values(), image.tree)
        }
        for name in {*locked.artifacts.values(), locked.tree} - kept:
            self.session.store.remove(name)
        if locked.tree not in kept:
            tree_path(self.session.layout, locked.tree).unlink(missing_ok=True)

    def _judge_digest(self, before: LockedImage | None, now: LockedImage) -> None:
        """A bake of the locked key should give the locked digest; say it aloud where it does not."""
        message = judge.other_digest(before, now)
        if message is None:
            return
        if self.session.options.locked:
            where = f"images.lock: image {self.image.name}"
            raise LockMismatchError(message, where=where, hint="bake without --locked")
        self.notes.append(message)
        self.session.listener.note(f"{self.image.name}: {message}")

    def _require_pins(self, broken: Sequence[Package]) -> None:
        if broken:
            raise judge.pins_gone(self.image.name, self.session.base_spec(self.image).name, broken)

    # --- stages and logs

    def _enter(self, stage: str) -> None:
        self.session.listener.stage(self.image.name, stage)
        self.session.run.event("stage", image=self.id, stage=stage)

    @contextmanager
    def _stage(self, stage: str) -> Iterator[None]:
        self._enter(stage)
        began = time.monotonic()
        try:
            yield
        finally:
            self.stage_s[stage] = self.stage_s.get(stage, 0) + time.monotonic() - began
        self.session.run.event("stage-done", image=self.id, stage=stage)

    @contextmanager
    def _keeping_logs(self, values: dict[str, str]) -> Iterator[None]:
        """Keep what provisioning printed in the run's folder, without its secrets."""
        redact = Redactor(values)
        try:
            yield
        finally:
            for name in ("packer.log", "tasks.jsonl", "console.log"):
                with suppress(FileNotFoundError):
                    text = (self.work / name).read_text("utf-8", "replace")
                    (self.logs / f"provision-{name}").write_text(redact(text))
