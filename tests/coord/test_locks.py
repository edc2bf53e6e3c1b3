"""Locks: one holder, fences that grow, leases that end; the same with and without Redis."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from sb.coord import Coordinator, Lock
from tests.coord.conftest import Pair, eventually

SHORT = 0.15


async def acquired(coord: Coordinator, name: str, *, ttl_seconds: float = 30) -> Lock:
    lock = await coord.acquire(name, ttl_seconds=ttl_seconds)
    assert lock is not None
    return lock


async def once_free(coord: Coordinator, name: str) -> Lock:
    """Return the lock as soon as whoever holds it has lost it."""
    lock = await eventually(lambda: coord.acquire(name, ttl_seconds=30))
    assert lock is not None
    return lock


async def test_acquire_while_held_returns_nothing(pair: Pair) -> None:
    await acquired(pair.one, "job")

    assert await pair.other.acquire("job", ttl_seconds=30) is None
    assert await pair.one.acquire("job", ttl_seconds=30) is None


async def test_acquire_by_many_at_once_has_one_winner(pair: Pair) -> None:
    won: list[Lock | None] = []

    async def contend(coord: Coordinator) -> None:
        won.append(await coord.acquire("job", ttl_seconds=30))

    async with trio.open_nursery() as nursery:
        for _ in range(15):
            nursery.start_soon(contend, pair.one)
            nursery.start_soon(contend, pair.other)

    assert len([lock for lock in won if lock is not None]) == 1
    assert len(won) == 30


async def test_acquire_of_another_name_is_not_in_the_way(pair: Pair) -> None:
    await acquired(pair.one, "job")
    await acquired(pair.other, "job:2")


async def test_release_by_the_holder_frees_the_lock_at_once(pair: Pair) -> None:
    lock = await acquired(pair.one, "job")

    assert await pair.one.release(lock) is True

    await acquired(pair.other, "job")


async def test_release_twice_leaves_the_next_holder_alone(pair: Pair) -> None:
    lock = await acquired(pair.one, "job")
    await pair.one.release(lock)
    await acquired(pair.other, "job")

    assert await pair.one.release(lock) is False
    assert await pair.one.acquire("job", ttl_seconds=30) is None


@pytest.mark.parametrize("verb", ["renew", "release"])
async def test_a_lock_made_up_from_its_name_is_refused(pair: Pair, verb: str) -> None:
    lock = await acquired(pair.one, "job")
    forged = dataclasses.replace(lock, token="0" * 32)

    if verb == "renew":
        assert await pair.other.renew(forged, ttl_seconds=0.001) is False
    else:
        assert await pair.other.release(forged) is False

    assert await pair.other.acquire("job", ttl_seconds=30) is None
    assert await pair.one.renew(lock, ttl_seconds=30) is True


async def test_a_lock_passed_on_is_renewed_and_released_from_elsewhere(pair: Pair) -> None:
    lock = await acquired(pair.one, "job")

    assert await pair.other.renew(lock, ttl_seconds=30) is True
    assert await pair.other.release(lock) is True


async def test_a_lease_ends_by_itself_and_no_earlier(pair: Pair) -> None:
    await acquired(pair.one, "job", ttl_seconds=SHORT)
    started = trio.current_time()

    await once_free(pair.other, "job")

    assert SHORT - 0.05 <= trio.current_time() - started < SHORT + 1


async def test_an_expired_holder_can_neither_renew_nor_release(pair: Pair) -> None:
    late = await acquired(pair.one, "job", ttl_seconds=SHORT)
    current = await once_free(pair.other, "job")

    assert await pair.one.renew(late, ttl_seconds=30) is False
    assert await pair.one.release(late) is False

    assert await pair.other.renew(current, ttl_seconds=30) is True
    assert await pair.one.acquire("job", ttl_seconds=30) is None


async def test_renew_after_the_lease_ended_unnoticed_is_refused(pair: Pair) -> None:
    late = await acquired(pair.one, "job", ttl_seconds=0.02)
    await trio.sleep(0.06)

    assert await pair.one.renew(late, ttl_seconds=30) is False
    await acquired(pair.other, "job")


async def test_renew_holds_the_lock_past_its_first_lease(pair: Pair) -> None:
    lock = await acquired(pair.one, "job", ttl_seconds=SHORT)
    assert await pair.one.renew(lock, ttl_seconds=30) is True

    await trio.sleep(2 * SHORT)

    assert await pair.other.acquire("job", ttl_seconds=30) is None
    assert await pair.one.release(lock) is True


async def test_renew_counts_from_now(pair: Pair) -> None:
    lock = await acquired(pair.one, "job", ttl_seconds=30)

    assert await pair.one.renew(lock, ttl_seconds=SHORT) is True

    await once_free(pair.other, "job")


async def test_fences_grow_over_releases_and_expiries(pair: Pair) -> None:
    released = await acquired(pair.one, "job")
    await pair.one.release(released)
    expired = await acquired(pair.other, "job", ttl_seconds=0.02)
    last = await once_free(pair.one, "job")

    assert 0 < released.fence < expired.fence < last.fence


async def test_losing_and_renewing_do_not_move_the_fence(pair: Pair) -> None:
    first = await acquired(pair.one, "job")
    for _ in range(3):
        assert await pair.other.acquire("job", ttl_seconds=30) is None
    await pair.one.renew(first, ttl_seconds=30)
    await pair.one.release(first)

    assert (await acquired(pair.other, "job")).fence == first.fence + 1
