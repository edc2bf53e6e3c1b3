"""Wraps past their end are deleted: nobody can open them any more."""

from __future__ import annotations

from sb.clock import utc_now
from sb.db.engine import Database
from sb.ops import expiry
from sb_worker.loop import Swept, Task
from sb_worker.settings import WorkerSettings


def task(db: Database, settings: WorkerSettings) -> Task:
    """Return the `wraps-expired` sweep."""
    limit = settings.sb_worker_sweep_batch_size

    async def batch() -> Swept:
        deleted = await db.run(expiry.purge_wraps, now=utc_now(), limit=limit)
        return Swept(counts={"deleted": deleted}, more=deleted == limit)

    return Task(
        name="wraps-expired",
        interval_seconds=settings.sb_worker_wraps_expired_interval.total_seconds(),
        batch=batch,
    )
