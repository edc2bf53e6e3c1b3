"""Many callers at once, one outcome: reveals, votes, claims, decisions, keys, enrolments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import trio
import trio.testing

from tests.http.hostile import change, dump, unlimited
from tests.stack import Person, Stack, until

READ = {
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
    "target_keys": ["PASSWORD"],
    "justification": "ticket 1",
}
VALUE = "cC12YWx1ZQ=="  # what the sample store holds under PASSWORD, in base64


async def at_once(calls: list[Callable[[], Awaitable[httpx.Response]]]) -> list[httpx.Response]:
    """Return the answers of calls that are let go at the same moment."""
    answers: list[httpx.Response] = []
    go = trio.Event()

    async def one(call: Callable[[], Awaitable[httpx.Response]]) -> None:
        await go.wait()
        answers.append(await call())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(one, call)
            await trio.testing.wait_all_tasks_blocked()
            go.set()
    return answers


def outcomes(answers: list[httpx.Response]) -> Counter[tuple[int, str]]:
    return Counter((answer.status_code, error_of(answer)) for answer in answers)


def error_of(answer: httpx.Response) -> str:
    if answer.status_code < 400:
        return ""
    body: dict[str, Any] = answer.json()
    return str(body["error"])


async def rows(person: Person, action: str, request_id: str) -> list[dict[str, Any]]:
    query = {"action": action, "correlation_id": request_id, "status": "success"}
    found: list[dict[str, Any]] = (await person.get("/audit-events", params=query)).json()
    return found


async def submitted(dev: Person) -> str:
    answer = await dev.post("/requests/read", READ)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def test_fifty_reveals_of_one_wrap_show_the_value_once(plane: Stack) -> None:
    unlimited(plane)
    await plane.agent(await plane.connection())
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    request_id = await submitted(dev)
    await approver.post(f"/requests/{request_id}/approve")

    async def look() -> Any:
        found = (await dev.get(f"/requests/{request_id}")).json()
        return found["status"] == "executed"

    await until(look)
    (wrap,) = (await dev.get(f"/requests/{request_id}/wraps")).json()
    path = f"/requests/{request_id}/wraps/{wrap['id']}"

    answers = await at_once([lambda: dev.get(path)] * 50)

    assert outcomes(answers) == {(200, ""): 1, (410, "wrap_already_consumed"): 49}
    assert [VALUE in answer.text for answer in answers].count(True) == 1
    assert all("value" not in answer.json() for answer in answers if answer.status_code == 410)
    assert len(await rows(approver, "wrap.retrieve", request_id)) == 1


async def test_twenty_approvers_of_a_quorum_of_two_make_one_job(
    plane: Stack, database_url: str
) -> None:
    await plane.connection()
    change(database_url, "UPDATE workflow_definitions SET min_approvers = 2 WHERE is_default")
    dev = await plane.person("dev", "developer")
    approvers = [await plane.person(f"approver-{n}", "approver") for n in range(20)]
    request_id = await submitted(dev)
    path = f"/requests/{request_id}/approve"

    answers = await at_once([lambda who=who: who.post(path) for who in approvers])

    assert outcomes(answers) == {(200, ""): 2, (409, "request_not_pending"): 18}
    found = (await dev.get(f"/requests/{request_id}")).json()
    assert (found["status"], found["approvals_count"], len(found["approvals"])) == (
        "approved",
        2,
        2,
    )
    assert len(dump(database_url)["sync_jobs"]) == 1
    assert len(await rows(approvers[0], "job.enqueue", request_id)) == 1


async def test_one_approver_voting_ten_times_at_once_has_one_vote(
    plane: Stack, database_url: str
) -> None:
    await plane.connection()
    change(database_url, "UPDATE workflow_definitions SET min_approvers = 3 WHERE is_default")
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    request_id = await submitted(dev)

    answers = await at_once([lambda: approver.post(f"/requests/{request_id}/approve")] * 10)

    assert outcomes(answers) == {(200, ""): 1, (409, "already_voted"): 9}
    found = (await dev.get(f"/requests/{request_id}")).json()
    assert (found["status"], found["approvals_count"]) == ("pending", 1)


async def test_twenty_claimers_take_each_of_twenty_jobs_once(
    plane: Stack, database_url: str
) -> None:
    unlimited(plane)
    connection = await plane.connection()
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    agents = [await plane.enroll(connection) for _ in range(20)]
    for _ in range(20):
        await approver.post(f"/requests/{await submitted(dev)}/approve")
    assert len(dump(database_url)["sync_jobs"]) == 20

    answers = await at_once([lambda who=who: who.post("/jobs/claim?wait=10") for who in agents])

    assert outcomes(answers) == {(200, ""): 20}
    assert len({answer.json()["id"] for answer in answers}) == 20
    assert len({answer.json()["lease_token"] for answer in answers}) == 20
    assert (await agents[0].post("/jobs/claim")).status_code == 204


async def test_waiting_claimers_share_jobs_approved_at_once(plane: Stack) -> None:
    unlimited(plane)
    connection = await plane.connection()
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    agents = [await plane.enroll(connection) for _ in range(5)]
    requests = [await submitted(dev) for _ in range(5)]
    claims: list[Callable[[], Awaitable[httpx.Response]]] = [
        lambda who=who: who.post("/jobs/claim?wait=20") for who in agents
    ]
    votes: list[Callable[[], Awaitable[httpx.Response]]] = [
        lambda found=found: approver.post(f"/requests/{found}/approve") for found in requests
    ]

    answers = await at_once(claims + votes)

    assert outcomes(answers) == {(200, ""): 10}
    claimed = [answer.json() for answer in answers if "lease_token" in answer.json()]
    assert {job["correlation_id"] for job in claimed} == set(requests)


async def test_approving_rejecting_and_cancelling_at_once_has_one_outcome(
    plane: Stack, database_url: str
) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    first, second = await plane.person("a", "approver"), await plane.person("b", "approver")
    seen = set()
    for _ in range(6):
        request_id = await submitted(dev)
        path = f"/requests/{request_id}"
        answers = await at_once(
            [
                lambda path=path: first.post(f"{path}/approve"),
                lambda path=path: second.post(f"{path}/reject", {"reason": "no"}),
                lambda path=path: dev.post(f"{path}/cancel"),
            ]
        )
        assert outcomes(answers) == {(200, ""): 1, (409, "request_not_pending"): 2}
        (won,) = [answer.json()["status"] for answer in answers if answer.status_code == 200]
        found = (await dev.get(path)).json()
        assert found["status"] == won
        assert (found["job_id"] is not None) == (won == "approved")
        seen.add(won)
        decided = [
            event
            for action in ("request.approve", "request.reject", "request.cancel")
            for event in await rows(first, action, request_id)
        ]
        assert len(decided) == 1
    assert seen <= {"approved", "rejected", "cancelled"}


async def test_one_idempotency_key_ten_times_at_once_makes_one_request(
    plane: Stack, database_url: str
) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    headers = {"idempotency-key": "at-once"}

    answers = await at_once([lambda: dev.post("/requests/read", READ, headers=headers)] * 10)

    assert outcomes(answers) == {(201, ""): 10}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert ["idempotency-replayed" in answer.headers for answer in answers].count(False) == 1
    assert len(dump(database_url)["access_requests"]) == 1


async def test_one_key_with_two_bodies_at_once_makes_one_request(
    plane: Stack, database_url: str
) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    headers = {"idempotency-key": "at-once"}
    bodies = [{**READ, "justification": f"ticket {n}"} for n in range(10)]

    answers = await at_once(
        [lambda body=body: dev.post("/requests/read", body, headers=headers) for body in bodies]
    )

    assert outcomes(answers) == {(201, ""): 1, (409, "idempotency_key_reused"): 9}
    assert len(dump(database_url)["access_requests"]) == 1


async def test_one_enrolment_token_ten_times_at_once_makes_one_agent(
    plane: Stack, database_url: str
) -> None:
    unlimited(plane)
    token = await plane.token(await plane.connection())
    bodies = [{"enrollment_token": token, "agent_name": f"agent-{n}"} for n in range(10)]
    async with httpx.AsyncClient(base_url=plane.url, timeout=30) as http:
        answers = await at_once(
            [lambda body=body: http.post("/api/v1/agents/enroll", json=body) for body in bodies]
        )
    assert outcomes(answers) == {(201, ""): 1, (409, "enrollment_token_already_consumed"): 9}
    assert len(dump(database_url)["agents"]) == 1
