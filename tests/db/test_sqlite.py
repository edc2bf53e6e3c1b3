"""SQLite's own manners: one writer, readers beside it, foreign keys, and other processes' locks."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import trio

from sb.db.engine import Database, Transaction
from sb.errors import DatabaseBusyError, InternalError
from tests.db import raw
from tests.db.rows import add_user, is_there


def pragma(db: Database, name: str) -> Any:
    connection = db._engine.raw_connection()
    try:
        return connection.cursor().execute(f"PRAGMA {name}").fetchone()[0]
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("name", "value"), [("journal_mode", "wal"), ("foreign_keys", 1), ("recursive_triggers", 1)]
)
def test_every_connection_is_prepared(lite: Database, name: str, value: object) -> None:
    assert pragma(lite, name) == value


async def test_a_writer_elsewhere_makes_writers_busy_and_readers_go_on(
    sqlite_url: str, lite: Database
) -> None:
    # A shell on the file, forgotten in the middle of a transaction.
    with raw.connected(sqlite_url) as shell:
        shell.execute("BEGIN IMMEDIATE")
        started = trio.current_time()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def write() -> None:
                with pytest.raises(DatabaseBusyError) as caught:
                    await lite.run(add_user, "a@example.com")
                assert caught.value.headers == {"Retry-After": "1"}
                assert 1 < trio.current_time() - started < 4

            for _ in range(5):
                with trio.fail_after(1):
                    assert not await lite.read(is_there, "a@example.com")
        shell.execute("ROLLBACK")

    await lite.run(add_user, "a@example.com")


async def test_a_short_lock_elsewhere_is_waited_for(sqlite_url: str, lite: Database) -> None:
    await lite.ping()
    with raw.connected(sqlite_url) as shell:
        shell.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lite.run, add_user, "a@example.com")
            await trio.sleep(0.1)
            assert not await lite.read(is_there, "a@example.com")
            shell.execute("COMMIT")

    assert await lite.read(is_there, "a@example.com")


async def test_writers_of_this_process_queue_without_a_busy_error(lite: Database) -> None:
    # Together they hold the file far longer than its busy handler would wait.
    def slow(tx: Transaction, number: int) -> None:
        add_user(tx, f"u{number}@example.com")
        threading.Event().wait(0.1)

    async with trio.open_nursery() as nursery:
        for number in range(25):
            nursery.start_soon(lite.run, slow, number)

    assert await lite.read(is_there, "u24@example.com")


async def test_many_readers_read_beside_one_writer(lite: Database) -> None:
    inside, leave = threading.Event(), threading.Event()

    def write(tx: Transaction) -> None:
        add_user(tx, "a@example.com")
        inside.set()
        assert leave.wait(10)

    async def read() -> None:
        for _ in range(10):
            assert not await lite.read(is_there, "a@example.com")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lite.run, write)
        await trio.to_thread.run_sync(inside.wait, 10)
        with trio.fail_after(5):
            async with trio.open_nursery() as readers:
                for _ in range(8):
                    readers.start_soon(read)
        leave.set()

    assert await lite.read(is_there, "a@example.com")


def test_a_dangling_reference_is_refused(lite: Database) -> None:
    def op(tx: Transaction) -> None:
        tx._cursor.execute(
            "INSERT INTO team_members (team_id, user_id, created_at)"
            " VALUES ('t', 'u', '2026-01-01T00:00:00.000000Z')"
        )

    with pytest.raises(InternalError):
        lite.run_sync(op)
