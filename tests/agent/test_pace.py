"""How an agent claims: no more jobs than slots, no hammering, no work after the stop."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.agent import plane_double
from tests.agent.agents import GatedStore, launched, running, settings_for
from tests.agent.plane_double import Call, PlaneDouble
from tests.agent.planted import NEW, OLD
from tests.servers import free_port


@pytest.fixture
async def plane() -> AsyncIterator[PlaneDouble]:
    async with plane_double.serving(PlaneDouble()) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> GatedStore:
    found = GatedStore(tmp_path / "store.enc")
    found.seed({"app/db": {"A": OLD}})
    return found


@pytest.mark.parametrize("slots", [1, 3])
async def test_no_more_jobs_run_at_once_than_there_are_slots(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path, slots: int
) -> None:
    store.gate.clear()
    jobs = [plane.read_job() for _ in range(slots + 3)]
    async with running(settings_for(plane, tmp_path, claim_concurrency=slots), store) as agent:
        await store.entered(slots)
        await trio.testing.wait_all_tasks_blocked(cushion=0.05)
        assert len(plane.heard_of("claim")) == slots
        assert agent.metric("agent_jobs_in_flight") == slots
        store.gate.set()
        for job_id in jobs:
            assert (await plane.done(job_id)).status == "succeeded"
        assert store.most_inside == slots


async def test_queue_is_drained_without_pauses(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    async with running(settings_for(plane, tmp_path), store):
        started = trio.current_time()
        for job_id in [plane.read_job() for _ in range(20)]:
            await plane.done(job_id)
        assert trio.current_time() - started < 4


async def test_claim_waits_at_the_control_plane_for_as_long_as_it_is_set(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    async with running(settings_for(plane, tmp_path, claim_wait_seconds=17), store):
        (claim,) = await plane.heard("claim")
    assert claim.wait_seconds == 17


async def test_claim_that_is_not_waited_for_is_not_repeated_at_once(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    settings = settings_for(plane, tmp_path, claim_wait_seconds=0, claim_interval_seconds=0.4)
    async with running(settings, store):
        claims = await plane.heard("claim", 3)
    assert min(b.at - a.at for a, b in itertools.pairwise(claims)) >= 0.36


async def test_claims_back_off_while_the_control_plane_cannot_answer(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    plane.refuse("claim", 503, "unavailable", times=3)
    async with running(settings_for(plane, tmp_path), store) as agent:
        claims = await plane.heard("claim", 4)
        gaps = [b.at - a.at for a, b in itertools.pairwise(claims)]
        # The first wait is half a second, each next one twice as long, cut by at most a half.
        assert all(gap >= least for gap, least in zip(gaps, (0.25, 0.5, 1.0), strict=True))
        assert (await plane.done(plane.read_job())).status == "succeeded"
        assert agent.metric("agent_claim_failures_total") == 3


async def test_agent_started_before_its_control_plane_enrols_and_works_later(
    store: GatedStore, tmp_path: Path
) -> None:
    plane, port = PlaneDouble(), free_port()
    plane.url = f"http://127.0.0.1:{port}"
    async with launched(settings_for(plane, tmp_path), store) as agent:
        await trio.testing.wait_all_tasks_blocked(cushion=0.05)
        assert not agent.is_over
        async with plane_double.serving(plane, port=port):
            assert (await plane.done(plane.read_job())).status == "succeeded"
            agent.stop.set()
            assert await agent.ended() is None


async def test_stop_lets_the_running_job_finish_and_report_and_claims_no_other(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    store.gate.clear()
    async with running(settings_for(plane, tmp_path), store) as agent:
        job_id = plane.read_job()
        await store.entered()
        await plane.heard("claim", 2)
        agent.stop.set()
        await trio.testing.wait_all_tasks_blocked(cushion=0.05)
        assert not agent.is_over
        later = plane.read_job()
        store.gate.set()
        assert (await plane.done(job_id)).status == "succeeded"
        assert await agent.ended() is None
    assert plane.posted == {"A": OLD.encode()}
    assert len(plane.heard_of("claim")) == 2
    assert later not in plane.completed


async def test_stop_without_a_job_is_at_once(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    async with running(settings_for(plane, tmp_path), store) as agent:
        await plane.heard("claim")
        started = trio.current_time()
        agent.stop.set()
        assert await agent.ended() is None
        assert trio.current_time() - started < 1


async def test_job_that_outlasts_the_grace_is_given_back_at_once(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    async def hang(call: Call) -> None:
        await trio.sleep_forever()

    plane.hooks["fetch_wrap"] = hang
    settings = settings_for(plane, tmp_path, shutdown_grace_seconds=0.2)
    async with running(settings, store) as agent:
        job_id = plane.patch_job({"A": NEW})
        await plane.heard("fetch_wrap")
        agent.stop.set()
        done = await plane.done(job_id)
        assert (done.status, done.retryable) == ("failed", True)
        assert done.error == "the agent is stopping"
        assert await agent.ended() is None
    assert store.read_now("app/db").version == 1


async def test_stop_with_a_control_plane_that_takes_no_outcome_ends_in_time(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    plane.refuse("complete", 503, "unavailable")
    settings = settings_for(plane, tmp_path, shutdown_grace_seconds=0.2)
    async with running(settings, store) as agent:
        plane.read_job()
        await plane.heard("complete")
        agent.stop.set()
        assert await agent.ended() is None
    assert plane.completed == {}


async def test_heartbeats_keep_the_pace_the_control_plane_asks_for(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    plane.heartbeat_seconds = 1
    async with running(settings_for(plane, tmp_path, heartbeat_interval_seconds=30), store):
        first, second = (await plane.heard("heartbeat", 2))[:2]
    assert 0.9 <= second.at - first.at <= 2
    assert first.body["status"] == "active"
    assert first.body["capabilities"] == ["read", "patch"]
