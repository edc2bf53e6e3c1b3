"""Ctrl-C and SIGTERM: the first asks to stop, the second insists."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

FORCED_EXIT = 130


@asynccontextmanager
async def stop_on_signals() -> AsyncIterator[trio.Event]:
    """Yield an event that the first signal sets; the second ends the process at once."""
    stop = trio.Event()

    async def watch(task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for _ in received:
                if stop.is_set():
                    os._exit(FORCED_EXIT)
                stop.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        try:
            yield stop
        finally:
            nursery.cancel_scope.cancel()
