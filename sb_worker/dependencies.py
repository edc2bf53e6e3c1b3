"""Whether the worker's database and lock store answer, looked at now and then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from sb.coord import Coordinator
from sb.db.engine import Database
from sb.errors import SbError
from sb.probes import Check

LOOK_EVERY_SECONDS = 5.0
ANSWER_WITHIN_SECONDS = 2.0


class Dependencies:
    """The last answer of every dependency; a probe reads it and never waits for one."""

    def __init__(self, db: Database, coord: Coordinator) -> None:
        store = "redis" if type(coord).__name__ == "RedisCoordinator" else "memory"
        self._pings = {db.dialect: db.ping, store: coord.ping}
        self._latest: dict[str, bool | str] = dict.fromkeys(self._pings, "timeout")

    @property
    def checks(self) -> dict[str, Check]:
        return {name: partial(self._latest.__getitem__, name) for name in self._pings}

    async def watch(self) -> None:
        """Keep the answers current until cancelled."""
        async with trio.open_nursery() as nursery:
            for name, ping in self._pings.items():
                nursery.start_soon(self._watch, name, ping)

    async def _watch(self, name: str, ping: Callable[[], Awaitable[None]]) -> None:
        while True:
            answer: bool | str = "timeout"
            # The answer of a ping stuck in a thread comes late, and as a timeout.
            with trio.move_on_after(ANSWER_WITHIN_SECONDS):
                try:
                    await ping()
                    answer = True
                except SbError:
                    answer = "unreachable"
            self._latest[name] = answer
            await trio.sleep(LOOK_EVERY_SECONDS)
