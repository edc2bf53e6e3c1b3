"""Sessions over real HTTP: listed, ended one by one, ended all at once; one's own and others'."""

from __future__ import annotations

import httpx

from tests.http.hostile import MISSING, nothing_changes, refused
from tests.stack import PASSWORD, Person, Stack

SHOWN = {"id", "created_at", "expires_at", "idle_expires_at", "ip", "user_agent", "current"}


async def another(plane: Stack, person: Person, user_agent: str = "other") -> httpx.AsyncClient:
    """Return a client with a second session of the person."""
    http = httpx.AsyncClient(base_url=plane.url, timeout=30, headers={"user-agent": user_agent})
    body = {"email": person.email, "password": PASSWORD}
    answer = await http.post("/api/v1/auth/login", json=body)
    assert answer.status_code == 200, answer.text
    http.cookies.clear()
    http.headers["authorization"] = f"Bearer {answer.json()['token']}"
    return http


async def test_own_sessions_are_listed_newest_first_without_what_opens_them(plane: Stack) -> None:
    dev, bob = await plane.person("dev", "developer"), await plane.person("bob")
    second = await another(plane, dev, "second")
    answer = await dev.get("/users/me/sessions")
    newest, first = answer.json()
    assert set(newest) == set(first) == SHOWN
    assert (newest["user_agent"], newest["current"], first["current"]) == ("second", False, True)
    assert newest["ip"] == "127.0.0.1"
    token = dev.http.headers["authorization"].removeprefix("Bearer ")
    assert token not in answer.text
    page = await dev.get("/users/me/sessions", params={"limit": 1})
    link = page.headers["link"].partition(">")[0].removeprefix("<")
    assert (await dev.http.get(link)).json() == [first]
    assert len((await bob.get("/users/me/sessions")).json()) == 1
    await second.aclose()


async def test_own_session_is_ended_once_and_another_persons_never(
    plane: Stack, database_url: str
) -> None:
    dev, bob = await plane.person("dev", "developer"), await plane.person("bob")
    second = await another(plane, dev)
    newest, first = (await dev.get("/users/me/sessions")).json()
    async with nothing_changes(database_url):
        for session_id in (newest["id"], MISSING):
            path = f"/api/v1/users/me/sessions/{session_id}"
            refused(await bob.http.delete(path), 404, "session_not_found")
    path = f"/api/v1/users/me/sessions/{newest['id']}"
    assert (await dev.http.delete(path)).status_code == 204
    refused(await second.get("/api/v1/users/me"), 401, "authentication_required")
    refused(await dev.http.delete(path), 404, "session_not_found")
    own = await dev.http.delete(f"/api/v1/users/me/sessions/{first['id']}")
    assert own.status_code == 204
    assert (
        'sb_session=""' in own.headers["set-cookie"] or "sb_session=;" in own.headers["set-cookie"]
    )
    refused(await dev.get("/users/me"), 401, "authentication_required")
    await second.aclose()


async def test_other_sessions_of_oneself_end_together(plane: Stack) -> None:
    dev, bob = await plane.person("dev", "developer"), await plane.person("bob")
    others = [await another(plane, dev) for _ in range(2)]
    for expected in (2, 0):
        answer = await dev.post("/users/me/sessions/revoke-others")
        assert (answer.status_code, answer.json()) == (200, {"sessions_ended": expected})
    for http in others:
        refused(await http.get("/api/v1/users/me"), 401, "authentication_required")
        await http.aclose()
    for person in (dev, bob):
        assert (await person.get("/users/me")).status_code == 200


async def test_somebodys_sessions_are_listed_and_ended_by_an_administrator(plane: Stack) -> None:
    admin, dev = await plane.person("admin", "admin"), await plane.person("dev", "developer")
    second = await another(plane, dev)
    path = f"/users/{dev.id}/sessions"
    newest, first = (await admin.get(path)).json()
    assert set(newest) == SHOWN
    assert not newest["current"]
    assert not first["current"]
    # The path names whose session it is; another person's is not there.
    wrong = f"/api/v1/users/{admin.id}/sessions/{newest['id']}"
    refused(await admin.http.delete(wrong), 404, "session_not_found")
    assert (await admin.http.delete(f"/api/v1{path}/{newest['id']}")).status_code == 204
    refused(await second.get("/api/v1/users/me"), 401, "authentication_required")
    assert (await dev.get("/users/me")).status_code == 200
    for expected in (1, 0):
        answer = await admin.post(f"{path}/revoke-all")
        assert answer.json() == {"sessions_ended": expected}
    refused(await dev.get("/users/me"), 401, "authentication_required")
    assert (await admin.get(path)).json() == []
    refused(await admin.post(f"/users/{MISSING}/sessions/revoke-all"), 404, "user_not_found")
    events = (await admin.get("/audit-events", params={"actor": f"user:{admin.id}"})).json()
    actions = sorted(event["action"] for event in events if event["action"] != "session.create")
    assert [action for action in actions if action.startswith("session")] == [
        "session.revoke",
        "session.revoke_all",
    ]
    await second.aclose()
