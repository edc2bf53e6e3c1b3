"""One job under its lease: renewed while under way, dropped when lost, reported when done."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import trio

from sb.clock import monotonic
from sb.sanitize import sanitize_error
from sb.secret import Secret
from sb.wire import ClaimedJob, CompleteRequest, JobResult
from sb_agent.client import ControlPlaneAwayError, ControlPlaneError, CredentialRejectedError
from sb_agent.condition import Condition
from sb_agent.jobs import JobError, Workbench, do
from sb_agent.metrics import AgentMetrics
from sb_agent.pace import Backoff

log = logging.getLogger(__name__)

#: No job takes longer than this; one that hangs gives its slot back.
JOB_SECONDS = 120.0
RENEW_RETRY_SECONDS = (0.25, 2.0)
REPORT_BACKOFF_SECONDS = (0.25, 5.0)
#: How long an outcome is still told once the grace of a stopping agent is over.
LAST_WORDS_SECONDS = 3.0
#: This agent's lease ends a little before the control plane's, which began earlier.
MARGIN = 0.1


@dataclass(slots=True, kw_only=True)
class _Lease:
    """What this agent may still assume to hold."""

    job_id: str
    token: Secret
    seconds: float
    #: Cancelled when the lease is lost; its deadline is the end of the lease.
    scope: trio.CancelScope

    def extend(self, since: float) -> None:
        self.scope.deadline = since + self.seconds * (1 - MARGIN)


async def carry_out(
    job: ClaimedJob, bench: Workbench, condition: Condition, metrics: AgentMetrics
) -> None:
    """Do the job and report it, or drop it when its lease is lost. Meant to run shielded."""
    fields = {"job_id": job.id, "job_type": job.job_type, "correlation_id": job.correlation_id}
    log.info("job claimed", extra={"fields": {**fields, "attempt": job.attempt}})
    started = monotonic()
    lease = _Lease(
        job_id=job.id,
        token=Secret(job.lease_token.encode()),
        seconds=job.lease_seconds,
        scope=trio.CancelScope(),
    )
    lease.extend(trio.current_time())
    request = await _work(job, lease, bench, condition)
    if request is None:
        outcome, error = "lost", None
        log.warning("lease lost, job dropped", extra={"fields": fields})
    else:
        outcome, error = request.status, request.error
        if not await _report(request, lease, bench, condition):
            outcome = "unreported"
    metrics.finished(job.job_type, outcome, monotonic() - started)
    log.info("job completed", extra={"fields": {**fields, "outcome": outcome, "error": error}})


async def _work(
    job: ClaimedJob, lease: _Lease, bench: Workbench, condition: Condition
) -> CompleteRequest | None:
    """Return what to report; None when the lease was lost."""
    with lease.scope:
        with trio.move_on_after(JOB_SECONDS) as bounded:
            condition.begin(bounded)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep, lease, bench, condition)
                request = await _outcome(job, bench)
                nursery.cancel_scope.cancel()
        condition.end(bounded)
        if not bounded.cancelled_caught:
            return request
        # Told at once, so that another agent need not wait for the lease to lapse.
        reason = "the agent is stopping" if condition.draining else "the job took too long"
        return _failed(job, reason, retryable=True)
    condition.end(bounded)
    return None


async def _keep(lease: _Lease, bench: Workbench, condition: Condition) -> None:
    """Renew the lease at every third of it; cancel the work when somebody else may have the job."""
    backoff = Backoff(*RENEW_RETRY_SECONDS)
    await trio.sleep(lease.seconds / 3)
    while True:
        asked = trio.current_time()
        try:
            await bench.plane.renew(lease.job_id, lease.token)
        except ControlPlaneAwayError as problem:
            # Without an answer the lease runs out by itself, through the deadline of its scope.
            log.warning("lease not renewed yet", extra={"fields": {"reason": str(problem)}})
            await backoff.wait()
        except ControlPlaneError as problem:
            if isinstance(problem, CredentialRejectedError):
                condition.rejected.set()
            lease.scope.cancel()
            return
        else:
            lease.extend(asked)
            backoff.reset()
            await trio.sleep(lease.seconds / 3)


async def _outcome(job: ClaimedJob, bench: Workbench) -> CompleteRequest:
    try:
        result: JobResult | None = await do(job, bench)
    except JobError as problem:
        return _failed(job, str(problem), retryable=problem.retryable)
    except Exception as problem:
        # A bug of ours: its text may repeat what it was given, so only its kind is told.
        log.exception("job crashed", extra={"fields": {"job_id": job.id}})
        return _failed(job, f"the agent failed unexpectedly ({type(problem).__name__})")
    return CompleteRequest(lease_token=job.lease_token, status="succeeded", result=result)


def _failed(job: ClaimedJob, error: str, *, retryable: bool = False) -> CompleteRequest:
    return CompleteRequest(
        lease_token=job.lease_token,
        status="failed",
        error=sanitize_error(error),
        retryable=retryable,
    )


async def _report(
    request: CompleteRequest, lease: _Lease, bench: Workbench, condition: Condition
) -> bool:
    """Tell whether the control plane took the outcome; tried until the lease ends, then once more.

    Late is not too late: the control plane takes it as long as nobody else has the job.
    """
    backoff = Backoff(*REPORT_BACKOFF_SECONDS)
    words_end = trio.current_time() + LAST_WORDS_SECONDS
    while True:
        asked = trio.current_time()
        try:
            await bench.plane.complete(lease.job_id, request)
            return True
        except ControlPlaneAwayError as problem:
            reason = str(problem)
            log.warning("outcome not reported yet", extra={"fields": {"reason": reason}})
        except ControlPlaneError as problem:
            if isinstance(problem, CredentialRejectedError):
                condition.rejected.set()
            fields = {"job_id": lease.job_id, "reason": problem.code}
            log.warning("claim lost, outcome dropped", extra={"fields": fields})
            return False
        if asked >= lease.scope.deadline or (condition.draining and asked >= words_end):
            fields = {"job_id": lease.job_id, "reason": reason}
            log.warning("complete failed", extra={"fields": fields})
            return False
        await backoff.wait()
