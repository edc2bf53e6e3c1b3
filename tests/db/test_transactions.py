"""One operation, one transaction: all of it or none, whoever cancels, fails or waits."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import trio

from sb.db.engine import Database, Transaction
from sb.db.pools import POOL_WAIT_SECONDS
from sb.errors import DatabaseBusyError, DatabaseUnavailableError, NotFoundError, SbError
from sb.ids import new_id
from tests.db.rows import add_user, is_there, lock_until_now


class Gate:
    """Holds an operation inside its transaction until the test lets it go."""

    def __init__(self) -> None:
        self.inside = threading.Event()
        self.leave = threading.Event()

    def hold(self, tx: Transaction, email: str) -> None:
        add_user(tx, email)
        self.inside.set()
        assert self.leave.wait(20)


async def in_thread(call: Any, *args: Any) -> Any:
    return await trio.to_thread.run_sync(call, *args)


async def test_run_commits_what_the_operation_did(db: Database) -> None:
    user_id = await db.run(add_user, "a@example.com")

    row = await db.read(lambda tx: tx.one("user_find", id=user_id))
    assert row is not None
    assert row["id"] == user_id


@pytest.mark.parametrize("problem", [NotFoundError, ZeroDivisionError, KeyboardInterrupt])
def test_an_operation_that_raises_changes_nothing(
    db: Database, problem: type[BaseException]
) -> None:
    def op(tx: Transaction) -> None:
        add_user(tx, "a@example.com")
        assert is_there(tx, "a@example.com")
        raise problem

    with pytest.raises(problem):
        db.run_sync(op)

    assert not db.read_sync(is_there, "a@example.com")
    assert db.pool_status()["in_use"] == 0
    db.run_sync(add_user, "a@example.com")


def test_a_refused_statement_takes_the_whole_operation_with_it(db: Database) -> None:
    def op(tx: Transaction) -> None:
        add_user(tx, "a@example.com", user_id)
        add_user(tx, "b@example.com", user_id)

    user_id = new_id()
    with pytest.raises(Exception, match="Something went wrong"):
        db.run_sync(op)

    assert not db.read_sync(is_there, "a@example.com")


def test_values_come_back_as_they_went_in(db: Database) -> None:
    moment = datetime(2026, 3, 1, 1, 2, 3, 45, tzinfo=timezone(timedelta(hours=5)))
    user_id = db.run_sync(add_user, "ünï@example.com")

    def op(tx: Transaction) -> Any:
        tx.count("user_lock", id=user_id, locked_until=moment)
        return tx.one("user_find", id=user_id), tx.one("role_find_by_name", name="admin")

    user, role = db.run_sync(op)
    assert user["email"] == "ünï@example.com"
    assert user["locked_until"] == moment
    assert user["locked_until"].utcoffset() == timedelta(0)
    assert user["disabled"] is False
    assert user["created_at"].tzinfo is not None
    assert abs(user["created_at"] - datetime.now(UTC)) < timedelta(minutes=1)
    assert isinstance(role["permissions"], list)
    assert role["is_system"] is True


async def test_operations_at_once_all_commit(db: Database) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(db.run, add_user, f"u{number}@example.com")

    for number in range(40):
        assert await db.read(is_there, f"u{number}@example.com")


async def test_nothing_is_seen_before_the_commit(db: Database) -> None:
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.run, gate.hold, "a@example.com")
        await in_thread(gate.inside.wait, 10)

        with trio.fail_after(2):  # Nobody who reads waits for somebody who writes.
            assert not await db.read(is_there, "a@example.com")
        gate.leave.set()

    assert await db.read(is_there, "a@example.com")


async def test_a_cancelled_caller_waits_for_the_operation_under_way(db: Database) -> None:
    gate = Gate()
    ended = False

    async def call(task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        nonlocal ended
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await db.run(gate.hold, "a@example.com")
        ended = True

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(call)
        await in_thread(gate.inside.wait, 10)
        scope.cancel()
        await trio.sleep(0.05)
        assert not ended
        gate.leave.set()

    # Its outcome is decided: here it had nothing left that could fail.
    assert await db.read(is_there, "a@example.com")


async def test_a_caller_cancelled_before_its_turn_does_nothing(database_url: str) -> None:
    db = Database.open(database_url, pool_size=2)
    gates = [Gate()] if db.dialect == "sqlite" else [Gate(), Gate()]
    async with trio.open_nursery() as nursery:
        for number, gate in enumerate(gates):
            nursery.start_soon(db.run, gate.hold, f"first{number}@example.com")
            await in_thread(gate.inside.wait, 10)
        with trio.move_on_after(0.05) as scope:
            await db.run(add_user, "late@example.com")
        assert scope.cancelled_caught
        for gate in gates:
            gate.leave.set()

    assert not await db.read(is_there, "late@example.com")
    db.close()


def test_a_read_cannot_change_anything(db: Database) -> None:
    with pytest.raises(SbError):
        db.read_sync(add_user, "a@example.com")

    assert not db.read_sync(is_there, "a@example.com")


async def test_a_read_sees_one_moment(db: Database) -> None:
    looked, changed = threading.Event(), threading.Event()

    def look_twice(tx: Transaction) -> tuple[bool, bool]:
        before = is_there(tx, "a@example.com")
        looked.set()
        assert changed.wait(10)
        return before, is_there(tx, "a@example.com")

    seen: list[tuple[bool, bool]] = []

    async def read() -> None:
        seen.append(await db.read(look_twice))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await in_thread(looked.wait, 10)
        await db.run(add_user, "a@example.com")
        changed.set()

    assert seen == [(False, False)]


async def test_a_used_up_pool_is_an_error_in_bounded_time_and_recovers(database_url: str) -> None:
    db = Database.open(database_url, pool_size=1)
    gate = Gate()
    try:
        async with trio.open_nursery() as nursery:
            # Not through `run`: its limiter would keep the second caller from the pool.
            nursery.start_soon(in_thread, db.run_sync, gate.hold, "a@example.com")
            await in_thread(gate.inside.wait, 10)
            started = trio.current_time()
            problem: Exception | None = None
            try:
                await in_thread(db.read_sync, is_there, "a@example.com")
            except Exception as caught:  # noqa: BLE001 # looked at when the other is done
                problem = caught
            took = trio.current_time() - started
            gate.leave.set()

        assert isinstance(problem, DatabaseUnavailableError)
        assert POOL_WAIT_SECONDS - 0.5 < took < POOL_WAIT_SECONDS + 1.5
        assert await db.read(is_there, "a@example.com")
        assert db.pool_status() == {"in_use": 0, "idle": 1}
    finally:
        db.close()


async def test_more_callers_than_connections_take_turns(database_url: str) -> None:
    db = Database.open(database_url, pool_size=2)

    async def call(number: int) -> None:
        await db.run(add_user, f"u{number}@example.com")
        assert await db.read(is_there, f"u{number}@example.com")

    async with trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(call, number)

    assert db.pool_status()["in_use"] == 0
    db.close()


async def test_a_row_locked_elsewhere_is_busy_in_bounded_time(postgres_url: str) -> None:
    # SQLite has no locks on rows.
    db = Database.open(postgres_url, lock_timeout_ms=200)
    user_id = await db.run(add_user, "a@example.com")
    locked, leave = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        lock_until_now(tx, user_id)
        locked.set()
        assert leave.wait(10)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.run, hold)
        await in_thread(locked.wait, 10)
        with pytest.raises(DatabaseBusyError) as caught, trio.fail_after(2):
            await db.run(lock_until_now, user_id)
        leave.set()

    assert caught.value.headers == {"Retry-After": "1"}
    assert await db.run(lock_until_now, user_id) == 1
    db.close()


async def test_a_slow_statement_is_busy_in_bounded_time(postgres_url: str, sql_copy: Path) -> None:
    text = "-- name: sleep_long :scalar\n-- Takes its time.\nSELECT pg_sleep(20);\n"
    (sql_copy / "queries" / "sleeps.sql").write_text(text)
    (sql_copy / "queries" / "sqlite" / "sleeps.sql").write_text(text)
    db = Database.open(postgres_url, statement_timeout_ms=200, sql_root=sql_copy)

    with pytest.raises(DatabaseBusyError), trio.fail_after(3):
        await db.run(lambda tx: tx.scalar("sleep_long"))

    await db.ping()
    db.close()


async def test_of_two_deadlocked_operations_one_is_busy_and_one_commits(postgres_url: str) -> None:
    # SQLite has one writer at a time and cannot deadlock.
    db = Database.open(postgres_url)
    one, two = [await db.run(add_user, f"{name}@example.com") for name in "ab"]
    both = threading.Barrier(2, timeout=10)
    outcomes: list[str] = []

    def op(tx: Transaction, first: str, second: str) -> None:
        lock_until_now(tx, first)
        both.wait()
        lock_until_now(tx, second)

    async def call(first: str, second: str) -> None:
        try:
            await db.run(op, first, second)
            outcomes.append("committed")
        except DatabaseBusyError:
            outcomes.append("busy")

    with trio.fail_after(8):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, one, two)
            nursery.start_soon(call, two, one)

    assert sorted(outcomes) == ["busy", "committed"]
    assert await db.run(lock_until_now, one) == 1
    db.close()
