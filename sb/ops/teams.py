"""Teams: a tree without circles and not too deep, who belongs to each, and what hangs on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sb.auth.access import GLOBAL, Resource, allowed, visibility
from sb.auth.permissions import PERMISSION_KEYS
from sb.db.engine import Transaction
from sb.errors import Denial
from sb.ids import new_id
from sb.ops import audit, moves
from sb.ops.callers import Caller
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import OutOfScopeTeamError, TeamNotFoundError
from sb.ops.tenancy_errors import (
    AlreadyMemberError,
    MemberNotFoundError,
    TeamArchivedError,
    TeamCycleError,
    TeamInUseError,
    TeamTooDeepError,
)

EDIT: Final = "team.edit"
#: How many teams there may be from a root down to the lowest; so deep a path can be written down.
MOST_LEVELS = 100
ARCHIVE = "team.archive"
RESTORE = "team.restore"


def create(
    tx: Transaction,
    *,
    caller: Caller,
    name: str,
    parent_team_id: str | None,
    description: str | None,
    status: str,
    now: datetime,
) -> Mapping[str, Any]:
    """Create a team under a parent in the caller's scope, or a root, and return it."""
    if parent_team_id is not None:
        hold_tree(tx)
        take_active(
            tx, caller=caller, team_id=parent_team_id, permission=EDIT, action="team.create"
        )
        _check_depth(tx, parent_id=parent_team_id, levels=1)
    else:
        _require_global(caller, action="team.create", resource="team:root")
    team_id = new_id()
    tx.count(
        "team_insert",
        id=team_id,
        name=name,
        parent_team_id=parent_team_id,
        status=status,
        description=description,
        now=now,
    )
    facts = {"name": name, "parent_team_id": parent_team_id, "status": status}
    _record(tx, by=caller, action="team.create", team_id=team_id, facts=facts, now=now)
    return _find(tx, team_id=team_id)


def show(tx: Transaction, *, caller: Caller, team_id: str) -> Mapping[str, Any]:
    """Return the team, or refuse as not found: to who is neither in it nor over it."""
    found = list_teams(tx, caller=caller, team_id=team_id, before=None, limit=1)
    if not found:
        raise TeamNotFoundError
    return found[0]


def list_teams(
    tx: Transaction,
    *,
    caller: Caller,
    before: tuple[datetime, str] | None,
    limit: int,
    team_id: str | None = None,
    status: str | None = None,
    parent_team_id: str | None = None,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` teams the caller belongs to or has any grant over, newest first."""
    seen = visibility(caller.grants, PERMISSION_KEYS)
    covered = {covered_id for scope in seen.scopes for covered_id in scope.get("team_ids", ())}
    return tx.many(
        "team_list",
        id=team_id,
        status=status,
        parent_team_id=parent_team_id,
        caller_id=caller.user_id,
        everything=seen.everything,
        covered=sorted(covered),
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )


def update(
    tx: Transaction, *, caller: Caller, team_id: str, changes: Mapping[str, Any], now: datetime
) -> Mapping[str, Any]:
    """Change what `changes` names and keep the rest; saying what is so already changes nothing."""
    # 1. Moves take turns, so that what is read about the tree stays true; then the team itself.
    if "parent_team_id" in changes:
        hold_tree(tx)
    old = _take(tx, caller=caller, team_id=team_id, action="team.update")
    new = {name: changes.get(name, old[name]) for name in ("name", "description", "parent_team_id")}
    changed = sorted(name for name, value in new.items() if value != old[name])
    if not changed:
        return old
    # 2. The new place: within reach, open, and not below the team.
    moved = "parent_team_id" in changed
    if moved:
        _check_place(tx, caller=caller, team=old, parent_id=new["parent_team_id"], now=now)
    # 3. Write it, and what it means for rules and projects.
    tx.count("team_update", id=team_id, expected_parent=old["parent_team_id"] or "", **new, now=now)
    facts = {
        "changed": changed,
        "before": {name: old[name] for name in changed},
        "after": {name: new[name] for name in changed},
    }
    _record(tx, by=caller, action="team.update", team_id=team_id, facts=facts, now=now)
    if moved:
        _record_move(tx, by=caller, old=old, parent_id=new["parent_team_id"], now=now)
    return _find(tx, team_id=team_id)


def _check_place(
    tx: Transaction,
    *,
    caller: Caller,
    team: Mapping[str, Any],
    parent_id: str | None,
    now: datetime,
) -> None:
    if parent_id is None:
        _require_global(caller, action="team.update", resource=f"team:{team['id']}")
        return
    take_active(tx, caller=caller, team_id=parent_id, permission=EDIT, action="team.update")
    if tx.scalar("team_stands_within", id=parent_id, above_id=team["id"]) is not None:
        raise TeamCycleError(field="parent_team_id")
    levels = tx.scalar("team_height", id=team["id"]) or 1
    _check_depth(tx, parent_id=parent_id, levels=levels)
    moves.require_no_gain(
        tx,
        caller=caller,
        moved=Resource(team_id=team["id"]),
        to_team_id=parent_id,
        action="team.update",
        now=now,
    )


def _check_depth(tx: Transaction, *, parent_id: str, levels: int) -> None:
    """Refuse to put so many levels of teams below this parent if they would reach too deep."""
    if (tx.scalar("team_depth", id=parent_id) or 0) + levels > MOST_LEVELS:
        raise TeamTooDeepError(field="parent_team_id", most=MOST_LEVELS)


def hold_tree(tx: Transaction) -> None:
    """Let nobody else change where teams stand until the transaction ends; before any team."""
    tx.scalar("team_lock_tree")


def _record_move(
    tx: Transaction, *, by: Caller, old: Mapping[str, Any], parent_id: str | None, now: datetime
) -> None:
    reach = tx.one("team_reach", id=old["id"]) or {}
    facts = {
        "team_id": old["id"],
        "old_parent_team_id": old["parent_team_id"] or "",
        "new_parent_team_id": parent_id or "",
        **reach,
    }
    _record(
        tx,
        by=by,
        action="policy.team_lineage_changed",
        team_id=old["id"],
        facts=facts,
        now=now,
    )


def set_status(
    tx: Transaction, *, caller: Caller, team_id: str, status: str, now: datetime
) -> None:
    """Archive or restore the team; a second call changes nothing."""
    action = ARCHIVE if status == "archived" else RESTORE
    _take(tx, caller=caller, team_id=team_id, action=action)
    if tx.count("team_set_status", id=team_id, status=status, now=now):
        _record(tx, by=caller, action=action, team_id=team_id, facts={"status": status}, now=now)


def delete(tx: Transaction, *, caller: Caller, team_id: str, now: datetime) -> None:
    """Delete a team on which nothing hangs; its memberships end with it."""
    hold_tree(tx)
    # Whoever hangs something on a team holds it first, so the counts below stay true.
    old = _take(tx, caller=caller, team_id=team_id, action="team.delete")
    usage = tx.one("team_usage", id=team_id, now=now) or {}
    if any(usage.values()):
        raise TeamInUseError(**usage)
    tx.count("team_delete", id=team_id)
    facts = {"name": old["name"], "parent_team_id": old["parent_team_id"]}
    _record(tx, by=caller, action="team.delete", team_id=team_id, facts=facts, now=now)


def add_member(
    tx: Transaction, *, caller: Caller, team_id: str, user_id: str, now: datetime
) -> Mapping[str, Any]:
    """Make the person a member of the team and return the membership; it grants nothing."""
    _take(tx, caller=caller, team_id=team_id, action="team.member.add")
    user = tx.one("user_find", id=user_id)
    if user is None:
        raise UserNotFoundError(field="user_id")
    membership = {"team_id": team_id, "user_id": user_id, "created_by": caller.user_id}
    if tx.count("team_member_insert", **membership, now=now) == 0:
        raise AlreadyMemberError
    facts = {"user_id": user_id}
    _record(tx, by=caller, action="team.member.add", team_id=team_id, facts=facts, now=now)
    names = {"email": user["email"], "display_name": user["display_name"]}
    return {**membership, **names, "created_at": now}


def remove_member(
    tx: Transaction, *, caller: Caller, team_id: str, user_id: str, now: datetime
) -> None:
    """End the person's membership, or refuse when there is none."""
    _take(tx, caller=caller, team_id=team_id, action="team.member.remove")
    if tx.count("team_member_delete", team_id=team_id, user_id=user_id) == 0:
        raise MemberNotFoundError
    facts = {"user_id": user_id}
    _record(tx, by=caller, action="team.member.remove", team_id=team_id, facts=facts, now=now)


def list_members(
    tx: Transaction,
    *,
    caller: Caller,
    team_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` direct members of a team the caller sees, newest first."""
    show(tx, caller=caller, team_id=team_id)
    return tx.many(
        "team_member_list",
        team_id=team_id,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )


def take_active(
    tx: Transaction, *, caller: Caller, team_id: str, permission: str, action: str
) -> Mapping[str, Any]:
    """Hold a team that something will hang on: seen, in scope of the permission and active."""
    row = _take(tx, caller=caller, team_id=team_id, permission=permission, action=action)
    if row["status"] != "active":
        raise TeamArchivedError
    return row


def _take(
    tx: Transaction, *, caller: Caller, team_id: str, action: str, permission: str = EDIT
) -> Mapping[str, Any]:
    """Hold the team until the transaction ends and return it, if the caller may change it."""
    # Lock first: what is read next stays true until the end.
    tx.one("team_lock", id=team_id)
    row = show(tx, caller=caller, team_id=team_id)
    if not allowed(caller.grants, permission, Resource(team_id=team_id)):
        raise OutOfScopeTeamError(audit=_denied(action, f"team:{team_id}", permission))
    return row


def _require_global(caller: Caller, *, action: str, resource: str) -> None:
    if not allowed(caller.grants, EDIT, GLOBAL):
        raise OutOfScopeTeamError(audit=_denied(action, resource, EDIT))


def _denied(action: str, resource: str, permission: str) -> Denial:
    return Denial(action, resource, error_kind="out_of_scope_team", permission=permission)


def _find(tx: Transaction, *, team_id: str) -> Mapping[str, Any]:
    row = tx.one("team_find", id=team_id)
    if row is None:
        raise TeamNotFoundError
    return row


def _record(
    tx: Transaction,
    *,
    by: Caller,
    action: str,
    team_id: str,
    facts: Mapping[str, Any],
    now: datetime,
) -> None:
    audit.record(tx, by=by, action=action, resource=f"team:{team_id}", metadata=facts, now=now)
