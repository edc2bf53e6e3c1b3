"""Every query of the product, asked of both servers what it would return."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import psycopg
import pytest
from psycopg import ClientCursor
from sqlalchemy.engine import make_url

from sb.db import columns
from sb.db.queries import Query, load
from sb.db.sqlfiles import sql_root
from tests import servers
from tests.conftest import TEMPLATE

JSON, BOOL, TIME, LOOSE_TIME = 3802, 16, 1184, 1114


@pytest.fixture
def postgres_url(postgres_server: servers.PostgresServer) -> str:
    """The template itself: these tests only look."""
    return postgres_server.url(TEMPLATE)


def described(connection: psycopg.Connection, query: Query) -> list[tuple[str, int]]:
    """Return name and type of each column, as the server plans them; nothing is executed."""
    nothing = dict.fromkeys(query.parameters)
    text = ClientCursor(connection).mogrify(query.sql, nothing)
    prepared = connection.pgconn.prepare(b"", text.encode())
    assert prepared.status == psycopg.pq.ExecStatus.COMMAND_OK, (
        f"{query.name}: {prepared.error_message.decode()}"
    )
    found = connection.pgconn.describe_prepared(b"")
    return [((found.fname(n) or b"").decode(), found.ftype(n)) for n in range(found.nfields)]


def test_postgres_plans_every_query_and_the_convention_tells_its_columns(
    postgres_url: str,
) -> None:
    with psycopg.connect(postgres_url) as connection:
        for query in load(sql_root(), "postgres").values():
            for name, kind in described(connection, query):
                where = f"{query.name}: {name}"
                if query.shape == "scalar":
                    # Nothing converts a scalar on SQLite: it has to be a number or a text there.
                    assert kind not in (JSON, TIME), where
                    continue
                convert = columns.converter_for(name)
                assert (convert is columns.json.loads) == (kind == JSON), where
                assert (convert is bool) == (kind == BOOL), where
                assert (convert == columns.datetime.fromisoformat) == (kind == TIME), where
                assert kind != LOOSE_TIME, where


def test_rows_come_from_queries_that_return_some(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        for query in load(sql_root(), "postgres").values():
            count = len(described(connection, query))
            match query.shape:
                case "count":
                    assert count == 0, query.name
                case "scalar":
                    assert count == 1, query.name
                case "one" | "many":
                    assert count > 0, query.name


def test_sqlite_plans_every_query_and_returns_the_same_columns(
    postgres_url: str, sqlite_url: str
) -> None:
    path = make_url(sqlite_url).database
    compared = 0
    with (
        psycopg.connect(postgres_url) as connection,
        closing(sqlite3.connect(str(path), isolation_level=None)) as lite,
    ):
        twins = load(sql_root(), "postgres")
        for query in load(sql_root(), "sqlite").values():
            nothing = {name: 1 if name == "limit" else None for name in query.parameters}
            lite.execute(f"EXPLAIN {query.sql}", nothing)
            if query.shape not in ("one", "many"):
                continue
            names = lite_names(lite, query, nothing)
            assert names == [n for n, _ in described(connection, twins[query.name])], query.name
            compared += 1
    assert compared > 25


def lite_names(lite: sqlite3.Connection, query: Query, nothing: dict[str, int | None]) -> list[str]:
    # With nothing for every parameter no row matches; what it changes, if anything, is undone.
    lite.execute("BEGIN")
    try:
        return [column[0] for column in lite.execute(query.sql, nothing).description]
    finally:
        lite.execute("ROLLBACK")


def test_every_list_has_a_limit_and_every_query_of_the_time_takes_it() -> None:
    for query in load(sql_root(), "postgres").values():
        text = query.sql.lower()
        if query.shape == "many":
            assert "limit" in text, query.name
        for word in ("now()", "current_timestamp", "current_date", "clock_timestamp", "localtime"):
            assert word not in text, query.name
    for query in load(sql_root(), "sqlite").values():
        for word in ("datetime(", "current_timestamp", "julianday", "strftime", "'now'"):
            assert word not in query.sql.lower(), query.name
