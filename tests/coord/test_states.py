"""One-time states: kept until taken or expired, taken by one."""

from __future__ import annotations

import trio

from sb.coord import Coordinator
from tests.coord.conftest import Pair


async def test_take_returns_the_value_once(pair: Pair) -> None:
    await pair.one.put_state("oidc", "k", "välue", ttl_seconds=30)

    assert await pair.other.take_state("oidc", "k") == "välue"
    assert await pair.one.take_state("oidc", "k") is None
    assert await pair.other.take_state("oidc", "k") is None


async def test_take_of_what_was_never_put_returns_nothing(pair: Pair) -> None:
    assert await pair.one.take_state("oidc", "k") is None


async def test_take_by_many_at_once_has_one_winner(pair: Pair) -> None:
    await pair.one.put_state("oidc", "k", "value", ttl_seconds=30)
    taken: list[str | None] = []

    async def take(coord: Coordinator) -> None:
        taken.append(await coord.take_state("oidc", "k"))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(take, pair.one)
            nursery.start_soon(take, pair.other)

    assert sorted(taken, key=str) == [None] * 19 + ["value"]


async def test_put_again_replaces_value_and_lifetime(pair: Pair) -> None:
    await pair.one.put_state("oidc", "k", "old", ttl_seconds=0.05)
    await pair.other.put_state("oidc", "k", "new", ttl_seconds=30)
    await trio.sleep(0.1)

    assert await pair.one.take_state("oidc", "k") == "new"


async def test_an_expired_state_is_gone(pair: Pair) -> None:
    await pair.one.put_state("oidc", "k", "value", ttl_seconds=0.05)
    await trio.sleep(0.1)

    assert await pair.other.take_state("oidc", "k") is None


async def test_kinds_and_keys_are_apart(pair: Pair) -> None:
    await pair.one.put_state("oidc", "k", "1", ttl_seconds=30)
    await pair.one.put_state("mfa", "k", "2", ttl_seconds=30)
    await pair.one.put_state("oidc", "k2", "3", ttl_seconds=30)

    assert await pair.one.take_state("mfa", "k") == "2"
    assert await pair.one.take_state("oidc", "k") == "1"
    assert await pair.one.take_state("oidc", "k2") == "3"


async def test_an_answering_store_answers_a_ping(pair: Pair) -> None:
    with trio.fail_after(2):
        await pair.one.ping()
