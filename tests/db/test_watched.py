"""Watched transactions: somebody looks before the statements up to the first that changes any."""

from __future__ import annotations

import pytest

from sb.db.engine import Database, Transaction
from sb.errors import NotFoundError
from tests.db.rows import add_user, is_there


class Watch:
    def __init__(self) -> None:
        self.looks = 0
        self.refuses_at = 0

    def __call__(self, tx: Transaction) -> None:
        self.looks += 1
        # What it asks itself is not watched, or this would never end.
        tx.scalar("team_lock_tree")
        if self.looks == self.refuses_at:
            raise NotFoundError


def look_twice(tx: Transaction) -> None:
    tx.scalar("team_lock_tree")
    tx.scalar("team_lock_tree")


def look_and_add(tx: Transaction, email: str) -> None:
    look_twice(tx)
    add_user(tx, email)
    look_twice(tx)


async def test_a_watch_looks_until_something_is_changed(db: Database) -> None:
    watch = Watch()
    watched = db.watched(watch)
    await watched.run(look_and_add, "a@example.com")
    assert watch.looks == 3
    assert db.read_sync(is_there, "a@example.com")
    # What is done stays done: no later transaction of the handle is refused.
    await watched.run(look_and_add, "b@example.com")
    await watched.read(is_there, "b@example.com")
    assert watch.looks == 3


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_what_a_watch_refuses_changes_nothing(db: Database, at: int) -> None:
    watch = Watch()
    watch.refuses_at = at
    watched = db.watched(watch)
    with pytest.raises(NotFoundError):
        await watched.run(look_and_add, "a@example.com")
    assert watch.looks == at
    assert not db.read_sync(is_there, "a@example.com")
    # It goes on watching, where nothing was done.
    await watched.run(look_and_add, "a@example.com")
    assert watch.looks == at + 3


async def test_only_the_watched_handle_is_watched(db: Database) -> None:
    watch = Watch()
    watched = db.watched(watch)
    await db.run(look_and_add, "a@example.com")
    assert watch.looks == 0
    await watched.read(look_twice)
    await watched.read(look_twice)
    assert watch.looks == 4
    assert watched.pool_status() == db.pool_status()
