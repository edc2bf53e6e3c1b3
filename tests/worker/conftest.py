"""The world of the operation tests, for sweeps that run over real rows."""

from __future__ import annotations

from tests.ops.conftest import world
from tests.ops.recycled import (
    db,
    handles,
    postgres_url,
    recycled_postgres,
    recycled_sqlite,
    sqlite_url,
)

__all__ = [
    "db",
    "handles",
    "postgres_url",
    "recycled_postgres",
    "recycled_sqlite",
    "sqlite_url",
    "world",
]
