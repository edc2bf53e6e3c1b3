"""Two databases for many tests, put back before each: far quicker than making and opening new ones.

Opening a handle compiles every query, and creating a Postgres database copies a template.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sb.db.engine import Database
from sb.ops.errors import CONSTRAINT_ERRORS
from tests import servers
from tests.conftest import TEMPLATE

__all__ = ["db", "handles", "postgres_url", "recycled_postgres", "recycled_sqlite", "sqlite_url"]

#: What the installation starts with comes back as it was.
SEEDED = ("roles", "workflow_definitions", "policy_rules", "platform_settings")
KEPT = ("schema_migrations",)


@pytest.fixture(scope="session")
def handles() -> Iterator[dict[str, Database]]:
    found: dict[str, Database] = {}
    yield found
    for handle in found.values():
        handle.close()


@pytest.fixture
def db(database_url: str, handles: dict[str, Database]) -> Iterator[Database]:
    if database_url not in handles:
        handles[database_url] = Database.open(
            database_url, pool_size=25, constraint_errors=CONSTRAINT_ERRORS
        )
    yield handles[database_url]
    handles[database_url].close()  # Its connections only: the next test opens new ones.


@pytest.fixture(scope="session")
def recycled_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recycled") / "test.db"


@pytest.fixture
def sqlite_url(sqlite_template: Path, recycled_sqlite: Path) -> str:
    for leftover in recycled_sqlite.parent.glob("test.db*"):
        leftover.unlink()
    shutil.copy(sqlite_template, recycled_sqlite)
    return f"sqlite:///{recycled_sqlite}"


@pytest.fixture(scope="session")
def recycled_postgres(postgres_server: servers.PostgresServer) -> Iterator[tuple[str, str]]:
    """Yield the database's URL and the statements that put it back."""
    name = f"t_{secrets.token_hex(6)}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    url = postgres_server.url(name)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = [table for (table,) in found if table not in KEPT]
        connection.execute(b"CREATE SCHEMA seeded")
        for table in SEEDED:
            connection.execute(f"CREATE TABLE seeded.{table} AS TABLE {table}".encode())
    # Replicas fire no triggers: neither foreign keys nor the audit trail's own stand in the way.
    steps = ["SET session_replication_role = replica"]
    steps += [f"DELETE FROM {table}" for table in tables]
    steps += [f"INSERT INTO {table} TABLE seeded.{table}" for table in SEEDED]
    yield url, "; ".join(steps)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(recycled_postgres: tuple[str, str]) -> str:
    url, put_back = recycled_postgres
    with psycopg.connect(url) as connection:
        connection.execute(put_back.encode())
    return url
