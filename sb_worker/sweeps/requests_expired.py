"""Requests nobody decided, and approved ones whose job ran out of time, expire."""

from __future__ import annotations

from sb.clock import utc_now
from sb.db.engine import Database
from sb.ops import expiry
from sb_worker.loop import Swept, Task
from sb_worker.settings import WorkerSettings


def task(db: Database, settings: WorkerSettings) -> Task:
    """Return the `requests-expired` sweep."""
    limit = settings.sb_worker_sweep_batch_size

    async def batch() -> Swept:
        counts = await db.run(expiry.expire_requests, now=utc_now(), limit=limit)
        # A row that could not move now must not make the sweep spin: go on only while rows move.
        more = counts["seen"] == limit and counts["expired"] > 0
        return Swept(counts={"expired": counts["expired"]}, more=more)

    return Task(
        name="requests-expired",
        interval_seconds=settings.sb_worker_requests_expired_interval.total_seconds(),
        batch=batch,
    )
