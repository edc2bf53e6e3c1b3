"""The only place where threads are entered, each kind of work under a limiter of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def run_blocking(call: Callable[[], T], *, limiter: trio.CapacityLimiter) -> T:
    """Return what the call returns, from a worker thread under the limiter.

    A cancelled caller still waits for the call to end: a thread that can write is never abandoned.
    """
    return await trio.to_thread.run_sync(call, limiter=limiter, abandon_on_cancel=False)
