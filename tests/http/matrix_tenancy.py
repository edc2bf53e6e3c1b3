"""Calls of the matrix about teams, projects, environments, bindings and their rules."""

from __future__ import annotations

from typing import Any

from sb.ids import new_id
from tests.http.matrix_things import Call, Site, Table, go, rule_body


def _named(**more: Any) -> dict[str, Any]:
    return {"name": f"n-{new_id()}", **more}


def _joined(at: Site) -> tuple[str, str]:
    team, user_id = at.team(), at.user()
    at.join(team, user_id)
    return team, user_id


def _members(at: Site) -> Call:
    team, user_id = _joined(at)
    return go(team, shows=user_id)


def _own_team(at: Site) -> str:
    """A team the caller is a member of, which grants nothing."""
    team = at.team()
    at.join(team, at.caller)
    return team


def _bound(at: Site) -> tuple[str, str]:
    found = at.bound()
    return found.project, found.secret


def _nested(at: Site) -> tuple[str, str]:
    """A project of the side, and a secret that is bound on the other side."""
    return at.project(), at.across.bound().secret


def _bindings(at: Site) -> Call:
    project, secret = _bound(at)
    return go(project, shows=secret)


def _of_environment(at: Site) -> Call:
    project, secret = _bound(at)
    return go(project, at.environment(project), shows=secret)


def _of_project(at: Site) -> Call:
    project = at.project()
    return go(project, shows=at.environment(project))


def _bind_new(at: Site) -> Call:
    made = at.crew()[at.side].connection_id
    place = {"provider_type": "file", "secret_ref": f"app/{new_id()}"}
    return go(at.project(), body={**place, "provider_connection_id": made})


def _bind_anothers(at: Site) -> Call:
    """The place of a secret that the other side has."""
    found = at.across.bound()
    place = {"provider_type": "file", "secret_ref": found.ref}
    made = found.crew[at.across.side].connection_id
    return go(at.project(), body={**place, "provider_connection_id": made})


def _bind_known(at: Site) -> Call:
    return go(at.project(), body={"secret_id": at.across.bound().secret})


WIDER = {"allowed_ops": ["read", "patch", "discover"]}

TENANCY: Table = {
    "GET /teams": lambda at: go(query={"limit": 200}, shows=at.team()),
    "POST /teams": lambda at: go(body=_named(parent_team_id=at.team_of_side)),
    "POST /teams | a root": lambda _: go(body=_named()),
    "GET /teams/<id:team_id>": lambda at: go(at.team()),
    "GET /teams/<id:team_id> | of a member": lambda at: go(_own_team(at)),
    "PUT /teams/<id:team_id>": lambda at: go(at.team(), body=_named()),
    "PUT /teams/<id:team_id> | to the other side": lambda at: go(
        at.team(), body={"parent_team_id": at.across.team_of_side}
    ),
    "PUT /teams/<id:team_id> | of a member": lambda at: go(_own_team(at), body=_named()),
    "PUT /teams/<id:team_id>/status": lambda at: go(at.team(), body={"status": "archived"}),
    "DELETE /teams/<id:team_id>": lambda at: go(at.team()),
    "GET /teams/<id:team_id>/members": _members,
    "POST /teams/<id:team_id>/members": lambda at: go(at.team(), body={"user_id": at.user()}),
    "DELETE /teams/<id:team_id>/members/<id:user_id>": lambda at: go(*_joined(at)),
    "GET /projects": lambda at: go(query={"limit": 200}, shows=at.project()),
    "POST /projects": lambda at: go(body=_named(team_id=at.team_of_side)),
    "POST /projects | under no team": lambda _: go(body=_named()),
    "GET /projects/<id:project_id>": lambda at: go(at.project()),
    "PUT /projects/<id:project_id>": lambda at: go(at.project(), body=_named()),
    "PUT /projects/<id:project_id>/status": lambda at: go(
        at.project(), body={"status": "archived"}
    ),
    "PUT /projects/<id:project_id>/team": lambda at: go(at.project(), body={"team_id": at.team()}),
    "PUT /projects/<id:project_id>/team | to the other side": lambda at: go(
        at.project(), body={"team_id": at.across.team()}
    ),
    "GET /environments": lambda at: go(query={"limit": 200}, shows=at.environment()),
    "POST /environments": lambda at: go(body=_named(project_id=at.project())),
    "GET /environments/<id:environment_id>": lambda at: go(at.environment()),
    "PUT /environments/<id:environment_id>": lambda at: go(
        at.environment(), body={"risk_level": 3}
    ),
    "DELETE /environments/<id:environment_id>": lambda at: go(at.environment()),
    "GET /projects/<id:project_id>/environments": _of_project,
    "GET /projects/<id:project_id>/environments/<id:environment_id>/secrets": _of_environment,
    "GET /projects/<id:project_id>/environments/<id:environment_id>/secrets | the other side's": (
        lambda at: go(at.project(), at.across.environment())
    ),
    "GET /projects/<id:project_id>/secrets": _bindings,
    "POST /projects/<id:project_id>/secrets": _bind_new,
    "POST /projects/<id:project_id>/secrets | the other side's, by place": _bind_anothers,
    "POST /projects/<id:project_id>/secrets | the other side's, by id": _bind_known,
    "GET /projects/<id:project_id>/secrets/<id:secret_id>": lambda at: go(*_bound(at)),
    "GET /projects/<id:project_id>/secrets/<id:secret_id> | the other side's": lambda at: go(
        *_nested(at)
    ),
    "PUT /projects/<id:project_id>/secrets/<id:secret_id>": lambda at: go(*_bound(at), body=WIDER),
    "PUT /projects/<id:project_id>/secrets/<id:secret_id> | the other side's": lambda at: go(
        *_nested(at), body=WIDER
    ),
    "DELETE /projects/<id:project_id>/secrets/<id:secret_id>": lambda at: go(*_bound(at)),
    "DELETE /projects/<id:project_id>/secrets/<id:secret_id> | the other side's": lambda at: go(
        *_nested(at)
    ),
    "GET /secrets": lambda at: go(query={"limit": 200}, shows=at.bound().secret),
    "GET /secrets/<id:secret_id>": lambda at: go(at.bound().secret),
    "PUT /secrets/<id:secret_id>": lambda at: go(
        at.bound().secret, body={"kind": "prod", "reason": "holds a copy"}
    ),
}


def _rule(at: Site, kind: str) -> tuple[str, str]:
    """A project or a team, with a rule of its own."""
    place = _place(at, kind)
    return place, at.rule(**{f"{kind}_id": place})


def _place(at: Site, kind: str) -> str:
    return at.project() if kind == "project" else at.team()


def _rules_of(kind: str) -> Table:
    """Return the calls of one of the two families of scoped rules."""
    plain = f"/{kind}s/<id:{kind}_id>/policy-rules"
    one = f"{plain}/<id:rule_id>"

    def listed(at: Site) -> Call:
        place, rule = _rule(at, kind)
        return go(place, shows=rule)

    def own(at: Site, **more: Any) -> Call:
        return go(*_rule(at, kind), **more)

    def foreign(at: Site, **more: Any) -> Call:
        """A place of the side, with a rule of a place on the other side."""
        return go(_place(at, kind), _rule(at.across, kind)[1], **more)

    change = {"name": "other"}
    return {
        f"GET {plain}": listed,
        f"POST {plain}": lambda at: go(_place(at, kind), body=rule_body(at)),
        f"GET {one}": own,
        f"GET {one} | the other side's": foreign,
        f"PUT {one}": lambda at: own(at, body=change),
        f"PUT {one} | the other side's": lambda at: foreign(at, body=change),
        f"DELETE {one}": own,
        f"DELETE {one} | the other side's": foreign,
        f"GET {one}/history": own,
        f"GET {one}/history | the other side's": foreign,
    }


RULES: Table = {**_rules_of("project"), **_rules_of("team")}
