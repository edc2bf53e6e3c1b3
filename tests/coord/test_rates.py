"""Rate limits: exactly the limit, over a window that slides, for each key by itself."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from sb.coord import Coordinator, RateDecision
from sb.coord.memory import TIDY_EVERY, MemoryCoordinator
from tests.coord.conftest import Pair, eventually


async def hits(coord: Coordinator, count: int, *, limit: int, window: int = 60) -> list[bool]:
    return [
        (await coord.hit("login", "somebody", limit=limit, window_seconds=window)).allowed
        for _ in range(count)
    ]


async def test_hit_allows_exactly_the_limit(pair: Pair) -> None:
    assert await hits(pair.one, 7, limit=5) == [True] * 5 + [False] * 2


async def test_hits_of_two_processes_count_together(pair: Pair) -> None:
    assert await hits(pair.one, 3, limit=5) == [True] * 3
    assert await hits(pair.other, 3, limit=5) == [True, True, False]


async def test_hits_at_the_same_time_allow_exactly_the_limit(pair: Pair) -> None:
    allowed: list[bool] = []

    async def call(coord: Coordinator) -> None:
        allowed.extend(await hits(coord, 5, limit=11))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(call, pair.one)
            nursery.start_soon(call, pair.other)

    assert len(allowed) == 60
    assert sum(allowed) == 11


async def test_a_refusal_says_how_long_to_wait(pair: Pair) -> None:
    allowed = await pair.one.hit("login", "somebody", limit=1, window_seconds=60)
    refused = await pair.other.hit("login", "somebody", limit=1, window_seconds=60)

    assert allowed == RateDecision(allowed=True, retry_after_seconds=0)
    assert refused.allowed is False
    assert 59 <= refused.retry_after_seconds <= 60


async def test_a_limit_of_nothing_refuses_the_first_call(pair: Pair) -> None:
    refused = await pair.one.hit("login", "somebody", limit=0, window_seconds=30)

    assert refused == RateDecision(allowed=False, retry_after_seconds=30)


async def test_keys_and_buckets_are_counted_apart(pair: Pair) -> None:
    for bucket, key in (("login", "a"), ("login", "b"), ("claim", "a"), ("login", "2001:db8::1")):
        decisions = [await pair.one.hit(bucket, key, limit=2, window_seconds=60) for _ in range(3)]
        assert [decision.allowed for decision in decisions] == [True, True, False], (bucket, key)


async def test_refused_calls_do_not_prolong_the_wait(pair: Pair) -> None:
    assert await hits(pair.one, 1, limit=1, window=1) == [True]
    started = trio.current_time()

    async def allowed() -> bool:
        return (await hits(pair.other, 1, limit=1, window=1))[0]

    await eventually(allowed)

    assert 0.9 <= trio.current_time() - started < 2


async def test_the_window_slides(pair: Pair) -> None:
    await hits(pair.one, 1, limit=2, window=1)
    await trio.sleep(0.5)
    await hits(pair.one, 1, limit=2, window=1)
    await trio.sleep(0.55)

    # The first call has left the window, the second has not: there is room for one.
    assert await hits(pair.one, 2, limit=2, window=1) == [True, False]


async def test_the_wait_is_until_the_oldest_call_leaves(autojump_clock: MockClock) -> None:
    coord = MemoryCoordinator(now=trio.current_time)
    await hits(coord, 1, limit=2)
    await trio.sleep(20.5)
    await hits(coord, 1, limit=2)
    await trio.sleep(10)

    refused = await coord.hit("login", "somebody", limit=2, window_seconds=60)
    assert refused.retry_after_seconds == 30

    await trio.sleep(29.5)
    assert await hits(coord, 2, limit=2) == [True, False]


async def test_tidying_keeps_what_still_counts(autojump_clock: MockClock) -> None:
    coord = MemoryCoordinator(now=trio.current_time)
    await hits(coord, 3, limit=3, window=3600)
    await coord.put_state("login", "k", "v", ttl_seconds=3600)

    for number in range(2 * TIDY_EVERY):
        await coord.hit("flood", str(number), limit=1, window_seconds=1)
    await trio.sleep(2)
    for number in range(2 * TIDY_EVERY):
        await coord.hit("flood", str(number), limit=1, window_seconds=1)

    assert await hits(coord, 1, limit=3, window=3600) == [False]
    assert await coord.take_state("login", "k") == "v"
