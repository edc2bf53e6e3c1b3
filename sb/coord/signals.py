"""Signals within one process: listeners per channel, woken together, coalesced."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Listener:
    """One listener; signals between waits are remembered as one."""

    def __init__(self) -> None:
        self._woken = trio.Event()

    async def wait(self) -> None:
        """Return at the next signal, or at once when one came since the last wait."""
        await self._woken.wait()
        self._woken = trio.Event()

    def wake(self) -> None:
        """Let the current or the next wait return."""
        self._woken.set()


class Switchboard:
    """All listeners of this process; call it from the event loop only."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[Listener]:
        """Listen on a channel for as long as the context is open."""
        listener = Listener()
        self._listeners.setdefault(channel, set()).add(listener)
        try:
            yield listener
        finally:
            found = self._listeners[channel]
            found.discard(listener)
            if not found:
                del self._listeners[channel]

    def wake(self, channel: str) -> None:
        """Wake everybody on the channel."""
        for listener in self._listeners.get(channel, ()):
            listener.wake()

    def wake_all(self) -> None:
        """Wake everybody: signals may have been lost."""
        for channel in self._listeners:
            self.wake(channel)
