"""A running dev mode that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli import running
from tests.servers import free_port

#: The sweeps' first runs come within their intervals.
OFTEN = {
    f"SB_WORKER_{task}_INTERVAL": "1s"
    for task in (
        "WRAPS_EXPIRED",
        "REQUESTS_EXPIRED",
        "JOBS_RECOVERY",
        "AGENTS_STALE",
        "IDEMPOTENCY_EXPIRED",
    )
}


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Dev]:
    home = tmp_path_factory.mktemp("dev")
    with running.dev(home, home / "data", free_port(), **OFTEN) as found:
        yield found
