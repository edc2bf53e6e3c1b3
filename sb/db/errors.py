"""Driver errors in our words: what was violated, what is away, what was busy. Never driver text."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping

import psycopg
from sqlalchemy import exc as sqlalchemy_errors

from sb.errors import (
    ConstraintViolatedError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    InternalError,
    SbError,
)

DRIVER_ERRORS = (psycopg.Error, sqlite3.Error, sqlalchemy_errors.SQLAlchemyError)

_SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)
_UNIQUE = re.compile(r"UNIQUE constraint failed: (.+)")
_CHECK = re.compile(r"CHECK constraint failed: (\w+)")


class SchemaError(Exception):
    """The database's schema is not what this code expects; the message says what to do."""


class DatabaseLockedError(Exception):
    """Another process has the SQLite file; the message says which file and what to do."""


def translate(
    error: Exception,
    *,
    unique_names: Mapping[str, str],
    meanings: Mapping[str, type[SbError]],
) -> SbError:
    """Return our error for a driver's: a named meaning, unavailable, busy, or internal."""
    cause = error
    if isinstance(error, sqlalchemy_errors.DBAPIError) and isinstance(error.orig, Exception):
        cause = error.orig
    if isinstance(cause, psycopg.errors.IntegrityError):
        return _violated(cause.diag.constraint_name or "unnamed", meanings)
    if isinstance(cause, sqlite3.IntegrityError):
        return _violated(_sqlite_constraint(str(cause), unique_names), meanings)
    if _is_busy(cause):
        return DatabaseBusyError(headers={"Retry-After": "1"})
    if _is_unavailable(cause):
        return DatabaseUnavailableError(headers={"Retry-After": "2"})
    return InternalError()


def _violated(name: str, meanings: Mapping[str, type[SbError]]) -> SbError:
    meaning = meanings.get(name)
    return meaning() if meaning is not None else ConstraintViolatedError(name)


def _sqlite_constraint(message: str, unique_names: Mapping[str, str]) -> str:
    if found := _UNIQUE.search(message):
        return unique_names.get(found[1], found[1])
    if found := _CHECK.search(message):
        return found[1]
    return "foreign_key"


def _is_busy(cause: Exception) -> bool:
    if isinstance(
        cause,
        psycopg.errors.QueryCanceled
        | psycopg.errors.LockNotAvailable
        | psycopg.errors.DeadlockDetected
        | psycopg.errors.SerializationFailure,
    ):
        return True
    return _sqlite_code(cause) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _sqlite_code(cause: Exception) -> int | None:
    # The low byte is the code; the rest says more about it.
    code = getattr(cause, "sqlite_errorcode", None) if isinstance(cause, sqlite3.Error) else None
    return None if code is None else int(code) & 0xFF


def _is_unavailable(cause: Exception) -> bool:
    return _sqlite_code(cause) in _SQLITE_AWAY or isinstance(
        cause,
        psycopg.OperationalError
        | psycopg.InterfaceError
        | sqlalchemy_errors.DisconnectionError
        | sqlalchemy_errors.TimeoutError,
    )
