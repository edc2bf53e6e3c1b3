"""The claim loop: one waiting call at a time, and as many jobs at once as there are slots."""

from __future__ import annotations

import logging

import trio

from sb.wire import ClaimedJob
from sb_agent.client import ControlPlaneError, CredentialRejectedError
from sb_agent.condition import Condition
from sb_agent.jobs import Workbench
from sb_agent.leases import carry_out
from sb_agent.metrics import AgentMetrics
from sb_agent.pace import Backoff, jittered
from sb_agent.settings import AgentSettings

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (0.5, 15.0)
#: A wait that ends without a job sooner than this was no wait.
SHORT_WAIT_SECONDS = 1.0


async def claims(
    bench: Workbench, settings: AgentSettings, condition: Condition, metrics: AgentMetrics
) -> None:
    """Claim and do jobs until cancelled or rejected.

    Jobs under way are then shielded: they have the grace to end, and report how they ended.
    """
    slots = trio.Semaphore(settings.claim_concurrency)
    backoff = Backoff(*BACKOFF_SECONDS)

    async def job_task(job: ClaimedJob) -> None:
        try:
            with trio.CancelScope(shield=True), metrics.in_flight.track_inprogress():
                await carry_out(job, bench, condition, metrics)
        finally:
            slots.release()

    async with trio.open_nursery() as jobs:
        try:
            while not condition.rejected.is_set():
                await slots.acquire()
                job = None
                try:
                    job = await _claim(bench, settings, backoff, metrics)
                finally:
                    if job is None:
                        slots.release()
                    else:
                        # Within the same step as the answer: a stop cannot get in between and
                        # leave a leased job that nobody does.
                        jobs.start_soon(job_task, job)
        except CredentialRejectedError:
            condition.rejected.set()
        finally:
            condition.drain(settings.shutdown_grace_seconds)


async def _claim(
    bench: Workbench, settings: AgentSettings, backoff: Backoff, metrics: AgentMetrics
) -> ClaimedJob | None:
    """Return a leased job; or None after the wait, and after a pause where there was no wait."""
    started = trio.current_time()
    try:
        job = await bench.plane.claim(wait_seconds=settings.claim_wait_seconds)
    except CredentialRejectedError:
        raise
    except ControlPlaneError as problem:
        metrics.claim_failures.inc()
        log.warning("claim failed", extra={"fields": {"reason": str(problem)}})
        await backoff.wait()
        return None
    backoff.reset()
    if job is None and trio.current_time() - started < SHORT_WAIT_SECONDS:
        # The control plane does not wait, or another process with this identity took the wait
        # over: without a pause the two would take it from each other as fast as they can.
        await trio.sleep(jittered(settings.claim_interval_seconds))
    return job
