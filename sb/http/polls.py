"""Long polls: look, then wait for a signal or for an end, and look again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import trio
from pydantic import Field

from sb.clock import monotonic
from sb.coord import CoordUnavailableError
from sb.http.declare import Call

T = TypeVar("T")

#: Well inside every client's and proxy's patience.
MAX_WAIT_SECONDS = 25
#: A poll looks by itself this often: for what comes with time, and when signals are lost.
LOOK_AGAIN_SECONDS = 5.0

Wait = Annotated[int, Field(ge=0, le=60)]


async def poll(
    call: Call[Any],
    channel: str,
    look: Callable[[], Awaitable[tuple[T, bool]]],
    *,
    wait: int,
    replaced: trio.Event | None = None,
) -> T:
    """Return what `look` finds as soon as it says that it is final, or its last answer.

    A look under way is finished whatever happens, so that nothing it takes is lost.
    """
    # A call that has begun anew, because its caller changed meanwhile, waits no longer for that.
    left = call.began + min(wait, MAX_WAIT_SECONDS) - monotonic()
    ends = [call.state.stopping, *([replaced] if replaced is not None else [])]
    async with call.state.coord.subscribe(channel) as signals:
        # Listening comes before looking: what happens in between still wakes this call.
        with trio.move_on_after(max(0, left)):
            while True:
                with trio.CancelScope(shield=True):
                    found, final = await look()
                if final or left <= 0:
                    break
                await _first_of(signals.wait, *(end.wait for end in ends))
                if any(end.is_set() for end in ends):
                    break
    return found


async def _first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of them does, or when it is time to look again anyway."""

    async def first(wait: Callable[[], Awaitable[object]]) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    with trio.move_on_after(LOOK_AGAIN_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311
        async with trio.open_nursery() as nursery:
            for wait in waits:
                nursery.start_soon(first, wait)


async def wake(call: Call[Any], channel: str | None) -> None:
    """Wake whoever polls on the channel; a lost signal only costs them some seconds."""
    if channel is None:
        return
    try:
        await call.state.coord.publish(channel)
    except CoordUnavailableError:
        return
