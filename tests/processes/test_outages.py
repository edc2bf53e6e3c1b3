"""Redis and Postgres away under load: 503 in the product's words, and recovery by itself."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
import redis
import trio

from tests.http.hostile import refused
from tests.processes.fleet import Fleet
from tests.processes.load import CALL_SECONDS, Load, under_load
from tests.processes.process import Process
from tests.stack import PASSWORD, until

pytestmark = pytest.mark.xdist_group("processes")

PATIENCE_SECONDS = 60
REDIS_AWAY_SECONDS = 10
POSTGRES_AWAY_SECONDS = 4
#: Socket timeout of Redis, pool wait and connect timeout of Postgres; then a busy machine.
ANSWER_SECONDS = 15
NOT_OK = {"unreachable", "timeout"}


async def readiness(process: Process) -> tuple[int, dict[str, Any]]:
    return await trio.to_thread.run_sync(process.readiness)


def says_of(process: Process, check: str) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether the process is unready, in its own form, for this reason."""

    async def look() -> bool:
        status, body = await readiness(process)
        if status != 503 or body["checks"].get(check) not in NOT_OK:
            return False
        assert body["status"] == "not_ready", body
        assert body["failures"][check] == body["checks"][check]
        others = {name for name in body["checks"] if name not in (check, "schema")}
        assert all(body["checks"][name] == "ok" for name in others), body
        return True

    return look


async def all_ready(fleet: Fleet) -> None:
    """Return once everything is ready again; the clock runs from now."""
    for process in fleet.processes.values():

        async def look(process: Process = process) -> bool:
            return (await readiness(process))[0] == 200

        await until(look, seconds=PATIENCE_SECONDS)


async def sign_in(fleet: Fleet, api: Process) -> httpx.Response:
    """Return the answer to a sign-in with the right password, which comes in bounded time."""
    body = {"email": fleet.developers[0].email, "password": PASSWORD}
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, trust_env=False) as http:
        answer = await http.post(f"{api.url}/api/v1/auth/login", json=body)
    fleet.answers.append(answer.text)
    return answer


def pids(fleet: Fleet) -> dict[str, int]:
    return {name: process.pid for name, process in fleet.processes.items() if process.is_running}


def sweeps_done(fleet: Fleet) -> float:
    """Return how many runs of the recovery sweep have succeeded on either worker."""
    name = r'^worker_scheduler_runs_total\{outcome="success",task="jobs-recovery"\} (\S+)$'
    texts = [worker.metrics() for worker in fleet.workers]
    return sum(float(count) for text in texts for count in re.findall(name, text, re.MULTILINE))


async def works_as_before(fleet: Fleet, load: Load, before: dict[str, int]) -> None:
    """Fail unless the same processes sign people in and finish new requests."""
    await all_ready(fleet)
    for api in fleet.apis:
        assert (await sign_in(fleet, api)).status_code == 200
    await load.one_more(8)
    assert pids(fleet) == before


async def sweeps_again(fleet: Fleet) -> None:
    """Return once another sweep has succeeded."""
    swept = sweeps_done(fleet)

    async def look() -> bool:
        return await trio.to_thread.run_sync(sweeps_done, fleet) > swept

    await until(look, seconds=PATIENCE_SECONDS)


def listeners(fleet: Fleet) -> int:
    """Return how many processes listen for signals in Redis."""
    client = redis.Redis.from_url(fleet.redis.url)
    try:
        return sum(int(entry["psub"]) > 0 for entry in client.client_list())
    finally:
        client.close()


async def test_redis_away_costs_sign_ins_only_and_comes_back(fleet: Fleet) -> None:
    before, listening = pids(fleet), listeners(fleet)
    assert listening >= 2
    async with under_load(fleet) as load:
        await load.one_more(4)
        fleet.redis.stop()
        gone_at = time.monotonic()
        try:
            for api in fleet.apis:
                refused(await sign_in(fleet, api), 503, "coordination_unavailable")
                await until(says_of(api, "redis"), seconds=PATIENCE_SECONDS)
            for worker in fleet.workers:
                await until(says_of(worker, "redis"), seconds=PATIENCE_SECONDS)
            # Requests go on: limits let through, agents look by themselves.
            await load.one_more(4)
            while time.monotonic() - gone_at < REDIS_AWAY_SECONDS:
                for api in fleet.apis:
                    refused(await sign_in(fleet, api), 503, "coordination_unavailable")
                await load.one_more()
        finally:
            await trio.to_thread.run_sync(fleet.redis.start)

        await works_as_before(fleet, load, before)
        await sweeps_again(fleet)

        async def all_listen() -> bool:
            return await trio.to_thread.run_sync(listeners, fleet) == listening

        await until(all_listen, seconds=PATIENCE_SECONDS)
    # Whatever was refused was refused to those who signed in, and not to the load.
    assert not load.crowd.failures


async def test_postgres_restart_loses_no_accepted_request(fleet: Fleet) -> None:
    before = pids(fleet)
    async with under_load(fleet) as load:
        await load.one_more(4)
        await trio.to_thread.run_sync(fleet.postgres.stop, "fast")
        gone_at = time.monotonic()
        try:
            for api in fleet.apis:
                refused(await sign_in(fleet, api), 503, "database_unavailable")
                await until(says_of(api, "postgres"), seconds=PATIENCE_SECONDS)
            while time.monotonic() - gone_at < POSTGRES_AWAY_SECONDS:
                refused(await sign_in(fleet, fleet.apis[0]), 503, "database_unavailable")
        finally:
            await trio.to_thread.run_sync(fleet.postgres.start)
        await works_as_before(fleet, load, before)
        await sweeps_again(fleet)
    assert load.crowd.failures["database_unavailable"] > 0
    # Connections to the APIs stayed; whatever failed was answered, in the product's own form.
    assert set(load.crowd.failures) <= {"database_unavailable", "database_busy"}


async def test_postgres_crash_loses_no_accepted_request(fleet: Fleet) -> None:
    """Without any farewell to its connections, and with recovery at the start."""
    before = pids(fleet)
    async with under_load(fleet) as load:
        await load.one_more(4)
        await trio.to_thread.run_sync(fleet.postgres.stop, "immediate")
        await trio.to_thread.run_sync(fleet.postgres.start)
        await works_as_before(fleet, load, before)
    assert set(load.crowd.failures) <= {"database_unavailable", "database_busy"}


async def test_frozen_redis_holds_nobody_up(fleet: Fleet) -> None:
    before = pids(fleet)
    async with under_load(fleet) as load:
        await load.one_more(2)
        fleet.redis.pause()
        try:
            for api in fleet.apis:
                refused(await sign_in(fleet, api), 503, "coordination_unavailable")
            await load.one_more(4)
        finally:
            fleet.redis.resume()
        # Without a look at the sweeps: a lock taken or let go meanwhile may lie for its minute.
        await works_as_before(fleet, load, before)
    assert load.crowd.slowest < CALL_SECONDS / 2
    assert not load.crowd.failures
