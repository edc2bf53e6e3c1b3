"""The gauges of the whole installation: read from the database, the same on every replica."""

from __future__ import annotations

import logging

import trio

from sb.clock import utc_now
from sb.db.engine import Database
from sb.errors import SbError
from sb.ops import fleet
from sb_worker.metrics import FleetMetrics

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 15.0


async def observe(db: Database, metrics: FleetMetrics) -> None:
    """Keep the gauges current until cancelled; without a database they keep what they showed."""
    while True:
        try:
            show(await db.read(fleet.counts, now=utc_now()), metrics)
        except SbError as problem:
            log.warning("gauges not refreshed", extra={"fields": {"reason": problem.code}})
        await trio.sleep(LOOK_EVERY_SECONDS)


def show(counts: fleet.Counts, metrics: FleetMetrics) -> None:
    """Leave the counts in the gauges; a label value that is gone leaves no series behind."""
    for gauge in (metrics.queue_depth, metrics.agents, metrics.requests_open):
        gauge.clear()
    for (job_type, status), jobs in counts.jobs.items():
        metrics.queue_depth.labels(job_type=job_type, status=status).set(jobs)
    for status, agents in counts.agents.items():
        metrics.agents.labels(status=status).set(agents)
    for (kind, status), requests in counts.requests.items():
        metrics.requests_open.labels(type=kind, status=status).set(requests)
    metrics.oldest_queued.set(counts.oldest_queued_seconds)
    metrics.wraps_live.set(counts.wraps)
