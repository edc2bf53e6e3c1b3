"""Active agents that have fallen silent are marked stale until their next heartbeat."""

from __future__ import annotations

from sb.clock import utc_now
from sb.db.engine import Database
from sb.ops import agents
from sb_worker.loop import Swept, Task
from sb_worker.settings import WorkerSettings


def task(db: Database, settings: WorkerSettings) -> Task:
    """Return the `agents-stale` sweep."""
    limit = settings.sb_worker_sweep_batch_size

    async def batch() -> Swept:
        marked = await db.run(
            agents.mark_stale,
            now=utc_now(),
            silent_for=settings.sb_worker_agents_stale_after,
            limit=limit,
        )
        return Swept(counts={"flipped": marked}, more=marked == limit)

    return Task(
        name="agents-stale",
        interval_seconds=settings.sb_worker_agents_stale_interval.total_seconds(),
        batch=batch,
    )
