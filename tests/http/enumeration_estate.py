"""Two teams with one of everything each, and people of the first who see nothing of the second."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from sb.auth.permissions import PERMISSION_KEYS
from sb.ops import audit
from sb.ops.sessions import SessionRules
from tests.http.hostile import unlimited
from tests.http.test_limits import make_author
from tests.stack import Person, RawAgent, Stack

#: Roles given at team A, by person; `head` holds the whole catalogue there, `plain` nothing.
PEOPLE = {
    "head": "head",
    "developer": "developer",
    "approver": "approver",
    "author": "policy_author",
    "plain": None,
}
VALUE = base64.b64encode(b"a value").decode()


@dataclass(kw_only=True)
class Side:
    """One team and what is its: ids by what they name, agents, and the leases they hold."""

    name: str
    ids: dict[str, str] = field(default_factory=dict)
    agents: list[RawAgent] = field(default_factory=list)
    leases: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Estate:
    plane: Stack
    admin: Person
    people: dict[str, Person]
    permissions: dict[str, frozenset[str]]
    own: Side
    #: Real ids outside the scope of everybody in `people`, by what they name.
    foreign: dict[str, list[str]]
    other: Side


async def build(plane: Stack) -> Estate:
    """Return both sides, made over HTTP, with no rate limit and no session that slides."""
    unlimited(plane)
    limits: Any = plane.state.rate_limits
    limits["audit:denials"] = 1_000_000
    # A session whose idle end is moved would cost one call a statement that its twin does not pay.
    rules = SessionRules()
    object.__setattr__(plane.state, "session_rules", SessionRules(idle=rules.absolute))
    admin = await plane.person("admin", "admin")
    await plane.db.run(make_author, admin.id)
    flow = {"name": "open", "scoped_policy_authorable": True}
    open_flow = await made(admin, "/workflows", flow)
    closed_flow = await made(admin, "/workflows", {"name": "closed"})
    own = await _side(plane, admin, "a", workflow=open_flow)
    other = await _side(plane, admin, "b", workflow=open_flow)
    other.ids["workflow_id"] = closed_flow
    head = {"name": "head", "permissions": sorted(PERMISSION_KEYS)}
    await made(admin, "/roles", head)
    scope = {"team_id": own.ids["team_id"]}
    # The requester of team A's requests is the developer below: some routes are for one's own only.
    people = {name: await plane.person(f"{name}-a", role, scope) for name, role in PEOPLE.items()}
    foreign = {name: [found] for name, found in other.ids.items()}
    foreign["request_id"].append(other.ids["read_id"])
    foreign["job_id"].append(other.ids["patch_job_id"])
    # What another agent of the very same connection works at is not this one's either.
    colleague = await _colleague(plane, admin, own)
    for name, found in colleague.ids.items():
        foreign[f"{name}:agents"] = [*foreign[name], found]
    foreign["wrap_id:agents"].append(other.ids["patch_wrap_id"])
    # Of the platform's rules authors see those that are on.
    off = await _platform_rule(admin, open_flow)
    foreign["policy_id"] = [other.ids["policy_id"], off]
    foreign["rule_id"] = [other.ids["project_rule_id"], other.ids["team_rule_id"], off]
    return Estate(
        plane=plane,
        admin=admin,
        people=people,
        permissions={name: await _permissions(person) for name, person in people.items()},
        own=own,
        foreign=foreign,
        other=other,
    )


async def made(person: Person, path: str, body: Any) -> str:
    """Return the id of what this POST makes."""
    answer = await person.post(path, body)
    assert answer.status_code == 201, f"{path}: {answer.text}"
    return str(answer.json()["id"])


async def _permissions(person: Person) -> frozenset[str]:
    return frozenset((await person.get("/users/me")).json()["permissions"])


async def _platform_rule(admin: Person, workflow: str) -> str:
    """Return a rule of the platform that is switched off."""
    selector = {"environment_kind": "non_prod"}
    body = {"name": "off", "selector": selector, "workflow_id": workflow, "enabled": False}
    return await made(admin, "/policies", body)


async def _side(plane: Stack, admin: Person, name: str, *, workflow: str) -> Side:
    ids: dict[str, str] = {"workflow_id": workflow}
    ids["team_id"] = await made(admin, "/teams", {"name": f"team-{name}"})
    project = {"name": f"project-{name}", "team_id": ids["team_id"]}
    ids["project_id"] = await made(admin, "/projects", project)
    environment = {"project_id": ids["project_id"], "name": "dev"}
    ids["environment_id"] = await made(admin, "/environments", environment)
    ids["connection_id"] = await plane.connection()
    secret = {
        "provider_type": "file",
        "secret_ref": f"app/{name}",
        "provider_connection_id": ids["connection_id"],
        "allowed_ops": ["read", "patch"],
    }
    answer = await admin.post(f"/projects/{ids['project_id']}/secrets", secret)
    assert answer.status_code == 201, answer.text
    ids["secret_id"] = answer.json()["secret_id"]
    ids["role_id"] = await made(admin, "/roles", {"name": f"r-{name}", "permissions": []})
    side = Side(name=name, ids=ids)
    await _rules(admin, side)
    requester = await _members(plane, admin, side)
    await _work(plane, admin, requester, side)
    ids["token_id"] = await _token(plane, ids["connection_id"])
    return side


async def _rules(admin: Person, side: Side) -> None:
    ids = side.ids
    rule = {
        "name": "rule",
        "selector": {"environment_kind": "non_prod"},
        "workflow_id": ids["workflow_id"],
        "priority": 10,
    }
    projects, teams = f"/projects/{ids['project_id']}", f"/teams/{ids['team_id']}"
    ids["project_rule_id"] = ids["policy_id"] = await made(admin, f"{projects}/policy-rules", rule)
    answer = await admin.post(f"{teams}/policy-rules", rule)
    assert answer.status_code == 201, answer.text
    ids["team_rule_id"] = answer.json()["rule"]["id"]


async def _members(plane: Stack, admin: Person, side: Side) -> Person:
    """Give the team a developer who asks and somebody with a role and a session; return the one."""
    ids, scope = side.ids, {"team_id": side.ids["team_id"]}
    requester = await plane.person(f"developer-{side.name}", "developer", scope)
    member = await plane.person(f"member-{side.name}")
    ids["user_id"] = member.id
    grant = {"user_id": member.id, "role_id": ids["role_id"], "scope": scope}
    ids["grant_id"] = await made(admin, "/user-roles", grant)
    answer = await admin.post(f"/teams/{ids['team_id']}/members", {"user_id": member.id})
    assert answer.status_code == 201, answer.text
    (session,) = (await admin.get(f"/users/{member.id}/sessions")).json()
    ids["session_id"] = session["id"]
    return requester


async def _work(plane: Stack, admin: Person, requester: Person, side: Side) -> None:
    """Leave a pending request, and a read and a patch that an agent holds, each with its wrap."""
    ids = side.ids
    agent = await plane.enroll(ids["connection_id"])
    side.agents.append(agent)
    ids["agent_id"] = agent.id
    for kind in ("read", "patch"):
        request_id, job = await _held(admin, requester, agent, side, kind=kind)
        side.leases[kind] = job["lease_token"]
        ids[f"{kind}_id"], ids[f"{kind}_job_id"] = request_id, job["id"]
        if kind == "read":
            await _post(agent, request_id, job["lease_token"])
    for kind in ("read", "patch"):
        (wrap_id,) = await _wraps(plane, ids[f"{kind}_id"])
        ids[f"{kind}_wrap_id"] = wrap_id
    ids["wrap_id"], ids["job_id"] = ids["read_wrap_id"], ids["read_job_id"]
    ids["request_id"] = await made(requester, "/requests/read", ask(side, "read"))


def ask(side: Side, kind: str) -> dict[str, Any]:
    """Return the body of a request for the side's secret."""
    body: dict[str, Any] = {
        "target_provider_type": "file",
        "target_secret_ref": f"app/{side.name}",
        "justification": "ticket 1",
        "project_id": side.ids["project_id"],
        "environment": "dev",
    }
    return {**body, "target_keys": ["A"]} if kind == "read" else {**body, "key_values": {"A": "b"}}


async def _held(
    admin: Person, requester: Person, agent: RawAgent, side: Side, *, kind: str
) -> tuple[str, dict[str, Any]]:
    path = "/requests/read" if kind == "read" else "/requests"
    request_id = await made(requester, path, ask(side, kind))
    answer = await admin.post(f"/requests/{request_id}/approve", {})
    assert answer.status_code == 200, answer.text
    claimed = await agent.post("/jobs/claim")
    assert claimed.status_code == 200, claimed.text
    job: dict[str, Any] = claimed.json()
    assert job["payload"]["request_id"] == request_id
    return request_id, job


async def _post(agent: RawAgent, request_id: str, lease: str) -> None:
    body = {"request_id": request_id, "key_name": "A", "value": VALUE}
    answer = await agent.post("/wraps", body, headers={"x-lease-token": lease})
    assert answer.status_code == 201, answer.text


async def _wraps(plane: Stack, request_id: str) -> list[str]:
    rows = await plane.db.read(lambda tx: tx.many("wrap_list", request_id=request_id))
    return [row["id"] for row in rows]


async def _token(plane: Stack, connection_id: str) -> str:
    await plane.token(connection_id)
    wanted = audit.Filters(action="agent.enrollment_token.created")
    found = await plane.db.read(audit.list_events, filters=wanted, before=None, limit=1)
    return found[0].correlation_id


async def _colleague(plane: Stack, admin: Person, own: Side) -> Side:
    """Return another agent of the own connection, with a patch that it holds."""
    agent = await plane.enroll(own.ids["connection_id"])
    requester = await plane.person("developer-a")
    request_id, job = await _held(admin, requester, agent, own, kind="patch")
    (wrap_id,) = await _wraps(plane, request_id)
    ids = {"agent_id": agent.id, "request_id": request_id, "job_id": job["id"], "wrap_id": wrap_id}
    return Side(name="colleague", ids=ids, agents=[agent])
