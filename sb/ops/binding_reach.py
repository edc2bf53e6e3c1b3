"""Who may bind which secret where: what others have is out of reach, whatever it is called by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from sb.auth.access import GLOBAL, Resource, allowed, visibility
from sb.db.engine import Transaction
from sb.errors import Denial
from sb.ops import projects
from sb.ops.callers import Caller
from sb.ops.errors import OutOfScopeProjectError
from sb.ops.secrets import Place
from sb.ops.tenancy_errors import SecretOutOfScopeError

BIND: Final = "secret.bind"
#: With more projects that have a secret than these, only who may bind everything binds it again.
MAX_SHARED: Final = 1000


def require_reach(project: Mapping[str, Any], *, caller: Caller, action: str) -> None:
    """Refuse early whoever can bind nothing here, so that they learn nothing of any secret."""
    seen = visibility(caller.grants, (BIND,))
    if not seen.everything and not any(_reaches(scope, project) for scope in seen.scopes):
        raise OutOfScopeProjectError(
            audit=projects.denied(action, f"project:{project['id']}", permission=BIND)
        )


def _reaches(scope: Mapping[str, Any], project: Mapping[str, Any]) -> bool:
    teams = scope.get("team_ids")
    return scope.get("project_id") in (None, project["id"]) and (
        teams is None or project["team_id"] in teams
    )


def require(
    project: Mapping[str, Any],
    place: Place,
    *,
    caller: Caller,
    environment_id: str | None,
    action: str,
) -> None:
    resource = _resource(project["id"], project["team_id"], environment_id, place)
    if not allowed(caller.grants, BIND, resource):
        raise OutOfScopeProjectError(
            audit=projects.denied(action, f"project:{project['id']}", permission=BIND)
        )


def require_way(
    tx: Transaction,
    project: Mapping[str, Any],
    secret: str | Place,
    *,
    caller: Caller,
    environment_id: str | None,
    action: str,
) -> None:
    """Refuse a connection on a cluster out of scope as one that is not there would be."""
    if not isinstance(secret, Place) or secret.provider_connection_id is None:
        return
    row = tx.one("connection_find", id=secret.provider_connection_id)
    cluster = None if row is None else row["cluster_name"] or secret.cluster_name
    place = replace(secret, cluster_name=cluster)
    require(project, place, caller=caller, environment_id=environment_id, action=action)


def require_not_foreign(
    tx: Transaction,
    *,
    caller: Caller,
    project_id: str,
    place: Place,
    action: str,
    but_secret_id: str | None = None,
) -> None:
    """Refuse to reach a secret that others have, or another environment, out of scope.

    One path may have several entries, by which it can be bound in one project more than once.
    """
    if allowed(caller.grants, BIND, GLOBAL):
        return
    elsewhere = tx.many(
        "binding_list_elsewhere",
        provider_type=place.provider_type,
        secret_ref=place.secret_ref,
        connection_id=place.provider_connection_id,
        cluster_name=place.cluster_name or "",
        project_id=project_id,
        but_secret_id=but_secret_id,
        limit=MAX_SHARED + 1,
    )
    there = (
        _resource(row["project_id"], row["team_id"], row["environment_id"], place)
        for row in elsewhere
    )
    # What more projects share than are looked at here may be somebody's who is not.
    if len(elsewhere) > MAX_SHARED or not all(allowed(caller.grants, BIND, at) for at in there):
        raise SecretOutOfScopeError(
            audit=Denial(
                action,
                f"project:{project_id}",
                error_kind="secret_out_of_scope",
                target_provider_type=place.provider_type,
                target_secret_ref=place.secret_ref,
            )
        )


def _resource(
    project_id: str, team_id: str | None, environment_id: str | None, place: Place
) -> Resource:
    return Resource(
        team_id=team_id,
        project_id=project_id,
        environment_id=environment_id,
        secret_ref=place.secret_ref,
        provider=place.provider_type,
        cluster=place.cluster_name,
    )
