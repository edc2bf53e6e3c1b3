"""Sessions that ended, credentials of the wrong kind, other people's things, and other sites."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
import trio

from sb.auth.tokens import new_token
from sb.http.declare import Agent, Session
from sb.http.looks import LOOK_SECONDS
from tests.http.hostile import (
    MISSING,
    PLANTED,
    ROUTES,
    assert_unseen,
    callers,
    change,
    nothing_changes,
    path_of,
    refused,
)
from tests.stack import PASSWORD, Person, RawAgent, Stack, until

READ = {
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
    "target_keys": ["PASSWORD"],
    "justification": "ticket 1",
}
PERSONAL = [route for route in ROUTES if isinstance(route.access, Session)]
AGENTS_OWN = [route for route in ROUTES if isinstance(route.access, Agent)]

#: How a session ends behind its owner's back.
ENDINGS = {
    "expired": "UPDATE sessions SET expires_at = created_at WHERE user_id = '{}'",
    "idle": "UPDATE sessions SET idle_expires_at = created_at WHERE user_id = '{}'",
    "revoked": "UPDATE sessions SET revoked_at = created_at WHERE user_id = '{}'",
    "disabled": "UPDATE local_users SET disabled = true WHERE id = '{}'",
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_an_ended_session_opens_no_route(
    plane: Stack, database_url: str, ending: str
) -> None:
    admin = await plane.person("admin", "admin")
    assert (await admin.get("/users/me")).status_code == 200
    change(database_url, ENDINGS[ending].format(admin.id))
    token = admin.http.headers["authorization"].removeprefix("Bearer ")
    async with (
        nothing_changes(database_url),
        httpx.AsyncClient(base_url=plane.url, cookies={"sb_session": token}) as cookie,
    ):
        for route in PERSONAL:
            for http in (admin.http, cookie):
                answer = await http.request(route.method, path_of(route))
                refused(answer, 401, "authentication_required")
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_disabled_user_cannot_sign_in_and_learns_nothing(
    plane: Stack, database_url: str
) -> None:
    dev = await plane.person("dev", "developer")
    change(database_url, ENDINGS["disabled"].format(dev.id))
    async with nothing_changes(database_url), httpx.AsyncClient(base_url=plane.url) as http:
        bodies = []
        for email in (dev.email, "nobody@example.com"):
            body = {"email": email, "password": PASSWORD}
            answer = await http.post("/api/v1/auth/login", json=body)
            bodies.append(refused(answer, 401, "invalid_credentials")["message"])
            assert "set-cookie" not in answer.headers
        assert bodies[0] == bodies[1]


async def test_logging_out_ends_the_token_at_once(plane: Stack) -> None:
    dev = await plane.person("dev", "developer")
    assert (await dev.post("/auth/logout")).status_code == 204
    refused(await dev.get("/users/me"), 401, "authentication_required")
    assert (await dev.post("/auth/logout")).status_code == 204


AUTHORIZATIONS = (
    b"Bearer",
    b"Bearer  x",
    b"Basic " + base64.b64encode(b"admin@example.com:" + PLANTED.encode()),
    b"Bearer " + PLANTED.encode(),
    b"Bearer " + new_token().encode(),
    b"Bearer \xff\xfe",
    b"Bearer " + b"A" * 8000,
    b"Bearer ' OR 1=1 --",
)


async def test_a_bad_authorization_opens_nothing_even_beside_a_good_cookie(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await plane.person("admin", "admin")
    token = admin.http.headers["authorization"].removeprefix("Bearer ")
    async with nothing_changes(database_url), httpx.AsyncClient(base_url=plane.url) as http:
        for value in AUTHORIZATIONS:
            for cookie in (b"", b"sb_session=" + token.encode()):
                headers = [(b"authorization", value), (b"cookie", cookie)]
                answer = await http.get("/api/v1/users/me", headers=headers)
                refused(answer, 401, "authentication_required")
    assert_unseen(PLANTED, caplog, database_url)
    assert_unseen(token, caplog, database_url)


async def test_a_cookie_changes_state_from_our_own_pages_only(
    plane: Stack, database_url: str
) -> None:
    admin = await plane.person("admin", "admin")
    token = admin.http.headers["authorization"].removeprefix("Bearer ")
    body = {"name": "c-1", "type": "file"}
    foreign: list[dict[str, str]] = [
        {},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": plane.url + ".evil.example"},
        {"origin": plane.url + "/"},
        {"origin": f"{plane.url}, https://evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"referer": plane.url},
    ]
    async with httpx.AsyncClient(base_url=plane.url, cookies={"sb_session": token}) as http:
        async with nothing_changes(database_url):
            for headers in foreign:
                for path in ("/api/v1/provider-connections", "/api/v1/auth/logout"):
                    answer = await http.post(path, json=body, headers=headers)
                    refused(answer, 403, "origin_mismatch")
        assert (await http.get("/api/v1/users/me")).status_code == 200
        own = {"origin": plane.url}
        made = await http.post("/api/v1/provider-connections", json=body, headers=own)
        assert made.status_code == 201


async def test_people_and_agents_cannot_use_each_others_credentials(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with callers(plane) as who, nothing_changes(database_url):
        secret = who.agent.enrolled["agent_token"]
        token = who.admin.http.headers["authorization"].removeprefix("Bearer ")
        for route in AGENTS_OWN:
            path = path_of(route, agent_id=who.agent.id)
            for headers in (
                {},
                {"authorization": f"Bearer {token}"},
                {"x-agent-secret": token},
                {"authorization": f"Bearer {secret}"},
                {"x-agent-secret": ""},
                {"x-agent-secret": secret + " x"},
                {"cookie": f"sb_session={token}"},
            ):
                answer = await who.nobody.request(route.method, path, headers=headers)
                refused(answer, 401, "agent_auth_rejected")
        for route in PERSONAL:
            for headers in (
                {"authorization": f"Bearer {secret}"},
                {"x-agent-secret": secret},
                {"cookie": f"sb_session={secret}"},
            ):
                answer = await who.nobody.request(route.method, path_of(route), headers=headers)
                refused(answer, 401, "authentication_required")
    assert_unseen(secret, caplog, database_url)
    assert_unseen(token, caplog, database_url)


async def test_an_agent_is_only_itself(plane: Stack, database_url: str) -> None:
    async with callers(plane) as who:
        other = await plane.enroll(await plane.connection())
        admin = who.admin
        async with nothing_changes(database_url):
            for route in AGENTS_OWN:
                for agent_id in (other.id, MISSING):
                    path = path_of(route, agent_id=agent_id)
                    answer = await who.agent.http.request(route.method, path)
                    refused(answer, 401, "agent_auth_rejected")
        assert (await admin.post(f"/agents/{other.id}/revoke")).status_code == 204
        async with nothing_changes(database_url):
            for route in AGENTS_OWN:
                answer = await other.http.request(route.method, path_of(route, agent_id=other.id))
                refused(answer, 401, "agent_auth_rejected")


async def leased(plane: Stack, agent: RawAgent, dev: Person, approver: Person) -> dict[str, Any]:
    """Return a claimed job with its request."""
    request = (await dev.post("/requests/read", READ)).json()
    assert (await approver.post(f"/requests/{request['id']}/approve")).status_code == 200
    job: dict[str, Any] = (await agent.post("/jobs/claim")).json()
    return {**job, "request_id": request["id"]}


async def test_a_lease_is_worth_nothing_to_another_agent(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await plane.connection()
    mine, other = await plane.enroll(connection), await plane.enroll(connection)
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    job = await leased(plane, mine, dev, approver)
    lease = job["lease_token"]
    value = base64.b64encode(PLANTED.encode()).decode()
    wrap = {"request_id": job["request_id"], "key_name": "PASSWORD", "value": value}
    done = {"lease_token": lease, "status": "succeeded"}
    async with nothing_changes(database_url):
        path = f"/jobs/{job['id']}"
        answer = await other.post(f"{path}/renew", {"lease_token": lease})
        refused(answer, 409, "lease_lost")
        refused(await other.post(f"{path}/complete", done), 409, "lease_lost")
        answer = await other.post("/wraps", wrap, headers={"x-lease-token": lease})
        refused(answer, 409, "lease_lost")
        for token in ("", "x", new_token()):
            answer = await mine.post("/wraps", wrap, headers={"x-lease-token": token})
            refused(answer, 409, "lease_lost")
        stale = {"lease_token": new_token(), "status": "failed", "error": PLANTED}
        refused(await mine.post(f"{path}/complete", stale), 409, "lease_lost")
        missing = await mine.post(f"/jobs/{MISSING}/complete", done)
        refused(missing, 409, "lease_lost")
        asked_for = {**wrap, "key_name": "OTHER"}
        answer = await mine.post("/wraps", asked_for, headers={"x-lease-token": lease})
        refused(answer, 403, "key_not_requested")
    assert_unseen(PLANTED, caplog, database_url)
    assert_unseen(lease, caplog, database_url)


async def test_another_persons_request_and_wrap_stay_closed(
    plane: Stack, database_url: str
) -> None:
    await plane.agent(await plane.connection())
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    others = [await plane.person("dev2", "developer"), await plane.person("nobody")]
    request_id = (await dev.post("/requests/read", READ)).json()["id"]
    await approver.post(f"/requests/{request_id}/approve")

    async def wraps() -> Any:
        return (await dev.get(f"/requests/{request_id}/wraps")).json()

    async def executed() -> bool:
        return bool((await dev.get(path)).json()["status"] == "executed")

    path = f"/requests/{request_id}"
    (wrap,) = await until(wraps)
    await until(executed)  # or the agent's last word changes a table meanwhile
    async with nothing_changes(database_url):
        for other in [*others, approver]:
            for answer in (
                await other.get(f"{path}/wraps/{wrap['id']}"),
                await other.get(f"{path}/wraps"),
                await other.post(f"{path}/cancel"),
                await other.get(f"/requests/{MISSING}/wraps/{wrap['id']}"),
            ):
                assert answer.status_code in (403, 404, 409), answer.text
                refused(answer, answer.status_code, answer.json()["error"])
                assert "value" not in answer.json()
        for other in others:
            assert (await other.post(f"{path}/approve")).status_code in (403, 404, 409)
    assert (await dev.get(f"{path}/wraps/{wrap['id']}")).status_code == 200


async def test_a_body_that_trickles_in_is_judged_when_it_has_arrived(
    plane: Stack, database_url: str
) -> None:
    await plane.connection()
    dev, approver = await plane.person("dev", "developer"), await plane.person("ap", "approver")
    request_id = (await dev.post("/requests/read", READ)).json()["id"]
    address = httpx.URL(plane.url)
    host = address.netloc.decode()
    body = b'{"comment": "fine"}'
    head = (
        f"POST /api/v1/requests/{request_id}/approve HTTP/1.1\r\nHost: {host}\r\n"
        f"Authorization: {approver.http.headers['authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )

    async def arrived() -> bool:
        (gauge,) = plane.state.metrics.in_flight.collect()
        return gauge.samples[0].value >= 1

    async with await trio.open_tcp_stream(address.host, address.port or 80) as stream:
        await stream.send_all(head.encode() + body[:-1])
        await until(arrived)
        # The route has its caller by now, or finds the account disabled: refused either way.
        await trio.sleep(LOOK_SECONDS * 2)
        change(database_url, ENDINGS["disabled"].format(approver.id))
        await stream.send_all(body[-1:])
        answer = b"".join([chunk async for chunk in stream])
    assert answer.startswith(b"HTTP/1.1 401"), answer
    assert (await dev.get(f"/requests/{request_id}")).json()["status"] == "pending"
