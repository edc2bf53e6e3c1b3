"""The database handle: a whole transaction in one worker thread, on pooled connections.

SQLAlchemy gives the URL, the pool and the dialect; statements run on the driver's own cursor,
because compiling them once at load costs a third less CPU per transaction.
"""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import psycopg
import trio
from sqlalchemy.engine import make_url
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from sb.clock import monotonic
from sb.db import columns, lockfile, migrate, postgres, queries
from sb.db.errors import DRIVER_ERRORS, translate
from sb.db.pools import Setup, open_pool
from sb.db.queries import DialectName, Query
from sb.db.sqlfiles import sql_root as default_sql_root
from sb.errors import DatabaseUnavailableError, SbError
from sb.threads import run_blocking

P = ParamSpec("P")
T = TypeVar("T")
Row = Mapping[str, Any]
#: Looks at something in an open transaction and raises where it is not what it should be.
Watch: TypeAlias = "Callable[[Transaction], None]"


class Transaction:
    """One open transaction: named queries, called with exactly the parameters they name."""

    __slots__ = ("_cursor", "_queries", "answered", "dialect", "watch")

    def __init__(
        self,
        cursor: Any,
        found: Mapping[str, Query],
        dialect: DialectName,
        watch: Watch | None = None,
    ) -> None:
        self._cursor = cursor
        self._queries = found
        self.dialect = dialect
        #: Looks before each statement up to the first that changes something.
        self.watch = watch
        #: Whether the database has answered anything in this transaction.
        self.answered = False

    def one(self, name: str, /, **params: Any) -> Row | None:
        """Return the first row, or None."""
        self._execute(name, "one", params)
        row = self._cursor.fetchone()
        return None if row is None else self._rows([row])[0]

    def many(self, name: str, /, **params: Any) -> list[Row]:
        """Return every row the query's own limit lets through."""
        self._execute(name, "many", params)
        return self._rows(self._cursor.fetchall())

    def scalar(self, name: str, /, **params: Any) -> Any:
        """Return the first column of the first row, or None."""
        self._execute(name, "scalar", params)
        row = self._cursor.fetchone()
        return None if row is None else row[0]

    def count(self, name: str, /, **params: Any) -> int:
        """Return how many rows the statement changed."""
        self._execute(name, "count", params)
        return int(self._cursor.rowcount)

    def _execute(self, name: str, shape: str, params: dict[str, Any]) -> None:
        query = self._queries.get(name)
        if query is None:
            msg = f"there is no query {name!r}"
            raise TypeError(msg)
        if query.shape != shape:
            msg = f"{name} is a :{query.shape} query, called as :{shape}"
            raise TypeError(msg)
        if params.keys() != query.parameters:
            msg = f"{name} takes {sorted(query.parameters)}, got {sorted(params)}"
            raise TypeError(msg)
        self._look(shape)
        self._cursor.execute(query.sql, columns.adapt(params))
        self.answered = True

    def _look(self, shape: str) -> None:
        """Let the watch look before the statement; what it asks itself is not watched."""
        if self.watch is None:
            return
        watch, self.watch = self.watch, None
        watch(self)
        # What it would see after the first change may be this transaction's own doing.
        if shape != "count":
            self.watch = watch

    def _rows(self, rows: list[tuple[Any, ...]]) -> list[Row]:
        names = [column[0] for column in self._cursor.description]
        if self.dialect == "postgres":
            return [dict(zip(names, row, strict=True)) for row in rows]
        converters = [columns.converter_for(name) for name in names]
        return [
            {
                name: value if value is None or convert is None else convert(value)
                for name, value, convert in zip(names, row, converters, strict=True)
            }
            for row in rows
        ]


class Database:
    """Pooled connections to one database, with its queries and its migrations."""

    def __init__(
        self,
        setup: Setup,
        *,
        constraint_errors: Mapping[str, type[SbError]],
        root: Path,
        lock: IO[str] | None,
    ) -> None:
        self.dialect = setup.dialect
        self.sql_root = root
        self._engine = open_pool(setup)
        self._queries = queries.load(root, setup.dialect)
        self._constraint_errors = constraint_errors
        self._unique_names: Mapping[str, str] = {}
        self._lock = lock
        self._watch: Watch | None = None
        self._observe_wait: Callable[[float], None] = lambda _seconds: None
        # SQLite has one writer: waiting here costs nothing, waiting in its busy handler does.
        self._writers = trio.CapacityLimiter(1 if setup.dialect == "sqlite" else setup.pool_size)
        self._readers = (
            trio.CapacityLimiter(max(1, setup.pool_size - 1))
            if setup.dialect == "sqlite"
            else self._writers
        )

    @classmethod
    def open(
        cls,
        url: str,
        *,
        pool_size: int = 10,
        statement_timeout_ms: int = 5000,
        lock_timeout_ms: int = 2000,
        pool_recycle_seconds: int = 1800,
        constraint_errors: Mapping[str, type[SbError]] | None = None,
        sql_root: Path | None = None,
        exclusive: bool = False,
    ) -> Database:
        """Return a handle that connects when first used; `exclusive` holds a SQLite file's lock."""
        parsed = make_url(url)
        dialect: DialectName = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgres"
        lock = None
        if dialect == "sqlite" and exclusive:
            lock = lockfile.hold(Path(parsed.database or ""))
        if dialect == "postgres":
            parsed = parsed.set(drivername="postgresql+psycopg")
        return cls(
            Setup(
                url=parsed,
                dialect=dialect,
                pool_size=pool_size,
                statement_timeout_ms=statement_timeout_ms,
                lock_timeout_ms=lock_timeout_ms,
                pool_recycle_seconds=pool_recycle_seconds,
            ),
            constraint_errors=constraint_errors or {},
            root=sql_root or default_sql_root(),
            lock=lock,
        )

    async def run(
        self, op: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what the operation returns, committed; if it raises, nothing happened.

        A cancelled caller waits for the statement under way; statement timeouts bound that wait.
        """
        call = partial(self._do, op, args, kwargs, writes=True, asked_at=monotonic())
        return await run_blocking(call, limiter=self._writers)

    async def read(
        self, op: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what the operation reads, from one consistent transaction that changes nothing."""
        call = partial(self._do, op, args, kwargs, writes=False, asked_at=monotonic())
        return await run_blocking(call, limiter=self._readers)

    def run_sync(
        self, op: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do what `run` does in the calling thread."""
        return self._do(op, args, kwargs, writes=True, asked_at=monotonic())

    def read_sync(
        self, op: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Do what `read` does in the calling thread."""
        return self._do(op, args, kwargs, writes=False, asked_at=monotonic())

    def _do(
        self,
        op: Callable[..., T],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        writes: bool,
        asked_at: float,
    ) -> T:
        unheard = Transaction(None, {}, self.dialect)
        for last_attempt in (False, True):
            tx = unheard
            try:
                with self._transaction(writes=writes) as tx:
                    self._observe_wait(monotonic() - asked_at)
                    result = op(tx, *args, **kwargs)
                # What is done stays done: nobody may begin anew what has changed something.
                self._watch = tx.watch
                return result
            except DatabaseUnavailableError:
                # A pooled connection that was cut at this moment: nothing has begun, so begin anew.
                if last_attempt or tx is unheard or tx.answered:
                    raise
        raise AssertionError("unreachable")

    def watched(self, watch: Watch) -> Database:
        """Return a handle on the same connections whose transactions are watched.

        The watch looks before every statement up to the first that changes something, so also at
        what changed while a lock was waited for. Nothing is watched after a change is committed.
        """
        found = copy.copy(self)
        found._watch = watch
        return found

    def observe_waits(self, observe: Callable[[float], None]) -> None:
        """Tell this function the seconds each transaction waits for a thread and a connection."""
        self._observe_wait = observe

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Transaction]:
        try:
            connection = self._engine.raw_connection()
            try:
                cursor = _begin(connection, writes=writes)
                yield Transaction(cursor, self._queries, self.dialect, self._watch)
                _finish(connection, "commit")
            except DRIVER_ERRORS as problem:
                _discard_if_broken(connection, problem)
                raise
            finally:
                connection.close()  # Back to the pool, which rolls back whatever is open.
        except DRIVER_ERRORS as problem:
            raise self._translated(problem) from problem

    def _translated(self, problem: Exception) -> SbError:
        if isinstance(problem, sqlite3.IntegrityError) and not self._unique_names:
            self._unique_names = self._read_unique_names()
        return translate(problem, unique_names=self._unique_names, meanings=self._constraint_errors)

    def _read_unique_names(self) -> Mapping[str, str]:
        # SQLite names the columns of a violated unique index, never the index.
        connection = self._engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute(
                "SELECT m.name, m.tbl_name FROM sqlite_master AS m WHERE m.type = 'index'"
            )
            found: dict[str, str] = {}
            for index, table in cursor.fetchall():
                cursor.execute("SELECT name FROM pragma_index_info(?)", (index,))
                names = ", ".join(f"{table}.{row[0]}" for row in cursor.fetchall())
                # Keys have names of their own there; ours is the one Postgres gives.
                found[names] = f"{table}_pkey" if index.startswith("sqlite_auto") else index
            return found
        finally:
            connection.close()

    def migrate_sync(self) -> list[str]:
        """Leave the schema at the newest version and return the names of what was applied."""
        connection = self._connected()
        try:
            return migrate.apply(connection.driver_connection, self.dialect, self.sql_root)
        finally:
            connection.invalidate()  # Its session settings were changed for the migration.
            connection.close()

    def _connected(self) -> PoolProxiedConnection:
        try:
            return self._engine.raw_connection()
        except DRIVER_ERRORS as problem:
            raise self._translated(problem) from problem

    def schema_version_sync(self) -> int:
        """Return the newest applied migration's number; 0 for an empty database."""
        connection = self._connected()
        try:
            return migrate.version(connection.driver_connection, self.dialect)
        except DRIVER_ERRORS as problem:
            _discard_if_broken(connection, problem)
            raise translate(problem, unique_names={}, meanings={}) from problem
        finally:
            connection.close()

    @property
    def expected_version(self) -> int:
        """The number of the newest migration this code carries."""
        return migrate.newest(self.sql_root, self.dialect)

    async def ping(self) -> None:
        """Return when the database answers; raises DatabaseUnavailableError otherwise."""
        await run_blocking(self._ping_sync, limiter=self._readers)

    def _ping_sync(self) -> None:
        self.read_sync(_nothing)

    def pool_status(self) -> dict[str, int]:
        """Return how many pooled connections are in use and how many are idle."""
        pool = self._engine.pool
        if not isinstance(pool, QueuePool):
            return {"in_use": 0, "idle": 0}
        return {"in_use": pool.checkedout(), "idle": pool.checkedin()}

    def close(self) -> None:
        """Close every pooled connection and let go of the file lock."""
        self._engine.dispose()
        if self._lock is not None:
            self._lock.close()


def _nothing(tx: Transaction) -> None:
    tx._cursor.execute("SELECT 1")  # the one statement that has no name


def _begin(connection: PoolProxiedConnection, *, writes: bool) -> Any:
    """Return the cursor of a new transaction; one that reads cannot change anything."""
    driver, cursor = connection.driver_connection, connection.cursor()
    if isinstance(driver, sqlite3.Connection):
        driver.execute(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
    elif isinstance(cursor, postgres.TransactionCursor):
        cursor.opening = postgres.WRITE if writes else postgres.READ
    return cursor


def _finish(connection: PoolProxiedConnection, how: str) -> None:
    # Both run in autocommit with explicit transactions; SQLite's own commit() would do nothing.
    driver = connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.execute(how)
    else:
        connection.commit()


def _discard_if_broken(connection: PoolProxiedConnection, problem: Exception) -> None:
    driver = connection.driver_connection
    if isinstance(driver, psycopg.Connection) and (driver.closed or driver.broken):
        connection.invalidate(problem)


sqlite3.register_adapter(datetime, columns.to_text_time)
