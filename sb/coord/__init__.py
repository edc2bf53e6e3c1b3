"""Coordination between processes: locks, rate limits, one-time states, signals. No generic set.

A lock only saves doubled work; whatever must be exclusive is decided by a guarded statement in the
database. Every call raises CoordUnavailableError within two seconds when the store is away.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from sb.errors import CoordUnavailableError

__all__ = ["CoordUnavailableError", "Coordinator", "Lock", "RateDecision", "Subscription"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A held lock; `fence` grows with every acquisition of this name, expiries included."""

    name: str
    token: str
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateDecision:
    allowed: bool
    retry_after_seconds: int


class Subscription(Protocol):
    """A listener on one channel."""

    async def wait(self) -> None:
        """Return at the next signal; one or more since the last wait return at once."""
        ...


class Coordinator(Protocol):
    """What the control plane asks of its coordination store."""

    async def acquire(self, name: str, *, ttl_seconds: float) -> Lock | None:
        """Return the lock, held for that long unless renewed, or None while somebody holds it."""
        ...

    async def renew(self, lock: Lock, *, ttl_seconds: float) -> bool:
        """Hold the lock for that long from now; False when it was lost."""
        ...

    async def release(self, lock: Lock) -> bool:
        """Let go of the lock; False when it was lost before."""
        ...

    async def hit(self, bucket: str, key: str, *, limit: int, window_seconds: int) -> RateDecision:
        """Count a call in a sliding window; a refused call does not count."""
        ...

    async def put_state(self, kind: str, key: str, value: str, *, ttl_seconds: float) -> None:
        """Keep a one-time state until it is taken or has expired."""
        ...

    async def take_state(self, kind: str, key: str) -> str | None:
        """Return the state and forget it; of concurrent takers one gets it."""
        ...

    async def publish(self, channel: str) -> None:
        """Wake everybody who listens on the channel, in every process."""
        ...

    def subscribe(self, channel: str) -> AbstractAsyncContextManager[Subscription]:
        """Listen on a channel for as long as the context is open."""
        ...

    async def ping(self) -> None:
        """Return when the store answers."""
        ...

    async def run(self, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver signals from other processes until cancelled."""
        ...

    async def aclose(self) -> None:
        """Close every connection."""
        ...
