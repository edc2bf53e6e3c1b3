"""What the agent's loops tell each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import trio

#: Heartbeats may be missing for this many intervals before the agent calls itself unready.
MISSED_BEATS = 3


@dataclass(slots=True, kw_only=True)
class Condition:
    """Alive by its heartbeats, rejected for good, or draining with a deadline."""

    rejected: trio.Event = field(default_factory=trio.Event)
    #: When this agent stops being alive unless another heartbeat is accepted.
    alive_until: float = -math.inf
    draining: bool = False
    _drained_by: float = math.inf
    _running: set[trio.CancelScope] = field(default_factory=set)

    def beat(self, interval_seconds: float) -> None:
        """Remember an accepted heartbeat; the next one is due after the interval."""
        self.alive_until = trio.current_time() + MISSED_BEATS * interval_seconds

    def is_alive(self) -> bool | str:
        """Tell whether heartbeats are accepted; a reason for a probe when not."""
        if self.rejected.is_set():
            return "auth_failed"
        return True if trio.current_time() < self.alive_until else "unreachable"

    def phase(self) -> str | None:
        """Return what the process is in the middle of, if anything."""
        if self.draining:
            return "draining"
        return "booting" if self.alive_until == -math.inf else None

    def begin(self, scope: trio.CancelScope) -> None:
        """Bind a job's work to the deadline of draining, also when that has begun already."""
        self._running.add(scope)
        scope.deadline = min(scope.deadline, self._drained_by)

    def end(self, scope: trio.CancelScope) -> None:
        """Let go of a job's work."""
        self._running.discard(scope)

    def drain(self, grace_seconds: float) -> None:
        """Give the work under way this long; a second call does nothing more."""
        if self.draining:
            return
        self.draining = True
        self._drained_by = trio.current_time() + grace_seconds
        for scope in self._running:
            scope.deadline = min(scope.deadline, self._drained_by)
