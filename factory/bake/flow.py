"""`factory bake` as a whole: assess every image, then bake those that need it, parents first, several at a time.

With nothing to do it reads three files and opens nothing else. One failing image does not stop the others; its
children are skipped, and say why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial

from factory import lockfile, proc, spec
from factory.bake import assess, journal, reaper
from factory.bake.options import Listener, Options
from factory.bake.plan import UNCHANGED
from factory.bake.report import ImageResult, Report
from factory.catalog.pending import pending
from factory.errors import InterruptedRunError
from factory.model import FactorySpec, ImageSpec, Layout, Lock
from factory.release import vouching


def bake(layout: Layout, options: Options, listener: Listener) -> Report:
    """Bake what changed. Raises SpecError, LockError, UsageError; failures of images are in the report."""
    factory, images, notes = _read(layout, options, listener)
    if not options.refresh:
        lock = lockfile.read(layout.lock)
        counts = vouching.read(layout)
        assessments = _assess(layout, factory, images, lock, options, counts)
        if all(found.decision.action == UNCHANGED for found in assessments.values()):
            notes += _withdrawn(counts, images, lock)
            if reaper.is_needed(layout):
                notes += tuple(reaper.reap(layout))
            for note in notes:
                listener.note(note)
            done = tuple(assess.unchanged(layout, image, lock) for image in images)
            return Report(None, done, notes)
    return _bake(layout, factory, images, options, listener, notes)


def plan(layout: Layout, options: Options, listener: Listener) -> list[tuple[ImageSpec, assess.Assessment]]:
    """What `bake` would do, without doing any of it."""
    factory, images, _ = _read(layout, options, listener)
    found = _assess(layout, factory, images, lockfile.read(layout.lock), options, vouching.read(layout))
    return [(image, found[image.name]) for image in images]


def _assess(
    layout: Layout,
    factory: FactorySpec,
    images: Sequence[ImageSpec],
    lock: Lock,
    options: Options,
    counts: vouching.Vouching,
) -> dict[str, assess.Assessment]:
    forced = _forced(options, images)
    return assess.all_images(layout, factory, images, lock, force=forced, objection=counts.objection)


def _read(layout: Layout, options: Options, listener: Listener) -> tuple[FactorySpec, list[ImageSpec], tuple[str, ...]]:
    """images.toml, the images asked for with their ancestors, and what was mended after a killed run."""
    factory = spec.load(layout.root)
    images = assess.with_ancestors(factory, spec.select(factory, options.names))
    notes: tuple[str, ...] = ()
    if pending(layout.catalog):
        from factory.catalog.database import Catalog
        from factory.catalog.record import recover
        from factory.release import attest
        from factory.release.signing import Signing

        signing = Signing.open(layout, key=options.key, ask=options.ask, say=listener.note)
        with Catalog.open(layout.catalog) as catalog:
            notes = tuple(recover(catalog, layout, partial(attest.publish, layout, signing, listener.note)))
    return factory, images, notes


def _withdrawn(counts: vouching.Vouching, images: Sequence[ImageSpec], lock: Lock) -> tuple[str, ...]:
    """What is to be said of locked images that may not run: they, or ancestors, are revoked."""
    locked = (lock.images.get((image.name, image.arch)) for image in images)
    said = ((image.name, counts.withdrawal(image)) for image in locked if image is not None)
    return tuple(f"{name}: {reason}" for name, reason in said if reason is not None)


def _forced(options: Options, images: Sequence[ImageSpec]) -> frozenset[str]:
    """The names that --force bakes whatever their key: those asked for, or all."""
    if not options.force:
        return frozenset()
    return frozenset(name.partition("/")[0] for name in options.names) or frozenset(image.name for image in images)


def _bake(
    layout: Layout,
    factory: FactorySpec,
    images: Sequence[ImageSpec],
    options: Options,
    listener: Listener,
    notes: tuple[str, ...],
) -> Report:
    from factory.bake.image import ImageBake  # with Packer, QEMU, the catalog: not for a bake of nothing
    from factory.bake.session import Session
    from factory.release import attest

    with journal.Run(layout, options.command) as run:
        notes += tuple(reaper.reap(layout))
        for note in notes:
            listener.note(note)
        with Session.open(layout, factory, run, listener, options) as session:
            attest.ready(layout, session.signing)
            if options.refresh:
                notes += tuple(session.refresh(images))
            forced = _forced(options, images)
            results = _in_order(
                images,
                lambda image: ImageBake(session, image, forced=image.name in forced).result(),
                jobs=options.jobs,
                listener=listener,
            )
            ends = (
                *attest.renew_heads(layout, session.signing),
                *_withdrawn(vouching.read(layout), images, session.lock()),
            )
            for note in ends:
                listener.note(note)
            notes += ends
            report = Report(run.id, tuple(results[image.name] for image in images), notes)
            session.finish(report.exit_code)
            return report


def _in_order(
    images: Sequence[ImageSpec],
    one: Callable[[ImageSpec], ImageResult],
    *,
    jobs: int,
    listener: Listener,
) -> dict[str, ImageResult]:
    """Call `one` for each image once its parent is done, `jobs` at a time; children of failures are skipped."""
    results: dict[str, ImageResult] = {}
    waiting = list(images)
    running: dict[Future[ImageResult], ImageSpec] = {}

    def settle(result: ImageResult) -> None:
        results[result.image.name] = result
        detail = result.error.message.splitlines()[0] if result.error else "; ".join(result.reasons)
        listener.done(result.image.name, result.status, detail)

    def start(pool: ThreadPoolExecutor) -> None:
        for image in list(waiting):
            parent = results.get(image.base) if image.layered else None
            if image.layered and parent is None:
                continue
            waiting.remove(image)
            if parent is not None and not parent.is_done:
                settle(ImageResult(image, "skipped", reasons=(f"its parent {image.base} {_past(parent)}",)))
                return start(pool)
            running[pool.submit(one, image)] = image
        return None

    with ThreadPoolExecutor(max_workers=max(jobs, 1), thread_name_prefix="bake") as pool:
        try:
            start(pool)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    running.pop(future)
                    settle(future.result())
                start(pool)
        except KeyboardInterrupt:
            proc.stop_all()
            pool.shutdown(cancel_futures=True)
            raise InterruptedRunError(
                "interrupted", hint="nothing half-made was recorded; the next bake goes on from the last finished stage"
            ) from None
    return results


def _past(parent: ImageResult) -> str:
    return "failed" if parent.status == "failed" else "was skipped"
