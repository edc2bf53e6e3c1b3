"""Waiting for the end of a request: the answer comes with the end, not with the next look."""

from __future__ import annotations

from typing import Any

import trio

from sb.ops import requests
from tests.http.test_main_job import READ
from tests.stack import Person, Stack, until

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


async def submitted(person: Person) -> str:
    return str((await person.post("/requests/read", READ)).json()["id"])


async def test_wait_ends_with_the_request_and_not_with_the_next_look(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    approver = await plane.person("approver", "approver")
    statuses: list[str] = []

    async def wait(request_id: str, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        answer = await dev.get(f"/requests/{request_id}?wait=25")
        statuses.append(answer.json()["status"])

    # Eight looks a poll makes by itself would take half a minute.
    with trio.fail_after(20):
        for _ in range(4):
            rejected, cancelled = await submitted(dev), await submitted(dev)
            async with trio.open_nursery() as nursery:
                await nursery.start(wait, rejected)
                await approver.post(f"/requests/{rejected}/reject", {"reason": "no"})
            async with trio.open_nursery() as nursery:
                await nursery.start(wait, cancelled)
                await dev.post(f"/requests/{cancelled}/cancel")
    assert statuses == ["rejected", "cancelled"] * 4


async def test_wait_ends_when_the_agent_has_done_the_job(plane: Stack) -> None:
    await plane.agent(await plane.connection())
    dev = await plane.person("dev", "developer")
    approver = await plane.person("approver", "approver")
    with trio.fail_after(20):
        for _ in range(8):
            request_id = await submitted(dev)
            await approver.post(f"/requests/{request_id}/approve", {})
            found = (await dev.get(f"/requests/{request_id}?wait=25")).json()
            assert (found["status"], found["allowed_actions"]) == ("executed", ["reveal"])


async def test_wait_without_an_end_shows_the_request_as_it_is(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    request_id = await submitted(dev)
    assert (await dev.get(f"/requests/{request_id}?wait=1")).json()["status"] == "pending"
    for bad in ("-1", "61", "x"):
        assert (await dev.get(f"/requests/{request_id}?wait={bad}")).status_code == 400


async def test_wait_of_a_stranger_is_refused_at_once(plane: Stack) -> None:
    await plane.connection()
    request_id = await submitted(await plane.person("dev", "developer"))
    stranger = await plane.person("stranger")
    with trio.fail_after(20):
        for known in (request_id, MISSING):
            answer = await stranger.get(f"/requests/{known}?wait=25")
            assert (answer.status_code, answer.json()["error"]) == (404, "request_not_found")


async def test_wait_ends_when_the_process_stops(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    request_id = await submitted(dev)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):

            async def stop() -> None:
                plane.state.stopping.set()

            nursery.start_soon(stop)
            answer = await dev.get(f"/requests/{request_id}?wait=25")
    assert answer.json()["status"] == "pending"


async def test_wait_of_somebody_signed_out_or_out_of_scope_meanwhile_is_refused(
    plane: Stack,
) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    admin = await plane.person("admin", "admin")
    request_id = await submitted(dev)
    refusals: dict[str, tuple[int, str]] = {}

    async def wait(person: Person, name: str, task_status: trio.TaskStatus[Any]) -> None:
        task_status.started()
        answer = await person.get(f"/requests/{request_id}?wait=25")
        refusals[name] = (answer.status_code, answer.json()["error"])

    async def both_wait() -> bool:
        (gauge,) = plane.state.metrics.in_flight.collect()
        return gauge.samples[0].value >= 2

    leaver = await plane.person("leaver", "approver")
    stripped = await plane.person("stripped", "approver")
    (grant,) = (await admin.get(f"/user-roles?user_id={stripped.id}")).json()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(wait, leaver, "leaver")
            await nursery.start(wait, stripped, "stripped")
            await until(both_wait)
            assert (await dev.get(f"/requests/{request_id}")).status_code == 200
            await leaver.post("/auth/logout")
            taken = await admin.http.delete(f"/api/v1/user-roles/{grant['id']}")
            assert taken.status_code == 204, taken.text
            await plane.coord.publish(requests.ended_channel(request_id))
    assert refusals == {
        "leaver": (401, "authentication_required"),
        "stripped": (404, "request_not_found"),
    }
