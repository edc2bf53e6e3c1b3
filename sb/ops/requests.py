"""Access requests as people see them: shown, listed, cancelled, and what each may do next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sb.auth.access import Grant, allowed, covering_roles, visibility
from sb.db.engine import Transaction
from sb.errors import Denial, PermissionDeniedError
from sb.ops import arrays, audit, standing
from sb.ops.arrays import array
from sb.ops.callers import Caller
from sb.ops.errors import (
    NotTheRequesterError,
    OutOfScopeProjectError,
    RequestNotFoundError,
    RequestNotPendingError,
)
from sb.ops.grants import load as load_grants

#: Any of these over a request's scope lets a person see it; its requester always may.
SEEN_BY = ("secret.approve", "secret.list", "secret.request")
#: Values may be revealed while their request is in one of these states.
RETRIEVABLE_IN = ("approved", "executed")
#: Requests in these states have not ended.
OPEN_IN = ("pending", "approved")
#: What a grant says that is for projects as a whole.
_WHOLE = ({"team_ids"}, {"project_id"})
#: With more projects than these in sight, scopes are compared row by row.
MAX_LISTED_PROJECTS = 5000
#: With more paths than these below the prefixes in sight, prefixes are compared row by row.
MAX_LISTED_REFS = 200
#: So much of a path is in the index.
REF_HEAD = 255
#: What says most about where a grant that covers no project whole may lead, most first.
_TELLING = (
    "environment_id",
    "project_id",
    "team_ids",
    "secret_ref_prefix",
    "cluster",
    "provider",
)
#: How long unspent wraps of a rejected or cancelled request stay before the sweep may take them.
WRAPS_AFTER_REFUSAL = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request as one caller may see it, with what that caller may do next."""

    row: Mapping[str, Any]
    votes: list[Mapping[str, Any]]
    allowed_actions: list[str]
    #: Whether it is pending though its time is over: nobody can decide it, and the sweep ends it.
    overdue: bool
    #: The code with which approving it would be refused as things are now, where it was asked.
    blocked_by: str | None = None
    #: The signal of this change: of the job it made claimable, or of the request's end.
    wake: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    requester_id: str | None = None
    status: str | None = None
    type: str | None = None
    project_id: str | None = None
    environment_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    needs_my_decision: bool = False


def ended_channel(request_id: str) -> str:
    """Return the signal on which people wait for the end of a request."""
    return f"requests:{request_id}"


def show(tx: Transaction, *, caller: Caller, request_id: str, now: datetime) -> Seen:
    """Return the request with its votes and what the caller may do, or refuse as not found."""
    seen = seen_by(tx, caller=caller, request_id=request_id, wake=None, now=now)
    if seen.row["status"] != "pending":
        return seen
    # Nobody should be asked for a vote that would be refused, nor wait for one in vain.
    refusal = standing.find_withdrawal(tx, request_id=request_id, now=now)
    if refusal is None:
        return seen
    left = [action for action in seen.allowed_actions if action != "approve"]
    return replace(seen, blocked_by=refusal.code, allowed_actions=left)


def list_requests(
    tx: Transaction,
    *,
    caller: Caller,
    filters: Filters,
    before: tuple[datetime, str] | None,
    limit: int,
    now: datetime,
) -> list[Seen]:
    """Return up to `limit` requests the caller may see, newest first, older than `before`."""
    rows = tx.many(
        "request_list",
        caller_id=caller.user_id,
        **_in_sight(tx, caller=caller, undecided=filters.needs_my_decision),
        undecided=filters.needs_my_decision,
        requester_id=filters.requester_id,
        status=filters.status,
        type=filters.type,
        project_id=filters.project_id,
        environment_id=filters.environment_id,
        since=filters.since,
        until=filters.until,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
        now=now,
    )
    return [
        Seen(
            row=row,
            votes=[],
            allowed_actions=_unless_voted(
                allowed_actions(row, caller=caller, now=now), voted=row["own_votes"] > 0
            ),
            overdue=_is_overdue(row, now=now),
        )
        for row in rows
    ]


def _in_sight(tx: Transaction, *, caller: Caller, undecided: bool) -> dict[str, Any]:
    """Return what the list query needs to find the requests the caller may see, or decide on."""
    wanted = ("secret.approve",) if undecided else SEEN_BY
    grants = [grant for grant in caller.grants if grant.permissions.intersection(wanted)]
    role_ids = {grant.role_id for grant in grants}
    scopes = [
        {**scope, "role_id": role_id}
        for role_id in sorted(role_ids)
        for seen in (visibility([g for g in grants if g.role_id == role_id], wanted),)
        for scope in ([{}] if seen.everything else seen.scopes)
    ]
    # Grants for projects or teams as a whole become lists of projects, which the indexes serve.
    whole = [scope for scope in scopes if scope.keys() - {"role_id"} in _WHOLE]
    partial = [scope for scope in scopes if scope not in whole and len(scope) > 1]
    projects = _projects(tx, whole)
    within = _within(tx, partial)
    return {
        **within,
        "everything": any(len(scope) == 1 for scope in scopes),
        "projects": array(projects or []),
        "narrow": bool(partial) or projects is None,
        "anywhere": projects is None or within["anywhere"],
        "scopes": scopes,
        "sole_role_id": role_ids.pop() if len(role_ids) == 1 else None,
    }


def _within(tx: Transaction, scopes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return lists one of which has whatever is in one of the scopes, unless it can be anywhere."""
    by_key: dict[str, list[dict[str, Any]]] = {key: [] for key in _TELLING}
    for scope in scopes:
        by_key[next(key for key in _TELLING if key in scope)].append(scope)
    values = {key: {s[key] for s in by_key[key]} for key in _TELLING if key != "team_ids"}
    reach = _projects(tx, by_key["project_id"] + by_key["team_ids"])
    prefixes, clusters = values["secret_ref_prefix"], values["cluster"]
    providers = values["provider"]
    refs = _refs(tx, prefixes)
    return {
        "anywhere": reach is None or not arrays.fits(prefixes | clusters | providers),
        "reach": array(reach or []),
        "environments": array(values["environment_id"]),
        "refs": array(refs or []),
        "prefixes": array(prefixes) if prefixes and refs is None else None,
        "clusters": array(clusters) if clusters else None,
        "providers": array(providers) if providers else None,
    }


def _projects(tx: Transaction, scopes: list[dict[str, Any]]) -> list[str] | None:
    """Return the ids of the projects the scopes name or whose teams they cover, if not many."""
    if not scopes:
        return []
    rows = tx.many(
        "request_list_projects",
        project_ids=array(s["project_id"] for s in scopes if "project_id" in s),
        team_ids=array({team for s in scopes for team in s.get("team_ids", ())}),
    )
    return None if len(rows) > MAX_LISTED_PROJECTS else [row["id"] for row in rows]


def _refs(tx: Transaction, prefixes: set[str]) -> list[str] | None:
    """Return how the paths of requests in sight of the prefixes begin, if not many."""
    heads = sorted({prefix[:REF_HEAD] for prefix in prefixes})
    most = MAX_LISTED_REFS // max(1, len(heads))
    if not heads or most == 0:
        return None
    rows = tx.many("request_list_refs", prefixes=heads, most=most)
    refs = {row["ref"] for row in rows}
    few = all(row["place"] <= most for row in rows) and arrays.fits(refs)
    return sorted(refs) if few else None


def cancel(tx: Transaction, *, caller: Caller, request_id: str, now: datetime) -> Seen:
    """Move the caller's own pending request to cancelled; a second call is refused."""
    # 1. Lock, then look: the status cannot change under the decision.
    row = lock_visible(tx, caller=caller, request_id=request_id)
    if row["requester_id"] != caller.user_id:
        raise NotTheRequesterError(audit=denied("request.cancel", request_id, "not_the_requester"))
    if tx.count("request_cancel", id=request_id, now=now) == 0:
        raise RequestNotPendingError(status_now=row["status"])
    # 2. Its values will never be used.
    tx.count("wrap_end_by", request_id=request_id, expires_at=now + WRAPS_AFTER_REFUSAL)
    audit.record(
        tx,
        by=caller,
        action="request.cancel",
        resource=f"request:{request_id}",
        correlation_id=request_id,
        now=now,
    )
    ended = ended_channel(request_id)
    return seen_by(tx, caller=caller, request_id=request_id, wake=ended, now=now)


def lock_visible(tx: Transaction, *, caller: Caller, request_id: str) -> Mapping[str, Any]:
    """Hold the request until the transaction ends and return it, or refuse as not found."""
    # The lock serialises votes, cancels and expiry, so the read below stays true until commit.
    # What is not there is looked for as long as what the caller may not see.
    tx.one("request_lock", id=request_id)
    return find_visible(tx, caller=caller, request_id=request_id)


def find_visible(tx: Transaction, *, caller: Caller, request_id: str) -> Mapping[str, Any]:
    """Return the request if the caller may see it, or refuse as not found."""
    return _visible(tx.one("request_find", id=request_id), caller=caller)


def _visible(row: Mapping[str, Any] | None, *, caller: Caller) -> Mapping[str, Any]:
    if row is None or not may_see(row, caller=caller):
        raise RequestNotFoundError
    return row


def may_see(row: Mapping[str, Any], *, caller: Caller) -> bool:
    """Tell whether the request is the caller's own or in scope of a permission to see it."""
    if row["requester_id"] == caller.user_id:
        return True
    resource = standing.resource_of(row)
    return any(allowed(caller.grants, permission, resource) for permission in SEEN_BY)


def denied(action: str, request_id: str, error_kind: str) -> Denial:
    """Return the audit row of a refusal about this request."""
    return Denial(action, f"request:{request_id}", correlation_id=request_id, error_kind=error_kind)


def require_approver(row: Mapping[str, Any], *, caller: Caller, action: str) -> None:
    """Refuse a caller who may see the request but not decide on it."""
    if not allowed(caller.grants, "secret.approve", standing.resource_of(row)):
        audit_row = denied(action, row["id"], "out_of_scope_project")
        if row["project_id"] is not None:
            raise OutOfScopeProjectError(audit=audit_row)
        raise PermissionDeniedError(permission="secret.approve", audit=audit_row)


def allowed_actions(row: Mapping[str, Any], *, caller: Caller, now: datetime) -> list[str]:
    """Return what this caller may do with the request at this moment."""
    own = row["requester_id"] == caller.user_id
    if row["status"] == "pending" and row["expires_at"] > now:
        votes = ["approve", "reject"] if may_decide(row, caller=caller) else []
        return [*votes, *(["cancel"] if own else [])]
    unspent = row["unspent_until"] is not None and row["unspent_until"] > now
    if own and unspent and row["type"] == "read" and row["status"] in RETRIEVABLE_IN:
        return ["reveal"]
    return []


def may_decide(row: Mapping[str, Any], *, caller: Caller) -> bool:
    """Tell whether the caller could vote on the request, their earlier vote aside."""
    return _decides(row, user_id=caller.user_id, held=caller.grants)


def _decides(row: Mapping[str, Any], *, user_id: str, held: Iterable[Grant]) -> bool:
    if row["requester_id"] == user_id and not row["snap_allow_self_approval"]:
        return False
    roles = covering_roles(held, "secret.approve", standing.resource_of(row))
    role = row["snap_approver_role_id"]
    return bool(roles) if role is None else role in roles


def find_votes(
    tx: Transaction, row: Mapping[str, Any], *, caller: Caller, now: datetime
) -> list[Mapping[str, Any]]:
    """Return the votes, first vote first; while the request is pending, `counts` judges each.

    A vote counts while its voter could still cast it. Nothing keeps how it was when the request
    was decided, so of others `counts` is None.
    """
    pending = row["status"] == "pending"
    return [
        {**vote, "counts": _counts(tx, row, vote, caller=caller, now=now) if pending else None}
        for vote in tx.many("approval_list", request_id=row["id"])
    ]


def _counts(
    tx: Transaction,
    row: Mapping[str, Any],
    vote: Mapping[str, Any],
    *,
    caller: Caller,
    now: datetime,
) -> bool:
    user_id = vote["approver_id"]
    if vote["disabled"]:
        return False
    if user_id == caller.user_id:
        # What they hold was looked up for this very call.
        return may_decide(row, caller=caller)
    return _decides(row, user_id=user_id, held=load_grants(tx, user_id=user_id, now=now))


def count_approvals(votes: Iterable[Mapping[str, Any]], *, cast: bool = False) -> int:
    """Return how many approvals count, or how many were cast whether they count or not."""
    approvals = [v for v in votes if v["decision"] == "approve" and v["lane"] == "source"]
    return sum(1 for vote in approvals if cast or vote["counts"])


def seen_by(
    tx: Transaction,
    *,
    caller: Caller,
    request_id: str,
    wake: str | None,
    now: datetime,
    votes: list[Mapping[str, Any]] | None = None,
) -> Seen:
    # The names cost joins that those who only decide do without.
    row = _visible(tx.one("request_show", id=request_id), caller=caller)
    if votes is None:
        votes = find_votes(tx, row, caller=caller, now=now)
    if row["status"] == "pending":
        row = {**row, "approvals_count": count_approvals(votes)}
    actions = allowed_actions(row, caller=caller, now=now)
    voted = any(vote["approver_id"] == caller.user_id for vote in votes)
    return Seen(
        row=row,
        votes=votes,
        allowed_actions=_unless_voted(actions, voted=voted),
        overdue=_is_overdue(row, now=now),
        wake=wake,
    )


def _is_overdue(row: Mapping[str, Any], *, now: datetime) -> bool:
    return bool(row["status"] == "pending" and row["expires_at"] <= now)


def _unless_voted(actions: list[str], *, voted: bool) -> list[str]:
    """Return the actions without the votes of somebody who has voted."""
    return [action for action in actions if not (voted and action in ("approve", "reject"))]
