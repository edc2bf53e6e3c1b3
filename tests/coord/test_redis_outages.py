"""Redis dead, frozen or restarted while in use: a quick, named error, then everything is back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import redis
import trio
import trio.testing

from sb.coord import CoordUnavailableError, Lock
from sb.coord.redis import RedisCoordinator
from tests.coord.conftest import (
    BOUND_SECONDS,
    PATIENCE_SECONDS,
    eventually,
    listening,
    redis_pair,
    subscribed,
)
from tests.servers import RedisServer

HELD = Lock(name="job", token="0" * 32, fence=1)

CALLS: dict[str, Callable[[RedisCoordinator], Awaitable[Any]]] = {
    "acquire": lambda coord: coord.acquire("job", ttl_seconds=30),
    "renew": lambda coord: coord.renew(HELD, ttl_seconds=30),
    "release": lambda coord: coord.release(HELD),
    "hit": lambda coord: coord.hit("login", "k", limit=100, window_seconds=60),
    "put_state": lambda coord: coord.put_state("oidc", "k", "v", ttl_seconds=30),
    "take_state": lambda coord: coord.take_state("oidc", "k"),
    "publish": lambda coord: coord.publish("c"),
    "ping": lambda coord: coord.ping(),
}


async def refused(call: Callable[[], Awaitable[Any]]) -> None:
    """Return when the call said within its bound that the store is away."""
    started = trio.current_time()
    with pytest.raises(CoordUnavailableError) as caught:
        await call()
    assert trio.current_time() - started < BOUND_SECONDS
    assert caught.value.headers["Retry-After"].isdigit()


async def works(coord: RedisCoordinator) -> bool:
    try:
        await coord.ping()
    except CoordUnavailableError:
        return False
    return True


async def all_refused(coords: dict[str, RedisCoordinator]) -> None:
    async with trio.open_nursery() as nursery:
        for name, coord in coords.items():
            nursery.start_soon(refused, partial(CALLS[name], coord))


async def all_work(coords: dict[str, RedisCoordinator]) -> None:
    async with trio.open_nursery() as nursery:
        for coord in coords.values():
            nursery.start_soon(eventually, partial(works, coord))
    for name, coord in coords.items():
        await CALLS[name](coord)


async def test_every_call_on_a_killed_server_is_refused_until_it_is_back(
    own_redis: RedisServer, namespace: str
) -> None:
    coords = {name: RedisCoordinator(own_redis.url, namespace=namespace) for name in CALLS}
    await all_work(coords)

    own_redis.stop()
    await all_refused(coords)

    # The new server has none of the scripts that the old one knew.
    own_redis.start()
    await all_work(coords)


async def test_every_call_on_a_frozen_server_is_refused_until_it_thaws(
    own_redis: RedisServer, namespace: str
) -> None:
    coords = {name: RedisCoordinator(own_redis.url, namespace=namespace) for name in CALLS}
    await all_work(coords)

    own_redis.pause()
    await all_refused(coords)

    own_redis.resume()
    await all_work(coords)


async def test_first_calls_to_a_frozen_server_are_refused(
    own_redis: RedisServer, namespace: str
) -> None:
    coords = {name: RedisCoordinator(own_redis.url, namespace=namespace) for name in CALLS}

    own_redis.pause()
    await all_refused(coords)

    own_redis.resume()
    await all_work(coords)


async def test_many_callers_of_a_frozen_server_do_not_wait_for_each_other(
    own_redis: RedisServer, namespace: str
) -> None:
    # Far more callers than threads: in turn they would take most of a minute.
    coord = RedisCoordinator(own_redis.url, namespace=namespace, pool_size=2)
    await coord.ping()
    own_redis.pause()

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            for call in CALLS.values():
                nursery.start_soon(refused, partial(call, coord))

    own_redis.resume()
    await eventually(partial(works, coord))


async def test_a_call_that_was_under_way_when_the_server_died_is_refused(
    own_redis: RedisServer, namespace: str
) -> None:
    coord = RedisCoordinator(own_redis.url, namespace=namespace)
    await coord.ping()
    own_redis.pause()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused, partial(CALLS["acquire"], coord))
        await trio.testing.wait_all_tasks_blocked(0.05)
        own_redis.stop()


async def test_a_cancelled_caller_of_a_frozen_server_is_let_go_within_the_bound(
    own_redis: RedisServer, namespace: str
) -> None:
    coord = RedisCoordinator(own_redis.url, namespace=namespace)
    await coord.ping()
    own_redis.pause()
    started = trio.current_time()

    with trio.move_on_after(0.05), pytest.raises(CoordUnavailableError):
        await coord.ping()

    assert trio.current_time() - started < BOUND_SECONDS


async def test_a_lock_outlives_a_freeze_but_not_a_restart(
    own_redis: RedisServer, namespace: str
) -> None:
    coord = RedisCoordinator(own_redis.url, namespace=namespace)
    lock = await coord.acquire("job", ttl_seconds=30)
    assert lock is not None

    own_redis.pause()
    await refused(partial(coord.renew, lock, ttl_seconds=30))
    own_redis.resume()
    await eventually(partial(works, coord))
    assert await coord.renew(lock, ttl_seconds=30) is True

    own_redis.stop()
    await refused(partial(coord.renew, lock, ttl_seconds=30))
    own_redis.start()
    await eventually(partial(works, coord))
    assert await coord.renew(lock, ttl_seconds=30) is False
    assert await coord.acquire("job", ttl_seconds=30) is not None


async def test_a_server_that_takes_no_writes_counts_as_away(
    own_redis: RedisServer, namespace: str
) -> None:
    # What a demoted primary says after a failover.
    coord = RedisCoordinator(own_redis.url, namespace=namespace)
    with redis.Redis.from_url(own_redis.url) as admin:
        admin.replicaof("127.0.0.1", "1")
        await refused(partial(CALLS["acquire"], coord))
        admin.replicaof("NO", "ONE")

    await eventually(partial(works, coord))
    assert await coord.acquire("job", ttl_seconds=30) is not None


async def test_a_stranger_on_the_port_counts_as_away(namespace: str) -> None:
    async def stranger(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n\xff\xfe")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, stranger, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        url = f"redis://127.0.0.1:{port}/0"
        await all_refused({name: RedisCoordinator(url, namespace=namespace) for name in CALLS})
        nursery.cancel_scope.cancel()


async def test_signals_of_this_process_pass_while_the_server_is_away(
    own_redis: RedisServer, namespace: str
) -> None:
    async with redis_pair(own_redis.url, namespace) as pair, pair.one.subscribe("c") as heard:
        own_redis.stop()
        await refused(partial(pair.one.publish, "c"))

        with trio.fail_after(0.1):
            await heard.wait()


async def test_subscribers_look_again_after_a_restart_and_hear_signals(
    own_redis: RedisServer, namespace: str
) -> None:
    async with redis_pair(own_redis.url, namespace) as pair, pair.one.subscribe("c") as heard:
        own_redis.stop()
        await refused(partial(pair.other.publish, "c"))
        own_redis.start()

        # What was said meanwhile is lost, so the subscriber is told to look for itself.
        with trio.fail_after(PATIENCE_SECONDS):
            await heard.wait()

        await subscribed(own_redis.url, namespace, listeners=2)
        await eventually(partial(works, pair.other))
        await pair.other.publish("c")
        with trio.fail_after(PATIENCE_SECONDS):
            await heard.wait()


async def test_subscribers_hear_signals_after_a_freeze(
    own_redis: RedisServer, namespace: str
) -> None:
    async with redis_pair(own_redis.url, namespace) as pair, pair.one.subscribe("c") as heard:
        own_redis.pause()
        await refused(partial(pair.other.publish, "c"))
        own_redis.resume()
        await eventually(partial(works, pair.other))

        await pair.other.publish("c")
        with trio.fail_after(PATIENCE_SECONDS):
            await heard.wait()


async def test_signals_started_without_a_server_are_heard_once_there_is_one(
    own_redis: RedisServer, namespace: str
) -> None:
    own_redis.stop()
    coord = RedisCoordinator(own_redis.url, namespace=namespace)
    async with coord.subscribe("c") as heard, listening(coord):
        await refused(coord.ping)
        own_redis.start()
        with trio.fail_after(PATIENCE_SECONDS):
            await heard.wait()
        await subscribed(own_redis.url, namespace, listeners=1)

        with redis.Redis.from_url(own_redis.url) as elsewhere:
            elsewhere.publish(f"{namespace}:ch:c", "1")
        with trio.fail_after(PATIENCE_SECONDS):
            await heard.wait()


@pytest.mark.parametrize("state", ["well", "frozen", "killed"])
async def test_signals_end_when_cancelled(
    own_redis: RedisServer, namespace: str, state: str
) -> None:
    async with trio.open_nursery() as nursery:
        coord = RedisCoordinator(own_redis.url, namespace=namespace)
        await nursery.start(coord.run)
        await subscribed(own_redis.url, namespace, listeners=1)
        if state == "frozen":
            own_redis.pause()
        if state == "killed":
            own_redis.stop()
        started = trio.current_time()
        nursery.cancel_scope.cancel()
    await coord.aclose()
    assert trio.current_time() - started < BOUND_SECONDS
