"""Fixtures every test shares: throw-away servers, migrated databases, a running control plane."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from sb.clock import utc_now
from sb.db.engine import Database
from sb.ops import bootstrap
from sb.ops.errors import CONSTRAINT_ERRORS
from tests import servers, stack

TEMPLATE = "sb_template"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.PostgresServer]:
    with servers.postgres() as server:
        server.execute(f"CREATE DATABASE {TEMPLATE}")
        _prepare(server.url(TEMPLATE))
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.RedisServer]:
    with servers.redis() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.db"
    _prepare(f"sqlite:///{path}")
    return path


#: Files that take long with few tests. Begun last, one worker would end them alone.
LONGEST = (
    "test_schemathesis.py",
    "test_governance_machine.py",
    "test_request_machine.py",
    "test_enumeration.py",
    "test_plans.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest; all else stays in order."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def _prepare(url: str) -> None:
    db = Database.open(url)
    db.migrate_sync()
    db.run_sync(bootstrap.seed, now=utc_now())
    db.close()


@pytest.fixture
def postgres_url(postgres_server: servers.PostgresServer) -> Iterator[str]:
    name = f"t_{secrets.token_hex(6)}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield postgres_server.url(name)
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    path = tmp_path / "test.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    found = Database.open(database_url, pool_size=25, constraint_errors=CONSTRAINT_ERRORS)
    yield found
    found.close()


@pytest.fixture
async def plane(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path
) -> AsyncIterator[stack.Stack]:
    """A running control plane: SQLite with in-process coordination, Postgres with Redis."""
    redis_url = None
    if database_url.startswith("postgres"):
        redis_url = request.getfixturevalue("redis_server").url
    async with stack.running(database_url, redis_url, tmp_path) as found:
        yield found
