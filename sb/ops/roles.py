"""Roles: named lists of permissions from the catalogue; `role.edit` counts when held unscoped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from sb.auth.access import GLOBAL, allowed, holds_anywhere
from sb.auth.permissions import CATALOGUE, PERMISSION_KEYS
from sb.db.engine import Transaction
from sb.errors import Denial, PermissionDeniedError
from sb.ids import new_id
from sb.ops import administrators, audit, grants
from sb.ops.callers import Caller
from sb.ops.governance_errors import (
    RoleInUseError,
    RoleNameTakenError,
    RoleNotFoundError,
    SystemRoleNameError,
    SystemRowError,
    UnknownPermissionError,
)

EDITED_BY: Final = "role.edit"
#: Whoever holds one of these at some scope chooses among the roles; others see their own.
CHOSEN_BY = ("role.edit", "user_role.edit", "workflow.edit")
#: How many grants are looked at per query.
BATCH = 1000


def create(
    tx: Transaction,
    *,
    caller: Caller,
    name: str,
    description: str,
    permissions: Iterable[str],
    now: datetime,
) -> Mapping[str, Any]:
    """Create a role that nobody holds yet and return it; a name is used once."""
    keys = _in_catalogue_order(permissions)
    role_id = new_id()
    caller = _hold(tx, caller, Denial("role.create", "roles"), now=now)
    created = tx.count(
        "role_insert",
        id=role_id,
        name=name,
        description=description,
        permissions=keys,
        is_system=False,
        now=now,
    )
    if created == 0:
        raise RoleNameTakenError
    audit.record(
        tx,
        by=caller,
        action="role.create",
        resource=f"role:{role_id}",
        metadata={"name": name, "description": description, "permissions": keys},
        now=now,
    )
    return _find(tx, role_id)


def find(tx: Transaction, *, caller: Caller, role_id: str) -> Mapping[str, Any]:
    """Return a role the caller chooses among or holds, or refuse as not found."""
    row = _find(tx, role_id)
    if not _chooses(caller) and all(grant.role_id != role_id for grant in caller.grants):
        raise RoleNotFoundError
    return row


def list_roles(
    tx: Transaction,
    *,
    caller: Caller,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` roles the caller chooses among or holds, newest first."""
    return tx.many(
        "role_list",
        everything=_chooses(caller),
        # As the grants say that were loaded: one for something deleted counts for nothing.
        held=" ".join({grant.role_id for grant in caller.grants}),
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )


def update(
    tx: Transaction,
    *,
    caller: Caller,
    role_id: str,
    changes: Mapping[str, Any],
    now: datetime,
) -> Mapping[str, Any]:
    """Change `name`, `description` and `permissions` where given; to the same, nothing happens."""
    changes = dict(changes)
    if "permissions" in changes:
        changes["permissions"] = _in_catalogue_order(changes["permissions"])
    # 1. Nobody else changes a role or a grant from here on.
    denial = Denial("role.update", f"role:{role_id}")
    caller = _hold(tx, caller, denial, now=now)
    row = _hold_role(tx, role_id)
    before = {name: row[name] for name in ("name", "description", "permissions")}
    after = {**before, **changes}
    if after == before:
        return row
    # 2. May it be so, wherever the role is held?
    if row["is_system"] and after["name"] != before["name"]:
        raise SystemRoleNameError
    added = set(after["permissions"]) - set(before["permissions"])
    if added:
        _require_delegable(tx, caller, role_id=role_id, added=added, denial=denial, now=now)
    # 3. The change, somebody left to undo it, the trail.
    tx.count("role_update", id=role_id, **after, now=now)
    if administrators.touches(set(before["permissions"]) - set(after["permissions"])):
        administrators.require_one(tx)
    changed = [name for name in before if before[name] != after[name]]
    audit.record(
        tx,
        by=caller,
        action="role.update",
        resource=f"role:{role_id}",
        metadata={
            "name": after["name"],
            "before": {name: before[name] for name in changed},
            "after": {name: after[name] for name in changed},
        },
        now=now,
    )
    return _find(tx, role_id)


def delete(tx: Transaction, *, caller: Caller, role_id: str, now: datetime) -> None:
    """Delete a role that nothing names any more; a second call is refused as not found."""
    caller = _hold(tx, caller, Denial("role.delete", f"role:{role_id}"), now=now)
    # Held, or a workflow could come to name the role between this look and the deletion.
    row = _hold_role(tx, role_id)
    if row["is_system"]:
        raise SystemRowError
    uses = tx.one("role_uses", id=role_id) or {}
    used_by = sorted(name for name, count in uses.items() if count)
    if used_by:
        raise RoleInUseError(used_by=used_by)
    if tx.count("role_delete", id=role_id) == 0:
        raise RoleNotFoundError
    audit.record(
        tx,
        by=caller,
        action="role.delete",
        resource=f"role:{role_id}",
        metadata={name: row[name] for name in ("name", "description", "permissions")},
        now=now,
    )


def _in_catalogue_order(permissions: Iterable[str]) -> list[str]:
    wanted = set(permissions)
    unknown = sorted(wanted - PERMISSION_KEYS)
    if unknown:
        raise UnknownPermissionError(field="permissions", unknown=unknown)
    return [permission.key for permission in CATALOGUE if permission.key in wanted]


def _chooses(caller: Caller) -> bool:
    auditor = allowed(caller.grants, "audit.read", GLOBAL)
    return auditor or any(holds_anywhere(caller.grants, key) for key in CHOSEN_BY)


def _hold(tx: Transaction, caller: Caller, denial: Denial, *, now: datetime) -> Caller:
    """Return the caller as `grants.hold` does, or refuse one who may not edit roles any more."""
    caller = grants.hold(tx, caller=caller, now=now)
    if not allowed(caller.grants, EDITED_BY, GLOBAL):
        denial.metadata.update(error_kind=PermissionDeniedError.code)
        raise PermissionDeniedError(permission=EDITED_BY, audit=denial)
    return caller


def _hold_role(tx: Transaction, role_id: str) -> Mapping[str, Any]:
    row = tx.one("role_hold", id=role_id)
    if row is None:
        raise RoleNotFoundError
    return row


def _find(tx: Transaction, role_id: str) -> Mapping[str, Any]:
    row = tx.one("role_find", id=role_id)
    if row is None:
        raise RoleNotFoundError
    return row


def _require_delegable(
    tx: Transaction,
    caller: Caller,
    *,
    role_id: str,
    added: set[str],
    denial: Denial,
    now: datetime,
) -> None:
    """Refuse to add what the caller could not give each holder of the role where they hold it."""
    # An administrator answers for others, so only their own grants are left to look at.
    only = caller.user_id if administrators.is_root(caller) else None
    for row in _in_force(tx, role_id=role_id, user_id=only, now=now):
        grants.require_delegable(
            caller,
            to=row["user_id"],
            permissions=added,
            resource=grants.covered_by_row(row),
            until=row["expires_at"],
            denial=denial,
        )


def _in_force(
    tx: Transaction, *, role_id: str, user_id: str | None, now: datetime
) -> Iterator[Mapping[str, Any]]:
    """Yield every grant of the role that is in force, however many there are."""
    after_id = None
    while True:
        rows = tx.many(
            "grant_list_of_role",
            role_id=role_id,
            user_id=user_id,
            after_id=after_id,
            limit=BATCH,
            now=now,
        )
        yield from rows
        if len(rows) < BATCH:
            return
        after_id = rows[-1]["id"]
