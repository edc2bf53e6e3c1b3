"""Rate limits of every limited route, and Idempotency-Key on every route that creates."""

from __future__ import annotations

from typing import Any

import pytest

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.declare import Session
from sb.ops import grants
from tests.http.hostile import (
    PLANTED,
    ROUTES,
    assert_unseen,
    callers,
    nothing_changes,
    path_of,
    refused,
)
from tests.stack import Person, Stack

LIMITED = [route for route in ROUTES if route.limit is not None]
CREATING = [route for route in ROUTES if route.creates]
READ: dict[str, Any] = {
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
    "justification": "ticket 1",
}


async def test_every_declared_limit_is_enforced(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with callers(plane) as who:
        limits: Any = plane.state.rate_limits
        limits.update({route.limit.bucket: 2 for route in LIMITED if route.limit is not None})
        for route in LIMITED:
            path, http = path_of(route, agent_id=who.agent.id), who.of(route)
            for _ in range(2):
                await http.request(route.method, path, json={"x": 1})
            async with nothing_changes(database_url):
                answer = await http.request(route.method, path, json={"password": PLANTED})
                refused(answer, 429, "rate_limited")
            assert route.limit is not None
            assert 1 <= int(answer.headers["retry-after"]) <= route.limit.window
        metrics = (await who.nobody.get("/metrics")).text
        assert 'rate_limited_total{bucket="auth:login"}' in metrics
    assert_unseen(PLANTED, caplog, database_url)


async def test_one_persons_limit_is_not_anothers(plane: Stack) -> None:
    limits: Any = plane.state.rate_limits
    limits["wrap:retrieve"] = 1
    reveal = next(r for r in ROUTES if r.limit is not None and r.limit.bucket == "wrap:retrieve")
    path = path_of(reveal).removeprefix("/api/v1")
    first, second = await plane.person("dev", "developer"), await plane.person("b", "developer")
    assert (await first.get(path)).status_code == 404
    refused(await first.get(path), 429, "rate_limited")
    assert (await second.get(path)).status_code == 404


async def test_guessing_an_agents_secret_is_slow_and_does_not_lock_it_out(plane: Stack) -> None:
    agent = await plane.enroll(await plane.connection())
    bad = {"x-agent-secret": PLANTED}
    statuses = [(await agent.post("/heartbeat", headers=bad)).status_code for _ in range(22)]
    assert statuses == [401] * 20 + [429] * 2
    assert (await agent.post("/heartbeat")).status_code == 204


async def test_a_forwarded_address_does_not_widen_the_limit(plane: Stack) -> None:
    limits: Any = plane.state.rate_limits
    limits["agent:enroll"] = 2
    anybody = await plane.person("anybody")
    statuses = []
    for n in range(4):
        headers = {"x-forwarded-for": f"203.0.113.{n}", "forwarded": f"for=203.0.113.{n}"}
        answer = await anybody.post("/agents/enroll", {}, headers=headers)
        statuses.append(answer.status_code)
    assert statuses[2:] == [429, 429]


async def bodies_of(plane: Stack, admin: Person) -> dict[str, tuple[str, Any, Any]]:
    """Return path and two good bodies of every route that creates, by the route's name."""
    connection = await plane.connection()
    state: Any = plane.state
    object.__setattr__(state, "allow_direct_mint", True)
    path = f"/provider-connections/{connection}/agent-enrollment-token"
    patch = {**READ, "key_values": {"A": PLANTED}}
    return {
        "POST /requests/read": ("/requests/read", READ, {**READ, "justification": "2"}),
        "POST /requests": ("/requests", patch, {**patch, "key_values": {"A": "other"}}),
        "POST /provider-connections": (
            "/provider-connections",
            {"name": "c-1", "type": "vault"},
            {"name": "c-2", "type": "vault"},
        ),
        "POST /agents": ("/agents", {"name": "a-1"}, {"name": "a-2"}),
        "POST /users": (
            "/users",
            {"email": "u-1@example.com", "display_name": "U"},
            {"email": "u-2@example.com", "display_name": "U"},
        ),
        "POST /provider-connections/<id:connection_id>/agent-enrollment-token": (
            path,
            {},
            {"name": "t"},
        ),
        **await governance_bodies(plane, admin),
    }


async def governance_bodies(plane: Stack, admin: Person) -> dict[str, tuple[str, Any, Any]]:
    """Return the same for what an installation is governed by."""
    await plane.db.run(make_author, admin.id)

    async def made(path: str, body: Any) -> str:
        answer = await admin.post(path, body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    team = await made("/teams", {"name": "t-0"})
    project = await made("/projects", {"name": "p-0", "team_id": team})
    flow = await made("/workflows", {"name": "w-0", "scoped_policy_authorable": True})
    role = await made("/roles", {"name": "r-0", "permissions": ["secret.list"]})
    someone = await plane.person("someone")
    rule = {"name": "r", "selector": {"environment_kind": "non_prod"}, "workflow_id": flow}
    scoped = {**rule, "priority": 10}
    secret = {"provider_type": "file", "secret_ref": "app/db"}
    grant = {"user_id": someone.id, "role_id": role, "scope": {}}
    return {
        "POST /roles": _two("/roles", {"name": "r-1", "permissions": ["secret.list"]}),
        "POST /user-roles": ("/user-roles", grant, {**grant, "reason": "2"}),
        "POST /teams": _two("/teams", {"name": "t-1"}),
        "POST /teams/<id:team_id>/members": (
            f"/teams/{team}/members",
            {"user_id": someone.id},
            {"user_id": admin.id},
        ),
        "POST /projects": _two("/projects", {"name": "p-1"}),
        "POST /environments": _two("/environments", {"project_id": project, "name": "dev"}),
        "POST /projects/<id:project_id>/secrets": (
            f"/projects/{project}/secrets",
            secret,
            {**secret, "allowed_ops": ["read", "patch"]},
        ),
        "POST /workflows": _two("/workflows", {"name": "w-1"}),
        "POST /policies": _two("/policies", rule),
        "POST /projects/<id:project_id>/policy-rules": _two(
            f"/projects/{project}/policy-rules", scoped
        ),
        "POST /teams/<id:team_id>/policy-rules": _two(f"/teams/{team}/policy-rules", scoped),
    }


def _two(path: str, body: dict[str, Any]) -> tuple[str, Any, Any]:
    return path, body, {**body, "name": f"{body['name']}-2"}


def make_author(tx: Transaction, user_id: str) -> None:
    """Let the person write scoped rules too, which administrators may not by themselves."""
    role = tx.one("role_find_by_name", name="policy_author")
    assert role is not None
    grants.give(
        tx, user_id=user_id, role_id=role["id"], scope={}, granted_by="system:test", now=utc_now()
    )


#: Their answers hold a one-time secret, so that a repetition is refused.
ONCE = {
    "POST /agents",
    "POST /users",
    "POST /provider-connections/<id:connection_id>/agent-enrollment-token",
}


async def test_every_creating_route_honours_its_idempotency_key(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await plane.person("admin", "admin")
    bodies = await bodies_of(plane, admin)
    creating = {route.name for route in CREATING if isinstance(route.access, Session)}
    assert creating <= bodies.keys()
    for name in sorted(creating):
        path, body, other = bodies[name]
        headers = {"idempotency-key": "the-key"}
        first = await admin.post(path, body, headers=headers)
        assert first.status_code == 201, first.text
        async with nothing_changes(database_url):
            again = await admin.post(path, body, headers=headers)
            if name in ONCE:
                refused(again, 409, "idempotency_key_used")
            else:
                assert (again.status_code, again.json()) == (201, first.json())
                assert again.headers["idempotency-replayed"] == "true"
            different = await admin.post(path, other, headers=headers)
            refused(different, 409, "idempotency_key_reused")
    assert_unseen(PLANTED, caplog, database_url)


BAD_KEYS = (b"", b"a b", b"x" * 129, b"\xff", b"a/b", b"a,b", b"' OR 1=1 --")


async def test_a_bad_idempotency_key_creates_nothing(plane: Stack, database_url: str) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    async with nothing_changes(database_url):
        for key in BAD_KEYS:
            headers: Any = {b"idempotency-key": key}
            answer = await dev.post("/requests/read", READ, headers=headers)
            refused(answer, 400, "invalid_idempotency_key")


async def test_a_key_belongs_to_one_person_and_one_route(plane: Stack) -> None:
    await plane.connection()
    first, second = await plane.person("a", "developer"), await plane.person("b", "developer")
    headers = {"idempotency-key": "shared"}
    mine = (await first.post("/requests/read", READ, headers=headers)).json()
    theirs = (await second.post("/requests/read", READ, headers=headers)).json()
    assert theirs["requester_id"] == second.id != mine["requester_id"]
    patch = {**READ, "key_values": {"A": "b"}}
    other_route = await first.post("/requests", patch, headers=headers)
    assert other_route.status_code == 201
    assert other_route.json()["id"] != mine["id"]


async def test_a_refused_creation_leaves_its_key_free(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    headers = {"idempotency-key": "again"}
    bad = {**READ, "provider_connection_id": "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"}
    refused(await dev.post("/requests/read", bad, headers=headers), 404, "connection_not_found")
    made = await dev.post("/requests/read", READ, headers=headers)
    assert made.status_code == 201, made.text
    assert "idempotency-replayed" not in made.headers


async def test_an_enrolment_honours_its_idempotency_key(plane: Stack, database_url: str) -> None:
    token, other = [await plane.token(await plane.connection()) for _ in range(2)]
    anybody = await plane.person("anybody")
    headers = {"idempotency-key": "once"}
    body = {"enrollment_token": token, "agent_name": "a-1"}
    # A refused enrolment keeps neither the key nor the token.
    bad = {**body, "provider_type": "vault"}
    answer = await anybody.post("/agents/enroll", bad, headers=headers)
    refused(answer, 400, "provider_type_mismatch")
    first = await anybody.post("/agents/enroll", body, headers=headers)
    assert first.status_code == 201, first.text
    async with nothing_changes(database_url):
        again = await anybody.post("/agents/enroll", body, headers=headers)
        refused(again, 409, "idempotency_key_used")
        changed = {**body, "agent_name": "a-2"}
        answer = await anybody.post("/agents/enroll", changed, headers=headers)
        refused(answer, 409, "idempotency_key_reused")
    # The key is the token's own: another token may come with the same one.
    body = {"enrollment_token": other, "agent_name": "a-2"}
    assert (await anybody.post("/agents/enroll", body, headers=headers)).status_code == 201
