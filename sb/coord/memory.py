"""Coordination inside one process: for dev mode and tests, with the semantics of Redis."""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from sb.clock import monotonic
from sb.coord import Lock, RateDecision, Subscription
from sb.coord.signals import Switchboard

#: Expired entries are dropped whenever this many calls have been made since the last time.
TIDY_EVERY = 1000


class MemoryCoordinator:
    """A coordinator for the tasks of one event loop."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._locks: dict[str, tuple[str, float]] = {}
        self._fences: dict[str, int] = {}
        self._windows: dict[tuple[str, str], tuple[deque[float], int]] = {}
        self._states: dict[tuple[str, str], tuple[str, float]] = {}
        self._switchboard = Switchboard()
        self._calls = 0

    async def acquire(self, name: str, *, ttl_seconds: float) -> Lock | None:
        await trio.lowlevel.checkpoint()
        if self._held(name) is not None:
            return None
        token = secrets.token_hex(16)
        self._fences[name] = self._fences.get(name, 0) + 1
        self._locks[name] = (token, self._now() + ttl_seconds)
        return Lock(name=name, token=token, fence=self._fences[name])

    async def renew(self, lock: Lock, *, ttl_seconds: float) -> bool:
        await trio.lowlevel.checkpoint()
        if self._held(lock.name) != lock.token:
            return False
        self._locks[lock.name] = (lock.token, self._now() + ttl_seconds)
        return True

    async def release(self, lock: Lock) -> bool:
        await trio.lowlevel.checkpoint()
        if self._held(lock.name) != lock.token:
            return False
        del self._locks[lock.name]
        return True

    def _held(self, name: str) -> str | None:
        found = self._locks.get(name)
        return found[0] if found is not None and found[1] > self._now() else None

    async def hit(self, bucket: str, key: str, *, limit: int, window_seconds: int) -> RateDecision:
        await trio.lowlevel.checkpoint()
        self._tidy()
        now = self._now()
        calls, _ = self._windows.setdefault((bucket, key), (deque(), window_seconds))
        while calls and calls[0] <= now - window_seconds:
            calls.popleft()
        if len(calls) >= limit:
            wait = calls[0] + window_seconds - now if calls else window_seconds
            return RateDecision(allowed=False, retry_after_seconds=max(1, math.ceil(wait)))
        calls.append(now)
        return RateDecision(allowed=True, retry_after_seconds=0)

    def _tidy(self) -> None:
        self._calls += 1
        if self._calls % TIDY_EVERY:
            return
        now = self._now()
        for key, (calls, window) in list(self._windows.items()):
            if not calls or calls[-1] <= now - window:
                del self._windows[key]
        for state, (_, ends_at) in list(self._states.items()):
            if ends_at <= now:
                del self._states[state]

    async def put_state(self, kind: str, key: str, value: str, *, ttl_seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        self._tidy()
        self._states[kind, key] = (value, self._now() + ttl_seconds)

    async def take_state(self, kind: str, key: str) -> str | None:
        await trio.lowlevel.checkpoint()
        value, ends_at = self._states.pop((kind, key), ("", -math.inf))
        return value if ends_at > self._now() else None

    async def publish(self, channel: str) -> None:
        await trio.lowlevel.checkpoint()
        self._switchboard.wake(channel)

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        return self._switchboard.listen(channel)

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()
