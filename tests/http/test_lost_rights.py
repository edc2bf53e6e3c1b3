"""Rights taken back before a quorum or a claim: what people are told, and two things at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.http.granting import delete, give, grant_of, role_id
from tests.http.hostile import change, dump, refused, unlimited
from tests.http.test_races import at_once, outcomes, rows, submitted
from tests.stack import Person, Stack

Take = Callable[[Person, Person], Awaitable[httpx.Response]]


async def disable(admin: Person, person: Person) -> httpx.Response:
    return await admin.post(f"/users/{person.id}/disable")


async def revoke(admin: Person, person: Person) -> httpx.Response:
    return await delete(admin, f"/user-roles/{await grant_of(admin, person)}")


every_way = pytest.mark.parametrize("take", [disable, revoke])


@every_way
async def test_a_request_waits_for_who_could_not_ask_any_more(plane: Stack, take: Take) -> None:
    await plane.connection()
    admin, dev = await plane.person("admin"), await plane.person("dev", "developer")
    approver = await plane.person("a", "approver")
    request_id = await submitted(dev)
    assert (await take(admin, dev)).status_code in (200, 204)

    refused(await approver.post(f"/requests/{request_id}/approve"), 409, "requester_lost_right")

    query = {"action": "request.approve", "correlation_id": request_id, "status": "denied"}
    (event,) = (await admin.get("/audit-events", params=query)).json()
    assert event["metadata"]["error_kind"] == "requester_lost_right"
    answer = await approver.post(f"/requests/{request_id}/reject", {"reason": "gone"})
    assert answer.json()["status"] == "rejected"


async def test_a_vote_that_does_not_count_is_shown_as_such(plane: Stack, database_url: str) -> None:
    await plane.connection()
    change(database_url, "UPDATE workflow_definitions SET min_approvers = 2 WHERE is_default")
    admin, dev = await plane.person("admin"), await plane.person("dev", "developer")
    first, second = await plane.person("a", "approver"), await plane.person("b", "approver")
    request_id = await submitted(dev)
    await first.post(f"/requests/{request_id}/approve")
    await revoke(admin, first)

    answer = (await second.post(f"/requests/{request_id}/approve")).json()

    assert (answer["status"], answer["approvals_count"]) == ("pending", 1)
    assert counts(answer) == {first.id: False, second.id: True}
    assert counts((await dev.get(f"/requests/{request_id}")).json()) == counts(answer)
    (listed,) = (await dev.get("/requests")).json()
    assert (listed["approvals_count"], listed["approvals"]) == (2, [])
    await give(admin, first, await role_id(admin, "approver"), {})
    found = (await dev.get(f"/requests/{request_id}")).json()
    assert (found["status"], found["approvals_count"]) == ("pending", 2)
    refused(await first.post(f"/requests/{request_id}/approve"), 409, "already_voted")
    answer = (await admin.post(f"/requests/{request_id}/approve")).json()
    assert (answer["status"], answer["approvals_count"]) == ("approved", 3)
    assert set(counts(answer).values()) == {None}


def counts(body: dict[str, Any]) -> dict[str, bool | None]:
    return {vote["approver_id"]: vote["counts"] for vote in body["approvals"]}


@every_way
async def test_taking_a_right_while_the_quorum_is_reached_has_one_outcome(
    plane: Stack, database_url: str, take: Take
) -> None:
    unlimited(plane)
    await plane.connection()
    change(database_url, "UPDATE workflow_definitions SET min_approvers = 2 WHERE is_default")
    admin, dev = await plane.person("admin"), await plane.person("dev", "developer")
    second = await plane.person("b", "approver")
    for number in range(4):
        first = await plane.person(f"a-{number}", "approver")
        raced, after = await submitted(dev), await submitted(dev)
        for request_id in (raced, after):
            await first.post(f"/requests/{request_id}/approve")
        jobs = len(dump(database_url)["sync_jobs"])

        answers = await at_once(
            [
                lambda path=raced: second.post(f"/requests/{path}/approve"),
                lambda who=first: take(admin, who),
            ]
        )

        assert {answer.status_code for answer in answers} <= {200, 204}, outcomes(answers)
        found = (await dev.get(f"/requests/{raced}")).json()
        told = max(
            (event["metadata"] for event in await rows(admin, "request.approve", raced)),
            key=lambda metadata: metadata["approves"] + metadata.get("not_counted", 0),
        )
        # Either the vote came first and counted, or the right was gone and nothing followed.
        won = found["status"] == "approved"
        assert (told["approves"], told.get("not_counted", 0)) == ((2, 0) if won else (1, 1))
        assert won or counts(found) == {first.id: False, second.id: True}
        assert len(dump(database_url)["sync_jobs"]) == jobs + won
        # Whoever votes after it was taken does not count it.
        answer = (await second.post(f"/requests/{after}/approve")).json()
        assert (answer["status"], answer["approvals_count"]) == ("pending", 1)
