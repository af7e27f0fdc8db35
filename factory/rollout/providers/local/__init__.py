"""Provider `local`: a fleet on this machine. QEMU guests of the golden image behind a real HAProxy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from factory.model import Layout
from factory.rollout.model import FleetSpec
from factory.rollout.providers.local.guests import Guests
from factory.rollout.providers.local.provider import LocalProvider, connect_in
from factory.vm.accel import accelerator
from factory.vm.machine import KVM

_EMULATION = "tcg,thread=single,tb-size=128"
"""Many guests share few cores: one thread each, and a cache of translated code that fits."""


def connect(layout: Layout, fleet: FleetSpec) -> LocalProvider:
    """The provider of a fleet on this machine. Starts nothing."""
    folder = folder_of(layout, fleet.name)
    return connect_in(folder, fleet, Guests(folder, fleet, partial(_accelerator, layout)))


def folder_of(layout: Layout, fleet: str) -> Path:
    """Where all that is a fleet's own lies; its real path is what its processes are tagged with."""
    return layout.state.resolve() / "fleets" / fleet


def _accelerator(layout: Layout) -> str:
    return KVM if accelerator(layout.cache) == KVM else _EMULATION
