"""What a person is shown, by every list and every single look, and what the model says they see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.errors import SbError
from sb.ops import (
    bindings,
    environments,
    grant_lists,
    projects,
    requests,
    roles,
    secrets,
    teams,
    users,
)
from sb.ops.callers import Caller
from tests.ops import rows
from tests.ops.governance_model import Model, Person
from tests.ops.governance_powers import ids_of

Sight = dict[str, Any]
PAGE: Any = {"before": None, "limit": 200}


def shown(tx: Transaction, *, caller: Caller, model: Model, now: datetime) -> Sight:
    """Return what the product shows the caller of the model's world."""
    who, timed = {"caller": caller, **PAGE}, {"caller": caller, **PAGE, "now": now}
    seen_projects = projects.list_projects(tx, **who)
    known = {role.id for role in model.roles}
    return {
        "requests": sorted(
            (seen.row["id"], *seen.allowed_actions)
            for seen in requests.list_requests(tx, **timed, filters=requests.Filters())
        ),
        "undecided": sorted(
            (seen.row["id"], *seen.allowed_actions)
            for seen in requests.list_requests(
                tx, **timed, filters=requests.Filters(needs_my_decision=True)
            )
        ),
        "teams": _ids(teams.list_teams(tx, **who)),
        "projects": _ids(seen_projects),
        "own projects": sorted(
            (project.id, *sorted(place.id for place in project.environments))
            for project in users.readable_projects(tx, caller=caller)
        ),
        "environments": _ids(environments.list_environments(tx, **who)),
        "bindings": sorted(
            (row["project_id"], row["secret_id"])
            for project in seen_projects
            for row in bindings.list_bindings(tx, **who, project_id=project["id"])
        ),
        "secrets": _ids(secrets.list_secrets(tx, **who, filters=secrets.Filters())),
        "secrets of projects": [
            _ids(secrets.list_secrets(tx, **who, filters=secrets.Filters(project_id=project.id)))
            for project in model.projects[:2]
        ],
        "grants": _ids(grant_lists.list_grants(tx, **timed, filters=grant_lists.Filters())),
        "own grants": _ids(
            grant_lists.list_of_user(tx, **timed, user_id=caller.user_id, active=None)
        ),
        "roles": _ids(row for row in roles.list_roles(tx, **who) if row["id"] in known),
    }


def looks(tx: Transaction, *, caller: Caller, model: Model, now: datetime) -> Sight:
    """Return what the caller finds who asks for one thing after the other."""

    def found(things: Iterable[Any], look: Callable[..., Any], name: str, **more: Any) -> list[str]:
        return sorted(t.id for t in things if _finds(look, tx, caller, **{name: t.id}, **more))

    return {
        "requests": found(model.requests, requests.show, "request_id", now=now),
        "votes": _votes(tx, caller=caller, model=model, now=now),
        "teams": found(model.teams, teams.show, "team_id"),
        "projects": found(model.projects, projects.show, "project_id"),
        "environments": found(model.environments, environments.show, "environment_id"),
        "secrets": found(model.secrets, secrets.show, "secret_id"),
        "grants": found(model.grants, grant_lists.find, "grant_id"),
        "roles": found(model.roles, roles.find, "role_id"),
    }


def _votes(tx: Transaction, *, caller: Caller, model: Model, now: datetime) -> list[Any]:
    """Return what the caller is shown of the votes on requests that wait for more."""
    waiting = [request for request in model.requests if request.status == "pending"]
    args = [{"caller": caller, "request_id": request.id, "now": now} for request in waiting]
    shown = [requests.show(tx, **one) for one in args if _finds(requests.show, tx, **one)]
    return sorted(
        (
            seen.row["id"],
            seen.row["approvals_count"],
            *sorted((vote["approver_id"], vote["counts"]) for vote in seen.votes),
        )
        for seen in shown
    )


def _finds(look: Callable[..., Any], tx: Transaction, caller: Caller, **args: Any) -> bool:
    try:
        look(tx, caller=caller, **args)
    except SbError as refusal:
        met = refusal.status
    else:
        return True
    assert met == 404, "what is not seen is not there"
    return False


def _ids(found: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(row["id"] for row in found)


def expected(model: Model, who: Person) -> Sight:
    """Return what the model says the lists show this person."""
    decidable = [r for r in model.requests if "approve" in model.actions(who, r)]
    return {
        **expected_looks(model, who),
        "requests": sorted(
            (r.id, *model.actions(who, r)) for r in model.requests if model.sees_request(who, r)
        ),
        "undecided": sorted((r.id, *model.actions(who, r)) for r in decidable),
        "own projects": sorted(
            (project.id, *sorted(places))
            for project in model.projects
            if model.sees_project(who, project)
            for places in [_places(model, who, project)]
        ),
        "bindings": sorted(
            (b.project.id, b.secret.id)
            for b in model.bindings
            if model.sees_project(who, b.project) and model.sees_binding(who, b)
        ),
        "secrets of projects": [
            sorted(
                b.secret.id
                for b in model.bindings
                if b.project is project and model.sees_binding(who, b, ("secret.list",))
            )
            for project in model.projects[:2]
        ],
        "grants": _seen(model.grants, lambda grant: model.gives(who, grant.scope)),
        "own grants": _seen(model.grants, lambda grant: grant.who is who),
    }


def _places(model: Model, who: Person, project: Any) -> list[str]:
    return [
        place.id
        for place in model.environments
        if place.project is project and model.sees_environment(who, place)
    ]


def expected_looks(model: Model, who: Person) -> Sight:
    """Return what the model says this person finds by asking for it."""
    return {
        "requests": _seen(model.requests, lambda r: model.sees_request(who, r)),
        "votes": sorted(
            (
                r.id,
                len(model.counting(r)),
                *sorted((voter.id, voter in model.counting(r)) for voter in r.votes),
            )
            for r in model.requests
            if r.status == "pending" and model.sees_request(who, r)
        ),
        "teams": _seen(model.teams, lambda team: model.sees_team(who, team)),
        "projects": _seen(model.projects, lambda project: model.sees_project(who, project)),
        "environments": _seen(model.environments, lambda e: model.sees_environment(who, e)),
        "secrets": _seen(model.secrets, lambda secret: model.sees_secret(who, secret)),
        "grants": _seen(model.grants, lambda g: g.who is who or model.gives(who, g.scope)),
        "roles": _seen(model.roles, lambda role: model.sees_role(who, role)),
    }


def _seen(things: Iterable[Any], sees: Callable[[Any], bool]) -> list[str]:
    return sorted(thing.id for thing in things if sees(thing))


STORED = {
    "people": "SELECT id, disabled FROM local_users",
    "teams": "SELECT id, parent_team_id, status FROM teams",
    "members": "SELECT team_id, user_id FROM team_members",
    "projects": "SELECT id, team_id, status FROM projects",
    "environments": "SELECT id, deleted_at FROM environments",
    "bindings": "SELECT project_id, secret_id, environment_id FROM project_secrets",
    # Those that nobody can hold in this world are left out.
    "roles": "SELECT id, permissions FROM roles WHERE name NOT IN "
    "('value_provider', 'security_approver', 'provider_connection_binder')",
    "grants": "SELECT id, user_id, role_id, scope, expires_at FROM user_roles",
    "requests": "SELECT id, requester_id, status FROM access_requests",
    "votes": "SELECT request_id, approver_id, decision FROM approvals",
}


def stored(tx: Transaction) -> dict[str, list[Any]]:
    """Return every row that matters, sorted."""
    found = {name: rows.find(tx, statement) for name, statement in STORED.items()}
    return {name: sorted((_plain(row) for row in some), key=repr) for name, some in found.items()}


def _plain(row: Mapping[str, Any]) -> tuple[Any, ...]:
    if "deleted_at" in row:
        return row["id"], row["deleted_at"] is not None
    if "permissions" in row:
        return row["id"], sorted(row["permissions"])
    return tuple(row.values())


def expected_rows(model: Model) -> dict[str, Any]:
    """Return the rows as the model has them."""
    facts: dict[str, list[tuple[Any, ...]]] = {
        "people": [(p.id, p.disabled) for p in model.people],
        "teams": [(t.id, _id(t.parent), t.status) for t in model.teams],
        "members": [(t.id, who.id) for t in model.teams for who in t.members],
        "projects": [(p.id, _id(p.team), p.status) for p in model.projects],
        "environments": [(e.id, e.deleted) for e in model.environments],
        "bindings": [(b.project.id, b.secret.id, _id(b.environment)) for b in model.bindings],
        "roles": [(r.id, sorted(r.permissions)) for r in model.roles],
        "grants": [(g.id, g.who.id, g.role.id, ids_of(g.scope), g.ends) for g in model.grants],
        "requests": [(r.id, r.requester.id, r.status) for r in model.requests],
        "votes": [(r.id, who.id, vote) for r in model.requests for who, vote in r.votes.items()],
    }
    return {name: sorted(some, key=repr) for name, some in facts.items()}


def _id(thing: Any) -> str | None:
    return None if thing is None else str(thing.id)
