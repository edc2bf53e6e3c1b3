"""What ends by itself: requests nobody decided, jobs nobody finished, wraps nobody opened."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.ops import audit
from sb.ops.callers import System

SYSTEM = System(part="worker")


def expire_requests(tx: Transaction, *, now: datetime, limit: int) -> Mapping[str, int]:
    """Expire overdue pending requests and approved ones whose job ran out of time.

    Returns counts by effect: `seen` rows and `expired` ones. Safe to run twice at once.
    """
    rows = tx.many("request_list_overdue", now=now, limit=limit)
    expired = sum(_expire(tx, row=row, now=now) for row in rows)
    return {"seen": len(rows), "expired": expired}


def _expire(tx: Transaction, *, row: Mapping[str, Any], now: datetime) -> bool:
    # 1. The request is held by the list query; its job must not be in an agent's hands.
    reason = "request_ttl"
    if row["status"] == "approved":
        reason = "job_ttl"
        if tx.count("job_expire_unclaimed", id=row["job_id"], error=reason, now=now) == 0:
            return False
    # 2. The request leaves the state it was seen in, its values go with it.
    moved = tx.count(
        "request_expire",
        id=row["id"],
        expected_status=row["status"],
        failure_reason=reason,
        now=now,
    )
    if moved == 0:
        return False
    tx.count("wrap_end_by", request_id=row["id"], expires_at=now)
    audit.record(
        tx,
        by=SYSTEM,
        action="request.expired",
        resource=f"request:{row['id']}",
        correlation_id=row["id"],
        metadata={"reason": reason, "expected_status": row["status"]},
        now=now,
    )
    return True


def purge_wraps(tx: Transaction, *, now: datetime, limit: int) -> int:
    """Delete wraps past their end and return how many; one audit row tells the number."""
    deleted = tx.count("wrap_purge", now=now, limit=limit)
    if deleted:
        audit.record(
            tx,
            by=SYSTEM,
            action="wrap.purge",
            resource="wrap:expired",
            metadata={"deleted": deleted},
            now=now,
        )
    return deleted
