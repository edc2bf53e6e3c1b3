"""Statements of tests, on connections of their own: what an operator types into a shell."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from sqlalchemy.engine import make_url


@contextmanager
def connected(url: str) -> Iterator[Any]:
    """A driver's connection that commits each statement."""
    if url.startswith("postgresql"):
        with psycopg.connect(url, autocommit=True) as connection:
            yield connection
        return
    with closing(sqlite3.connect(str(make_url(url).database), isolation_level=None)) as lite:
        lite.execute("PRAGMA foreign_keys = ON")
        yield lite


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """Return what the statement returns."""
    with connected(url) as connection:
        return list(connection.execute(statement).fetchall())


def execute(url: str, statement: str) -> None:
    """Run one statement."""
    with connected(url) as connection:
        connection.execute(statement)


def tables(url: str) -> set[str]:
    """Return the names of the tables."""
    if url.startswith("postgresql"):
        found = rows(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    else:
        found = rows(url, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return {row[0] for row in found}
