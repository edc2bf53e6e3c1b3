"""Projects: what secrets are bound to, under a team or under none, active or archived."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sb.auth.access import GLOBAL, Resource, allowed, visibility
from sb.db.engine import Transaction
from sb.errors import Denial
from sb.ids import new_id
from sb.ops import arrays, audit, moves, teams
from sb.ops.callers import Caller
from sb.ops.errors import OutOfScopeProjectError
from sb.ops.tenancy_errors import ProjectArchivedError, ProjectNotFoundError

EDIT: Final = "project.edit"
ARCHIVE = "project.archive"
RESTORE = "project.restore"
#: Any of these at a scope that reaches into a project lets a person read it, with its environments
#: and bindings; the one definition behind every such route.
READABLE_BY = (
    "secret.list",
    "secret.request",
    "secret.approve",
    "secret.bind",
    "project.edit",
    "environment.edit",
    "team.edit",
    "user_role.edit",
    "policy.edit",
    "policy.author",
)


def create(
    tx: Transaction,
    *,
    caller: Caller,
    name: str,
    team_id: str | None,
    status: str,
    now: datetime,
) -> Mapping[str, Any]:
    """Create a project under a team in the caller's scope, or under none, and return it."""
    _take_team(tx, caller=caller, team_id=team_id, action="project.create", about="project:new")
    project_id = new_id()
    tx.count("project_insert", id=project_id, name=name, team_id=team_id, status=status, now=now)
    facts = {"name": name, "team_id": team_id, "status": status}
    record(tx, by=caller, action="project.create", project_id=project_id, facts=facts, now=now)
    return _find(tx, project_id=project_id)


def show(tx: Transaction, *, caller: Caller, project_id: str) -> Mapping[str, Any]:
    """Return the project if the caller may read it, or refuse as not found."""
    found = list_projects(tx, caller=caller, project_id=project_id, before=None, limit=1)
    if not found:
        raise ProjectNotFoundError
    return found[0]


def list_projects(
    tx: Transaction,
    *,
    caller: Caller,
    before: tuple[datetime, str] | None,
    limit: int,
    project_id: str | None = None,
    team_id: str | None = None,
    status: str | None = None,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` projects the caller may read, newest first."""
    return tx.many(
        "project_list",
        id=project_id,
        team_id=team_id,
        status=status,
        **reach(caller),
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )


def reach(caller: Caller) -> dict[str, Any]:
    """Return what lists of projects, and of what is in them, need to show what is readable."""
    seen = visibility(caller.grants, READABLE_BY)
    return {"everything": seen.everything, **arrays.whole(arrays.leading(seen.scopes))}


def rename(
    tx: Transaction, *, caller: Caller, project_id: str, name: str | None, now: datetime
) -> Mapping[str, Any]:
    """Give the project the name; without one, or with its own, nothing changes."""
    old = take(tx, caller=caller, project_id=project_id, permission=EDIT, action="project.update")
    if name is None or name == old["name"]:
        return old
    tx.count("project_rename", id=project_id, name=name, expected_name=old["name"], now=now)
    facts = {"before": {"name": old["name"]}, "after": {"name": name}}
    record(tx, by=caller, action="project.update", project_id=project_id, facts=facts, now=now)
    return _find(tx, project_id=project_id)


def set_status(
    tx: Transaction, *, caller: Caller, project_id: str, status: str, now: datetime
) -> None:
    """Archive or restore the project; a second call changes nothing."""
    action = ARCHIVE if status == "archived" else RESTORE
    take(tx, caller=caller, project_id=project_id, permission=EDIT, action=action)
    if tx.count("project_set_status", id=project_id, status=status, now=now):
        facts = {"status": status}
        record(tx, by=caller, action=action, project_id=project_id, facts=facts, now=now)


def set_team(
    tx: Transaction, *, caller: Caller, project_id: str, team_id: str | None, now: datetime
) -> None:
    """Put the project under the team, or under none; both ends must be in the caller's scope.

    And the caller must hold over it already what they hold over the new team.
    """
    # 1. What the caller may not see is not there, whichever of the two it is.
    old = show(tx, caller=caller, project_id=project_id)
    if team_id == old["team_id"]:
        take(tx, caller=caller, project_id=project_id, permission=EDIT, action="project.move")
        return
    # 2. Team before project: the order in which everything here is held.
    about = f"project:{project_id}"
    _take_team(tx, caller=caller, team_id=team_id, action="project.move", about=about)
    old = take(tx, caller=caller, project_id=project_id, permission=EDIT, action="project.move")
    moves.require_no_gain(
        tx,
        caller=caller,
        moved=Resource(team_id=old["team_id"], project_id=project_id),
        to_team_id=team_id,
        action="project.move",
        now=now,
    )
    # 3. Write it.
    tx.count(
        "project_set_team",
        id=project_id,
        team_id=team_id,
        expected_team=old["team_id"] or "",
        now=now,
    )
    facts = {"before": {"team_id": old["team_id"]}, "after": {"team_id": team_id}}
    record(tx, by=caller, action="project.move", project_id=project_id, facts=facts, now=now)


def take(
    tx: Transaction, *, caller: Caller, project_id: str, permission: str, action: str
) -> Mapping[str, Any]:
    """Hold the project until the transaction ends and return it, if the caller may change it."""
    row = hold(tx, caller=caller, project_id=project_id)
    require(row, caller=caller, permission=permission, action=action)
    return row


def hold(tx: Transaction, *, caller: Caller, project_id: str) -> Mapping[str, Any]:
    """Hold the project until the transaction ends and return it, if the caller may read it."""
    # Lock first: what is read next stays true until the end.
    tx.one("project_lock", id=project_id)
    return show(tx, caller=caller, project_id=project_id)


def require(row: Mapping[str, Any], *, caller: Caller, permission: str, action: str) -> None:
    """Refuse a caller who may read the project but does not hold the permission over it."""
    resource = Resource(team_id=row["team_id"], project_id=row["id"])
    if not allowed(caller.grants, permission, resource):
        raise OutOfScopeProjectError(
            audit=denied(action, f"project:{row['id']}", permission=permission)
        )


def require_active(row: Mapping[str, Any]) -> None:
    """Refuse to begin something in an archived project."""
    if row["status"] != "active":
        raise ProjectArchivedError


def denied(action: str, resource: str, **facts: Any) -> Denial:
    """Return the audit row of a refusal to change something in a project."""
    return Denial(action, resource, error_kind="out_of_scope_project", **facts)


def _take_team(
    tx: Transaction, *, caller: Caller, team_id: str | None, action: str, about: str
) -> None:
    """Hold the team a project will stand under; under none takes an unscoped grant."""
    if team_id is not None:
        teams.take_active(tx, caller=caller, team_id=team_id, permission=EDIT, action=action)
    elif not allowed(caller.grants, EDIT, GLOBAL):
        raise OutOfScopeProjectError(audit=denied(action, about, permission=EDIT))


def _find(tx: Transaction, *, project_id: str) -> Mapping[str, Any]:
    row = tx.one("project_find", id=project_id)
    if row is None:
        raise ProjectNotFoundError
    return row


def record(
    tx: Transaction,
    *,
    by: Caller,
    action: str,
    project_id: str,
    facts: Mapping[str, Any],
    now: datetime,
) -> None:
    """Append the event of a change of this project."""
    audit.record(
        tx, by=by, action=action, resource=f"project:{project_id}", metadata=facts, now=now
    )
