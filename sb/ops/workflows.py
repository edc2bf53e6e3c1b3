"""Workflows: who is asked, how many of them, and how long everything may take.

A workflow asks nobody only where `auto_approve` says so: no number, absent or zero, ever means it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.auth.access import holds_anywhere
from sb.db.engine import Transaction
from sb.errors import Denial, InvalidInputError, PermissionDeniedError
from sb.ids import new_id
from sb.ops import audit
from sb.ops.callers import Actor, Caller
from sb.ops.governance_errors import (
    AutoApproveNotPinnedError,
    DefaultWorkflowRequiredError,
    SystemRowError,
    WorkflowInUseError,
    WorkflowNameTakenError,
    WorkflowNotFoundError,
)

DAY = 86_400
#: What each span is at the most, in seconds; all are at least one.
MOST_SECONDS: Mapping[str, int] = {
    "wrap_ttl_created_seconds": 90 * DAY,
    "wrap_ttl_approved_seconds": 30 * DAY,
    "wrap_ttl_claimed_seconds": DAY,
    "request_ttl_seconds": 90 * DAY,
    "fill_ttl_seconds": 30 * DAY,
}
MOST_APPROVERS = 50
#: What a workflow is like where nothing else was said.
DEFAULTS: Mapping[str, Any] = {
    "description": "",
    "min_approvers": 1,
    "auto_approve": False,
    "approver_role_id": None,
    "wrap_ttl_created_seconds": 7 * DAY,
    "wrap_ttl_approved_seconds": 3600,
    "wrap_ttl_claimed_seconds": 300,
    "request_ttl_seconds": 14 * DAY,
    "fill_ttl_seconds": DAY,
    "require_justification": True,
    "allow_self_approval": False,
    "requires_security_approval": False,
    "scoped_policy_authorable": False,
    "notification_channels": [],
    "is_default": False,
    "enabled": True,
}
KNOBS = ("name", *DEFAULTS)
#: Whoever writes, decides by or points rules at workflows may read them.
READ_BY = ("workflow.edit", "policy.edit", "policy.author", "secret.approve")


def create(
    tx: Transaction, *, by: Actor, knobs: Mapping[str, Any], now: datetime
) -> Mapping[str, Any]:
    """Create a workflow and return it; a name is used once, knobs not given have their default."""
    # 1. What is asked for, as a whole.
    workflow_id = new_id()
    settled = settle(DEFAULTS, knobs)
    _check(tx, settled, workflow_id=workflow_id)
    # 2. There is one default workflow: this one, if it says so.
    if settled["is_default"]:
        _take_default(tx, by=by, workflow_id=workflow_id, now=now)
    # 3. Write it and its trail.
    made = tx.count("workflow_insert", id=workflow_id, is_system=False, **settled, now=now)
    if made == 0:
        raise WorkflowNameTakenError(field="name")
    audit.record(
        tx,
        by=by,
        action="workflow.create",
        resource=f"workflow:{workflow_id}",
        metadata=settled,
        now=now,
    )
    return _found(tx, workflow_id)


def update(
    tx: Transaction, *, by: Actor, workflow_id: str, changes: Mapping[str, Any], now: datetime
) -> Mapping[str, Any]:
    """Change the given knobs, keep all others, and return the workflow; a repeat does nothing.

    Requests that were submitted before keep the workflow as it was then.
    """
    # 1. Hold it, and first the default beside it when that is to move.
    if changes.get("is_default"):
        tx.many("workflow_lock_default", id=workflow_id)
    row = tx.one("workflow_lock", id=workflow_id)
    if row is None:
        raise WorkflowNotFoundError
    # 2. What it would be as a whole, checked like a new one.
    settled = settle(row, changes)
    if row["is_default"] and not settled["is_default"]:
        raise DefaultWorkflowRequiredError(field="is_default")
    _check(tx, settled, workflow_id=workflow_id)
    changed = changed_facts(row, settled)
    if not changed:
        return row
    # 3. Write it and its trail.
    if "is_default" in changed:
        _take_default(tx, by=by, workflow_id=workflow_id, now=now)
    tx.count("workflow_update", id=workflow_id, **settled, now=now)
    _record_update(tx, by=by, row=row, changes=changed, now=now)
    return _found(tx, workflow_id)


def delete(tx: Transaction, *, by: Actor, workflow_id: str, now: datetime) -> None:
    """Remove a workflow that nothing names; a second call is refused as not found."""
    # Held before counting: a rule or a request that names it now waits, and then finds it gone.
    row = tx.one("workflow_lock_for_delete", id=workflow_id)
    if row is None:
        raise WorkflowNotFoundError
    if row["is_system"]:
        raise SystemRowError
    if row["is_default"]:
        raise DefaultWorkflowRequiredError
    uses = tx.one("workflow_count_uses", id=workflow_id)
    assert uses is not None, "a query of two counts always has a row"
    if uses["rules"] or uses["requests"]:
        raise WorkflowInUseError(rules=uses["rules"], requests=uses["requests"])
    tx.count("workflow_delete", id=workflow_id)
    audit.record(
        tx,
        by=by,
        action="workflow.delete",
        resource=f"workflow:{workflow_id}",
        metadata={"name": row["name"]},
        now=now,
    )


def show(tx: Transaction, *, caller: Caller, workflow_id: str) -> Mapping[str, Any]:
    """Return the workflow, or refuse it as not found or not the caller's to read."""
    _require_reader(caller)
    return _found(tx, workflow_id)


def list_workflows(
    tx: Transaction, *, caller: Caller, before: tuple[datetime, str] | None, limit: int
) -> list[Mapping[str, Any]]:
    """Return up to `limit` workflows older than `before`, newest first."""
    _require_reader(caller)
    return tx.many("workflow_list", **_page(before), limit=limit)


def list_authorable(
    tx: Transaction, *, before: tuple[datetime, str] | None, limit: int
) -> list[Mapping[str, Any]]:
    """Return up to `limit` enabled workflows that scoped authors may use, newest first."""
    return tx.many("workflow_list_authorable", **_page(before), limit=limit)


def settle(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return all knobs after the changes; a quorum not mentioned follows `auto_approve`."""
    settled = {**{name: stored.get(name) for name in KNOBS}, **changes}
    if "min_approvers" not in changes:
        settled["min_approvers"] = 0 if settled["auto_approve"] else stored["min_approvers"] or 1
    return settled


def changed_facts(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs, each with what it was and what it is."""
    return {
        name: {"before": before[name], "after": value}
        for name, value in after.items()
        if before[name] != value
    }


def faults(knobs: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return every field that is out of bounds or contradicts another, with the reason."""
    found: list[dict[str, str]] = []

    def fault(field: str, reason: str) -> None:
        found.append({"field": field, "reason": reason})

    if not isinstance(knobs["name"], str) or not knobs["name"].strip():
        fault("name", "required")
    if not _within(knobs["min_approvers"], 0, MOST_APPROVERS):
        fault("min_approvers", f"must be a whole number from 0 to {MOST_APPROVERS}")
    elif knobs["auto_approve"] and knobs["min_approvers"] != 0:
        fault("min_approvers", "must be 0 while auto_approve is true")
    elif not knobs["auto_approve"] and knobs["min_approvers"] == 0:
        fault("min_approvers", "0 asks nobody; say auto_approve: true if that is meant")
    if knobs["auto_approve"] and knobs["requires_security_approval"]:
        fault("requires_security_approval", "contradicts auto_approve")
    for name, most in MOST_SECONDS.items():
        if not _within(knobs[name], 1, most):
            fault(name, f"must be a whole number of seconds from 1 to {most}")
    return found


def _within(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _check(tx: Transaction, settled: Mapping[str, Any], *, workflow_id: str) -> None:
    if found := faults(settled):
        raise InvalidInputError(fields=found)
    if settled["approver_role_id"] is not None:
        _check_role(tx, settled["approver_role_id"])
    if settled["is_default"] and (settled["auto_approve"] or not settled["enabled"]):
        raise DefaultWorkflowRequiredError(
            field="auto_approve" if settled["auto_approve"] else "enabled"
        )
    if settled["auto_approve"]:
        rules = int(tx.scalar("policy_count_unpinned", workflow_id=workflow_id))
        if rules:
            raise AutoApproveNotPinnedError(
                "Rules that could match production point at this workflow.",
                field="auto_approve",
                rules=rules,
            )


def _check_role(tx: Transaction, role_id: str) -> None:
    role = tx.one("workflow_find_role", id=role_id)
    # A role that cannot vote would leave every request undecided.
    if role is None or "secret.approve" not in role["permissions"]:
        reason = "no such role" if role is None else "the role does not carry secret.approve"
        raise InvalidInputError(fields=[{"field": "approver_role_id", "reason": reason}])


def _take_default(tx: Transaction, *, by: Actor, workflow_id: str, now: datetime) -> None:
    """Leave no other workflow the default; whoever makes another one so meanwhile is refused."""
    for other in tx.many("workflow_lock_default", id=workflow_id):
        if other["id"] != workflow_id and other["is_default"]:
            tx.count("workflow_unset_default", id=other["id"], is_default=False, now=now)
            moved = {"is_default": {"before": True, "after": False}}
            _record_update(tx, by=by, row=other, changes=moved, now=now)


def _record_update(
    tx: Transaction, *, by: Actor, row: Mapping[str, Any], changes: Mapping[str, Any], now: datetime
) -> None:
    audit.record(
        tx,
        by=by,
        action="workflow.update",
        resource=f"workflow:{row['id']}",
        metadata={"name": row["name"], "changes": dict(changes)},
        now=now,
    )


def _require_reader(caller: Caller) -> None:
    if not any(holds_anywhere(caller.grants, permission) for permission in READ_BY):
        raise PermissionDeniedError(
            permission=READ_BY[0],
            audit=Denial("access.denied", "workflow:read", permission=READ_BY[0]),
        )


def _found(tx: Transaction, workflow_id: str) -> Mapping[str, Any]:
    row = tx.one("workflow_find", id=workflow_id)
    if row is None:
        raise WorkflowNotFoundError
    return row


def _page(before: tuple[datetime, str] | None) -> dict[str, Any]:
    return {"before_at": before[0] if before else None, "before_id": before[1] if before else None}
