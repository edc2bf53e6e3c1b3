"""Bindings: which secrets a project reaches, in which environment, for which operations and keys.

A secret that another project has is out of reach for whoever may bind in this one alone, whatever
name they call it by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.auth.access import visibility
from sb.db.engine import Transaction
from sb.ops import audit, binding_reach, projects, secret_kinds, secrets
from sb.ops.callers import Caller
from sb.ops.errors import EnvironmentNotInProjectError
from sb.ops.secrets import Place
from sb.ops.tenancy_errors import (
    BindingExistsError,
    BindingNotFoundError,
)

CREATE = "secret_binding.create"
UPDATE = "secret_binding.update"
DELETE = "secret_binding.delete"
DEFAULT_OPS = ("read",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a binding lets through; no keys means every key, no environment every environment."""

    allowed_ops: Sequence[str] = DEFAULT_OPS
    allowed_keys: Sequence[str] | None = None
    environment_id: str | None = None


def create(
    tx: Transaction,
    *,
    caller: Caller,
    project_id: str,
    secret: str | Place,
    limits: Limits,
    now: datetime,
) -> Mapping[str, Any]:
    """Bind a secret, by its id or by its place, to the project and return the binding.

    A place nobody has named is registered in the catalogue; a second binding is refused.
    """
    # 1. The project, held, and what of it the caller may bind in.
    project = projects.hold(tx, caller=caller, project_id=project_id)
    binding_reach.require_reach(project, caller=caller, action=CREATE)
    projects.require_active(project)
    _check_environment(tx, project_id=project_id, environment_id=limits.environment_id)
    # 2. The secret: nobody else registers or binds this path meanwhile.
    binding_reach.require_way(
        tx, project, secret, caller=caller, environment_id=limits.environment_id, action=CREATE
    )
    place, secret_id = _found(tx, caller=caller, secret=secret)
    binding_reach.require(
        project, place, caller=caller, environment_id=limits.environment_id, action=CREATE
    )
    tx.scalar("secret_lock_path", provider_type=place.provider_type, secret_ref=place.secret_ref)
    binding_reach.require_not_foreign(
        tx, caller=caller, project_id=project_id, place=place, action=CREATE
    )
    # 3. Write it.
    if secret_id is None:
        secret_id = secrets.register(tx, caller=caller, place=place, project_id=project_id, now=now)
    made = tx.count(
        "binding_insert",
        project_id=project_id,
        secret_id=secret_id,
        **_columns(limits),
        created_by=caller.actor,
        now=now,
    )
    if made == 0:
        raise BindingExistsError
    if secret_kinds.serves_production(
        tx, project_id=project_id, environment_id=limits.environment_id
    ):
        secret_kinds.mark(tx, by=caller, secret_id=secret_id, project_id=project_id, now=now)
    facts = {"after": _columns(limits)}
    _record(
        tx,
        by=caller,
        action=CREATE,
        project_id=project_id,
        secret_id=secret_id,
        facts=facts,
        now=now,
    )
    return show(tx, caller=caller, project_id=project_id, secret_id=secret_id)


def show(tx: Transaction, *, caller: Caller, project_id: str, secret_id: str) -> Mapping[str, Any]:
    """Return the binding with its secret, or refuse as not found."""
    found = list_bindings(
        tx, caller=caller, project_id=project_id, secret_id=secret_id, before=None, limit=1
    )
    if not found:
        raise BindingNotFoundError
    return found[0]


def list_bindings(
    tx: Transaction,
    *,
    caller: Caller,
    project_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
    secret_id: str | None = None,
    environment_id: str | None = None,
    served_id: str | None = None,
    permissions: tuple[str, ...] = projects.READABLE_BY,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` bindings in scope of a project the caller may read, newest first.

    With `served_id`, those through which that environment has secrets: its own and those of all.
    """
    projects.show(tx, caller=caller, project_id=project_id)
    seen = visibility(caller.grants, permissions)
    return tx.many(
        "binding_list",
        project_id=project_id,
        secret_id=secret_id,
        environment_id=environment_id,
        served_id=served_id,
        everything=seen.everything,
        scopes=seen.scopes,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )


def update(
    tx: Transaction,
    *,
    caller: Caller,
    project_id: str,
    secret_id: str,
    changes: Mapping[str, Any],
    now: datetime,
) -> Mapping[str, Any]:
    """Change what `changes` names and keep the rest; a null lets every key or environment through.

    Whoever lets more through needs what binding the secret anew would need.
    """
    # 1. Project, then binding: held until the end.
    project, old = _take(
        tx, caller=caller, project_id=project_id, secret_id=secret_id, action=UPDATE
    )
    before = _limits(old)
    after = Limits(**{name: changes.get(name, getattr(before, name)) for name in Limits.__slots__})
    if _columns(after) == _columns(before):
        return old
    # 2. The new limits: in this project, in scope, and no more of a foreign secret.
    _check_environment(tx, project_id=project_id, environment_id=after.environment_id)
    place = _place(old)
    binding_reach.require(
        project, place, caller=caller, environment_id=after.environment_id, action=UPDATE
    )
    # The path, held: nobody lets the secret go meanwhile.
    tx.scalar("secret_lock_path", provider_type=place.provider_type, secret_ref=place.secret_ref)
    wider = _is_wider(before, after)
    if wider:
        projects.require_active(project)
    moved = after.environment_id != before.environment_id
    marks = moved and secret_kinds.serves_production(
        tx, project_id=project_id, environment_id=after.environment_id
    )
    # Whoever makes it production's stops it elsewhere. Seen again: it may have been let go before
    # the path was held.
    if wider or (marks and _kind(tx, caller, old) != secret_kinds.PROD):
        binding_reach.require_not_foreign(
            tx,
            caller=caller,
            project_id=project_id,
            place=place,
            action=UPDATE,
            but_secret_id=secret_id,
        )
    # 3. Write it.
    tx.count(
        "binding_update", project_id=project_id, secret_id=secret_id, **_columns(after), now=now
    )
    if marks:
        secret_kinds.mark(tx, by=caller, secret_id=secret_id, project_id=project_id, now=now)
    facts = {"before": _columns(before), "after": _columns(after), "widened": wider}
    _record(
        tx,
        by=caller,
        action=UPDATE,
        project_id=project_id,
        secret_id=secret_id,
        facts=facts,
        now=now,
    )
    return show(tx, caller=caller, project_id=project_id, secret_id=secret_id)


def delete(
    tx: Transaction, *, caller: Caller, project_id: str, secret_id: str, now: datetime
) -> None:
    """End the binding; requests that rest on it go no further."""
    _, old = _take(tx, caller=caller, project_id=project_id, secret_id=secret_id, action=DELETE)
    tx.count("binding_delete", project_id=project_id, secret_id=secret_id)
    facts = {"before": _columns(_limits(old))}
    _record(
        tx,
        by=caller,
        action=DELETE,
        project_id=project_id,
        secret_id=secret_id,
        facts=facts,
        now=now,
    )


def _take(
    tx: Transaction, *, caller: Caller, project_id: str, secret_id: str, action: str
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Hold project and binding until the transaction ends, if the caller may change the binding."""
    project = projects.hold(tx, caller=caller, project_id=project_id)
    tx.one("binding_lock", project_id=project_id, secret_id=secret_id)
    row = show(tx, caller=caller, project_id=project_id, secret_id=secret_id)
    binding_reach.require(
        project,
        _place(row),
        caller=caller,
        environment_id=row["environment_id"],
        action=action,
    )
    return project, row


def _kind(tx: Transaction, caller: Caller, row: Mapping[str, Any]) -> str:
    again = show(tx, caller=caller, project_id=row["project_id"], secret_id=row["secret_id"])
    return str(again["kind"])


def _found(tx: Transaction, *, caller: Caller, secret: str | Place) -> tuple[Place, str | None]:
    if isinstance(secret, Place):
        return secrets.settle(tx, place=secret), None
    row = secrets.show(
        tx, caller=caller, secret_id=secret, permissions=("secret.list", binding_reach.BIND)
    )
    return _place(row), secret


def _place(row: Mapping[str, Any]) -> Place:
    return Place(
        provider_type=row["provider_type"],
        secret_ref=row["secret_ref"],
        cluster_name=row["cluster_name"] or row["connection_cluster"],
        provider_connection_id=row["provider_connection_id"],
    )


def _check_environment(tx: Transaction, *, project_id: str, environment_id: str | None) -> None:
    if environment_id is None:
        return
    row = tx.one("environment_find", id=environment_id)
    if row is None or row["project_id"] != project_id:
        raise EnvironmentNotInProjectError(field="environment_id")


def _limits(row: Mapping[str, Any]) -> Limits:
    return Limits(**{name: row[name] for name in Limits.__slots__})


def _columns(limits: Limits) -> dict[str, Any]:
    keys = limits.allowed_keys
    return {
        "allowed_ops": sorted(set(limits.allowed_ops)),
        "allowed_keys": None if keys is None else sorted(set(keys)),
        "environment_id": limits.environment_id,
    }


def _is_wider(before: Limits, after: Limits) -> bool:
    """Tell whether anything gets through that did not before."""
    if not set(after.allowed_ops) <= set(before.allowed_ops):
        return True
    if before.allowed_keys is not None and (
        after.allowed_keys is None or not set(after.allowed_keys) <= set(before.allowed_keys)
    ):
        return True
    return before.environment_id not in (None, after.environment_id)


def _record(
    tx: Transaction,
    *,
    by: Caller,
    action: str,
    project_id: str,
    secret_id: str,
    facts: Mapping[str, Any],
    now: datetime,
) -> None:
    audit.record(
        tx,
        by=by,
        action=action,
        resource=f"secret_binding:{project_id}/{secret_id}",
        metadata={"project_id": project_id, "secret_id": secret_id, **facts},
        now=now,
    )
