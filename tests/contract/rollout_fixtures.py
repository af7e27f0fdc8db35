"""What tests of the rollout commands share."""

from __future__ import annotations

import pytest
import simulated_local
from rollout_factory import Shop

from factory.cli import rollout, rollout_live
from factory.rollout import providers


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fleets of the provider `local` are simulated, nobody has a key, and who follows a rollout looks often."""
    monkeypatch.setitem(providers.KINDS, "local", simulated_local.NAME)
    monkeypatch.delenv("FACTORY_KEY", raising=False)
    for module in (rollout, rollout_live):
        monkeypatch.setattr(module, "LOOK_S", 0.1)


@pytest.fixture(scope="module")
def template() -> list[Shop]:
    """Where the factory is kept that others are copied from, once it is made."""
    return []
