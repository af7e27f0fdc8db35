"""Options and fixtures of the whole suite."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("factory", deadline=None)  # these machines are shared: how long an example takes says nothing
settings.load_profile("factory")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-write", action="store_true", help="write the golden files anew")


@pytest.fixture
def golden_write(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    return bool(request.config.getoption("--golden-write"))
