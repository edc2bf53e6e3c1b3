"""Connections to Postgres: how each is set up, kept alive and opened for a transaction.

A round trip costs more than most of our statements. So BEGIN travels with the first statement of
its transaction, and a connection that worked a moment ago, and from which nothing has come since,
is not asked whether it is still there.
"""

from __future__ import annotations

import select
from functools import partial
from typing import Any, Final

import psycopg
from psycopg.adapt import Loader
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import InvalidatePoolError

from sb.clock import monotonic

WRITE: Final = "BEGIN;\n"
#: One moment for every statement, and nothing can be changed.
READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n"
#: How long after its last use a connection is trusted without asking.
TRUSTED_SECONDS: Final = 1.0


class TransactionCursor(psycopg.ClientCursor[Any]):
    """A cursor on a connection in autocommit whose first statement opens the transaction.

    Both travel as one simple query, which parameters merged on this side make possible.
    """

    opening: str | None = None

    def execute(self, query: Any, params: Any = None, **options: Any) -> TransactionCursor:
        if self.opening is None:
            super().execute(query, params, **options)
            return self
        opening, self.opening = self.opening, None
        super().execute(opening + query, params, **options)
        self.nextset()  # past what BEGIN answered
        return self


class _UuidText(Loader):
    """Ids are text in both databases."""

    def load(self, data: Any) -> str:
        return bytes(data).decode()


def prepare(driver: psycopg.Connection[Any], record: Any) -> None:
    """Set up a new connection; transactions are opened by the first statement of each."""
    driver.adapters.register_loader("uuid", _UuidText)
    driver.autocommit = True
    rest(driver, record)


def rest(_driver: Any, record: Any) -> None:
    """Remember when the connection last worked."""
    record.info["used_at"] = monotonic()


def ask(engine: Engine, driver: Any, record: Any, _proxy: Any) -> None:
    """Let a connection out of the pool if it is there; otherwise all that rest are replaced."""
    if monotonic() - record.info["used_at"] < TRUSTED_SECONDS and not _was_told(driver):
        return
    try:
        engine.dialect.do_ping(driver)
    except psycopg.Error as problem:
        raise InvalidatePoolError from problem


def _was_told(driver: psycopg.Connection[Any]) -> bool:
    """Tell whether the server has said something unasked, as it does when it cuts us off."""
    waiting = select.poll()
    waiting.register(driver.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


def listen(engine: Engine) -> None:
    """Set up the connections of this engine and look after them."""
    event.listen(engine, "connect", prepare)
    event.listen(engine, "checkin", rest)
    event.listen(engine, "checkout", partial(ask, engine))
