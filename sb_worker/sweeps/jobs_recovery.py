"""Jobs whose lease lapsed go back into the queue, or fail when no attempt is left."""

from __future__ import annotations

from sb.clock import utc_now
from sb.db.engine import Database
from sb.ops import jobs
from sb_worker.loop import Swept, Task
from sb_worker.settings import WorkerSettings


def task(db: Database, settings: WorkerSettings) -> Task:
    """Return the `jobs-recovery` sweep."""
    limit = settings.sb_worker_sweep_batch_size

    async def batch() -> Swept:
        counts = await db.run(jobs.recover, now=utc_now(), limit=limit)
        return Swept(counts=counts, more=sum(counts.values()) == limit)

    return Task(
        name="jobs-recovery",
        interval_seconds=settings.sb_worker_jobs_recovery_interval.total_seconds(),
        batch=batch,
    )
