"""Roles and grants over real HTTP: made, seen, changed, taken, and refused with a trail."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from sb.auth.permissions import CATALOGUE, SEED_ROLES
from sb.clock import utc_now
from tests.http.granting import delete, give, grant_of, make_role, make_team, put, role_id, trail
from tests.http.hostile import MISSING, change, nothing_changes, refused, unlimited
from tests.http.test_races import at_once, outcomes
from tests.stack import Stack

ROLE = {"id", "name", "description", "permissions", "is_system", "created_at", "updated_at"}
GRANT = {
    "id",
    "user_id",
    "user_email",
    "role_id",
    "role_name",
    "scope",
    "granted_by",
    "granted_at",
    "expires_at",
    "reason",
    "active",
}


async def test_the_catalogue_is_shown_in_order_to_whoever_is_signed_in(plane: Stack) -> None:
    nobody = await plane.person("nobody")
    answer = await nobody.get("/permissions")
    assert [entry["key"] for entry in answer.json()] == [known.key for known in CATALOGUE]
    assert set(answer.json()[0]) == {"key", "group", "description"}
    assert answer.headers["cache-control"] == "private, max-age=300"
    async with httpx.AsyncClient(base_url=plane.url) as stranger:
        for path in ("/permissions", "/roles", "/user-roles", f"/users/{nobody.id}/roles"):
            refused(await stranger.get(f"/api/v1{path}"), 401, "authentication_required")


async def test_roles_are_made_changed_and_deleted(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    body = {"name": "Reader", "permissions": ["secret.list"]}
    headers = {"Idempotency-Key": "reader"}
    made = await admin.post("/roles", body, headers=headers)
    role = made.json()
    assert (made.status_code, set(role)) == (201, ROLE)
    assert (role["description"], role["is_system"]) == ("", False)
    replayed = await admin.post("/roles", body, headers=headers)
    assert (replayed.json(), replayed.headers["idempotency-replayed"]) == (role, "true")
    refused(await admin.post("/roles", body), 409, "role_name_taken")

    path = f"/roles/{role['id']}"
    changed = await put(admin, path, {"description": "Reads."})
    assert changed.json() == {
        **role,
        "description": "Reads.",
        "updated_at": changed.json()["updated_at"],
    }
    replaced = await put(admin, f"{path}/permissions", {"permissions": []})
    assert (replaced.status_code, replaced.content) == (204, b"")
    assert (await admin.get(path)).json()["permissions"] == []
    refused(await put(admin, path, {"name": "admin"}), 409, "role_name_taken")
    assert (await delete(admin, path)).status_code == 204
    refused(await admin.get(path), 404, "role_not_found")
    refused(await delete(admin, path), 404, "role_not_found")
    refused(await put(admin, path, {}), 404, "role_not_found")
    assert await trail(admin, "role.update") == [("success", "")] * 2
    listed = await admin.get("/roles", params={"limit": 2})
    assert 'rel="next"' in listed.headers["link"]


BAD_ROLES: list[tuple[dict[str, Any], str]] = [
    ({}, "name"),
    ({"name": ""}, "name"),
    ({"name": " padded"}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"name": "\u202eadmin"}, "name"),
    ({"name": "ad\u200bmin"}, "name"),
    ({"name": "ad\u00adm\u2060in"}, "name"),
    ({"name": "a\u2028b"}, "name"),
    ({"name": "x" * 121}, "name"),
    ({"name": 5}, "name"),
    ({"name": None}, "name"),
    ({"name": "r"}, "permissions"),
    ({"name": "r", "permissions": "secret.list"}, "permissions"),
    ({"name": "r", "permissions": [5]}, "permissions.0"),
    ({"name": "r", "permissions": ["Not a key"]}, "permissions.0"),
    ({"name": "r", "permissions": [], "description": None}, "description"),
    ({"name": "r", "permissions": [], "is_system": True}, "is_system"),
]


async def test_bad_roles_are_refused_by_field(plane: Stack, database_url: str) -> None:
    admin = await plane.person("admin", "admin")
    developer = await role_id(admin, "developer")
    async with nothing_changes(database_url):
        for body, field in BAD_ROLES:
            found = refused(await admin.post("/roles", body), 400, "invalid_request")
            assert field in {problem["field"] for problem in found["fields"]}, body
        for key in ("name", "description", "permissions"):
            answer = await put(admin, f"/roles/{developer}", {key: None})
            assert refused(answer, 400, "invalid_request")["fields"][0]["field"] == key
        body = {"name": "r", "permissions": ["secret.list", "secret.read"]}
        found = refused(await admin.post("/roles", body), 400, "unknown_permission")
        assert (found["field"], found["unknown"]) == ("permissions", ["secret.read"])
        found = refused(
            await put(admin, f"/roles/{developer}/permissions", {"permissions": ["nope"]}),
            400,
            "unknown_permission",
        )
        assert found["unknown"] == ["nope"]
        refused(await put(admin, f"/roles/{developer}/permissions", {}), 400, "invalid_request")
        refused(await put(admin, f"/roles/{developer}", {"name": "dev"}), 409, "system_role_name")
        refused(await delete(admin, f"/roles/{developer}"), 409, "system_row")
        refused(await delete(admin, "/roles/nope"), 400, "invalid_id")


async def test_a_role_in_use_stays(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    reader = await make_role(admin, "reader", "secret.list")
    dev = await plane.person("dev")
    grant = (await give(admin, dev, reader, {})).json()
    found = refused(await delete(admin, f"/roles/{reader}"), 409, "role_in_use")
    assert found["used_by"] == ["grants"]
    assert [role["name"] for role in (await dev.get("/roles")).json()] == ["reader"]
    refused(await dev.get(f"/roles/{await role_id(admin, 'admin')}"), 404, "role_not_found")
    assert (await delete(admin, f"/user-roles/{grant['id']}")).status_code == 204
    assert (await delete(admin, f"/roles/{reader}")).status_code == 204


async def test_a_grant_works_from_the_next_call_until_it_is_taken(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    dev = await plane.person("dev")
    auditor = await make_role(admin, "auditor", "audit.read")
    refused(await dev.get("/audit-events"), 403, "permission_denied")
    made = await give(admin, dev, auditor, {}, reason="ticket 7")
    grant = made.json()
    assert (made.status_code, set(grant)) == (201, GRANT)
    assert (grant["granted_by"], grant["active"]) == (f"user:{admin.id}", True)
    assert (grant["scope"], grant["expires_at"], grant["reason"]) == ({}, None, "ticket 7")
    assert (grant["user_email"], grant["role_name"]) == (dev.email, "auditor")
    assert (await dev.get("/audit-events")).status_code == 200
    assert (await dev.get(f"/user-roles/{grant['id']}")).json() == grant
    assert (await dev.get(f"/users/{dev.id}/roles")).json() == [grant]
    refused(await give(admin, dev, auditor, {}), 409, "grant_exists")
    assert (await delete(admin, f"/user-roles/{grant['id']}")).status_code == 204
    refused(await dev.get("/audit-events"), 403, "permission_denied")
    refused(await delete(admin, f"/user-roles/{grant['id']}"), 404, "grant_not_found")


async def test_a_grant_ends_by_itself_and_stays_listed(plane: Stack, database_url: str) -> None:
    admin = await plane.person("admin", "admin")
    dev = await plane.person("dev")
    auditor = await make_role(admin, "auditor", "audit.read")
    later = utc_now() + timedelta(hours=1)
    made = await give(admin, dev, auditor, {}, expires_at=later.isoformat())
    path = f"/user-roles/{made.json()['id']}"
    west = later.isoformat().replace("+00:00", "-05:00")
    changed = await put(admin, path, {"expires_at": west, "reason": "longer"})
    assert changed.status_code == 200, changed.text
    assert changed.json()["expires_at"] == (later + timedelta(hours=5)).isoformat().replace(
        "+00:00", "Z"
    )
    assert (await put(admin, path, {"expires_at": None})).json()["expires_at"] is None
    assert (await put(admin, path, {})).json()["reason"] == "longer"
    change(
        database_url,
        "UPDATE user_roles SET expires_at = '2001-01-01T00:00:00.000000Z'"
        f" WHERE id = '{made.json()['id']}'",
    )
    refused(await dev.get("/audit-events"), 403, "permission_denied")
    assert (await dev.get(path)).json()["active"] is False
    refused(await put(admin, path, {"reason": "again"}), 409, "grant_ended")
    for active, count in (("true", 0), ("false", 1)):
        query = {"active": active, "user_id": dev.id}
        assert len((await admin.get("/user-roles", params=query)).json()) == count
        answer = await dev.get(f"/users/{dev.id}/roles", params={"active": active})
        assert len(answer.json()) == count
    assert (await give(admin, dev, auditor, {})).status_code == 201


SOON = (utc_now() + timedelta(days=1)).isoformat()
BAD_GRANTS: list[tuple[dict[str, Any], str]] = [
    ({"user_id": None}, "user_id"),
    ({"user_id": "nope"}, "user_id"),
    ({"role_id": 7}, "role_id"),
    ({"scope": None}, "scope"),
    ({"scope": []}, "scope"),
    ({"scope": "global"}, "scope"),
    ({"expires_at": "tomorrow"}, "expires_at"),
    ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
    ({"expires_at": 1893456000}, "expires_at"),
    ({"expires_at": "9999-12-31T23:59:59-12:00"}, "expires_at"),
    ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
    ({"reason": ""}, "reason"),
    ({"granted_by": "system:oidc"}, "granted_by"),
    ({"granted_at": SOON}, "granted_at"),
]


async def test_bad_grants_are_refused_by_field(plane: Stack, database_url: str) -> None:
    admin, dev = await plane.person("admin", "admin"), await plane.person("dev")
    good = {"user_id": dev.id, "role_id": await role_id(admin, "developer"), "scope": {}}
    async with nothing_changes(database_url):
        for body, field in BAD_GRANTS:
            answer = await admin.post("/user-roles", {**good, **body})
            found = refused(answer, 400, "invalid_request")
            assert field in {problem["field"] for problem in found["fields"]}, body
        for key in good:
            body = {name: value for name, value in good.items() if name != key}
            found = refused(await admin.post("/user-roles", body), 400, "invalid_request")
            assert found["fields"][0]["field"] == key
        for scope in ({"environment": "prod"}, {"team_id": ""}, {"team_id": MISSING}):
            body = {**good, "scope": scope}
            found = refused(await admin.post("/user-roles", body), 400, "invalid_scope")
            assert found["field"] == f"scope.{next(iter(scope))}"
        nowhere = [
            ({"user_id": MISSING}, 404, "user_not_found"),
            ({"role_id": MISSING}, 404, "role_not_found"),
        ]
        for body, status, code in nowhere:
            refused(await admin.post("/user-roles", {**good, **body}), status, code)
        assert (await put(admin, f"/user-roles/{MISSING}", {"scope": {}})).status_code == 400
    answer = await admin.post(f"/users/{dev.id}/disable")
    assert answer.status_code == 200, answer.text
    refused(await admin.post("/user-roles", good), 400, "user_disabled")


async def test_a_section_head_gives_and_takes_within_the_section(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    own, beside = await make_team(plane, "own"), await make_team(plane, "beside")
    await make_role(admin, "lead", "user_role.edit", "secret.approve", "secret.list")
    viewer, developer = (
        await make_role(admin, "viewer", "secret.list"),
        await role_id(admin, "developer"),
    )
    head = await plane.person("head", "lead", {"team_id": own})
    dev = await plane.person("dev")
    other = (await give(admin, dev, viewer, {"team_id": beside})).json()

    mine = (await give(head, dev, viewer, {"team_id": own, "cluster": "east"})).json()
    assert mine["granted_by"] == f"user:{head.id}"
    same = []
    for scope in ({}, {"team_id": beside}, {"team_id": MISSING}, {"project_id": MISSING}):
        found = refused(await give(head, dev, viewer, scope), 403, "permission_denied")
        same.append({name: value for name, value in found.items() if name != "request_id"})
    assert all(found == same[0] for found in same)
    found = refused(
        await give(head, dev, developer, {"team_id": own}), 403, "permission_escalation"
    )
    assert found["permissions"] == ["audit.read", "secret.request", "secret.reveal.direct"]

    ids = [grant["id"] for grant in (await head.get("/user-roles")).json()]
    assert ids == [mine["id"], await grant_of(admin, head)]
    assert [grant["id"] for grant in (await head.get(f"/users/{dev.id}/roles")).json()] == [
        mine["id"]
    ]
    for grant_id in (other["id"], MISSING):
        path = f"/user-roles/{grant_id}"
        refused(await head.get(path), 404, "grant_not_found")
        refused(await put(head, path, {"reason": "mine"}), 404, "grant_not_found")
        refused(await delete(head, path), 404, "grant_not_found")
    refused(await dev.get("/user-roles"), 403, "permission_denied")
    refused(await delete(dev, f"/user-roles/{mine['id']}"), 403, "permission_denied")
    refused(await dev.get(f"/users/{head.id}/roles"), 404, "user_not_found")
    refused(await head.post("/roles", {"name": "x", "permissions": []}), 403, "permission_denied")
    assert (await delete(head, f"/user-roles/{mine['id']}")).status_code == 204
    denials = Counter(await trail(admin, "grant.create"))
    assert denials[("denied", "out_of_scope")] == 4
    assert denials[("denied", "permission_escalation")] == 1
    assert Counter(await trail(admin, "grant.revoke")) == Counter(
        {("denied", "out_of_scope"): 2, ("success", ""): 1}
    )


async def test_why_a_grant_was_taken_back_is_on_record_beside_why_it_was_given(
    plane: Stack,
) -> None:
    admin, dev = await plane.person("admin", "admin"), await plane.person("dev")
    viewer = await make_role(admin, "viewer", "secret.list")
    body = {"user_id": dev.id, "role_id": viewer, "scope": {}, "reason": "ticket 1"}
    path = f"/user-roles/{(await admin.post('/user-roles', body)).json()['id']}"
    for bad in ("?reason=", f"?reason={'x' * 1001}", "?reason=a%00b"):
        refused(await delete(admin, path + bad), 400, "invalid_request")
    assert (await delete(admin, f"{path}?reason=left%20the%20team")).status_code == 204
    (event,) = (await admin.get("/audit-events", params={"action": "grant.revoke"})).json()
    told = {key: event["metadata"][key] for key in ("reason", "revoke_reason")}
    assert told == {"reason": "ticket 1", "revoke_reason": "left the team"}


async def test_an_administrator_gains_nothing_by_themselves(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    security = await role_id(admin, "security_approver")
    found = refused(await give(admin, admin, security, {}), 403, "permission_escalation")
    assert found["permissions"] == ["secret.security.approve"]
    own = await role_id(admin, "admin")
    permissions = (await admin.get(f"/roles/{own}")).json()["permissions"]
    body = {"permissions": [*permissions, "secret.security.approve"]}
    refused(await put(admin, f"/roles/{own}/permissions", body), 403, "permission_escalation")
    dev = await plane.person("dev")
    assert (await give(admin, dev, security, {})).status_code == 201
    assert await trail(admin, "role.update") == [("denied", "permission_escalation")]


async def test_grants_are_paged_and_filtered(plane: Stack) -> None:
    admin, dev = await plane.person("admin", "admin"), await plane.person("dev")
    team = await make_team(plane, "team")
    made = []
    for role in SEED_ROLES[1:6]:
        answer = await give(admin, dev, await role_id(admin, role.name), {"team_id": team})
        made.append(answer.json()["id"])
    query: Any = {"user_id": dev.id, "team_id": team, "limit": 2}
    answer = await admin.get("/user-roles", params=query)
    seen = [grant["id"] for grant in answer.json()]
    while "link" in answer.headers:
        path = answer.headers["link"].partition(">")[0].removeprefix("<")
        answer = await admin.http.get(path)
        seen += [grant["id"] for grant in answer.json()]
    assert seen == made[::-1]
    approver = await role_id(admin, "approver")
    (one,) = (await admin.get("/user-roles", params={"role_id": approver})).json()
    assert one["role_name"] == "approver"
    for query in ({"user_id": "nope"}, {"active": "maybe"}, {"limit": 0}):
        refused(await admin.get("/user-roles", params=query), 400, "invalid_request")
    refused(await admin.get("/user-roles", params={"cursor": "x"}), 400, "invalid_cursor")


async def test_two_administrators_who_strip_each_other_at_once_leave_one(plane: Stack) -> None:
    unlimited(plane)
    first, second = await plane.person("first", "admin"), await plane.person("second", "admin")
    ids = [await grant_of(first, person) for person in (first, second)]
    answers = await at_once(
        [
            partial(delete, first, f"/user-roles/{ids[1]}"),
            partial(delete, second, f"/user-roles/{ids[0]}"),
        ]
    )
    assert sum(answer.status_code == 204 for answer in answers) == 1, outcomes(answers)
    (loser,) = (answer for answer in answers if answer.status_code != 204)
    refused(loser, loser.status_code, "grant_not_found", "permission_denied")
    left = [p for p in (first, second) if (await p.get(f"/users/{p.id}/roles")).json()]
    assert len(left) == 1
    own = await grant_of(left[0], left[0])
    refused(await delete(left[0], f"/user-roles/{own}"), 409, "last_admin")
    refused(await put(left[0], f"/user-roles/{own}", {"expires_at": SOON}), 409, "last_admin")
    admin = await role_id(left[0], "admin")
    answer = await put(left[0], f"/roles/{admin}/permissions", {"permissions": ["role.edit"]})
    refused(answer, 409, "last_admin")


@pytest.mark.parametrize("key", [None, "once"])
async def test_the_same_grant_at_once_is_made_once(plane: Stack, key: str | None) -> None:
    unlimited(plane)
    admin, dev = await plane.person("admin", "admin"), await plane.person("dev")
    body = {"user_id": dev.id, "role_id": await role_id(admin, "developer"), "scope": {}}
    headers = {} if key is None else {"Idempotency-Key": key}
    call = partial(admin.post, "/user-roles", body, headers=headers)
    answers = await at_once([call] * 6)
    if key is None:
        assert outcomes(answers) == Counter({(409, "grant_exists"): 5, (201, ""): 1})
    else:
        assert {(answer.status_code, answer.json()["id"]) for answer in answers} == {
            (201, answers[0].json()["id"])
        }
    assert len((await admin.get(f"/users/{dev.id}/roles")).json()) == 1
