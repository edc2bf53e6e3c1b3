"""A running dev mode that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sb.db.engine import Database
from tests.cli import running
from tests.cli.governed import Governed
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
        "SESSIONS_PURGE",
        "ENROLLMENT_TOKENS",
    )
}


@pytest.fixture(scope="session")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Dev]:
    home = tmp_path_factory.mktemp("dev")
    with running.dev(home, home / "data", free_port(), **OFTEN) as found:
        yield found


@pytest.fixture
def governed(postgres_url: str) -> Iterator[Governed]:
    """An installation with its first administrator, and nothing else."""
    db = Database.open(postgres_url)
    yield Governed(postgres_url, db)
    db.close()
