"""What spends a value, and what must not: only the requester's own, deliberate call."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from sb.auth.tokens import token_hash
from sb.clock import utc_now
from sb.ops import agents, jobs
from tests.http.test_main_job import READ, executed
from tests.stack import Person, Stack


async def ready(plane: Stack) -> tuple[Person, str]:
    """Return the requester and the path of an unspent value."""
    await plane.agent(await plane.connection())
    dev = await plane.person("dev", "developer")
    approver = await plane.person("approver", "approver")
    request_id = (await dev.post("/requests/read", READ)).json()["id"]
    await approver.post(f"/requests/{request_id}/approve", {})
    await executed(dev, request_id)
    (wrap,) = (await dev.get(f"/requests/{request_id}/wraps")).json()
    return dev, f"/requests/{request_id}/wraps/{wrap['id']}"


async def test_reveal_by_head_or_ahead_of_time_spends_nothing(plane: Stack) -> None:
    dev, path = await ready(plane)
    answer = await dev.http.head(f"/api/v1{path}")
    assert answer.status_code == 405
    for headers in (
        {"Sec-Purpose": "prefetch"},
        {"Purpose": "prefetch"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = await dev.get(path, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (403, "origin_mismatch")
    assert (await dev.get(path, headers={"Sec-Fetch-Site": "same-origin"})).status_code == 200


async def test_reveal_by_somebody_who_lost_the_right_to_ask_is_refused(plane: Stack) -> None:
    dev, path = await ready(plane)

    def strip(tx: Any) -> None:
        tx._cursor.execute(f"DELETE FROM user_roles WHERE user_id = '{dev.id}'")

    await plane.db.run(strip)
    answer = await dev.get(path)
    assert (answer.status_code, answer.json()["error"]) == (403, "permission_denied")


async def test_poll_begun_before_the_revocation_gets_no_job(plane: Stack) -> None:
    connection = await plane.connection()
    agent = await plane.enroll(connection)
    dev = await plane.person("dev", "developer")
    admin = await plane.person("admin", "admin")
    approver = await plane.person("approver", "approver")
    request_id = (await dev.post("/requests/read", READ)).json()["id"]
    caller = await plane.db.read(
        agents.authenticate,
        agent_id=agent.id,
        secret_hash=token_hash(agent.enrolled["agent_token"]),
        now=utc_now(),
    )
    assert (await admin.post(f"/agents/{agent.id}/revoke")).status_code == 204
    await approver.post(f"/requests/{request_id}/approve", {})
    job = await plane.db.run(jobs.claim, agent=caller, lease_token_hash=b"x" * 32, now=utc_now())
    assert job is None


@pytest.mark.parametrize(
    "head",
    [
        "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=["upgrade", "prior-knowledge"],
)
async def test_other_protocols_are_not_spoken(plane: Stack, head: str) -> None:
    host, _, port = plane.url.removeprefix("http://").partition(":")
    with trio.fail_after(20):
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(head.encode())
            received = bytes(await stream.receive_some(4096))
    assert not received or received.startswith(b"HTTP/1.1 ")
    assert b" 101 " not in received.split(b"\r\n")[0]


async def test_names_that_a_terminal_would_act_upon_are_refused(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    for bad in ("A\x1b[8m", "A\u202e", "A\u200b", "A\r"):
        for body in (
            {**READ, "target_keys": [bad]},
            {**READ, "target_secret_ref": bad},
        ):
            answer = await dev.post("/requests/read", body)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_body_of_a_hundred_thousand_fields_is_refused_by_name(plane: Stack) -> None:
    dev = await plane.person("dev", "developer")
    body = {**READ, **{f"x{n}": 1 for n in range(60_000)}}
    answer = await dev.post("/requests/read", body)
    assert (answer.status_code, len(answer.json()["fields"])) == (400, 50)


@pytest.mark.parametrize("ref", ["/prod/db", "prod/db/", "prod//db", "./prod/db", "prod/../db"])
async def test_path_with_two_spellings_is_refused(plane: Stack, ref: str) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    answer = await dev.post("/requests/read", {**READ, "target_secret_ref": ref})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
