"""A stop signal: what is under way is ended, nothing new is begun, and the exit status is 0."""

from __future__ import annotations

import re
import signal
import time

import httpx
import psycopg
import pytest
import trio

from tests.processes.fleet import GRACE_SECONDS, Fleet, planted
from tests.processes.load import CALL_SECONDS, Done, crowd, works
from tests.processes.process import Process
from tests.processes.test_faults import PATIENCE_SECONDS, begun, job_of, seen_through, store_held
from tests.stack import until

pytestmark = pytest.mark.xdist_group("processes")

#: On top of the grace: closing what is open, on a busy machine.
MARGIN_SECONDS = 15


async def ended(process: Process) -> int:
    """Return the exit status, which comes before the grace is over and a little more."""
    return await trio.to_thread.run_sync(process.wait, GRACE_SECONDS + MARGIN_SECONDS)


async def enrolled(fleet: Fleet) -> tuple[str, str]:
    """Return the id and the credential of an agent that has a connection of its own."""
    body = {"name": f"idle-{time.monotonic_ns()}", "type": "file"}
    connection = fleet.post("/provider-connections", body, fleet.admin.token)["id"]
    body = {"enrollment_token": fleet.enrolment_token(connection), "agent_name": body["name"]}
    found = fleet.post("/agents/enroll", body)
    return found["agent_id"], found["agent_token"]


async def test_stopping_an_api_drains_it(fleet: Fleet) -> None:
    """A long poll ends at once with nothing, a call that waits for a row gets its answer."""
    api, _ = fleet.apis
    agent_id, credential = await enrolled(fleet)
    answers: dict[str, httpx.Response] = {}
    async with crowd(fleet) as people, httpx.AsyncClient(trust_env=False) as http:
        work = next(works(fleet))
        done = Done(work=work, request_id=await people.submit(work))

        async def long_poll() -> None:
            answers["poll"] = await http.post(
                f"{api.url}/api/v1/agents/{agent_id}/jobs/claim?wait=60",
                headers={"X-Agent-Secret": credential},
                timeout=CALL_SECONDS,
            )

        async def approve() -> None:
            path = f"/requests/{done.request_id}/approve"
            answers["approval"] = await people.call(0, "POST", path, by=work.approver, json={})

        async def polls() -> bool:
            # An agent's poll, this one, and the question itself.
            (under_way,) = re.findall(r"^http_in_flight (\S+)$", api.metrics(), re.MULTILINE)
            return float(under_way) >= 3

        async def waits() -> bool:
            return bool(fleet.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

        said: list[str] = []

        async def door_is_closed() -> bool:
            status, body = await trio.to_thread.run_sync(api.readiness)
            said.append(body.get("status", "closed"))
            return status == 0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(long_poll)
            await until(polls, seconds=PATIENCE_SECONDS)
            with psycopg.connect(fleet.database) as connection:
                connection.execute(
                    "SELECT 1 FROM access_requests WHERE id = %s FOR UPDATE", (done.request_id,)
                )
                nursery.start_soon(approve)
                await until(waits, seconds=PATIENCE_SECONDS)
                api.send(signal.SIGTERM)
                await until(door_is_closed, seconds=PATIENCE_SECONDS)
                assert "draining" in said
                assert "approval" not in answers
        try:
            assert await ended(api) == 0
            assert answers["poll"].status_code == 204
            assert answers["approval"].status_code == 200, answers["approval"].text
            assert answers["approval"].json()["status"] == "approved"
            await seen_through(people, done, apis=(1,))
        finally:
            api.start()


async def test_stopping_an_agent_lets_it_finish_its_job(fleet: Fleet) -> None:
    work = next(works(fleet, write_every=1))
    async with crowd(fleet) as people:
        with store_held(fleet):
            done, agent, _ = await begun(fleet, people, work)
            agent.send(signal.SIGTERM)

            async def draining() -> bool:
                status, body = await trio.to_thread.run_sync(agent.readiness)
                assert agent.is_running
                return status == 503 and body["status"] == "draining"

            await until(draining, seconds=PATIENCE_SECONDS)
        try:
            assert await ended(agent) == 0
            job = await job_of(fleet, done.request_id, "succeeded")
            assert (job["attempts"], job["agent_id"]) == (1, fleet.agent_id(agent))
            assert planted(fleet, work.ref) == work.new_value
        finally:
            agent.start()


async def test_stopping_everything_at_once_ends_it_all_with_status_0(fleet: Fleet) -> None:
    """Agents are told to stop while what they speak to goes away, too."""
    for process in fleet.processes.values():
        process.send(signal.SIGTERM)
    try:
        statuses = {name: await ended(process) for name, process in fleet.processes.items()}
        assert set(statuses.values()) == {0}, statuses
    finally:
        for process in fleet.processes.values():
            if not process.is_running:
                process.start()
