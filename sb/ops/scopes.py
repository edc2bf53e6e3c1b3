"""Scopes of grants as they are written: checked, and turned into what permissions are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sb.auth.access import SCOPE_KEYS, Resource
from sb.db.engine import Transaction
from sb.ids import is_id
from sb.ops.governance_errors import InvalidScopeError

#: Keys whose value is the id of a row.
ID_KEYS = frozenset({"team_id", "project_id", "environment_id"})


def resolve(tx: Transaction, *, scope: Mapping[str, Any]) -> Resource:
    """Return the widest thing the scope covers, or refuse a scope that could mean nothing.

    A grant covers the whole scope exactly if it is allowed on this resource: what a project or an
    environment stands under is filled in, so that a team's grant covers its projects.
    """
    for key, value in scope.items():
        if key not in SCOPE_KEYS or not isinstance(value, str) or not value:
            raise InvalidScopeError(field=f"scope.{key}"[:120], allowed_keys=sorted(SCOPE_KEYS))
        if key in ID_KEYS and not is_id(value):
            raise InvalidScopeError(field=f"scope.{key}")
    project_id, environment_id = scope.get("project_id"), scope.get("environment_id")
    if environment_id is not None:
        row = tx.one("environment_find", id=environment_id)
        if row is None or project_id not in (None, row["project_id"]):
            raise InvalidScopeError(field="scope.environment_id")
        project_id = row["project_id"]
    team_id = scope.get("team_id")
    if project_id is not None:
        project = tx.one("project_find", id=project_id)
        if project is None:
            raise InvalidScopeError(field="scope.project_id")
        if team_id is None:
            team_id = project["team_id"]
    if scope.get("team_id") is not None and tx.one("team_find", id=scope["team_id"]) is None:
        raise InvalidScopeError(field="scope.team_id")
    return Resource(
        team_id=team_id,
        project_id=project_id,
        environment_id=environment_id,
        secret_ref=scope.get("secret_ref_prefix"),
        provider=scope.get("provider"),
        cluster=scope.get("cluster"),
    )
