"""Every place where a route takes the id of something, and a call of the route with ids there.

Read from the declarations: a new route that takes an id is called without being named here, and a
kind of id, a free-form field or a body that is not known here fails the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from sb.auth.tokens import new_token
from sb.http.declare import Agent, RouteDeclaration
from tests.http.enumeration_estate import VALUE, Side, ask

Ids = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One place for an id: a path segment, a query parameter or a member of the body."""

    where: Literal["path", "query", "body"]
    name: str

    def __str__(self) -> str:
        return f"{self.where} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Shot:
    """One call, ready to be sent."""

    method: str
    path: str
    body: Any
    headers: Mapping[str, str]


#: Names of fields that are not what they name.
KINDS = {
    "parent_team_id": "team_id",
    "approver_role_id": "role_id",
    "provider_connection_id": "connection_id",
    "requester_id": "user_id",
    "approver_id": "user_id",
    "replaces": "policy_id",
    "removes": "policy_id",
    "correlation_id": "request_id",
}
#: Free-form members that hold no id of a row.
NO_IDS = {
    *{"target_provider_config", "key_values", "result", "sealed", "value", "key", "created_by"},
    *{"POST /provider-connections scope", "POST /agents scope"},
    # The document names everything by its name.
    *{
        f"POST /organisation/apply {name}"
        for name in ("roles", "teams", "projects", "workflows", "policies", "grants")
    },
}
#: Free-form members that may, and the ids in them.
FREE = {
    "scope": ("team_id", "project_id", "environment_id"),
    "selector": ("project_id", "environment_id", "team_id"),
}
_UUID = "[0-9a-fA-F]{8}"


def slots_of(route: RouteDeclaration) -> list[Slot]:
    """Return every place for an id in the route's path, query and body."""
    path = [Slot(where="path", name=name) for name in re.findall(r"<id:(\w+)>", route.path)]
    query = [Slot(where="query", name=name) for name in _named(route, route.query)]
    return [*path, *query, *(Slot(where="body", name=name) for name in _named(route, route.body))]


def _named(route: RouteDeclaration, model: type[BaseModel] | None) -> list[str]:
    if model is None:
        return []
    found: list[str] = []
    for name, schema in model.model_json_schema().get("properties", {}).items():
        text = json.dumps(schema)
        if _UUID in text or re.search(r"_ids?$", name):
            found.append(name)
        elif '"object"' in text or "$ref" in text or not {"type", "anyOf", "enum"} & schema.keys():
            found += _inside(route, name)
    return found


def _inside(route: RouteDeclaration, name: str) -> list[str]:
    """Return the ids in a free-form member; one that nobody has thought about is an error."""
    if {name, f"{route.name} {name}"} & NO_IDS:
        return []
    return [f"{name}.{inner}" for inner in FREE[name]]


def kind_of(route: RouteDeclaration, slot: Slot, foreign: Mapping[str, Any]) -> str:
    """Return what the slot names, as the estate calls it."""
    last = slot.name.rpartition(".")[2]
    kind = KINDS.get(last, last)
    special = f"{kind}:agents"
    return special if isinstance(route.access, Agent) and special in foreign else kind


def own_ids(route: RouteDeclaration, own: Side) -> dict[str, str]:
    """Return ids of the callers' own side, so that nothing but the slot is out of scope."""
    rule = "team_rule_id" if route.path.startswith("/teams/") else "project_rule_id"
    # A request that has been decided: deciding it again changes nothing.
    return {**own.ids, "rule_id": own.ids[rule], "request_id": own.ids["read_id"]}


def call(
    route: RouteDeclaration, own: Side, given: Mapping[Slot, str], *, lease: str | None = None
) -> Shot:
    """Return a call of the route with the given ids in their slots and own ones elsewhere."""
    ids = own_ids(route, own)
    by_path = {slot.name: value for slot, value in given.items() if slot.where == "path"}
    path = re.sub(r"<id:(\w+)>", lambda m: by_path.get(m[1], ids[m[1]]), route.path)
    path = re.sub(r"<name:(\w+)>", r"\1", path)
    query = [f"{slot.name}={value}" for slot, value in given.items() if slot.where == "query"]
    lease = lease or new_token()
    return Shot(
        method=route.method,
        path=f"/api/v1{path}{'?' if query else ''}{'&'.join(query)}",
        body=None if route.body is None else _body(route, own, ids, given, lease),
        headers={"x-lease-token": lease},
    )


def _body(
    route: RouteDeclaration, own: Side, ids: Ids, given: Mapping[Slot, str], lease: str
) -> dict[str, Any]:
    names = [slot.name for slot in given if slot.where == "body"]
    special = {f"{route.name} {name}" for name in names} & INSTEAD.keys()
    body = BODIES.get(route.name, _empty)(ids, own)
    for name in special:
        body = INSTEAD[name](ids, own)
    if "lease_token" in body:
        body["lease_token"] = lease
    for slot, value in given.items():
        if slot.where == "body":
            _put(body, slot.name, value)
    return body


def _put(body: dict[str, Any], name: str, value: str) -> None:
    outer, _, inner = name.rpartition(".")
    place = body.setdefault(outer, {}) if outer else body
    place[inner] = value


def _empty(_ids: Ids, _own: Side) -> dict[str, Any]:
    return {}


def _always(**body: Any) -> Callable[[Ids, Side], dict[str, Any]]:
    return lambda _ids, _own: json.loads(json.dumps(body))  # type: ignore[no-any-return]


def _rule(ids: Ids, _own: Side) -> dict[str, Any]:
    selector = {"environment_kind": "non_prod"}
    return {
        "name": "new",
        "selector": selector,
        "workflow_id": ids["workflow_id"],
        "priority": 10,
    }


def _grant(ids: Ids, _own: Side) -> dict[str, Any]:
    scope = {"team_id": ids["team_id"]}
    return {"user_id": ids["user_id"], "role_id": ids["role_id"], "scope": scope}


def _unbound(ids: Ids, own: Side) -> dict[str, Any]:
    return {**ask(own, "read"), "target_secret_ref": "app/nobody-bound"}


def _explained(_ids: Ids, own: Side) -> dict[str, Any]:
    body = {**ask(own, "read"), "operation": "read"}
    del body["justification"]
    return body


#: A valid body of every route that takes one, but for those that may be empty.
BODIES: Mapping[str, Callable[[Ids, Side], dict[str, Any]]] = {
    "PUT /users/<id:user_id>": _always(display_name="x"),
    "PUT /roles/<id:role_id>": _always(description="x"),
    "PUT /roles/<id:role_id>/permissions": _always(permissions=[]),
    "POST /requests/read": lambda _, own: ask(own, "read"),
    "POST /requests": lambda _, own: ask(own, "patch"),
    "POST /requests/<id:request_id>/reject": _always(reason="no"),
    "POST /user-roles": _grant,
    "PUT /user-roles/<id:grant_id>": _always(reason="x"),
    "POST /teams": _always(name="new"),
    "PUT /teams/<id:team_id>": _always(description="x"),
    "PUT /teams/<id:team_id>/status": _always(status="archived"),
    "POST /teams/<id:team_id>/members": lambda ids, _: {"user_id": ids["user_id"]},
    "POST /projects": _always(name="new"),
    "PUT /projects/<id:project_id>": _always(name="renamed"),
    "PUT /projects/<id:project_id>/status": _always(status="archived"),
    "PUT /projects/<id:project_id>/team": lambda ids, _: {"team_id": ids["team_id"]},
    "POST /environments": lambda ids, _: {"project_id": ids["project_id"], "name": "new"},
    "PUT /environments/<id:environment_id>": _always(description="x"),
    "POST /projects/<id:project_id>/secrets": _always(provider_type="file", secret_ref="app/new"),
    "PUT /projects/<id:project_id>/secrets/<id:secret_id>": _always(allowed_ops=["read"]),
    "PUT /secrets/<id:secret_id>": _always(kind="prod", reason="x"),
    "POST /policies/explain": _explained,
    "POST /projects/<id:project_id>/policy-rules": _rule,
    "POST /teams/<id:team_id>/policy-rules": _rule,
    "PUT /projects/<id:project_id>/policy-rules/<id:rule_id>": _always(name="renamed"),
    "PUT /teams/<id:team_id>/policy-rules/<id:rule_id>": _always(name="renamed"),
    "POST /agents/<id:agent_id>/heartbeat": _always(status="ok"),
    "POST /agents/<id:agent_id>/jobs/<id:job_id>/renew": _always(lease_token=""),
    "POST /agents/<id:agent_id>/jobs/<id:job_id>/complete": _always(
        lease_token="", status="failed", error="x"
    ),
    "POST /agents/<id:agent_id>/wraps": lambda ids, _: {
        "request_id": ids["request_id"],
        "key_name": "A",
        "value": VALUE,
    },
}
#: Other bodies for one slot: the usual one would say two things at once, or succeed.
INSTEAD: Mapping[str, Callable[[Ids, Side], dict[str, Any]]] = {
    "POST /projects/<id:project_id>/secrets secret_id": _empty,
    "POST /requests/read requester_id": _unbound,
    "POST /requests requester_id": lambda ids, own: {
        **ask(own, "patch"),
        "target_secret_ref": "app/nobody-bound",
    },
}
