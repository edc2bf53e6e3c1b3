"""The world of the operation tests: after each of them no audit row may hold a value."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sb.db.engine import Database
from tests.ops.recycled import (
    db,
    handles,
    postgres_url,
    recycled_postgres,
    recycled_sqlite,
    sqlite_url,
)
from tests.ops.world import PLANTED, World

__all__ = [
    "db",
    "handles",
    "postgres_url",
    "recycled_postgres",
    "recycled_sqlite",
    "sqlite_url",
    "world",
]


@pytest.fixture
def world(db: Database) -> Iterator[World]:
    found = World(db)
    yield found
    events = found.events()
    assert not [event for event in events if PLANTED in repr(event)]
