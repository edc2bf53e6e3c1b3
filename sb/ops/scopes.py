"""Scopes of grants as they are written: checked, and turned into what permissions are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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


def below(team_ids: Iterable[str | None], *, tree: str | None) -> dict[str | None, frozenset[str]]:
    """Return each team's subtree, empty for what is no team; `tree` pairs ids and parents' ids.

    What is known of one team is not walked again for another.
    """
    words = (tree or "").split()
    there, parents = words[::2], words[1::2]
    children: dict[str, list[str]] = {team_id: [] for team_id in there}
    for team_id, parent_id in zip(there, parents, strict=True):
        if parent_id in children:  # Else it is above all of them.
            children[parent_id].append(team_id)
    found: dict[str | None, frozenset[str]] = {None: frozenset()}
    for root in team_ids:
        ids, ahead = set[str](), [root] if root in children else []
        while ahead:
            at = ahead.pop()
            if at in found:
                ids |= found[at]
            elif at not in ids:
                ids.add(at)
                ahead += children[at]
        found[root] = frozenset(ids)
    return found


def hold(tx: Transaction, *, scope: Mapping[str, str]) -> None:
    """Keep the team that the canonical scope names from being deleted until the transaction ends.

    Projects and environments are never deleted, and no foreign key looks into a scope.
    """
    if "team_id" in scope:
        tx.one("team_lock", id=scope["team_id"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a scope names."""

    #: The widest thing it covers.
    resource: Resource
    #: The key that names nothing, if any; with one the scope covers nothing.
    missing: str | None
    #: True when its project is not below its team, so that it covers nothing as things are.
    split: bool


def find(tx: Transaction, *, scope: Mapping[str, str]) -> Found:
    """Return what the canonical scope names; what is not there takes as long as what is."""
    missing, split = None, False
    project_id, environment_id = scope.get("project_id"), scope.get("environment_id")
    if environment_id is not None:
        environment = tx.one("environment_find", id=environment_id)
        if environment is None or project_id not in (None, environment["project_id"]):
            missing = "environment_id"
        else:
            project_id = environment["project_id"]
    # Looked for whatever was found so far: fewer looks would tell what is not there from what is
    # somebody else's.
    named = project_id or environment_id
    project = None if named is None else tx.one("project_find", id=named)
    team_id = None if project is None else project["team_id"]
    if project_id is not None and project is None:
        missing = "project_id"
    if "team_id" in scope:
        missing = missing if tx.one("team_find", id=scope["team_id"]) else "team_id"
        split = named is not None and not _within(tx, team_id or named, scope["team_id"])
    resource = covered(scope, project_id=project_id, team_id=team_id)
    return Found(resource=resource, missing=missing, split=split)


def _within(tx: Transaction, team_id: str, above_id: str) -> bool:
    """Tell whether the team is the other one or below it."""
    return tx.scalar("team_stands_within", id=team_id, above_id=above_id) is not None


def resolve(tx: Transaction, *, scope: Mapping[str, Any]) -> Resource:
    """Return the widest thing the scope covers, or refuse a scope that could mean nothing.

    A grant covers the whole scope exactly if it is allowed on this resource.
    """
    found = find(tx, scope=canonical(scope))
    if found.missing is not None:
        raise InvalidScopeError(field=f"scope.{found.missing}")
    return found.resource
