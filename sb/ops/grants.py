"""Grants: which roles a person holds, at which scopes, until when, from whom and why.

Every change of a grant or a role takes turns with every other one (`administrators.hold`): so what
is decided here about powers stays true until it is written, and no two grants are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from sb.auth.access import GLOBAL, Grant, Resource, allowed, lacking
from sb.db.engine import Transaction
from sb.errors import Denial, InvalidInputError, PermissionDeniedError
from sb.ids import new_id
from sb.ops import administrators, audit, scopes
from sb.ops.callers import Caller
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import (
    EscalationError,
    GranteeDisabledError,
    GrantEndedError,
    GrantExistsError,
    GrantNotFoundError,
    InvalidScopeError,
    RoleNotFoundError,
    TooManyGrantsError,
)

#: Held over a whole scope, it lets a person see, give and take grants there.
GIVEN_BY: Final = "user_role.edit"
#: How many grants of one person are in force at most: every request of theirs loads them all.
MOST_IN_FORCE: Final = 200


def load(tx: Transaction, *, user_id: str, now: datetime) -> tuple[Grant, ...]:
    """Return every grant of the person that is in force now; one query, whatever the team tree."""
    rows = tx.many("grant_list_for_user", user_id=user_id, now=now)
    tree = rows[0]["team_tree"] if rows else None
    below = scopes.below({row["team_id"] for row in rows}, tree=tree)
    return tuple(
        Grant(
            role_id=row["role_id"],
            role_name=row["role_name"],
            permissions=frozenset(row["permissions"]),
            scope=row["scope"],
            team_ids=below[row["team_id"]],
            expires_at=row["expires_at"],
        )
        for row in rows
    )


def give(
    tx: Transaction,
    *,
    user_id: str,
    role_id: str,
    scope: Mapping[str, str],
    granted_by: str,
    now: datetime,
    expires_at: datetime | None = None,
    reason: str | None = None,
) -> str:
    """Give the person the role at the scope and return the grant's id; asks nobody's permission."""
    grant_id = new_id()
    tx.count(
        "grant_insert",
        id=grant_id,
        user_id=user_id,
        role_id=role_id,
        scope=dict(scope),
        granted_by=granted_by,
        expires_at=expires_at,
        reason=reason,
        now=now,
    )
    return grant_id


def hold(tx: Transaction, *, caller: Caller, now: datetime) -> Caller:
    """Let nobody else change powers until the end, and return the caller with what they hold now.

    Between the sign-in's look and this moment somebody may have taken their grants away.
    """
    administrators.hold(tx)
    account = tx.one("user_find", id=caller.user_id)
    if account is None or account["disabled"]:
        return dataclasses.replace(caller, grants=())
    return dataclasses.replace(caller, grants=load(tx, user_id=caller.user_id, now=now))


def create(
    tx: Transaction,
    *,
    caller: Caller,
    user_id: str,
    role_id: str,
    scope: Mapping[str, Any],
    expires_at: datetime | None,
    reason: str | None,
    now: datetime,
) -> Mapping[str, Any]:
    """Give the person the role at the scope and return the grant; twice at once, one is refused."""
    scope = scopes.canonical(scope)
    _require_future(expires_at, now=now)
    # 1. From here on nobody else changes a grant, a role or who is disabled.
    caller = hold(tx, caller=caller, now=now)
    denial = Denial("grant.create", f"user:{user_id}", role_id=role_id, scope=scope)
    resource = _covered_by(tx, caller, scope=scope, denial=denial)
    # 2. Whom, and what.
    role = tx.one("role_find", id=role_id)
    if role is None:
        raise RoleNotFoundError
    account = tx.one("user_find", id=user_id)
    if account is None:
        raise UserNotFoundError
    if account["disabled"]:
        raise GranteeDisabledError
    require_delegable(
        caller,
        to=user_id,
        permissions=role["permissions"],
        resource=resource,
        until=expires_at,
        denial=denial,
    )
    # 3. Once, and not without end; a grant that has ended may be followed by another.
    same: dict[str, Any] = {"user_id": user_id, "role_id": role_id, "scope": scope}
    if tx.scalar("grant_find_same", **same, now=now) is not None:
        raise GrantExistsError
    if tx.scalar("grant_count_in_force", user_id=user_id, now=now) >= MOST_IN_FORCE:
        raise TooManyGrantsError
    grant_id = give(
        tx, **same, granted_by=caller.actor, expires_at=expires_at, reason=reason, now=now
    )
    row = _find(tx, grant_id)
    _record(tx, by=caller, action="grant.create", row=row, now=now)
    return row


def require_delegable(
    caller: Caller,
    *,
    to: str,
    permissions: Iterable[str],
    resource: Resource,
    until: datetime | None,
    denial: Denial,
) -> None:
    """Refuse to let the person have, that far and that long, what the caller has not.

    An administrator may give others whatever the catalogue holds, and themselves nothing more.
    """
    if to != caller.user_id and administrators.is_root(caller):
        return
    missing = sorted(lacking(caller.grants, permissions, resource, until=until))
    if missing:
        denial.metadata.update(error_kind=EscalationError.code, permissions=missing)
        raise EscalationError(permissions=missing, audit=denial)


def update(
    tx: Transaction,
    *,
    caller: Caller,
    grant_id: str,
    changes: Mapping[str, Any],
    now: datetime,
) -> Mapping[str, Any]:
    """Change `expires_at` and `reason` where given and return the grant; to the same, nothing."""
    _require_future(changes.get("expires_at"), now=now)
    caller = hold(tx, caller=caller, now=now)
    denial = Denial("grant.update", f"grant:{grant_id}")
    row = _editable(tx, caller, grant_id=grant_id, denial=denial)
    before = {name: row[name] for name in ("expires_at", "reason")}
    after = {**before, **changes}
    if after == before:
        return row
    if _ended(row, now=now):
        raise GrantEndedError
    # Longer is more: whoever lets a grant go on must hold all of it for as long themselves.
    if _longer(before["expires_at"], after["expires_at"]):
        require_delegable(
            caller,
            to=row["user_id"],
            permissions=row["permissions"],
            resource=covered_by_row(row),
            until=after["expires_at"],
            denial=denial,
        )
    if tx.count("grant_update", id=grant_id, **after, now=now) == 0:
        raise GrantEndedError
    _require_administrator(tx, row)
    changed = _find(tx, grant_id)
    was = {"before": {"expires_at": _iso(before["expires_at"]), "reason": before["reason"]}}
    _record(tx, by=caller, action="grant.update", row=changed, now=now, more=was)
    return changed


def revoke(
    tx: Transaction, *, caller: Caller, grant_id: str, now: datetime, reason: str | None = None
) -> None:
    """Take the grant back, ended or not; a second call is refused as not found."""
    caller = hold(tx, caller=caller, now=now)
    denial = Denial("grant.revoke", f"grant:{grant_id}")
    row = _editable(tx, caller, grant_id=grant_id, denial=denial)
    if tx.count("grant_delete", id=grant_id) == 0:
        raise GrantNotFoundError
    _require_administrator(tx, row)
    # The row is gone after this: its beginning is told here, or nowhere where no event made it.
    more = {
        "granted_by": row["granted_by"],
        "granted_at": _iso(row["granted_at"]),
        "was_in_force": not _ended(row, now=now),
        "revoke_reason": reason,
    }
    _record(tx, by=caller, action="grant.revoke", row=row, now=now, more=more)


def covered_by_row(row: Mapping[str, Any]) -> Resource:
    """Return the widest thing a stored grant covers; what cannot be read counts as everything."""
    try:
        scope = scopes.canonical(row["scope"])
    except InvalidScopeError:
        return GLOBAL
    return scopes.covered(scope, team_id=row["team_id"], project_id=row["project_id"])


def covers(caller: Caller, row: Mapping[str, Any]) -> bool:
    """Say whether the caller gives and takes roles at all that a stored grant covers."""
    return allowed(caller.grants, GIVEN_BY, covered_by_row(row))


def _covered_by(
    tx: Transaction, caller: Caller, *, scope: Mapping[str, str], denial: Denial
) -> Resource:
    """Return the widest thing of a scope, all of which is the caller's to give roles at."""
    scopes.hold(tx, scope=scope)
    found = scopes.find(tx, scope=scope)
    everywhere = allowed(caller.grants, GIVEN_BY, GLOBAL)
    if everywhere:
        scopes.require_meaning(found)
    # Elsewhere what is not there and what is somebody else's look the same, also beside the own:
    # a project of one team named together with another team.
    absent = not everywhere and (found.missing or found.split)
    if absent or not allowed(caller.grants, GIVEN_BY, found.resource):
        denial.metadata.update(error_kind="out_of_scope")
        raise PermissionDeniedError(permission=GIVEN_BY, audit=denial)
    return found.resource


def _editable(
    tx: Transaction, caller: Caller, *, grant_id: str, denial: Denial
) -> Mapping[str, Any]:
    row = tx.one("grant_find", id=grant_id)
    if row is None or not covers(caller, row):
        denial.metadata.update(error_kind="out_of_scope")
        if row is not None and row["user_id"] == caller.user_id:
            raise PermissionDeniedError(permission=GIVEN_BY, audit=denial)
        # One trail for both, or the time it takes would tell them apart.
        raise GrantNotFoundError(audit=denial)
    return row


def _find(tx: Transaction, grant_id: str) -> Mapping[str, Any]:
    row = tx.one("grant_find", id=grant_id)
    if row is None:
        raise GrantNotFoundError
    return row


def _require_administrator(tx: Transaction, row: Mapping[str, Any]) -> None:
    # Asked only of grants that make administrators: the others can be taken back at any time.
    if not row["scope"] and administrators.touches(row["permissions"]):
        administrators.require_one(tx)


def _require_future(expires_at: datetime | None, *, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        reason = "a grant ends in the future"
        raise InvalidInputError(fields=[{"field": "expires_at", "reason": reason}])


def _ended(row: Mapping[str, Any], *, now: datetime) -> bool:
    return row["expires_at"] is not None and row["expires_at"] <= now


def _longer(before: datetime | None, after: datetime | None) -> bool:
    return before is not None and (after is None or after > before)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _record(
    tx: Transaction,
    *,
    by: Caller,
    action: str,
    row: Mapping[str, Any],
    now: datetime,
    more: Mapping[str, Any] | None = None,
) -> None:
    metadata = {
        "user_id": row["user_id"],
        "role_id": row["role_id"],
        "role": row["role_name"],
        "scope": row["scope"],
        "expires_at": _iso(row["expires_at"]),
        "reason": row["reason"],
        **(more or {}),
    }
    resource = f"grant:{row['id']}"
    audit.record(tx, by=by, action=action, resource=resource, metadata=metadata, now=now)
