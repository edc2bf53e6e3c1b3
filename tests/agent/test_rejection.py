"""A dead credential ends the agent, wherever it shows; probes say so while jobs end."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from sb_agent.daemon import AgentRejectedError
from tests.agent import plane_double
from tests.agent.agents import GatedStore, launched, running, settings_for
from tests.agent.plane_double import SECRET, PlaneDouble
from tests.agent.planted import OLD


@pytest.fixture
async def plane() -> AsyncIterator[PlaneDouble]:
    async with plane_double.serving(PlaneDouble()) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> GatedStore:
    found = GatedStore(tmp_path / "store.enc")
    found.seed({"app/db": {"A": OLD}})
    return found


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


async def readiness(address: str) -> tuple[int, Any]:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://{address}/readyz")
    return answer.status_code, answer.json()


@pytest.mark.parametrize("route", ["public_key", "control_plane_key", "heartbeat", "claim"])
async def test_401_anywhere_ends_the_agent(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path, route: str
) -> None:
    plane.refuse(route, 401, "agent_rejected")
    async with launched(settings_for(plane, tmp_path), store) as agent:
        problem = await agent.ended()
    assert isinstance(problem, AgentRejectedError)
    assert SECRET not in str(problem)
    assert len(plane.heard_of(route)) == 1


@pytest.mark.parametrize("route", ["post_wrap", "complete"])
async def test_401_during_a_job_ends_the_agent(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path, route: str
) -> None:
    async with running(settings_for(plane, tmp_path), store) as agent:
        for each in (route, "complete", "claim", "heartbeat"):
            plane.refuse(each, 401, "agent_rejected")
        plane.read_job()
        assert isinstance(await agent.ended(), AgentRejectedError)
    assert plane.completed == {}


async def test_401_at_the_renewal_drops_the_job_and_ends_the_agent(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    store.gate.clear()
    async with running(settings_for(plane, tmp_path), store) as agent:
        plane.refuse("renew", 401, "agent_rejected")
        plane.read_job(lease_seconds=1)
        await store.entered()
        await plane.heard("renew")
        store.gate.set()
        assert isinstance(await agent.ended(), AgentRejectedError)
    assert plane.posted == plane.completed == {}


async def test_probes_say_auth_failed_while_a_job_ends(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    store.gate.clear()
    address = free_address()
    async with running(settings_for(plane, tmp_path, local_addr=address), store) as agent:
        await plane.heard("heartbeat")
        job_id = plane.read_job()
        await store.entered()
        assert (await readiness(address))[0] == 200
        plane.refuse("claim", 401, "agent_rejected", times=1)
        plane.read_job()
        await plane.heard("claim", 2)

        async def rejected() -> Any:
            status, body = await readiness(address)
            return body if status == 503 else None

        body = await _eventually(rejected)
        assert body["status"] == "draining"
        assert body["failures"] == {"control_plane": "auth_failed"}
        store.gate.set()
        assert (await plane.done(job_id)).status == "succeeded"
        assert isinstance(await agent.ended(), AgentRejectedError)


async def _eventually(check: Any) -> Any:
    with trio.fail_after(10):
        while not (found := await check()):
            await trio.lowlevel.checkpoint()
    return found


async def test_probes_are_booting_until_a_heartbeat_is_accepted_then_ready(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    address = free_address()
    plane.refuse("heartbeat", 503, "unavailable")
    async with running(settings_for(plane, tmp_path, local_addr=address), store) as agent:
        await plane.heard("heartbeat")
        status, body = await readiness(address)
        assert (status, body["status"]) == (503, "booting")
        assert body["failures"] == {"control_plane": "unreachable"}
    del plane.hooks["heartbeat"]
    async with running(settings_for(plane, tmp_path, local_addr=address), store) as agent:

        async def ready() -> bool:
            return (await readiness(address))[0] == 200

        await _eventually(ready)
        async with httpx.AsyncClient(trust_env=False) as http:
            metrics = (await http.get(f"http://{address}/metrics")).text
        assert "agent_last_heartbeat_timestamp_seconds" in metrics
        assert "agent_jobs_in_flight 0.0" in metrics
        assert not agent.is_over


async def test_refused_key_that_is_not_401_ends_the_agent_too(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    plane.refuse("public_key", 400, "invalid_public_key")
    async with launched(settings_for(plane, tmp_path), store) as agent:
        assert isinstance(await agent.ended(), AgentRejectedError)
    assert plane.heard_of("claim") == []
