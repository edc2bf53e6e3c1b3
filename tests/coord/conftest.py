"""Two processes' worth of coordination: one store, two handles that listen."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import pytest
import redis
import trio

from sb.coord import Coordinator
from sb.coord.memory import MemoryCoordinator
from sb.coord.redis import RedisCoordinator
from tests import servers

T = TypeVar("T")

#: What a call may take when the store is dead or frozen, and some room for a busy machine.
BOUND_SECONDS = 2.0
#: What anything that should work may take before it counts as hanging.
PATIENCE_SECONDS = 8.0


@dataclass
class Pair:
    """Two users of one store: two processes with Redis, one process with the twin."""

    one: Coordinator
    other: Coordinator


@asynccontextmanager
async def listening(*coords: Coordinator) -> AsyncIterator[None]:
    """Run the coordinators' signals for as long as the context lasts."""
    async with trio.open_nursery() as nursery:
        for coord in coords:
            await nursery.start(coord.run)
        yield
        nursery.cancel_scope.cancel()
    for coord in coords:
        await coord.aclose()


@asynccontextmanager
async def redis_pair(url: str, namespace: str) -> AsyncIterator[Pair]:
    """Two coordinators on one Redis, both subscribed when the context opens."""
    one = RedisCoordinator(url, namespace=namespace)
    other = RedisCoordinator(url, namespace=namespace)
    async with (
        one.subscribe("ready") as first,
        other.subscribe("ready") as second,
        listening(one, other),
    ):
        await subscribed(url, namespace, listeners=2)
        with trio.fail_after(PATIENCE_SECONDS):
            # Each says once at its start that signals may have been lost; that is over now.
            await first.wait()
            await second.wait()
        yield Pair(one=one, other=other)


async def eventually(look: Callable[[], Awaitable[T]]) -> T:
    """Return the first answer that counts as true; another process changes it, so ask again."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not (found := await look()):  # noqa: ASYNC110 # no event crosses processes
            await trio.sleep(0.01)
    return found


async def subscribed(url: str, namespace: str, *, listeners: int) -> None:
    """Return when that many connections receive the namespace's signals, as the server counts."""
    with redis.Redis.from_url(url) as client:

        async def enough() -> bool:
            await trio.lowlevel.checkpoint()
            return client.publish(f"{namespace}:ch:ready", "1") >= listeners

        await eventually(enough)


@pytest.fixture
def namespace() -> str:
    return f"t-{secrets.token_hex(4)}"


@pytest.fixture(params=["memory", "redis"])
async def pair(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Pair]:
    """One store and two users of it; nobody delivers signals between them."""
    if request.param == "memory":
        twin = MemoryCoordinator()
        yield Pair(one=twin, other=twin)
        return
    url = request.getfixturevalue("redis_server").url
    found = Pair(
        one=RedisCoordinator(url, namespace=namespace),
        other=RedisCoordinator(url, namespace=namespace),
    )
    yield found
    await found.one.aclose()
    await found.other.aclose()


@pytest.fixture(params=["memory", "redis"])
async def hearing(request: pytest.FixtureRequest, namespace: str) -> AsyncIterator[Pair]:
    """A pair whose signals are delivered."""
    if request.param == "memory":
        twin = MemoryCoordinator()
        async with listening(twin):
            yield Pair(one=twin, other=twin)
        return
    url = request.getfixturevalue("redis_server").url
    async with redis_pair(url, namespace) as found:
        yield found


@pytest.fixture
def own_redis() -> Iterator[servers.RedisServer]:
    """A server this test may kill and freeze."""
    with servers.redis() as server:
        yield server
