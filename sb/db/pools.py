"""Pools of connections: how many there are, how long each may take, what each is told first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import QueuePool

from sb.db import postgres, sqlite
from sb.db.queries import DialectName

#: How long a caller waits for a free connection before the database counts as unavailable.
POOL_WAIT_SECONDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    url: URL
    dialect: DialectName
    pool_size: int
    statement_timeout_ms: int
    lock_timeout_ms: int
    pool_recycle_seconds: int


def open_pool(setup: Setup) -> Engine:
    """Return a pool that connects when first used."""
    pool: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": setup.pool_size,
        "max_overflow": 0,
        "pool_timeout": POOL_WAIT_SECONDS,
    }
    if setup.dialect == "sqlite":
        engine = create_engine(
            setup.url,
            connect_args={
                "isolation_level": None,
                "check_same_thread": False,
                "timeout": sqlite.BUSY_SECONDS,
            },
            **pool,
        )
        event.listen(engine, "connect", sqlite.prepare)
        event.listen(engine, "reset", sqlite.reset)
        return engine
    options = f"-c statement_timeout={setup.statement_timeout_ms}"
    options += f" -c lock_timeout={setup.lock_timeout_ms} -c timezone=UTC"
    options += f" -c idle_in_transaction_session_timeout={2 * setup.statement_timeout_ms}"
    # Every statement is short: compiling one takes many times as long as it could save.
    options += " -c jit=off"
    engine = create_engine(
        setup.url,
        pool_recycle=setup.pool_recycle_seconds,
        connect_args={
            "cursor_factory": postgres.TransactionCursor,
            "options": options,
            "connect_timeout": 3,
            "application_name": "secrets-bridge",
        },
        **pool,
    )
    postgres.listen(engine)
    return engine
