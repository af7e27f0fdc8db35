"""The provider `local` with a program in QEMU's place, as factory/rollout/providers expects a provider's module."""

from __future__ import annotations

import fake_qemu

from factory.model import Layout
from factory.rollout.model import FleetSpec
from factory.rollout.providers.local import folder_of
from factory.rollout.providers.local.guests import Guests
from factory.rollout.providers.local.provider import LocalProvider, connect_in

NAME = "faked_local"


def connect(layout: Layout, fleet: FleetSpec) -> LocalProvider:
    """The fleet, as it runs."""
    folder = folder_of(layout, fleet.name)
    return connect_in(folder, fleet, Guests(folder, fleet, lambda: "tcg", fake_qemu.command))
