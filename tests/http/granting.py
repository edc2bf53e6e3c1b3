"""Steps of the tests of roles and grants over HTTP: made, given, found, and their trail."""

from __future__ import annotations

from typing import Any

import httpx

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.ids import new_id
from tests.ops import rows
from tests.stack import Person, Stack


async def put(person: Person, path: str, json: Any) -> httpx.Response:
    return await person.http.put(f"/api/v1{path}", json=json)


async def delete(person: Person, path: str) -> httpx.Response:
    return await person.http.delete(f"/api/v1{path}")


async def role_id(person: Person, name: str) -> str:
    found = (await person.get("/roles", params={"limit": 200})).json()
    return str(next(role["id"] for role in found if role["name"] == name))


async def make_role(admin: Person, name: str, *permissions: str) -> str:
    answer = await admin.post("/roles", {"name": name, "permissions": permissions})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def make_team(plane: Stack, name: str) -> str:
    team_id, stamps = new_id(), {"created_at": utc_now(), "updated_at": utc_now()}

    def op(tx: Transaction) -> None:
        values = {"name": name, "parent_team_id": None, "status": "active", "description": None}
        rows.insert(tx, "teams", id=team_id, **values, **stamps)

    await plane.db.run(op)
    return team_id


async def give(
    giver: Person, to: Person, role: str, scope: dict[str, str], **more: Any
) -> httpx.Response:
    body = {"user_id": to.id, "role_id": role, "scope": scope, **more}
    return await giver.post("/user-roles", body)


async def grant_of(admin: Person, person: Person) -> str:
    (grant,) = (await admin.get(f"/users/{person.id}/roles")).json()
    return str(grant["id"])


async def trail(admin: Person, action: str) -> list[tuple[str, str]]:
    found = (await admin.get("/audit-events", params={"action": action})).json()
    return [(event["status"], event["metadata"].get("error_kind", "")) for event in found]
