"""What Redis holds: keys under one namespace, each with an end; namespaces do not meet."""

from __future__ import annotations

import redis
import trio

from sb.coord.redis import RedisCoordinator
from tests.coord.conftest import PATIENCE_SECONDS, redis_pair, subscribed
from tests.coord.wire import wire_to
from tests.servers import RedisServer


async def use_everything(coord: RedisCoordinator) -> None:
    assert await coord.acquire("job", ttl_seconds=30) is not None
    assert (await coord.hit("login", "k", limit=1, window_seconds=60)).allowed
    await coord.put_state("oidc", "k", "v", ttl_seconds=30)
    await coord.publish("c")


async def test_every_key_is_in_the_namespace_and_ends_by_itself(
    own_redis: RedisServer, namespace: str
) -> None:
    coord = RedisCoordinator(own_redis.url, namespace=namespace)
    await use_everything(coord)

    with redis.Redis.from_url(own_redis.url, decode_responses=True) as admin:
        ends = {key: admin.ttl(key) for key in admin.keys("*")}
    assert set(ends) == {
        f"{namespace}:lock:job",
        f"{namespace}:fence:job",
        f"{namespace}:rate:login:k",
        f"{namespace}:state:oidc:k",
    }
    assert all(seconds > 0 for seconds in ends.values()), ends
    assert 60 <= ends[f"{namespace}:rate:login:k"] <= 120
    assert ends[f"{namespace}:lock:job"] <= 30
    # A fence that ended with its lease would start again from one.
    assert ends[f"{namespace}:fence:job"] > 86400


async def test_two_namespaces_on_one_server_do_not_meet(
    redis_server: RedisServer, namespace: str
) -> None:
    longer = RedisCoordinator(redis_server.url, namespace=f"{namespace}-2")
    async with redis_pair(redis_server.url, namespace) as pair, pair.one.subscribe("c") as heard:
        await use_everything(longer)
        # Everything once more: nothing is taken, used up or locked.
        assert await pair.one.take_state("oidc", "k") is None
        assert await pair.one.acquire("job", ttl_seconds=30) is not None
        assert (await pair.one.hit("login", "k", limit=1, window_seconds=60)).allowed
        async with pair.one.subscribe("last") as last:
            await pair.other.publish("last")
            with trio.fail_after(PATIENCE_SECONDS):
                await last.wait()
        with trio.move_on_after(0.1) as silence:
            await heard.wait()
        assert silence.cancelled_caught
    await longer.aclose()


async def test_no_signal_is_lost_while_the_subscription_is_under_way(
    redis_server: RedisServer, namespace: str
) -> None:
    async with wire_to(redis_server.port) as wire, trio.open_nursery() as nursery:
        arrived, let_go = wire.hold(b"PSUBSCRIBE")
        coord = RedisCoordinator(wire.url, namespace=namespace)
        async with coord.subscribe("c") as heard:
            await nursery.start(coord.run)
            await arrived.wait()
            # Whoever is told to look now looks too early.
            with trio.move_on_after(0.3):
                await heard.wait()
            with redis.Redis.from_url(redis_server.url) as elsewhere:
                assert elsewhere.publish(f"{namespace}:ch:c", "1") == 0
            let_go.set()
            await subscribed(redis_server.url, namespace, listeners=1)
            with trio.move_on_after(1) as silence:
                await heard.wait()
        nursery.cancel_scope.cancel()
    assert not silence.cancelled_caught


async def test_a_subscription_whose_connection_went_silent_is_made_again(
    redis_server: RedisServer, namespace: str
) -> None:
    # A firewall that forgot the connection, or a primary whose machine is gone: no end is told.
    async with wire_to(redis_server.port) as wire, trio.open_nursery() as nursery:
        coord = RedisCoordinator(wire.url, namespace=namespace)
        async with coord.subscribe("c") as heard:
            await nursery.start(coord.run)
            await subscribed(redis_server.url, namespace, listeners=1)
            with trio.fail_after(PATIENCE_SECONDS):
                await heard.wait()

            wire.silence()

            with trio.move_on_after(3) as silence:
                await heard.wait()
        nursery.cancel_scope.cancel()
    assert not silence.cancelled_caught
