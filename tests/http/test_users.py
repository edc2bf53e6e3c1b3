"""People over real HTTP: who sees whom, accounts administered, passwords that must be changed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from sb.auth.passwords import check_new_password, temporary_password
from sb.clock import utc_now
from sb.http.declare import Public, RouteDeclaration, Session
from sb.ids import new_id
from tests.http.hostile import (
    MISSING,
    PLANTED,
    ROUTES,
    assert_unseen,
    change,
    nothing_changes,
    path_of,
    refused,
    unlimited,
)
from tests.ops import rows
from tests.stack import PASSWORD, Person, Stack

ADA = {"email": "Ada@Example.com", "display_name": "Ada"}
SUMMARY = {"id", "email", "display_name", "disabled"}
WHOLE = SUMMARY | {
    "failed_login_count",
    "locked_until",
    "must_change_password",
    "created_at",
    "updated_at",
}
#: What is left to a person who has a password to change first.
BEFORE_CHANGE = {"GET /users/me", "POST /users/me/password", "POST /auth/logout"}


async def login(plane: Stack, email: str, password: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=plane.url) as http:
        body = {"email": email, "password": password}
        return await http.post("/api/v1/auth/login", json=body)


async def signed_in(plane: Stack, email: str, password: str) -> Person:
    answer = await login(plane, email, password)
    assert answer.status_code == 200, answer.text
    headers = {"authorization": f"Bearer {answer.json()['token']}"}
    http = httpx.AsyncClient(base_url=plane.url, timeout=30, headers=headers)
    return Person(id=answer.json()["user"]["id"], email=email, http=http)


async def section_head(plane: Stack) -> Person:
    """Return somebody who may give roles in one team."""
    team_id, now = new_id(), utc_now()

    def make(tx: Any) -> None:
        values = {"parent_team_id": None, "status": "active", "description": None}
        stamps = {"created_at": now, "updated_at": now}
        rows.insert(tx, "teams", id=team_id, name="section", **values, **stamps)
        tx.count(
            "role_insert",
            id=new_id(),
            name="head",
            description="",
            permissions=["user_role.edit"],
            is_system=False,
            now=now,
        )

    await plane.db.run(make)
    return await plane.person("head", "head", {"team_id": team_id})


async def test_created_person_signs_in_with_the_temporary_password_once_shown(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await plane.person("admin", "admin")
    made = await admin.post("/users", ADA, headers={"Idempotency-Key": "ada"})
    assert made.status_code == 201, made.text
    user = made.json()
    assert set(user) == WHOLE | {"temporary_password"}
    assert (user["email"], user["must_change_password"]) == ("ada@example.com", True)
    again = await admin.post("/users", ADA, headers={"Idempotency-Key": "ada"})
    refused(again, 409, "idempotency_key_used")
    refused(await admin.post("/users", ADA), 409, "email_taken")
    shown = (await admin.get(f"/users/{user['id']}")).json()
    assert set(shown) == WHOLE

    answer = await login(plane, "ADA@example.com", user["temporary_password"])
    assert answer.json()["must_change_password"] is True
    assert_unseen(user["temporary_password"], caplog, database_url)


async def test_created_person_with_a_given_password_keeps_it_only_when_told_so(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await plane.person("admin", "admin")
    password = f"{PLANTED}-and-long"
    headers = {"Idempotency-Key": "robot"}
    body = {**ADA, "password": password, "must_change_password": False}
    made = await admin.post("/users", body, headers=headers)
    assert (made.status_code, made.json()["temporary_password"]) == (201, None)
    assert made.json()["must_change_password"] is False
    replayed = await admin.post("/users", body, headers=headers)
    assert replayed.json()["id"] == made.json()["id"]
    ada = await signed_in(plane, "ada@example.com", password)
    assert (await ada.get("/users/me/projects")).json() == []
    other = {"email": "bob@example.com", "display_name": "Bob", "password": password}
    assert (await admin.post("/users", other)).json()["must_change_password"] is True
    assert_unseen(password, caplog, database_url)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "invalid_request", "email"),
    ({"email": "a@b.example"}, "invalid_request", "display_name"),
    ({**ADA, "email": "no address"}, "invalid_request", "email"),
    ({**ADA, "email": "a@b@c"}, "invalid_request", "email"),
    ({**ADA, "email": "a\x1b@example.com"}, "invalid_request", "email"),
    ({**ADA, "email": "a" * 320 + "@example.com"}, "invalid_request", "email"),
    ({**ADA, "email": ["a@example.com"]}, "invalid_request", "email"),
    ({**ADA, "display_name": "   "}, "invalid_request", "display_name"),
    ({**ADA, "display_name": 7}, "invalid_request", "display_name"),
    ({**ADA, "must_change_password": False}, "invalid_request", "must_change_password"),
    ({**ADA, "must_change_password": "no"}, "invalid_request", "must_change_password"),
    ({**ADA, "disabled": False}, "invalid_request", "disabled"),
    ({**ADA, "role": "admin"}, "invalid_request", "role"),
    ({**ADA, "password_hash": PLANTED}, "invalid_request", "password_hash"),
    ({**ADA, "password": "short"}, "password_refused", ""),
    ({**ADA, "password": "ada@example.com "}, "password_refused", ""),
]


async def test_wrong_accounts_are_refused_by_field(plane: Stack, database_url: str) -> None:
    admin = await plane.person("admin", "admin")
    async with nothing_changes(database_url):
        for body, code, field in WRONG:
            found = refused(await admin.post("/users", body), 400, code)
            if field:
                assert found["fields"][0]["field"] == field, found
        for body in ({"email": "x"}, {"display_name": ""}, {"disabled": True}, {"id": MISSING}):
            answer = await admin.http.put(f"/api/v1/users/{admin.id}", json=body)
            refused(answer, 400, "invalid_request")


async def test_accounts_belong_to_the_unscoped_and_scoped_givers_only_look_people_up(
    plane: Stack, database_url: str
) -> None:
    unlimited(plane)
    admin, head = await plane.person("admin", "admin"), await section_head(plane)
    dev, nobody = await plane.person("dev", "developer"), await plane.person("nobody")
    assert {frozenset(user) for user in (await admin.get("/users")).json()} == {frozenset(WHOLE)}
    assert {frozenset(user) for user in (await head.get("/users")).json()} == {frozenset(SUMMARY)}
    assert set((await head.get(f"/users/{dev.id}")).json()) == SUMMARY
    refused(await head.get(f"/users/{MISSING}"), 404, "user_not_found")
    administration = [
        route
        for route in ROUTES
        if route.handler.__module__.endswith((".users", ".sessions"))
        and isinstance(route.access, Session)
        and route.access.permission
    ]
    assert len(administration) == 11
    async with nothing_changes(database_url):
        for route in administration:
            looks_up = isinstance(route.access, Session) and route.access.scope == "any"
            for person in (dev, nobody) if looks_up else (dev, nobody, head):
                told = [
                    await person.http.request(route.method, path_of(route, any_id=any_id))
                    for any_id in (admin.id, MISSING)
                ]
                # Whether there is such a person is nothing they could tell from this.
                assert {answer.status_code for answer in told} == {403}
                assert len({answer.json()["message"] for answer in told}) == 1


async def test_people_are_listed_in_pages_by_address_and_state(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    made = []
    for name in ("p1", "p2", "p3"):
        body = {"email": f"{name}@example.com", "display_name": name}
        made.append((await admin.post("/users", body)).json()["id"])
    assert (await admin.post(f"/users/{made[0]}/disable")).json()["disabled"] is True
    found: list[str] = []
    path: str | None = "/api/v1/users?limit=1&email=P&disabled=false"
    while path:
        page = await admin.http.get(path)
        found += [user["id"] for user in page.json()]
        link = page.headers.get("link")
        path = link.partition(">")[0].removeprefix("<") if link else None
    assert found == [made[2], made[1]]
    gone = await admin.get("/users", params={"disabled": "true"})
    assert [user["id"] for user in gone.json()] == [made[0]]
    refused(await admin.get("/users?disabled=perhaps"), 400, "invalid_request")


async def test_disabled_person_is_out_from_the_next_call_on(plane: Stack) -> None:
    admin, dev = await plane.person("admin", "admin"), await plane.person("dev", "developer")
    assert (await dev.get("/users/me")).status_code == 200
    assert (await admin.post(f"/users/{dev.id}/disable")).json()["disabled"] is True
    refused(await dev.get("/users/me"), 401, "authentication_required")
    refused(await login(plane, dev.email, PASSWORD), 401, "invalid_credentials")
    assert (await admin.post(f"/users/{dev.id}/enable")).json()["disabled"] is False
    refused(await dev.get("/users/me"), 401, "authentication_required")
    assert (await login(plane, dev.email, PASSWORD)).status_code == 200
    events = await admin.get("/audit-events", params={"resource": f"user:{dev.id}"})
    actions = [event["action"] for event in events.json() if event["actor"] == f"user:{admin.id}"]
    assert sorted(actions) == ["user.disable", "user.enable"]


async def test_nobody_disables_or_resets_themselves_and_it_is_audited(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    await plane.person("other", "admin")
    for verb in ("disable", "password-reset"):
        refused(await admin.post(f"/users/{admin.id}/{verb}"), 403, "own_account")
    denied = await admin.get("/audit-events", params={"status": "denied"})
    assert {event["action"] for event in denied.json()} == {"user.disable", "user.password.reset"}


async def test_administrators_who_disable_each_other_at_once_leave_one(plane: Stack) -> None:
    one, two = await plane.person("admin", "admin"), await plane.person("two", "admin")
    answers: list[int] = []

    async def disable(by: Person, whom: Person) -> None:
        answers.append((await by.post(f"/users/{whom.id}/disable")).status_code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(disable, one, two)
        nursery.start_soon(disable, two, one)
    # The second found itself disabled already, or would have been the end of administration.
    assert sorted(answers) in ([200, 401], [200, 409])
    assert sorted([(await p.get("/users")).status_code for p in (one, two)]) == [200, 401]


async def test_unlock_lets_a_locked_person_in_again(plane: Stack) -> None:
    admin, dev = await plane.person("admin", "admin"), await plane.person("dev", "developer")
    for _ in range(5):
        refused(await login(plane, dev.email, "wrong"), 401, "invalid_credentials")
    refused(await login(plane, dev.email, PASSWORD), 401, "invalid_credentials")
    assert (await admin.get(f"/users/{dev.id}")).json()["locked_until"] is not None
    assert (await admin.post(f"/users/{dev.id}/unlock")).json()["locked_until"] is None
    assert (await login(plane, dev.email, PASSWORD)).status_code == 200


async def test_reset_password_takes_effect_at_once_and_must_be_changed_to_another(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    admin, dev = await plane.person("admin", "admin"), await plane.person("dev", "developer")
    answer = await admin.post(f"/users/{dev.id}/password-reset")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    temporary = answer.json()["temporary_password"]
    refused(await dev.get("/users/me"), 401, "authentication_required")
    refused(await login(plane, dev.email, PASSWORD), 401, "invalid_credentials")
    person = await signed_in(plane, dev.email, temporary)
    refused(await person.get("/requests"), 403, "password_change_required")
    me = (await person.get("/users/me")).json()
    assert (me["must_change_password"], me["permissions"] != []) == (True, True)
    same = {"current_password": temporary, "new_password": temporary}
    refused(await person.post("/users/me/password", same), 400, "password_refused")
    refused(await person.get("/requests"), 403, "password_change_required")
    own = {"current_password": temporary, "new_password": "a password of my own"}
    assert (await person.post("/users/me/password", own)).status_code == 204
    assert (await person.get("/requests")).status_code == 200
    assert (await person.get("/users/me")).json()["must_change_password"] is False
    refused(await login(plane, dev.email, temporary), 401, "invalid_credentials")
    assert_unseen(temporary, caplog, database_url)


async def test_reset_of_a_stronger_person_is_refused_and_audited(plane: Stack) -> None:
    def make(tx: Any) -> None:
        permissions = ["user_role.edit", "audit.read"]
        values = {"name": "people", "description": "", "is_system": False, "now": utc_now()}
        tx.count("role_insert", id=new_id(), permissions=permissions, **values)

    await plane.db.run(make)
    admin, helper = await plane.person("admin", "admin"), await plane.person("helper", "people")
    plain = await plane.person("plain")
    answer = await helper.post(f"/users/{admin.id}/password-reset")
    refused(answer, 403, "permission_escalation")
    body = {"email": "mine@example.com"}
    answer = await helper.http.put(f"/api/v1/users/{admin.id}", json=body)
    refused(answer, 403, "permission_escalation")
    assert (await admin.get("/users/me")).status_code == 200
    assert (await helper.post(f"/users/{plain.id}/password-reset")).status_code == 200
    denied = await helper.get("/audit-events", params={"resource": f"user:{admin.id}"})
    found = {(event["action"], event["status"]) for event in denied.json()}
    assert found >= {("user.password.reset", "denied"), ("user.update", "denied")}


# --- who has a password to change first


def _open(route: RouteDeclaration) -> bool:
    match route.access:
        case Session(before_password_change=opened):
            return opened
        case Public(with_session=opened):
            return opened
        case _:
            return False


def test_three_routes_are_left_to_whoever_must_change_the_password() -> None:
    assert {route.name for route in ROUTES if _open(route)} == BEFORE_CHANGE


async def test_person_with_a_temporary_password_reaches_no_other_route(
    plane: Stack, database_url: str
) -> None:
    unlimited(plane)
    admin = await plane.person("admin", "admin")
    change(
        database_url,
        f"UPDATE local_users SET must_change_password = true WHERE id = '{admin.id}'",
    )
    token = admin.http.headers["authorization"].removeprefix("Bearer ")
    guarded = [route for route in ROUTES if isinstance(route.access, Session) and not _open(route)]
    assert len(guarded) > 20
    async with (
        nothing_changes(database_url),
        httpx.AsyncClient(
            base_url=plane.url, cookies={"sb_session": token}, headers={"origin": plane.url}
        ) as cookie,
    ):
        for route in guarded:
            for http in (admin.http, cookie):
                answer = await http.request(route.method, path_of(route))
                refused(answer, 403, "password_change_required")
    assert (await admin.get("/users/me")).status_code == 200
    assert (await admin.post("/auth/logout")).status_code == 204


def test_temporary_passwords_follow_the_rules_and_differ() -> None:
    made = [temporary_password() for _ in range(100)]
    for password in made:
        check_new_password(password, email="ada@example.com")
    assert len({password.reveal() for password in made}) == 100


# --- oneself


async def test_me_shows_grants_with_scope_and_end(plane: Stack) -> None:
    dev = await plane.person("dev", "developer", {"cluster": "c1"})
    me = (await dev.get("/users/me")).json()
    (grant,) = me["grants"]
    assert (grant["role_name"], grant["scope"]) == ("developer", {"cluster": "c1"})
    assert grant["expires_at"] is None
    admin = await plane.person("admin", "admin")
    (grant,) = (await admin.get("/users/me")).json()["grants"]
    assert (grant["role_name"], grant["scope"]) == ("admin", {})


async def test_my_projects_are_those_of_me(plane: Stack) -> None:
    project_id, now = new_id(), utc_now()

    def make(tx: Any) -> None:
        stamps = {"status": "active", "created_at": now, "updated_at": now}
        rows.insert(tx, "projects", id=project_id, name="shop", team_id=None, **stamps)
        rows.insert(tx, "projects", id=new_id(), name="other", team_id=None, **stamps)

    await plane.db.run(make)
    dev = await plane.person("dev", "developer", {"project_id": project_id})
    projects = (await dev.get("/users/me/projects")).json()
    assert [project["id"] for project in projects] == [project_id]
    assert projects == (await dev.get("/users/me")).json()["projects"]
