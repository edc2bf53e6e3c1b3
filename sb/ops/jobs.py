"""Jobs: made by approval, claimed under a fenced lease, ended once with their request.

Locks are taken in one order everywhere: request, then job, then wraps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sb.db.engine import Transaction
from sb.errors import DatabaseBusyError, Denial
from sb.kms.envelope import ERASED
from sb.ops import audit, requests, standing
from sb.ops.callers import Actor, AgentCaller, System
from sb.ops.errors import JobNotFoundError, LeaseLostError
from sb.sanitize import sanitize_error

LEASE = timedelta(seconds=30)
MAX_ATTEMPTS = 3
#: How many jobs that may not run any more one claim puts aside.
PUT_ASIDE = 20
SYSTEM = System(part="jobs")
#: Why a job failed whose request lost its ground (binding, project, environment) or its requester
#: the right to ask; the trail says which.
REVOKED = "binding_revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    id: str
    job_type: str
    correlation_id: str
    request_id: str | None
    payload: Mapping[str, Any]
    attempt: int
    max_attempts: int
    claim_expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an agent reports: `error` is cleaned of anything credential-shaped before it is kept."""

    succeeded: bool
    error: str | None = None
    retryable: bool = False
    result: Mapping[str, Any] | None = None


def wake_channel(connection_id: str | None) -> str:
    """Return the signal on which agents of a connection wait for work."""
    return f"jobs:{connection_id or 'unbound'}"


def claim(
    tx: Transaction, *, agent: AgentCaller, lease_token_hash: bytes, now: datetime
) -> ClaimedJob | None:
    """Lease the oldest runnable job the agent covers, or return None; nobody else has its token.

    A job whose request may not go on as things are now is never handed out: it fails here.
    """
    # 1. One row, skipping those other claimers hold.
    row = _lease_next(tx, agent=agent, lease_token_hash=lease_token_hash, now=now)
    if row is None:
        return None
    # 2. From here the values of a patch live only as long as the workflow lets claimed ones.
    if row["request_id"] is not None:
        _start_claimed_ttl(tx, request_id=row["request_id"], now=now)
    audit.record(
        tx,
        by=agent,
        action="job.claim",
        resource=f"job:{row['id']}",
        correlation_id=row["correlation_id"],
        metadata={"attempt": row["attempts"], "job_type": row["job_type"]},
        now=now,
    )
    return ClaimedJob(
        id=row["id"],
        job_type=row["job_type"],
        correlation_id=row["correlation_id"],
        request_id=row["request_id"],
        payload=row["payload"],
        attempt=row["attempts"],
        max_attempts=row["max_attempts"],
        claim_expires_at=row["claim_expires_at"],
    )


def _lease_next(
    tx: Transaction, *, agent: AgentCaller, lease_token_hash: bytes, now: datetime
) -> Mapping[str, Any] | None:
    for _ in range(PUT_ASIDE):
        row = tx.one(
            "job_claim",
            agent_id=agent.agent_id,
            connection_id=agent.provider_connection_id,
            provider_type=agent.provider_type,
            cluster_name=agent.cluster_name,
            lease_token_hash=lease_token_hash,
            claim_expires_at=now + LEASE,
            now=now,
        )
        if row is None or row["request_id"] is None:
            return row
        refusal = standing.find_withdrawal(tx, request_id=row["request_id"], now=now)
        if refusal is None:
            return row
        _revoke(tx, job=row, lease_token_hash=lease_token_hash, error_kind=refusal.code, now=now)
    return None


def _revoke(
    tx: Transaction,
    *,
    job: Mapping[str, Any],
    lease_token_hash: bytes,
    error_kind: str,
    now: datetime,
) -> None:
    # The job is held and its request comes first in the order of locks: waiting for it could close
    # a circle with whoever ends both at this moment. The agent asks again.
    if tx.one("request_lock_unless_held", id=job["request_id"]) is None:
        raise DatabaseBusyError(headers={"Retry-After": "1"})
    tx.count("job_revoke", id=job["id"], lease_token_hash=lease_token_hash, error=REVOKED, now=now)
    audit.record(
        tx,
        by=SYSTEM,
        action="job.revoked",
        resource=f"job:{job['id']}",
        correlation_id=job["correlation_id"],
        status="failure",
        metadata={"job_type": job["job_type"], "reason": REVOKED, "error_kind": error_kind},
        now=now,
    )
    finish_request(tx, job=job, succeeded=False, error=REVOKED, now=now)


def _start_claimed_ttl(tx: Transaction, *, request_id: str, now: datetime) -> None:
    request = tx.one("request_find", id=request_id)
    if request is None or request["type"] != "patch":
        return
    ends_at = now + timedelta(seconds=request["snap_wrap_ttl_claimed_seconds"])
    tx.count("wrap_expire_at", request_id=request_id, expires_at=ends_at, now=now)


def renew(
    tx: Transaction, *, agent: AgentCaller, job_id: str, lease_token_hash: bytes, now: datetime
) -> datetime:
    """Move the end of the agent's live lease and return it; a lapsed lease is lost."""
    ends_at = now + LEASE
    renewed = tx.count(
        "job_renew",
        id=job_id,
        agent_id=agent.agent_id,
        lease_token_hash=lease_token_hash,
        claim_expires_at=ends_at,
        now=now,
    )
    if renewed == 0:
        raise LeaseLostError(audit=_lease_denied("job.renew", job_id))
    return ends_at


def require_lease(
    tx: Transaction,
    *,
    agent: AgentCaller,
    request_id: str,
    lease_token_hash: bytes,
    action: str,
    now: datetime,
    resource: str | None = None,
) -> Mapping[str, Any]:
    """Return the agent's live job for this request, or refuse: no lease, no value."""
    row = tx.one(
        "job_find_live_lease",
        request_id=request_id,
        agent_id=agent.agent_id,
        lease_token_hash=lease_token_hash,
        now=now,
    )
    if row is None:
        raise LeaseLostError(
            audit=Denial(
                action,
                resource or f"request:{request_id}",
                correlation_id=request_id,
                error_kind="lease_lost",
            )
        )
    return row


def complete(
    tx: Transaction,
    *,
    agent: AgentCaller,
    job_id: str,
    lease_token_hash: bytes,
    outcome: Outcome,
    now: datetime,
) -> str | None:
    """End the job under its lease, and its request with it; the same lease may say so again.

    Returns the signal of the change: work to claim when the job went back into the queue, the
    request's end otherwise; None when nothing changed.
    """
    # 1. What is not this agent's is refused before anything is held, as what is not there.
    found = tx.one("job_find_request", id=job_id)
    if found is None or found["lease_token_hash"] != lease_token_hash:
        about = None if found is None else found["correlation_id"]
        raise LeaseLostError(audit=_lease_denied("job.complete", job_id, about))
    # 2. Request before job: the same order as approval and expiry.
    job = _lock_job(tx, job_id=job_id)
    mine = job["claimed_by"] == agent.agent_id and job["lease_token_hash"] == lease_token_hash
    requeued = job["status"] == "queued" and not outcome.succeeded
    if mine and (requeued or job["status"] in ("succeeded", "failed")):
        _record_complete(tx, agent=agent, job=job, repeated=True, now=now)
        return None
    if not mine or job["status"] != "claimed":
        raise LeaseLostError(audit=_lease_denied("job.complete", job_id, job["correlation_id"]))
    # 3. A failure that may pass goes back into the queue while attempts are left.
    error = sanitize_error(outcome.error) if outcome.error else None
    if not outcome.succeeded:
        tx.count("agent_set_last_error", id=agent.agent_id, last_error=error, now=now)
        if outcome.retryable and job["attempts"] < job["max_attempts"]:
            return _requeue(tx, job=job, by=agent, error=error, reported=True, now=now)
    # 4. The end of the job and of its request.
    status = "succeeded" if outcome.succeeded else "failed"
    tx.count(
        "job_finish",
        id=job_id,
        agent_id=agent.agent_id,
        lease_token_hash=lease_token_hash,
        status=status,
        error=error,
        result=dict(outcome.result) if outcome.result is not None else None,
        now=now,
    )
    _record_complete(tx, agent=agent, job={**job, "status": status}, repeated=False, now=now)
    if job["request_id"] is not None:
        finish_request(tx, job=job, succeeded=outcome.succeeded, error=error, now=now)
        if outcome.succeeded and job["job_type"] == "patch":
            tx.count(
                "wrap_consume_by_agent",
                request_id=job["request_id"],
                agent_id=agent.agent_id,
                erased=ERASED,
                now=now,
            )
        return requests.ended_channel(job["request_id"])
    return None


def _lock_job(tx: Transaction, *, job_id: str) -> Mapping[str, Any]:
    found = tx.one("job_find_request", id=job_id)
    if found is None:
        raise JobNotFoundError
    if found["request_id"] is not None:
        tx.one("request_lock", id=found["request_id"])
    job = tx.one("job_lock", id=job_id)
    if job is None:
        raise JobNotFoundError
    return job


def _requeue(
    tx: Transaction,
    *,
    job: Mapping[str, Any],
    by: Actor,
    error: str | None,
    reported: bool,
    now: datetime,
) -> str:
    # 1, 2, 4 … seconds: long enough for a provider to recover, short enough for a person waiting.
    delay = timedelta(seconds=2 ** (job["attempts"] - 1))
    tx.count(
        "job_requeue",
        id=job["id"],
        lease_token_hash=job["lease_token_hash"],
        # Whoever reported the failure may say so again; a lease that lapsed is forgotten.
        reported_by=job["claimed_by"] if reported else None,
        reported_under=job["lease_token_hash"] if reported else None,
        run_after=now + delay,
        error=error,
        now=now,
    )
    request = tx.one("request_find", id=job["request_id"]) if job["request_id"] else None
    if request is not None and request["type"] == "patch" and request["execute_before_at"]:
        # The next attempt starts their shorter life anew; in between they wait as the job does.
        ends_at = request["execute_before_at"]
        tx.count("wrap_expire_at", request_id=request["id"], expires_at=ends_at, now=now)
    audit.record(
        tx,
        by=by,
        action="job.requeued",
        resource=f"job:{job['id']}",
        correlation_id=job["correlation_id"],
        metadata={"attempt": job["attempts"], "max_attempts": job["max_attempts"], "error": error},
        now=now,
    )
    return wake_channel(job["provider_connection_id"])


def finish_request(
    tx: Transaction, *, job: Mapping[str, Any], succeeded: bool, error: str | None, now: datetime
) -> None:
    """Move the job's approved request to its end state; one that has ended already stays."""
    status = "executed" if succeeded else "failed"
    moved = tx.count(
        "request_finish", id=job["request_id"], status=status, failure_reason=error, now=now
    )
    if moved == 0:
        return
    if not succeeded:
        tx.count("wrap_end_by", request_id=job["request_id"], expires_at=now)
    audit.record(
        tx,
        by=SYSTEM,
        action="request.transition",
        resource=f"request:{job['request_id']}",
        correlation_id=job["request_id"],
        metadata={"target": status, "job_id": job["id"]},
        now=now,
    )


def recover(tx: Transaction, *, now: datetime, limit: int) -> Mapping[str, int]:
    """Requeue jobs whose lease lapsed, fail those without attempts left; safe to run twice at once.

    Returns counts by effect: `requeued` and `failed`.
    """
    counts = {"requeued": 0, "failed": 0}
    for lapsed in tx.many("job_list_lapsed", now=now, limit=limit):
        job = _lock_job(tx, job_id=lapsed["id"])
        if job["status"] != "claimed" or job["claim_expires_at"] > now:
            continue  # Renewed, finished or re-claimed since it was listed.
        if job["attempts"] < job["max_attempts"]:
            error = "the agent's lease lapsed"
            _requeue(tx, job=job, by=SYSTEM, error=error, reported=False, now=now)
            counts["requeued"] += 1
        else:
            _give_up(tx, job=job, now=now)
            counts["failed"] += 1
    return counts


def _give_up(tx: Transaction, *, job: Mapping[str, Any], now: datetime) -> None:
    error = f"no agent finished the job in {job['max_attempts']} attempts"
    tx.count(
        "job_give_up", id=job["id"], lease_token_hash=job["lease_token_hash"], error=error, now=now
    )
    audit.record(
        tx,
        by=SYSTEM,
        action="job.expired",
        resource=f"job:{job['id']}",
        correlation_id=job["correlation_id"],
        status="failure",
        metadata={"attempt": job["attempts"], "max_attempts": job["max_attempts"]},
        now=now,
    )
    if job["request_id"] is not None:
        finish_request(tx, job=job, succeeded=False, error=error, now=now)


def _record_complete(
    tx: Transaction, *, agent: AgentCaller, job: Mapping[str, Any], repeated: bool, now: datetime
) -> None:
    audit.record(
        tx,
        by=agent,
        action="job.complete.idempotent" if repeated else "job.complete",
        resource=f"job:{job['id']}",
        correlation_id=job["correlation_id"],
        status="success" if repeated or job["status"] == "succeeded" else "failure",
        metadata={"job_status": job["status"]},
        now=now,
    )


def _lease_denied(action: str, job_id: str, correlation_id: str | None = None) -> Denial:
    return Denial(action, f"job:{job_id}", correlation_id=correlation_id, error_kind="lease_lost")
