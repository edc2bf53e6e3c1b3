"""Sessions a week past their end are deleted: nobody can use them any more."""

from __future__ import annotations

from sb.clock import utc_now
from sb.db.engine import Database
from sb.ops import sessions
from sb_worker.loop import Swept, Task
from sb_worker.settings import WorkerSettings


def task(db: Database, settings: WorkerSettings) -> Task:
    """Return the `sessions-purge` sweep."""
    limit = settings.sb_worker_sweep_batch_size

    async def batch() -> Swept:
        deleted = await db.run(sessions.purge, now=utc_now(), limit=limit)
        return Swept(counts={"deleted": deleted}, more=deleted == limit)

    return Task(
        name="sessions-purge",
        interval_seconds=settings.sb_worker_sessions_purge_interval.total_seconds(),
        batch=batch,
    )
