"""Options and fixtures of the whole suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from factory import files

pytest_plugins = ["rollout_fixtures"]

# No deadline: these machines are shared, and how long an example takes says nothing. Always the same examples, so that
# whether a change may land does not depend on luck; what luck finds is looked for by `make soak`, which takes the other
# profile (--hypothesis-profile soak) with a seed that it tells.
settings.register_profile("factory", deadline=None, derandomize=True)
settings.register_profile("soak", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("factory")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-write", action="store_true", help="write the golden files anew")


@pytest.fixture
def golden_write(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    return bool(request.config.getoption("--golden-write"))


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """No other module has guests under load meanwhile: where all is emulated on few cores, those that boot in one test
    take from those that serve in another until they answer too late."""
    with files.exclusive(Path(__file__).parent.parent / ".factory/cache/tests/guests.lock"):
        yield
