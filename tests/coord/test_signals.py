"""Signals: everybody who listens is woken, none is lost between listening and looking."""

from __future__ import annotations

import trio
import trio.testing

from sb.coord import Coordinator, Subscription
from tests.coord.conftest import PATIENCE_SECONDS, Pair

QUIET_SECONDS = 0.1


async def woken(subscription: Subscription) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        await subscription.wait()


async def quiet(subscription: Subscription) -> bool:
    with trio.move_on_after(QUIET_SECONDS):
        await subscription.wait()
        return False
    return True


async def delivered(pair: Pair) -> None:
    """Return when everything `other` has said so far has reached `one`."""
    async with pair.one.subscribe("sentinel") as sentinel:
        await pair.other.publish("sentinel")
        await woken(sentinel)


async def test_publish_wakes_a_waiting_subscriber_elsewhere(hearing: Pair) -> None:
    async with hearing.one.subscribe("c") as subscription, trio.open_nursery() as nursery:
        nursery.start_soon(woken, subscription)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await hearing.other.publish("c")


async def test_publish_wakes_a_subscriber_of_the_same_process(hearing: Pair) -> None:
    async with hearing.one.subscribe("c") as subscription:
        await hearing.one.publish("c")
        await woken(subscription)


async def test_a_signal_before_the_first_wait_is_remembered(hearing: Pair) -> None:
    async with hearing.one.subscribe("c") as subscription:
        await hearing.other.publish("c")
        await delivered(hearing)

        assert not await quiet(subscription)


async def test_a_signal_from_before_the_subscription_is_not_heard(hearing: Pair) -> None:
    await hearing.other.publish("c")
    await delivered(hearing)

    async with hearing.one.subscribe("c") as subscription:
        assert await quiet(subscription)


async def test_signals_between_two_waits_are_one(hearing: Pair) -> None:
    async with hearing.one.subscribe("c") as subscription:
        for _ in range(5):
            await hearing.other.publish("c")
        await delivered(hearing)

        await woken(subscription)
        assert await quiet(subscription)

        await hearing.other.publish("c")
        await woken(subscription)


async def test_every_subscriber_is_woken(hearing: Pair) -> None:
    async with (
        hearing.one.subscribe("c") as first,
        hearing.one.subscribe("c") as second,
        hearing.other.subscribe("c") as third,
        trio.open_nursery() as nursery,
    ):
        for subscription in (first, second, third):
            nursery.start_soon(woken, subscription)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await hearing.other.publish("c")


async def test_channels_are_apart(hearing: Pair) -> None:
    async with (
        hearing.one.subscribe("jobs:a") as heard,
        hearing.one.subscribe("jobs:b") as unheard,
        hearing.one.subscribe("jobs:*") as pattern,
        hearing.one.subscribe("a") as suffix,
    ):
        await hearing.other.publish("jobs:a")
        await delivered(hearing)

        await woken(heard)
        for subscription in (unheard, pattern, suffix):
            assert await quiet(subscription)


async def test_a_subscriber_who_is_busy_holds_nobody_up(hearing: Pair) -> None:
    async with hearing.one.subscribe("c") as busy, hearing.one.subscribe("c") as quick:
        for _ in range(200):
            await hearing.other.publish("c")
            await woken(quick)
        await delivered(hearing)

        await woken(busy)
        assert await quiet(busy)


async def test_a_cancelled_wait_swallows_no_signal(hearing: Pair) -> None:
    async with hearing.one.subscribe("c") as subscription:
        assert await quiet(subscription)

        await hearing.other.publish("c")

        await woken(subscription)


async def test_a_subscriber_who_leaves_takes_nobody_along(hearing: Pair) -> None:
    async with hearing.one.subscribe("c") as staying:
        async with hearing.one.subscribe("c"):
            pass
        await hearing.other.publish("c")
        await woken(staying)


async def test_no_change_is_missed_between_listening_and_looking(hearing: Pair) -> None:
    # What a claim does: listen, look, wait. The change comes anywhere in between.
    for round_number in range(40):
        changed: list[bool] = []

        async def look_until_changed(coord: Coordinator, changed: list[bool]) -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                async with coord.subscribe("c") as subscription:
                    while not changed:
                        await subscription.wait()

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(look_until_changed, hearing.one, changed)
            for _ in range(round_number % 4):
                await trio.lowlevel.checkpoint()
            changed.append(True)
            await hearing.other.publish("c")
