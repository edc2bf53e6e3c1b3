"""Empty databases and raw connections, beside the migrated ones of every test."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sb.db.engine import Database
from sb.db.sqlfiles import sql_root
from tests import servers


@pytest.fixture
def empty_postgres_url(postgres_server: servers.PostgresServer) -> Iterator[str]:
    name = f"e_{secrets.token_hex(6)}"
    postgres_server.execute(f"CREATE DATABASE {name}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("empty_postgres_url"))
    return f"sqlite:///{tmp_path}/empty.db"


@pytest.fixture
def sql_copy(tmp_path: Path) -> Path:
    """A copy of the product's `sql/` that a test may change."""
    return Path(shutil.copytree(sql_root(), tmp_path / "sql"))


@pytest.fixture
def lite(sqlite_url: str) -> Iterator[Database]:
    found = Database.open(sqlite_url, pool_size=4)
    yield found
    found.close()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    found = Database.open(postgres_url, pool_size=4)
    yield found
    found.close()
