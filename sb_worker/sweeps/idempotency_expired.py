"""Idempotency keys past their day are forgotten."""

from __future__ import annotations

from sb.clock import utc_now
from sb.db.engine import Database
from sb.ops import idempotency
from sb_worker.loop import Swept, Task
from sb_worker.settings import WorkerSettings


def task(db: Database, settings: WorkerSettings) -> Task:
    """Return the `idempotency-expired` sweep."""
    limit = settings.sb_worker_sweep_batch_size

    async def batch() -> Swept:
        deleted = await db.run(idempotency.purge, now=utc_now(), limit=limit)
        return Swept(counts={"deleted": deleted}, more=deleted == limit)

    return Task(
        name="idempotency-expired",
        interval_seconds=settings.sb_worker_idempotency_expired_interval.total_seconds(),
        batch=batch,
    )
