"""The installation that the tests of whole processes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.processes import fleet as fleets
from tests.processes.fleet import Fleet


@pytest.fixture(scope="package")
def _installation() -> Iterator[Fleet]:
    with fleets.running() as found:
        yield found
        # Faults make processes talk: tracebacks, retries and refusals must not tell values either.
        assert not found.leaks()


@pytest.fixture
def fleet(_installation: Fleet) -> Iterator[Fleet]:
    """An installation in which everything is ready, before the test and after it."""
    _installation.wait_ready()
    yield _installation
    _installation.wait_ready()
