"""Scopes of grants as they are written: checked, and turned into what permissions are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sb.auth.access import SCOPE_KEYS, Resource
from sb.db.engine import Transaction
from sb.ids import is_id
from sb.ops.governance_errors import InvalidScopeError
from sb.ops.targets import ROUTING_KEYS, fits_ref

#: Keys whose value is the id of a row.
ID_KEYS = frozenset({"team_id", "project_id", "environment_id"})
UNKNOWN_KEY: Final = "The scope has a key that no scope has; see allowed_keys."
BAD_TEXT: Final = "A value in the scope is no text, an empty one, or one of more than 1024 bytes."
BAD_ID: Final = "A value in the scope has to be the id of something, and is no id."
UNKNOWN_PROVIDER: Final = (
    "The scope names a type of provider that there is not; see allowed_values."
)
NOT_THERE: Final = "The scope names something that is not there."
CONTRADICTORY: Final = (
    "Parts of the scope exclude each other, so it would cover nothing; see fields."
)
#: What is wrong with each of two keys that exclude each other, by both.
EXCLUDES: Final[Mapping[tuple[str, str], str]] = {
    ("project_id", "team_id"): "is not below the team of scope.team_id",
    ("environment_id", "team_id"): "is not in a project below the team of scope.team_id",
    ("environment_id", "project_id"): "is not in the project of scope.project_id",
}


def canonical(scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the scope in the one form it is stored in, or refuse what could mean nothing.

    Names of rows are checked for their form only.
    """
    found: dict[str, str] = {}
    for key in sorted(scope):
        value, field = scope[key], f"scope.{key}"[:120]
        if key not in SCOPE_KEYS:
            raise InvalidScopeError(UNKNOWN_KEY, field=field, allowed_keys=sorted(SCOPE_KEYS))
        if not isinstance(value, str) or not fits_ref(value):
            raise InvalidScopeError(BAD_TEXT, field=field)
        found[key] = value.lower() if key in ID_KEYS else value
        if key in ID_KEYS and not is_id(found[key]):
            raise InvalidScopeError(BAD_ID, field=field)
    if found.get("provider", "vault") not in ROUTING_KEYS:
        raise InvalidScopeError(
            UNKNOWN_PROVIDER, field="scope.provider", allowed_values=sorted(ROUTING_KEYS)
        )
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
    #: Two keys that exclude each other, so that it covers nothing as things are.
    split: tuple[str, str] | None


def find(tx: Transaction, *, scope: Mapping[str, str]) -> Found:
    """Return what the canonical scope names; what is not there takes as long as what is."""
    missing, split = None, None
    project_id, environment_id = scope.get("project_id"), scope.get("environment_id")
    if environment_id is not None:
        environment = tx.one("environment_find", id=environment_id)
        if environment is None:
            missing = "environment_id"
        elif project_id not in (None, environment["project_id"]):
            split = ("environment_id", "project_id")
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
        if named is not None and not is_within(tx, team_id or named, scope["team_id"]):
            split = split or (
                "project_id" if "project_id" in scope else "environment_id",
                "team_id",
            )
    resource = covered(scope, project_id=project_id, team_id=team_id)
    return Found(resource=resource, missing=missing, split=split)


def is_within(tx: Transaction, team_id: str | None, above_id: str | None) -> bool:
    """Tell whether the team is the other one or below it."""
    if team_id is None or above_id is None:
        return False
    return tx.scalar("team_stands_within", id=team_id, above_id=above_id) is not None


def require_meaning(found: Found) -> None:
    """Refuse a scope that names what is not there, or two things that exclude each other."""
    if found.missing is not None:
        raise InvalidScopeError(NOT_THERE, field=f"scope.{found.missing}")
    if found.split is not None:
        inner, outer = (f"scope.{key}" for key in found.split)
        fields = [
            {"field": inner, "reason": EXCLUDES[found.split]},
            {"field": outer, "reason": f"leaves nothing of {inner}"},
        ]
        raise InvalidScopeError(CONTRADICTORY, fields=fields)


def resolve(tx: Transaction, *, scope: Mapping[str, Any]) -> Resource:
    """Return the widest thing the scope covers, or refuse a scope that could mean nothing.

    A grant covers the whole scope exactly if it is allowed on this resource. One that came to
    exclude itself, because something was moved, still means what it says.
    """
    found = find(tx, scope=canonical(scope))
    if found.missing is not None:
        raise InvalidScopeError(NOT_THERE, field=f"scope.{found.missing}")
    return found.resource
