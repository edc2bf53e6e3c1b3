"""Rate limits of routes: sliding windows in the coordination store, by address, person or agent."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from sb.coord import CoordUnavailableError, RateDecision
from sb.errors import RateLimitedError
from sb.http.state import AppState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` calls in `window` seconds; `on_failure` says what a dead store means."""

    bucket: str
    limit: int
    window: int = 60
    key: Literal["ip", "user", "agent"] = "ip"
    on_failure: Literal["open", "closed"] = "open"


async def enforce(limit: RateLimit, *, state: AppState, key: str) -> None:
    """Count the call, or refuse it with the seconds to wait."""
    decision = await count(limit, state=state, key=key)
    if decision is not None and not decision.allowed:
        state.metrics.rate_limited.labels(bucket=limit.bucket).inc()
        raise RateLimitedError(headers={"Retry-After": str(decision.retry_after_seconds)})


def most(limit: RateLimit, *, state: AppState) -> int:
    """Return how many calls the settings allow in the limit's window."""
    return state.rate_limits.get(limit.bucket, limit.limit)


async def count(limit: RateLimit, *, state: AppState, key: str) -> RateDecision | None:
    """Count the call and return what follows; None where a dead store lets everything through."""
    try:
        return await state.coord.hit(
            limit.bucket, key, limit=most(limit, state=state), window_seconds=limit.window
        )
    except CoordUnavailableError:
        state.metrics.rate_limit_backend_errors.inc()
        if limit.on_failure == "closed":
            raise
        log.warning("rate limit not enforced", extra={"fields": {"bucket": limit.bucket}})
        return None
