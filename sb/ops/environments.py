"""Environments of projects: named once, of a kind that nobody can lower by starting over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sb.auth.access import GLOBAL, Resource, allowed
from sb.db.engine import Transaction
from sb.errors import Denial
from sb.ids import new_id
from sb.ops import audit, projects, secret_kinds
from sb.ops.callers import Caller
from sb.ops.errors import OutOfScopeProjectError
from sb.ops.tenancy_errors import (
    EnvironmentInUseError,
    EnvironmentKindProtectedError,
    EnvironmentNameTakenError,
    EnvironmentNotFoundError,
)

EDIT: Final = "environment.edit"
#: Kinds from the weakest to the strongest.
KINDS = ("non_prod", "prod")


def create(
    tx: Transaction,
    *,
    caller: Caller,
    project_id: str,
    name: str,
    environment_type: str,
    kind: str | None,
    risk_level: int,
    description: str | None,
    now: datetime,
) -> Mapping[str, Any]:
    """Create an environment and return it; production is what its kind says, not its type."""
    # 1. The project, held: two environments of one name are decided one after the other.
    project = projects.take(
        tx, caller=caller, project_id=project_id, permission=EDIT, action="environment.create"
    )
    projects.require_active(project)
    # 2. What the name stood for before.
    kind = kind or ("prod" if environment_type == "prod" else "non_prod")
    earlier = tx.one("environment_find_latest", project_id=project_id, name=name)
    if earlier is not None:
        if earlier["deleted_at"] is None and earlier["name"] == name:
            raise EnvironmentNameTakenError
        _require_kind(caller, earlier=earlier, kind=kind, name=name)
    # 3. Write it.
    environment_id = new_id()
    tx.count(
        "environment_insert",
        id=environment_id,
        project_id=project_id,
        name=name,
        type=environment_type,
        kind=kind,
        risk_level=risk_level,
        description=description,
        now=now,
    )
    facts = {
        "project_id": project_id,
        "name": name,
        "type": environment_type,
        "kind": kind,
        "risk_level": risk_level,
    }
    _record(tx, by=caller, action="environment.create", id_=environment_id, facts=facts, now=now)
    if kind == secret_kinds.PROD:
        secret_kinds.mark_everywhere(tx, by=caller, project_id=project_id, now=now)
    if earlier is not None and earlier["kind"] != kind:
        change = {**facts, "before": {"kind": earlier["kind"]}, "earlier_id": earlier["id"]}
        _record(
            tx,
            by=caller,
            action="environment.kind_changed",
            id_=environment_id,
            facts=change,
            now=now,
        )
    return _find(tx, environment_id=environment_id)


def _require_kind(caller: Caller, *, earlier: Mapping[str, Any], kind: str, name: str) -> None:
    # Rules and approvals hang on the kind: deleting and making it anew must not lower it.
    weaker = KINDS.index(kind) < KINDS.index(earlier["kind"])
    if weaker and not allowed(caller.grants, "policy.edit", GLOBAL):
        raise EnvironmentKindProtectedError(
            field="kind",
            audit=Denial(
                "environment.create",
                f"environment:{earlier['id']}",
                error_kind="environment_kind_protected",
                name=name,
                kind=kind,
            ),
        )


def show(tx: Transaction, *, caller: Caller, environment_id: str) -> Mapping[str, Any]:
    """Return the environment if the caller may read it, or refuse as not found."""
    found = list_environments(
        tx, caller=caller, environment_id=environment_id, before=None, limit=1
    )
    if not found:
        raise EnvironmentNotFoundError
    return found[0]


def list_environments(
    tx: Transaction,
    *,
    caller: Caller,
    before: tuple[datetime, str] | None,
    limit: int,
    environment_id: str | None = None,
    project_id: str | None = None,
    kind: str | None = None,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` environments the caller may read, newest first."""
    return tx.many(
        "environment_list",
        id=environment_id,
        project_id=project_id,
        kind=kind,
        **projects.reach(caller),
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )


def list_of_project(
    tx: Transaction,
    *,
    caller: Caller,
    project_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` environments of a project the caller may read, newest first."""
    projects.show(tx, caller=caller, project_id=project_id)
    return list_environments(tx, caller=caller, project_id=project_id, before=before, limit=limit)


def update(
    tx: Transaction,
    *,
    caller: Caller,
    environment_id: str,
    changes: Mapping[str, Any],
    now: datetime,
) -> Mapping[str, Any]:
    """Change what `changes` names of risk level and description; nothing else ever changes."""
    old = _take(tx, caller=caller, environment_id=environment_id, action="environment.update")
    new = {name: changes.get(name, old[name]) for name in ("risk_level", "description")}
    changed = sorted(name for name, value in new.items() if value != old[name])
    if not changed:
        return old
    tx.count("environment_update", id=environment_id, **new, now=now)
    facts = {
        "changed": changed,
        "before": {name: old[name] for name in changed},
        "after": {name: new[name] for name in changed},
    }
    _record(tx, by=caller, action="environment.update", id_=environment_id, facts=facts, now=now)
    return _find(tx, environment_id=environment_id)


def delete(tx: Transaction, *, caller: Caller, environment_id: str, now: datetime) -> None:
    """Delete an environment nothing open rests on; its name's kind is remembered."""
    old = _take(tx, caller=caller, environment_id=environment_id, action="environment.delete")
    usage = tx.one("environment_usage", id=environment_id) or {}
    if any(usage.values()):
        raise EnvironmentInUseError(**usage)
    tx.count("environment_delete", id=environment_id, now=now)
    facts = {name: old[name] for name in ("project_id", "name", "type", "kind", "risk_level")}
    _record(tx, by=caller, action="environment.delete", id_=environment_id, facts=facts, now=now)


def _take(
    tx: Transaction, *, caller: Caller, environment_id: str, action: str
) -> Mapping[str, Any]:
    """Hold the environment, and before it its project, if the caller may change it."""
    row = show(tx, caller=caller, environment_id=environment_id)
    tx.one("project_lock", id=row["project_id"])
    tx.one("environment_lock", id=environment_id)
    row = show(tx, caller=caller, environment_id=environment_id)
    resource = Resource(
        team_id=row["team_id"], project_id=row["project_id"], environment_id=environment_id
    )
    if not allowed(caller.grants, EDIT, resource):
        raise OutOfScopeProjectError(
            audit=projects.denied(action, f"environment:{environment_id}", permission=EDIT)
        )
    return row


def _find(tx: Transaction, *, environment_id: str) -> Mapping[str, Any]:
    row = tx.one("environment_find", id=environment_id)
    if row is None:
        raise EnvironmentNotFoundError
    return row


def _record(
    tx: Transaction,
    *,
    by: Caller,
    action: str,
    id_: str,
    facts: Mapping[str, Any],
    now: datetime,
) -> None:
    audit.record(tx, by=by, action=action, resource=f"environment:{id_}", metadata=facts, now=now)
