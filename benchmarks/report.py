"""What was measured, as a table for a terminal, as JSON, and as the page `docs/benchmarks.md`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import catalog_report
from benchmarks.catalog import Measured as CatalogMeasured
from benchmarks.catalog_load import Load
from benchmarks.clock import Measured, median
from benchmarks.deploy import Deploy
from benchmarks.factory_bake import TO_DISK
from benchmarks.figure import PER_SECOND, Figure
from benchmarks.fleet import PER_SECOND as ASKED_PER_SECOND
from benchmarks.fleet import SIZE, Replaced
from benchmarks.machine import Machine
from benchmarks.rollout import Measured as Rollout
from factory.errors import UsageError

TARGET_TO_DISK = 0.20
TARGET_ALL = 0.45
TARGET_NOTHING_S = 1.0
TARGET_HELP_S = 0.150
TARGET_PEAK_MIB = 200
TARGET_RESOLVE = 8.0
TARGET_RESOLVE_MANY = 1.5
TARGET_TICKETS_PER_S = 500.0
TARGET_ROLLOUT_S = 60.0
TARGET_ROLLOUT_INSTANCE_S = 0.005
TARGET_ROLLOUT_MIB = 300
TARGET_LOST = 0
TARGET_BACK_S = 2


@dataclass(frozen=True)
class Quick:
    """What needs no bake: `factory bake` of `images` unchanged images, `factory --help`, an empty Python program."""

    images: int
    nothing_s: float
    help_s: float
    python_s: float


@dataclass(frozen=True)
class Results:
    """A whole measurement; the two sequences are of the same length, and empty where only the quick part ran.

    `quick_on`, `bakes_on`, `catalog_on`, `load_on`, `rollouts_on`: the days (YYYY-MM-DD) on which the parts were
    measured; `catalog`, `load` None, `rollouts` empty: not.
    """

    machine: Machine
    quick: Quick
    deploy: Deploy
    quick_on: str
    bakes_on: str = ""
    by_hand: Sequence[Measured] = ()
    by_factory: Sequence[Measured] = ()
    catalog_on: str = ""
    catalog: CatalogMeasured | None = None
    load_on: str = ""
    load: Load | None = None
    rollouts_on: str = ""
    rollouts: Sequence[Rollout] = ()
    fleets_on: str = ""
    fleets: Sequence[Replaced] = ()

    def figures(self) -> list[Figure]:
        """The figures, medians of the repetitions."""
        quick = self.quick
        figures = [
            Figure(f"factory bake, {quick.images} images unchanged", quick.nothing_s, "s", TARGET_NOTHING_S),
            Figure("  as a multiple of an empty Python program", quick.nothing_s / quick.python_s, "x"),
            Figure("factory --help", quick.help_s, "s", TARGET_HELP_S),
            Figure("  as a multiple of an empty Python program", quick.help_s / quick.python_s, "x"),
            *_deploy_figures(self.deploy),
            *(() if self.catalog is None else catalog_report.figures(self.catalog)),
            *(() if self.load is None else catalog_report.load_figures(self.load)),
            *(figure for rolled in self.rollouts for figure in _rollout_figures(rolled)),
            *(figure for replaced in self.fleets for figure in _fleet_figures(replaced)),
        ]
        if not self.by_factory:
            return figures
        by_hand = median([run.wall_s for run in self.by_hand])
        to_disk = median([to_disk_s(run) for run in self.by_factory])
        everything = median([run.wall_s for run in self.by_factory])
        by_hand_cpu = median([run.cpu_s for run in self.by_hand])
        return [
            Figure("hand-written Packer, verifies nothing", by_hand, "s"),
            Figure("factory, from render to disk", to_disk, "s"),
            Figure("factory, with boot and checks", everything, "s"),
            Figure("ratio, from render to disk", to_disk / by_hand, "", TARGET_TO_DISK),
            Figure("ratio, with boot and checks", everything / by_hand, "", TARGET_ALL),
            Figure("ratio of processor time, everything", median([r.cpu_s for r in self.by_factory]) / by_hand_cpu, ""),
            Figure(
                "the factory's own peak memory",
                max(run.peak_mib or 0 for run in self.by_factory),
                "MiB",
                TARGET_PEAK_MIB,
            ),
            *figures,
        ]

    def as_json(self) -> dict[str, object]:
        """The document results.json."""
        return {
            "machine": self.machine.as_json(),
            "figures": [
                {"name": f.name.strip(), "value": round(f.value, 4), "unit": f.unit, "target": f.target,
                 "reached": f.reached}
                for f in self.figures()
            ],
            "handwritten": [run.as_json() for run in self.by_hand],
            "factory": [run.as_json() for run in self.by_factory],
            "quick": vars(self.quick),
            "deploy": vars(self.deploy),
            "catalog": None if self.catalog is None else catalog_report.as_json(self.catalog),
            "load": None if self.load is None else vars(self.load),
            "rollouts": [vars(rolled) for rolled in self.rollouts],
            "fleets": [vars(replaced) for replaced in self.fleets],
            "measured": {"quick": self.quick_on, "bakes": self.bakes_on, "catalog": self.catalog_on,
                         "load": self.load_on, "rollouts": self.rollouts_on, "fleets": self.fleets_on},
        }  # fmt: skip


def stored(entry: Mapping[str, Any], machine: Machine) -> Results:
    """The results of an earlier results.json. UsageError where it is of another machine.

    Figures of two machines say nothing beside each other.
    """
    before = Machine(**entry["machine"])
    if before != machine:
        raise UsageError(f"the rest was measured on another machine: {before}", hint="measure everything: make bench")
    by_hand, by_factory = (tuple(map(Measured.from_json, entry[key])) for key in ("handwritten", "factory"))
    catalog, load, on = entry.get("catalog"), entry.get("load"), entry["measured"]
    return Results(
        machine, Quick(**entry["quick"]), Deploy(**entry["deploy"]), on["quick"], on["bakes"], by_hand, by_factory,
        on.get("catalog", ""), None if catalog is None else catalog_report.from_json(catalog),
        on.get("load", ""), None if load is None else Load(**load),
        on.get("rollouts", ""), tuple(Rollout(**rolled) for rolled in entry.get("rollouts", ())),
        on.get("fleets", ""), tuple(Replaced(**replaced) for replaced in entry.get("fleets", ())),
    )  # fmt: skip


def _deploy_figures(deploy: Deploy) -> list[Figure]:
    many, images = "factory resolve --frozen", f"{deploy.images} images locked"
    return [
        Figure(f"{many}, one image locked", deploy.one_s, "s"),
        Figure("  as a multiple of an empty Python program", deploy.one_s / deploy.python_s, "x", TARGET_RESOLVE),
        Figure(f"{many}, {images}", deploy.many_s, "s"),
        Figure("  against one image locked", deploy.many_s / deploy.one_s, "", TARGET_RESOLVE_MANY),
        Figure(f"{many}, {images}, from a channel of as many", deploy.channel_s, "s"),
        Figure(f"tickets of {deploy.checks} checks verified", deploy.tickets_per_s, PER_SECOND, TARGET_TICKETS_PER_S),
    ]


def _rollout_figures(rolled: Rollout) -> list[Figure]:
    return [
        Figure(
            f"rollout: {rolled.instances} simulated instances, {rolled.strategy}", rolled.wall_s, "s", TARGET_ROLLOUT_S
        ),
        Figure("  the engine's own time for an instance", rolled.per_instance_s, "s", TARGET_ROLLOUT_INSTANCE_S),
        Figure("  peak memory", rolled.peak_mib, "MiB", TARGET_ROLLOUT_MIB),
    ]


def _fleet_figures(replaced: Replaced) -> list[Figure]:
    figures = [
        Figure(
            f"{SIZE} guests replaced, {replaced.strategy}, {replaced.direction}: lost of {replaced.requests}",
            replaced.lost, "requests", TARGET_LOST,
        )
    ]  # fmt: skip
    if replaced.back_s is not None:
        figures.append(
            Figure("  from the verdict to all traffic on the old, at most", replaced.back_s, "s", TARGET_BACK_S)
        )
    return figures


def to_disk_s(run: Measured) -> float:
    """Seconds of a bake from render to disk."""
    return sum(run.stages.get(stage, 0) for stage in TO_DISK)


def one(run: Measured) -> str:
    """One measurement on one line."""
    stages = "  ".join(f"{name} {seconds:.1f}" for name, seconds in run.stages.items())
    return f"{run.wall_s:.1f} s (processors {run.cpu_s:.1f} s, load before {run.load:.1f}):  {stages}"


def table(results: Results) -> str:
    """The figures for a terminal."""
    rows = [(figure.name, *figure.cells) for figure in results.figures()]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
    return "\n".join([str(results.machine), "", *lines])


def document(results: Results) -> str:
    """The page docs/benchmarks.md."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; the figures are medians. The machine:",
        f"{results.machine}.",
        f"The bakes were measured on {results.bakes_on}, all the rest (start-up, `factory resolve`, tickets) on",
        f"{results.quick_on}; `.venv/bin/python -m benchmarks.run --quick --merge` measures that rest anew, and with",
        "`--catalog`, `--load` or `--rollouts` in place of `--quick` the catalog, many processes at one, or rollouts.",
        "",
        "| | | target | |",
        "| --- | ---: | --- | --- |",
        *("| " + " | ".join((figure.name.strip(), *figure.cells)) + " |" for figure in results.figures()),
        "",
        "## What is compared",
        "",
        "Both bake `web` from the same playbook and variables on the finished disk of `hardened`, in turns.",
        "",
        "- By hand: `benchmarks/handwritten/web.pkr.hcl`, Packer's `qemu` builder and `ansible` provisioner. It has",
        "  what the factory has: accelerator, cores, memory, a warm package cache, no syncing to the disk, an ed25519",
        "  key through the firmware; and pipelining, one kept connection, no proxy, a copy-on-write layer instead of a",
        "  copy. Packer's own compression (zlib) is off; `qemu-img` packs the disk with zstd. It verifies nothing.",
        "- The factory: `factory bake web --force`. From render to disk are the stages base, provision, seal and disk,",
        "  the digest and its proof from the stored file included. With boot and checks is the whole command.",
        "",
        "A deploy job: `factory resolve web --frozen` is a whole process, from start to end, in turns with an empty",
        "Python program and with the other resolves; `web` is the last image of the lock. Every image there has 40",
        f"packages; 20 images are revoked. A ticket is of {results.deploy.checks} checks and a playbook of 40 files,",
        "has three Ed25519 signatures, and is loaded and verified in one process, as are a thousand others.",
        "",
        *([] if results.catalog is None else catalog_report.document(results.catalog, results.catalog_on)),
        *([] if results.load is None else catalog_report.load_document(results.load, results.load_on)),
        *(_about_rollouts(results) if results.rollouts else []),
        *(_about_fleets(results) if results.fleets else []),
        "## Each run",
        "",
        "Seconds. Processor time is that of all processes; load is that of the machine just before.",
        "",
        *_runs("hand-written Packer", results.by_hand),
        *_runs("factory", results.by_factory),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _about_rollouts(results: Results) -> list[str]:
    turns = ", ".join(f"{rolled.turns} turns ({rolled.strategy})" for rolled in results.rollouts)
    return [
        f"Rollouts, measured on {results.rollouts_on}: a fleet is replaced by as many instances of another image, in a",
        f"process of its own, by the product's engine, machine, catalog and log: {turns}. Machines and clock are the",
        "simulator's of the tests; its own time is in the first figure, not in the engine's. Each instance is asked",
        "for its health once a second, and answers at once. The canary has five steps, with an analysis in four and an",
        "instance of the old image to compare with; the rolling one replaces a twentieth of the fleet at a time.",
        "",
    ]


def _about_fleets(results: Results) -> list[str]:
    took = ", ".join(f"{one.strategy} {one.direction} {one.wall_s:.0f} s" for one in results.fleets)
    return [
        f"Real guests, measured on {results.fleets_on}: a local fleet of {SIZE}, each of a tiny image in QEMU without",
        f"KVM, behind HAProxy, is replaced by the command line under {ASKED_PER_SECOND:.0f} requests a second: a new",
        "connection each, no retries, 10 s time-out. It goes back by an analysis whose source turns bad once the new",
        f"image has half of the traffic. The rollouts took: {took}.",
        "",
    ]


def _runs(title: str, runs: Sequence[Measured]) -> list[str]:
    if not runs:
        return []
    names = list(dict.fromkeys(name for run in runs for name in run.stages))
    lines = [
        f"| {title} | " + " | ".join(names) + " | all | processors | load |",
        "| --- |" + " ---: |" * (len(names) + 3),
    ]
    for number, run in enumerate(runs, 1):
        cells = [f"{run.stages.get(name, 0):.1f}" for name in names]
        cells += [f"{run.wall_s:.1f}", f"{run.cpu_s:.1f}", f"{run.load:.1f}"]
        lines.append(f"| {number} | " + " | ".join(cells) + " |")
    return [*lines, ""]
