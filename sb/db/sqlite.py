"""Connections to SQLite: how each is set up and cleaned."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sb.clock import monotonic

BUSY_SECONDS = 2.0


def _write_ahead(driver: sqlite3.Connection) -> None:
    """Switch the file to its write-ahead log; SQLite does not wait for a lock it needs for that."""
    patience = monotonic() + BUSY_SECONDS
    while True:
        try:
            driver.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if monotonic() > patience:
                raise
            time.sleep(0.02)
        else:
            return


def prepare(driver: sqlite3.Connection, _record: Any) -> None:
    """Set up a new connection: write-ahead log, foreign keys, triggers of replaced rows."""
    _write_ahead(driver)
    # recursive_triggers: without it a REPLACE would delete audit rows past their trigger.
    for pragma in (
        "foreign_keys=ON",
        "synchronous=NORMAL",
        "recursive_triggers=ON",
        # What is deleted or replaced, ciphertext of spent values among it, is overwritten.
        "secure_delete=ON",
    ):
        driver.execute(f"PRAGMA {pragma}")


def reset(driver: sqlite3.Connection, _record: Any, _state: Any) -> None:
    """End a transaction that was left open before the connection goes back to the pool."""
    if driver.in_transaction:
        driver.execute("ROLLBACK")
