"""Crashes: what was accepted is done all the same, by whoever is left, and only once."""

from __future__ import annotations

import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import trio

from tests.processes.fleet import ADMIN, Fleet, api_settings, migrate, planted
from tests.processes.load import Crowd, Done, Work, crowd, under_load, works
from tests.processes.process import Process
from tests.servers import free_port
from tests.stack import until

pytestmark = pytest.mark.xdist_group("processes")

PATIENCE_SECONDS = 60
LOCK = "store.enc.lock"


@contextmanager
def store_held(fleet: Fleet) -> Iterator[None]:
    """Keep every agent's read and write of the store waiting for as long as the context lasts."""
    with (fleet.root / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def job_of(fleet: Fleet, request_id: str, status: str) -> dict[str, Any]:
    """Return the request's job once it has this status."""

    async def look() -> dict[str, Any] | None:
        rows = fleet.rows(
            "SELECT id::text AS id, status, attempts, claimed_by::text AS agent_id FROM sync_jobs "
            "WHERE request_id = %s",
            request_id,
        )
        return rows[0] if rows and rows[0]["status"] == status else None

    found: dict[str, Any] = await until(look, seconds=PATIENCE_SECONDS)
    return found


async def begun(fleet: Fleet, people: Crowd, work: Work) -> tuple[Done, Process, Process]:
    """Return an approved request whose job an agent has claimed, that agent and the other one."""
    done = Done(work=work, request_id=await people.submit(work))
    await people.approve(work, done.request_id)
    job = await job_of(fleet, done.request_id, "claimed")
    one, other = fleet.agents
    return (done, one, other) if fleet.agent_id(one) == job["agent_id"] else (done, other, one)


async def seen_through(people: Crowd, done: Done, *, apis: tuple[int, ...] = (0, 1)) -> None:
    """Take the request to its end, and its value out of it once, through the APIs there are."""
    with trio.fail_after(PATIENCE_SECONDS):
        await people.executed(done.work, done.request_id)
    if done.work.new_value is None:
        done.wrap_id = (await people.listed(done.work, done.request_id))["id"]
        for api in (*apis, *apis):
            await people.reveal(done, api)
        assert len(done.revealed) == 1


def lapse(fleet: Fleet, request_id: str) -> None:
    """End the lease of the request's job, as half a minute of silence does."""
    fleet.change(
        "UPDATE sync_jobs SET claim_expires_at = now() - interval '1 second' "
        "WHERE request_id = %s AND status = 'claimed'",
        request_id,
    )


def events(fleet: Fleet, request_id: str, action: str) -> list[dict[str, Any]]:
    """Return who did this to the request, with which outcome, in the order of time."""
    return fleet.rows(
        "SELECT actor, status FROM audit_events WHERE correlation_id = %s AND action = %s "
        "ORDER BY occurred_at, id",
        request_id,
        action,
    )


@pytest.mark.parametrize("kind", ["read", "patch"])
async def test_killing_an_agent_hands_its_job_to_the_other(fleet: Fleet, kind: str) -> None:
    work = next(works(fleet, write_every=1 if kind == "patch" else 0))
    async with crowd(fleet) as people:
        with store_held(fleet):
            done, victim, other = await begun(fleet, people, work)
            victim.kill()
        try:
            lapse(fleet, done.request_id)
            await seen_through(people, done)
        finally:
            victim.start()
    job = await job_of(fleet, done.request_id, "succeeded")
    assert (job["attempts"], job["agent_id"]) == (2, fleet.agent_id(other))
    if kind == "patch":
        assert planted(fleet, work.ref) == work.new_value
    else:
        assert done.revealed == [planted(fleet, work.ref)]
    claims = events(fleet, done.request_id, "job.claim")
    both = [f"agent:{fleet.agent_id(agent)}" for agent in (victim, other)]
    assert [claim["actor"] for claim in claims] == both
    completed = events(fleet, done.request_id, "job.complete")
    assert completed == [{"actor": both[1], "status": "success"}]


async def test_an_agent_that_wakes_up_too_late_changes_nothing(fleet: Fleet) -> None:
    work = next(works(fleet))
    async with crowd(fleet) as people:
        with store_held(fleet):
            done, late, other = await begun(fleet, people, work)
            late.send(signal.SIGSTOP)
            # It gets the lock it waits for even so; the others get a new one.
            (fleet.root / LOCK).unlink()
        try:
            await taken_over(fleet, done, late)
            await seen_through(people, done)
        finally:
            late.send(signal.SIGCONT)
        job = await job_of(fleet, done.request_id, "succeeded")

        async def gave_up() -> bool:
            # Refused by the control plane or, where waking up took long, by its own clock.
            said = [line for line in late.log.read_text().splitlines() if job["id"] in line]
            sentences = ("claim lost, outcome dropped", "lease lost, job dropped")
            return any(sentence in line for line in said for sentence in sentences)

        await until(gave_up, seconds=PATIENCE_SECONDS)
        # The value it read meanwhile is not there to be revealed a second time.
        (wrap,) = fleet.rows(
            "SELECT id::text AS id FROM secret_wraps WHERE request_id = %s", done.request_id
        )
        assert wrap["id"] == done.wrap_id
        await people.reveal(done, 0)
        assert done.revealed == [planted(fleet, work.ref)]
    assert await job_of(fleet, done.request_id, "succeeded") == job
    assert job["agent_id"] == fleet.agent_id(other)
    completed = events(fleet, done.request_id, "job.complete")
    assert [event for event in completed if event["status"] == "success"] == [
        {"actor": f"agent:{job['agent_id']}", "status": "success"}
    ]


async def taken_over(fleet: Fleet, done: Done, late: Process) -> None:
    """Return once an agent other than the late one has done the job.

    The late agent's other slot may be handed the job again: its call for work still waits.
    """
    agent_id = fleet.agent_id(late)

    async def look() -> bool:
        statement = (
            "UPDATE sync_jobs SET claim_expires_at = now() - interval '1 second' "
            "WHERE request_id = %s AND status = 'claimed' AND claimed_by = %s "
            "AND claim_expires_at > now() RETURNING 1"
        )
        fleet.rows(statement, done.request_id, agent_id)
        return bool(
            fleet.rows(
                "SELECT 1 FROM sync_jobs WHERE request_id = %s AND status = 'succeeded'",
                done.request_id,
            )
        )

    await until(look, seconds=PATIENCE_SECONDS)


async def test_recovery_sweep_puts_a_dead_agents_job_back(fleet: Fleet) -> None:
    """With nobody else to claim it, the job waits in the queue, and the worker put it there."""
    one, other = fleet.agents
    other.send(signal.SIGTERM)
    try:
        assert other.wait() == 0
        work = next(works(fleet))
        async with crowd(fleet) as people:
            with store_held(fleet):
                done, victim, _ = await begun(fleet, people, work)
                assert victim is one
                victim.kill()
            lapse(fleet, done.request_id)
            queued = await job_of(fleet, done.request_id, "queued")
            assert (queued["attempts"], queued["agent_id"]) == (1, None)
            requeued = events(fleet, done.request_id, "job.requeued")
            assert requeued == [{"actor": "system:jobs", "status": "success"}]
            one.start()
            await seen_through(people, done)
            assert done.revealed == [planted(fleet, work.ref)]
    finally:
        for agent in (one, other):
            if not agent.is_running:
                agent.start()


async def test_killing_the_api_between_approval_and_claim_loses_nothing(fleet: Fleet) -> None:
    api, _ = fleet.apis
    for agent in fleet.agents:
        agent.send(signal.SIGTERM)
        assert agent.wait() == 0
    _, agent = fleet.agents  # The one that speaks to the other API.
    try:
        async with crowd(fleet) as people:
            work = next(works(fleet))
            path, body = people.draft(work)
            answer = await people.call(0, "POST", path, by=work.developer, json=body)
            done = Done(work=work, request_id=answer.json()["id"])
            path = f"/requests/{done.request_id}/approve"
            approved = await people.call(0, "POST", path, by=work.approver, json={})
            assert approved.json()["status"] == "approved"
            api.kill()
            assert (await job_of(fleet, done.request_id, "queued"))["attempts"] == 0

            agent.start()
            await seen_through(people, done, apis=(1,))

        assert done.revealed == [planted(fleet, work.ref)]
        job = await job_of(fleet, done.request_id, "succeeded")
        assert (job["attempts"], job["agent_id"]) == (1, fleet.agent_id(agent))
    finally:
        for process in (api, *fleet.agents):
            if not process.is_running:
                process.start()


async def test_killing_an_api_under_load_loses_no_request(fleet: Fleet) -> None:
    api, _ = fleet.apis
    async with under_load(fleet) as load:
        await load.one_more(4)
        api.kill()
        await trio.to_thread.run_sync(api.start)
        await load.one_more(8)
        await trio.to_thread.run_sync(api.wait_ready)
    assert load.crowd.failures.total() > 0


async def test_two_apis_that_start_first_at_once_make_one_administrator(
    fleet: Fleet,
) -> None:
    """On an empty database both find nobody; the lock keeps both at the door until they knock."""
    fleet.postgres.execute("CREATE DATABASE first_start")
    url = fleet.postgres.url("first_start")
    await trio.to_thread.run_sync(migrate, url)
    processes = []
    for number in (1, 2):
        port = free_port()
        environ = api_settings(url, fleet.redis.url)
        environ |= {"API_ADDR": f"127.0.0.1:{port}", "REDIS_NAMESPACE": "first"}
        environ |= {"SB_DATABASE_LOCK_TIMEOUT": "60s", "SB_DATABASE_STATEMENT_TIMEOUT": "60s"}
        processes.append(Process(f"first-api-{number}", "api", environ, port, fleet.root))
    try:
        with psycopg.connect(url) as connection:
            # Reading is possible, adding an account is not.
            connection.execute("LOCK TABLE local_users IN SHARE ROW EXCLUSIVE MODE")
            for process in processes:
                process.start()
            await until(lambda: _both_wait(fleet, "first_start"), seconds=PATIENCE_SECONDS)
        for process in processes:
            await trio.to_thread.run_sync(process.wait_ready)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT email FROM local_users").fetchall() == [(ADMIN[0],)]
            rules = connection.execute("SELECT count(*) FROM policy_rules").fetchone()
            assert rules == (1,)
    finally:
        for process in processes:
            process.end()


async def _both_wait(fleet: Fleet, database: str) -> bool:
    waiting = fleet.rows(
        "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND wait_event_type = 'Lock'", database
    )
    return len(waiting) == 2
