"""A job lives as long as its lease: renewed while under way, dropped when lost, reported once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.agent import plane_double
from tests.agent.agents import AgentRun, GatedStore, running, settings_for
from tests.agent.plane_double import Call, PlaneDouble, Refuse
from tests.agent.planted import NEW, OLD


@pytest.fixture
async def plane() -> AsyncIterator[PlaneDouble]:
    async with plane_double.serving(PlaneDouble()) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> GatedStore:
    found = GatedStore(tmp_path / "store.enc")
    found.seed({"app/db": {"A": OLD}})
    return found


@pytest.fixture
async def agent(plane: PlaneDouble, store: GatedStore, tmp_path: Path) -> AsyncIterator[AgentRun]:
    async with running(settings_for(plane, tmp_path), store) as found:
        try:
            yield found
        finally:
            store.gate.set()


async def test_long_job_keeps_its_lease_beyond_its_first_end(
    plane: PlaneDouble, store: GatedStore, agent: AgentRun
) -> None:
    store.gate.clear()
    job_id = plane.read_job(lease_seconds=1)
    renewals = await plane.heard("renew", 4)
    claimed = plane.heard_of("claim")[0].at
    assert renewals[-1].at - claimed > 1.0
    assert {call.id for call in renewals} == {job_id}
    store.gate.set()
    assert (await plane.done(job_id)).status == "succeeded"


async def test_lost_lease_drops_the_job_and_the_agent_goes_on(
    plane: PlaneDouble, store: GatedStore, agent: AgentRun
) -> None:
    store.gate.clear()
    lost = plane.read_job(lease_seconds=1)
    await store.entered()
    plane.lose_lease(lost)
    await plane.heard("renew")
    store.gate.set()
    kept = plane.read_job()
    assert (await plane.done(kept)).status == "succeeded"
    assert set(plane.completed) == {kept}
    assert [call.id for call in plane.heard_of("complete")] == [kept]
    await agent.counted("lost")
    await agent.counted("succeeded")


async def test_lost_lease_of_a_patch_writes_nothing(
    plane: PlaneDouble, store: GatedStore, agent: AgentRun
) -> None:
    store.gate.clear()
    lost = plane.patch_job({"A": NEW}, lease_seconds=1)
    await store.entered()
    plane.lose_lease(lost)
    await plane.heard("renew")
    store.gate.set()
    await plane.done(plane.read_job())
    assert store.read_now("app/db").version == 1
    assert plane.heard_of("fetch_wrap") == []


async def test_lease_that_cannot_be_renewed_ends_by_the_agents_own_clock(
    plane: PlaneDouble, store: GatedStore, tmp_path: Path
) -> None:
    async def hang(call: Call) -> None:
        await trio.sleep_forever()

    plane.refuse("renew", 503, "unavailable")
    plane.hooks["post_wrap"] = hang
    async with running(settings_for(plane, tmp_path, claim_concurrency=1), store) as agent:
        plane.read_job(lease_seconds=1)
        # The only slot is free again when the job was dropped.
        first, second = (await plane.heard("claim", 2))[:2]
        assert 0.5 < second.at - first.at < 5
        assert len(plane.heard_of("renew")) >= 2
        await agent.counted("lost")
    assert plane.heard_of("complete") == []


async def test_outcome_of_a_lost_claim_is_told_once_and_dropped(
    plane: PlaneDouble, store: GatedStore, agent: AgentRun
) -> None:
    store.gate.clear()
    lost = plane.read_job()
    await store.entered()
    plane.lose_lease(lost)
    store.gate.set()
    await plane.heard("complete")
    kept = plane.read_job()
    await plane.done(kept)
    assert [call.id for call in plane.heard_of("complete")] == [lost, kept]
    assert set(plane.completed) == {kept}


async def test_outcome_is_told_again_until_it_is_taken(
    plane: PlaneDouble, store: GatedStore, agent: AgentRun
) -> None:
    plane.refuse("complete", 503, "unavailable", times=2)
    job_id = plane.read_job()
    done = await plane.done(job_id)
    assert done.status == "succeeded"
    told = plane.heard_of("complete")
    assert len(told) == 3
    assert told[0].body == told[1].body == told[2].body
    assert told[2].at - told[1].at >= 0.25


async def test_outcome_whose_answer_was_lost_is_told_again_under_the_same_lease(
    plane: PlaneDouble, store: GatedStore, agent: AgentRun
) -> None:
    answered: list[Call] = []

    async def lose_the_answer(call: Call) -> Refuse | None:
        answered.append(call)
        return Refuse(502, "bad_gateway") if len(answered) == 1 else None

    plane.hooks["complete"] = lose_the_answer
    done = await plane.done(plane.read_job())
    assert done.status == "succeeded"
    assert answered[0].body["lease_token"] == answered[1].body["lease_token"]


async def test_refused_outcome_is_not_told_again(
    plane: PlaneDouble, store: GatedStore, agent: AgentRun
) -> None:
    plane.refuse("complete", 404, "job_not_found", times=1)
    plane.read_job()
    await plane.heard("complete")
    kept = plane.read_job()
    await plane.done(kept)
    assert len(plane.heard_of("complete")) == 2
    await agent.counted("unreported")
