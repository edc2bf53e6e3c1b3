"""What hostile-input tests share: the shape of a refusal, every row of a database, what leaked."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy.engine import make_url

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.declare import REGISTRY, Agent, Public, RouteDeclaration
from sb.http.routes import load_all
from sb.log import JsonFormatter
from sb.ops import grants
from tests.stack import Person, RawAgent, Stack

PLANTED = "planted-value-5e1d"
MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
#: Loggers of the test's own HTTP client.
CLIENT = ("httpx", "httpcore")

load_all()
ROUTES: tuple[RouteDeclaration, ...] = tuple(REGISTRY)


def refused(answer: httpx.Response, status: int, *codes: str) -> dict[str, Any]:
    """Return the body of a refusal after checking its status, code, shape and headers."""
    where = f"{answer.request.method} {answer.request.url.path[:120]}: {answer.text[:300]}"
    assert answer.status_code == status, f"{answer.status_code} not {status}: {where}"
    assert answer.headers["content-type"] == "application/json", where
    assert answer.headers["cache-control"] == "no-store", where
    assert answer.headers["x-content-type-options"] == "nosniff", where
    body: dict[str, Any] = answer.json()
    assert body["error"] in codes, where
    assert re.fullmatch(r"[a-z0-9_]+", body["error"]), where
    assert body["message"], where
    assert body["request_id"] == answer.headers["x-request-id"], where
    assert PLANTED not in answer.text, where
    return body


def dump(url: str, *, without: tuple[str, ...] = ("audit_events",)) -> dict[str, list[Any]]:
    """Return every row of every table but those named, as the database holds them."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(make_url(url).database or "")) as lite:
            names = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            tables = [name for (name,) in lite.execute(names)]
            return {
                name: sorted(map(repr, lite.execute(f'SELECT * FROM "{name}"')))
                for name in tables
                if name not in without
            }
    with psycopg.connect(url) as connection:
        names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        tables = [name for (name,) in connection.execute(names.encode())]
        return {
            name: sorted(map(repr, connection.execute(f'SELECT * FROM "{name}"'.encode())))
            for name in tables
            if name not in without
        }


def change(url: str, statement: str) -> None:
    """Do to the database what no route does."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(make_url(url).database or "", timeout=5)) as lite, lite:
            assert lite.execute(statement).rowcount > 0, statement
        return
    with psycopg.connect(url) as connection:
        assert connection.execute(statement.encode()).rowcount > 0, statement


@asynccontextmanager
async def nothing_changes(url: str) -> AsyncIterator[None]:
    """Fail when any row but those of the audit trail differs afterwards."""
    before = dump(url)
    assert "access_requests" in before
    yield
    after = dump(url)
    changed = {name for name in before if before[name] != after[name]}
    assert not changed, changed


def logged(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    """Yield every record as the process would print it and as Python would."""
    ours, plain = JsonFormatter("test"), logging.Formatter()
    for record in caplog.records:
        if record.name.partition(".")[0] not in CLIENT:
            yield ours.format(record)
            yield f"{plain.format(record)} {getattr(record, 'fields', '')}"


def assert_unseen(value: str, caplog: pytest.LogCaptureFixture, url: str) -> None:
    """Fail when the value stands in a log line or in any row, the audit trail's included."""
    for line in logged(caplog):
        assert value not in line, line
    for table, rows in dump(url, without=()).items():
        assert not [row for row in rows if value in row], table


def unlimited(plane: Stack) -> None:
    """Lift every rate limit, for tests that call one route hundreds of times."""
    buckets = {route.limit.bucket for route in ROUTES if route.limit is not None}
    limits: Any = plane.state.rate_limits
    limits.update(dict.fromkeys(buckets | {"agent:auth-fail"}, 1_000_000))


def path_of(route: RouteDeclaration, *, agent_id: str = MISSING, any_id: str = MISSING) -> str:
    """Return the route's path with ids in it; an agent's own routes get that agent's."""
    path = route.path
    if isinstance(route.access, Agent):
        path = path.replace("<id:agent_id>", agent_id)
    return "/api/v1" + re.sub(r"<id:\w+>", any_id, path)


class Callers:
    """One client per kind of access, so that a test can walk over every route there is."""

    def __init__(self, admin: Person, agent: RawAgent, nobody: httpx.AsyncClient) -> None:
        self.admin, self.agent, self.nobody = admin, agent, nobody

    def of(self, route: RouteDeclaration) -> httpx.AsyncClient:
        """Return the client that may call this route."""
        if isinstance(route.access, Public):
            return self.nobody
        return self.agent.http if isinstance(route.access, Agent) else self.admin.http


@asynccontextmanager
async def callers(plane: Stack) -> AsyncIterator[Callers]:
    """Return an administrator, an enrolled agent and a stranger, none of them rate limited.

    The administrator writes scoped rules too, so that every route lets them past its first check.
    """
    unlimited(plane)
    admin = await plane.person("admin", "admin")
    await plane.db.run(_add_role, user_id=admin.id, name="policy_author")
    agent = await plane.enroll(await plane.connection())
    async with httpx.AsyncClient(base_url=plane.url, timeout=30) as nobody:
        yield Callers(admin, agent, nobody)


def _add_role(tx: Transaction, *, user_id: str, name: str) -> None:
    role = tx.one("role_find_by_name", name=name)
    assert role is not None
    grants.give(
        tx, user_id=user_id, role_id=role["id"], scope={}, granted_by="system:test", now=utc_now()
    )
