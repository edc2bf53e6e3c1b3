"""Votes: one person, one vote, never on one's own request; the quorum makes exactly one job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import audit, jobs, requests, standing
from sb.ops.callers import Actor, Caller, System
from sb.ops.errors import (
    AlreadyVotedError,
    ApproverRoleRequiredError,
    RequestNotPendingError,
    SelfApprovalForbiddenError,
    WrapExpiredError,
)

POLICY = System(part="policy")


def approve(
    tx: Transaction, *, caller: Caller, request_id: str, comment: str | None, now: datetime
) -> requests.Seen:
    """Add the caller's vote; at the quorum the request is approved and its one job enqueued.

    A second vote of the same person is refused. Votes count while their voters could cast them.
    """
    # 1. Lock, then check in the order the caller can understand.
    row = _lock_decidable(
        tx, caller=caller, request_id=request_id, action="request.approve", now=now
    )
    standing.require(tx, request_id=request_id, action="request.approve", now=now)
    # 2. The vote, then the quorum, counted under the lock. Powers are read and not held: what was
    # taken back before this moment counts no more, what is taken back after it comes too late.
    _vote(tx, caller=caller, request_id=request_id, decision="approve", comment=comment, now=now)
    votes = requests.find_votes(tx, row, caller=caller, now=now)
    quorum = _quorum(votes, required=int(row["snap_min_approvers"]))
    reached = bool(quorum["became_approved"])
    audit.record(
        tx,
        by=caller,
        action="request.approve",
        resource=f"request:{request_id}",
        correlation_id=request_id,
        metadata=quorum,
        now=now,
    )
    wake = _approve(tx, row=row, by=caller, now=now) if reached else None
    judged = None if reached else votes
    return requests.seen_by(
        tx, caller=caller, request_id=request_id, wake=wake, votes=judged, now=now
    )


def _quorum(votes: Sequence[Mapping[str, Any]], *, required: int) -> dict[str, Any]:
    """Return what the trail keeps of a count: how many approvals there are of how many."""
    counting = requests.count_approvals(votes)
    left_out = requests.count_approvals(votes, cast=True) - counting
    found = {"approves": counting, "required": required, "became_approved": counting >= required}
    return {**found, "not_counted": left_out} if left_out else found


def reject(
    tx: Transaction, *, caller: Caller, request_id: str, reason: str, now: datetime
) -> requests.Seen:
    """Record the caller's rejection and end the request at once; a second call is refused."""
    row = _lock_decidable(
        tx, caller=caller, request_id=request_id, action="request.reject", now=now
    )
    _vote(tx, caller=caller, request_id=request_id, decision="reject", comment=reason, now=now)
    if tx.count("request_reject", id=request_id, reject_reason=reason, now=now) == 0:
        raise RequestNotPendingError(status_now=row["status"])
    ends_at = now + requests.WRAPS_AFTER_REFUSAL
    tx.count("wrap_end_by", request_id=request_id, expires_at=ends_at)
    audit.record(
        tx,
        by=caller,
        action="request.reject",
        resource=f"request:{request_id}",
        correlation_id=request_id,
        now=now,
    )
    ended = requests.ended_channel(request_id)
    return requests.seen_by(tx, caller=caller, request_id=request_id, wake=ended, now=now)


def approve_without_vote(tx: Transaction, *, request_id: str, now: datetime) -> str:
    """Approve a request whose workflow asks nobody; return where its job will be waited for."""
    row = tx.one("request_find", id=request_id)
    if row is None:
        raise RequestNotPendingError
    audit.record(
        tx,
        by=POLICY,
        action="request.approve",
        resource=f"request:{request_id}",
        correlation_id=request_id,
        metadata={"approves": 0, "required": 0, "became_approved": True},
        now=now,
    )
    return _approve(tx, row=row, by=POLICY, now=now)


def _lock_decidable(
    tx: Transaction, *, caller: Caller, request_id: str, action: str, now: datetime
) -> Mapping[str, Any]:
    row = requests.lock_visible(tx, caller=caller, request_id=request_id)
    if row["status"] != "pending":
        raise RequestNotPendingError(status_now=row["status"])
    if row["expires_at"] <= now:
        raise RequestNotPendingError(
            "The request has expired; ask for a new one.", status_now="expired"
        )
    if row["requester_id"] == caller.user_id and not row["snap_allow_self_approval"]:
        raise SelfApprovalForbiddenError(
            audit=requests.denied(action, request_id, "self_approval_forbidden")
        )
    requests.require_approver(row, caller=caller, action=action)
    if not requests.may_decide(row, caller=caller):
        role = tx.one("role_find", id=row["snap_approver_role_id"])
        raise ApproverRoleRequiredError(
            role=role and role["name"],
            audit=requests.denied(action, request_id, "approver_role_required"),
        )
    if tx.one("approval_of", request_id=request_id, approver_id=caller.user_id) is not None:
        raise AlreadyVotedError(audit=requests.denied(action, request_id, "already_voted"))
    return row


def _vote(
    tx: Transaction,
    *,
    caller: Caller,
    request_id: str,
    decision: str,
    comment: str | None,
    now: datetime,
) -> None:
    tx.count(
        "approval_insert",
        id=new_id(),
        request_id=request_id,
        approver_id=caller.user_id,
        decision=decision,
        comment=comment,
        now=now,
    )


def _approve(tx: Transaction, *, row: Mapping[str, Any], by: Actor, now: datetime) -> str:
    """Move the request to approved with its one job; return where agents wait for it."""
    request_id = row["id"]
    # A patch whose values have expired could only write half of what was asked: never revive them.
    live = tx.scalar("wrap_count_unspent", request_id=request_id, now=now)
    if row["type"] == "patch" and live < len(row["target_keys"]):
        raise WrapExpiredError(
            "The values of this request have expired; ask the requester to submit it again."
        )
    ends_at = now + timedelta(seconds=row["snap_wrap_ttl_approved_seconds"])
    job_id = new_id()
    enqueue(tx, row=row, job_id=job_id, by=by, now=now)
    moved = tx.count(
        "request_approve", id=request_id, job_id=job_id, execute_before_at=ends_at, now=now
    )
    if moved == 0:
        raise RequestNotPendingError(status_now=row["status"])
    tx.count("wrap_expire_at", request_id=request_id, expires_at=ends_at, now=now)
    return jobs.wake_channel(row["provider_connection_id"])


def enqueue(
    tx: Transaction, *, row: Mapping[str, Any], job_id: str, by: Actor, now: datetime
) -> None:
    """Enqueue the one job of an approved request; the unique index refuses a second."""
    payload: dict[str, Any] = {
        "request_id": row["id"],
        "provider_connection_id": row["provider_connection_id"],
        "target_provider_type": row["target_provider_type"],
        "target_provider_config": row["target_provider_config"],
        "target_secret_ref": row["target_secret_ref"],
        "target_keys": row["target_keys"],
        "target_scope": row["target_scope"],
    }
    if row["type"] == "patch":
        payload["wraps"] = _wrap_references(tx, request_id=row["id"])
    tx.count(
        "job_insert",
        id=job_id,
        job_type=row["type"],
        correlation_id=row["id"],
        request_id=row["id"],
        provider_connection_id=row["provider_connection_id"],
        cluster_name=row["cluster_name"],
        provider_type=row["target_provider_type"],
        payload=payload,
        max_attempts=jobs.MAX_ATTEMPTS,
        now=now,
    )
    audit.record(
        tx,
        by=by,
        action="job.enqueue",
        resource=f"job:{job_id}",
        correlation_id=row["id"],
        metadata={"job_type": row["type"]},
        now=now,
    )


def _wrap_references(tx: Transaction, *, request_id: str) -> Sequence[Mapping[str, str]]:
    rows = tx.many("wrap_list", request_id=request_id)
    return [{"wrap_id": row["id"], "key_name": row["key_name"]} for row in rows]
