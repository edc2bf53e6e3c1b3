"""Scopes of grants as they are written: checked, and turned into what permissions are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sb.auth.access import SCOPE_KEYS, Resource
from sb.db.engine import Transaction
from sb.ids import is_id
from sb.ops.governance_errors import InvalidScopeError
from sb.ops.targets import ROUTING_KEYS

#: Keys whose value is the id of a row.
ID_KEYS = frozenset({"team_id", "project_id", "environment_id"})
MAX_LENGTH = 1024


def canonical(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the scope in the one form it is stored in, or refuse what could mean nothing.

    Names of rows are checked for their form only.
    """
    found: dict[str, str] = {}
    for key in sorted(scope):
        value = scope[key]
        if key not in SCOPE_KEYS or not isinstance(value, str) or not 0 < len(value) <= MAX_LENGTH:
            raise InvalidScopeError(field=f"scope.{key}"[:120], allowed_keys=sorted(SCOPE_KEYS))
        found[key] = value.lower() if key in ID_KEYS else value
        if key in ID_KEYS and not is_id(found[key]):
            raise InvalidScopeError(field=f"scope.{key}")
    if found.get("provider", "vault") not in ROUTING_KEYS:
        raise InvalidScopeError(field="scope.provider")
    return found


def covered(
    scope: Mapping[str, Any], *, project_id: str | None = None, team_id: str | None = None
) -> Resource:
    """Return the widest thing the scope covers: it may be used there and on whatever is narrower.

    The project is that of the scope's environment and the team that of its project, so that a
    team's grant covers its projects; what the scope itself names comes first.
    """
    return Resource(
        team_id=scope.get("team_id") or team_id,
        project_id=scope.get("project_id") or project_id,
        environment_id=scope.get("environment_id"),
        secret_ref=scope.get("secret_ref_prefix"),
        provider=scope.get("provider"),
        cluster=scope.get("cluster"),
    )


def find(tx: Transaction, *, scope: Mapping[str, str]) -> tuple[Resource, str | None]:
    """Return the widest thing the canonical scope covers, and the key that names nothing, if any.

    A key of which this is true makes the scope cover nothing.
    """
    missing = None
    project_id, environment_id = scope.get("project_id"), scope.get("environment_id")
    if environment_id is not None:
        environment = tx.one("environment_find", id=environment_id)
        if environment is None or project_id not in (None, environment["project_id"]):
            missing = "environment_id"
        else:
            project_id = environment["project_id"]
    project = None if project_id is None else tx.one("project_find", id=project_id)
    if project_id is not None and project is None:
        missing = "project_id"
    if "team_id" in scope and tx.one("team_find", id=scope["team_id"]) is None:
        missing = "team_id"
    team_id = None if project is None else project["team_id"]
    return covered(scope, project_id=project_id, team_id=team_id), missing


def resolve(tx: Transaction, *, scope: Mapping[str, Any]) -> Resource:
    """Return the widest thing the scope covers, or refuse a scope that could mean nothing.

    A grant covers the whole scope exactly if it is allowed on this resource.
    """
    resource, missing = find(tx, scope=canonical(scope))
    if missing is not None:
        raise InvalidScopeError(field=f"scope.{missing}")
    return resource
