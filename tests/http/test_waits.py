"""Waiting for the end of a request: the answer comes with the end, not with the next look."""

from __future__ import annotations

from typing import Any

import trio

from tests.http.test_main_job import READ
from tests.stack import Person, Stack

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
