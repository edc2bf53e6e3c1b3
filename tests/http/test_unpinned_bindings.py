"""Secrets bound before there was a connection: no way into what another team has bound."""

from __future__ import annotations

from typing import Any

from tests.http.hostile import refused
from tests.stack import Person, Stack

SECRET = {"provider_type": "file", "secret_ref": "app/db"}
READ = {
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
    "target_keys": ["PASSWORD"],
    "justification": "ticket 1",
}


async def made(admin: Person, path: str, body: Any) -> str:
    answer = await admin.post(path, body)
    assert answer.status_code == 201, answer.text
    return str(answer.json().get("id", ""))


async def two_teams(plane: Stack) -> tuple[Person, str, Person, str]:
    """Return an administrator with team A's project, and the head of team B with theirs."""
    admin, head = await plane.person("admin", "admin"), await plane.person("head")
    ours = await made(admin, "/teams", {"name": "A"})
    theirs = await made(admin, "/teams", {"name": "B"})
    first = await made(admin, "/projects", {"name": "a", "team_id": ours})
    second = await made(admin, "/projects", {"name": "b", "team_id": theirs})
    powers = ["secret.bind", "secret.request", "secret.list"]
    role = await made(admin, "/roles", {"name": "head", "permissions": powers})
    grant = {"user_id": head.id, "role_id": role, "scope": {"team_id": theirs}}
    await made(admin, "/user-roles", grant)
    return admin, first, head, second


async def test_bind_what_another_team_bound_without_a_connection_is_refused(plane: Stack) -> None:
    admin, ours, head, theirs = await two_teams(plane)
    await made(admin, f"/projects/{ours}/secrets", {**SECRET, "cluster_name": "east"})
    await plane.connection()
    for where in ({}, {"cluster_name": "east"}, {"cluster_name": "west"}):
        answer = await head.post(f"/projects/{theirs}/secrets", {**SECRET, **where})
        refused(answer, 403, "secret_out_of_scope")


async def test_choose_a_connection_for_a_binding_without_one_is_refused(plane: Stack) -> None:
    admin, ours, head, theirs = await two_teams(plane)
    await made(head, f"/projects/{theirs}/secrets", SECRET)
    own = await plane.connection()
    # While one connection leads there it is the way, named or not.
    for named in ({}, {"provider_connection_id": own}):
        answer = await head.post("/requests/read", {**READ, "project_id": theirs, **named})
        assert (answer.status_code, answer.json()["provider_connection_id"]) == (201, own)
    other = await plane.connection()
    await made(admin, f"/projects/{ours}/secrets", {**SECRET, "provider_connection_id": other})
    for named in ({}, {"provider_connection_id": own}, {"provider_connection_id": other}):
        answer = await head.post("/requests/read", {**READ, "project_id": theirs, **named})
        refused(answer, 400, "provider_connection_required")
