"""Who may do what: one pure decision over grants, used by routes, operations and list filters.

A grant is a role's permissions at a scope. Every key of one scope must hold (AND), grants add up
(OR), and an empty scope is global. A scope that names a team covers the team's whole subtree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product
from typing import Any, Final

SCOPE_KEYS = frozenset(
    {"team_id", "project_id", "environment_id", "secret_ref_prefix", "provider", "cluster"}
)
_PREFIX: Final = "secret_ref_prefix"
_PLACES: Final = frozenset({"project_id", "environment_id"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One role given at one scope, for ever or until `expires_at`.

    `team_ids` is the expanded subtree of the scope's team.
    """

    role_id: str
    role_name: str
    permissions: frozenset[str]
    scope: Mapping[str, Any]
    team_ids: frozenset[str] = frozenset()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What a permission is asked for; a missing attribute is covered by unscoped grants only."""

    team_id: str | None = None
    project_id: str | None = None
    environment_id: str | None = None
    secret_ref: str | None = None
    provider: str | None = None
    cluster: str | None = None


GLOBAL = Resource()


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """The scopes a list is filtered by in SQL: everything, or any one of the scopes."""

    everything: bool
    scopes: list[dict[str, Any]] = field(default_factory=list)


def allowed(grants: Iterable[Grant], permission: str, resource: Resource) -> bool:
    """Tell whether some grant carries the permission at a scope that covers the resource."""
    return any(permission in grant.permissions and _covers(grant, resource) for grant in grants)


def holds_anywhere(grants: Iterable[Grant], permission: str) -> bool:
    """Tell whether the permission is held at any scope; the operation still decides on the row."""
    return any(permission in grant.permissions for grant in grants)


def covering_roles(grants: Iterable[Grant], permission: str, resource: Resource) -> frozenset[str]:
    """Return the ids of the roles that carry the permission over this resource."""
    return frozenset(
        grant.role_id
        for grant in grants
        if permission in grant.permissions and _covers(grant, resource)
    )


def lacking(
    grants: Iterable[Grant],
    permissions: Iterable[str],
    resource: Resource,
    *,
    until: datetime | None,
) -> frozenset[str]:
    """Return the permissions that are not held over the whole resource for all of that time.

    Whoever lacks none of them could do all of it themselves: passing it on makes nobody stronger.
    """
    lasting = [g for g in grants if _lasts(g, until) and _covers(g, resource)]
    held = frozenset[str]().union(*(grant.permissions for grant in lasting))
    return frozenset(permissions) - held


def _lasts(grant: Grant, until: datetime | None) -> bool:
    # Otherwise a power that ends could be made endless by granting it on, even to oneself.
    return grant.expires_at is None or (until is not None and until <= grant.expires_at)


def visibility(grants: Iterable[Grant], permissions: Iterable[str]) -> Visibility:
    """Return what a list query needs to show exactly what `allowed` would allow, in few scopes."""
    wanted = frozenset(permissions)
    found = [g for g in grants if wanted & g.permissions and _well_formed(g.scope)]
    if any(not grant.scope for grant in found):
        return Visibility(everything=True)
    return Visibility(everything=False, scopes=_merged(found))


#: What a scope says besides of its team.
_Rest = frozenset[tuple[str, Any]]


def _merged(grants: Iterable[Grant]) -> list[dict[str, Any]]:
    """Return scopes that together cover what the grants do; those that differ in team are one.

    Subtrees overlap, and each written out for each grant would be a product of grants and teams.
    """
    anywhere: dict[_Rest, None] = {}
    subtrees: dict[_Rest, dict[frozenset[str], None]] = {}
    for grant in grants:
        rest = frozenset((key, value) for key, value in grant.scope.items() if key != "team_id")
        if "team_id" in grant.scope:
            subtrees.setdefault(rest, {})[grant.team_ids] = None
        else:
            anywhere[rest] = None
    teams = {rest: frozenset[str]().union(*found) for rest, found in subtrees.items()}
    prefixes = {value for rest in (*anywhere, *teams) for key, value in rest if key == _PREFIX}
    scopes = [
        dict(rest)
        for rest in anywhere
        if not any(wider in anywhere for wider in _wider(rest, prefixes))
    ]
    for rest, ids in teams.items():
        left = ids.difference(*(teams.get(wider, ()) for wider in _wider(rest, prefixes)))
        if left:
            scopes.append({**dict(rest), "team_ids": sorted(left)})
    return scopes


def _wider(rest: _Rest, prefixes: Iterable[str]) -> Iterator[_Rest]:
    """Yield what covers more and says the same of places.

    A scope that names a place leads into projects; one that names none does not, however wide.
    """
    places = frozenset(item for item in rest if item[0] in _PLACES)
    choices = [
        [None, item, *((_PREFIX, p) for p in prefixes if item[1] != p and item[1].startswith(p))]
        if item[0] == _PREFIX
        else [None, item]
        for item in rest - places
    ]
    for chosen in product(*choices):
        wider = places | {item for item in chosen if item is not None}
        if wider != rest:
            yield wider


def _covers(grant: Grant, resource: Resource) -> bool:
    if not _well_formed(grant.scope):
        return False
    return all(_holds(key, value, grant, resource) for key, value in grant.scope.items())


def _holds(key: str, value: str, grant: Grant, resource: Resource) -> bool:
    match key:
        case "team_id":
            return resource.team_id is not None and resource.team_id in grant.team_ids
        case "secret_ref_prefix":
            return resource.secret_ref is not None and resource.secret_ref.startswith(value)
        case _:
            return bool(getattr(resource, key) == value)


def _well_formed(scope: Mapping[str, Any]) -> bool:
    # A scope this code cannot read must never widen into a global one: it covers nothing.
    return all(
        key in SCOPE_KEYS and isinstance(value, str) and value for key, value in scope.items()
    )
