"""Forward-only migrations, applied under a lock, each in one transaction, with checksums."""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from sb.clock import utc_now
from sb.db.columns import to_text_time
from sb.db.errors import SchemaError

_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
#: One number for everybody who migrates this product's schema in a Postgres database.
_ADVISORY_LOCK = 0x5EC2E75B
_TABLE = {
    "postgres": """CREATE TABLE IF NOT EXISTS schema_migrations (
        version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
        applied_at timestamptz NOT NULL)""",
    "sqlite": """CREATE TABLE IF NOT EXISTS schema_migrations (
        version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL,
        applied_at TEXT NOT NULL) STRICT""",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load(root: Path, dialect: str) -> list[Migration]:
    """Return the dialect's migrations in order; numbers run from 1 without gaps."""
    found: list[Migration] = []
    for path in sorted((root / "migrations" / dialect).glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None or int(match[1]) != len(found) + 1:
            msg = f"{path}: migrations are named NNNN_name.sql and numbered without gaps"
            raise SchemaError(msg)
        found.append(Migration(version=int(match[1]), name=match[2], sql=path.read_text()))
    return found


def newest(root: Path, dialect: str) -> int:
    """Return the number of the newest migration this code carries."""
    return len(load(root, dialect))


def version(connection: Any, dialect: str) -> int:
    """Return the newest applied migration's number; 0 for an empty database."""
    cursor = connection.cursor()
    exists = (
        "SELECT to_regclass('schema_migrations') IS NOT NULL"
        if dialect == "postgres"
        else "SELECT count(*) FROM sqlite_master WHERE name = 'schema_migrations'"
    )
    cursor.execute(exists)
    if not cursor.fetchone()[0]:
        return 0
    cursor.execute("SELECT coalesce(max(version), 0) FROM schema_migrations")
    return int(cursor.fetchone()[0])


def apply(connection: Any, dialect: str, root: Path) -> list[str]:
    """Apply what is missing and return the names; a changed or unknown migration stops it."""
    migrations = load(root, dialect)
    if isinstance(connection, psycopg.Connection):
        return _apply_postgres(connection, migrations)
    return _apply_sqlite(connection, migrations)


def _apply_postgres(connection: psycopg.Connection[Any], migrations: list[Migration]) -> list[str]:
    connection.rollback()
    connection.autocommit = True
    (encoding,) = connection.execute("SHOW server_encoding").fetchone() or ("",)
    if encoding != "UTF8":
        msg = f"the database's encoding is {encoding}; create one with ENCODING 'UTF8'"
        raise SchemaError(msg)
    # Another replica may be at work for minutes; statements of a migration may be long too.
    connection.execute("SET statement_timeout = '5min'")
    connection.execute("SET lock_timeout = '5min'")
    connection.execute("SELECT pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
    try:
        connection.execute(_TABLE["postgres"])
        applied: list[str] = []
        for migration in _missing(connection.cursor(), migrations):
            with connection.transaction():
                connection.execute(migration.sql.encode())
                connection.execute(
                    "INSERT INTO schema_migrations VALUES (%s, %s, %s, %s)",
                    (migration.version, migration.name, migration.checksum, utc_now()),
                )
            applied.append(migration.name)
        return applied
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (_ADVISORY_LOCK,))


def _apply_sqlite(connection: sqlite3.Connection, migrations: list[Migration]) -> list[str]:
    connection.execute("PRAGMA query_only = OFF")  # as a transaction that read may have left it
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_TABLE["sqlite"])
        applied: list[str] = []
        for migration in _missing(connection.cursor(), migrations):
            for statement in _statements(migration.sql):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_migrations VALUES (?, ?, ?, ?)",
                (migration.version, migration.name, migration.checksum, to_text_time(utc_now())),
            )
            applied.append(migration.name)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    return applied


def _statements(sql: str) -> Iterator[str]:
    """Yield one statement at a time; a trigger's inner semicolons do not end it."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    # What ends in a comment or in nothing is a statement too, whole or not: SQLite decides.
    if pending.strip():
        yield pending


def _missing(cursor: Any, migrations: list[Migration]) -> list[Migration]:
    cursor.execute("SELECT version, name, checksum FROM schema_migrations ORDER BY version")
    applied = cursor.fetchall()
    for number, name, checksum in applied:
        if number > len(migrations):
            msg = (
                f"the database is at migration {number} ({name}), newer than this code's "
                f"{len(migrations)}: run the newer release"
            )
            raise SchemaError(msg)
        if migrations[number - 1].checksum != checksum:
            msg = f"migration {number} ({name}) was changed after it was applied; restore its file"
            raise SchemaError(msg)
    return migrations[len(applied) :]
