"""Sweeps without their lock: several at once, or among those they clean up after."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import trio

from sb.clock import utc_now
from sb.errors import SbError
from sb.ops import approvals, jobs, requests
from tests.ops.world import World
from tests.worker.due import DUE, Crew, agent_status, ago, changed, end_of_attempts, heard, sweeps

AT_ONCE = 4
ROWS = 13
LIMIT = 5


async def drain(world: World, name: str, total: Counter[str], limit: int = LIMIT) -> None:
    """Run batches as the loop does, until one comes back short."""
    batch = sweeps(world, limit)[name].batch
    more = True
    while more:
        swept = await batch()
        total.update(changed(swept.counts))
        more = swept.more


@pytest.mark.parametrize("name", DUE)
async def test_several_runs_at_once_change_everything_once(world: World, name: str) -> None:
    """A lock that was lost in Redis costs double looks and never a double change."""
    due = DUE[name]
    due.plant(world, ROWS)
    total: Counter[str] = Counter()

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(drain, world, name, total)
    # Runs that found only what others held stopped early; the next tick takes the rest.
    await drain(world, name, total)

    assert total == {due.effect: ROWS}
    trail = due.trail(world)
    if due.one_row_each:
        assert set(trail.values()) <= {1}
        assert len(trail) == (ROWS if due.action else 0)
    elif due.action:
        purges = world.events(action=due.action)
        assert sum(event.metadata["deleted"] for event in purges) == ROWS
        assert all(event.metadata["deleted"] for event in purges)


async def test_expiry_and_recovery_at_once_end_each_request_once(world: World) -> None:
    """Both want the same jobs: lapsed, half of them out of attempts, all of them out of time."""
    crew = Crew.build(world)
    found = [crew.claimed(world, f"K{n}", hours=2) for n in range(10)]
    for request_id in found[::2]:
        end_of_attempts(world, request_id)
    total: Counter[str] = Counter()

    async with trio.open_nursery() as nursery:
        for name in ("requests-expired", "jobs-recovery") * 2:
            nursery.start_soon(drain, world, name, total)
    await drain(world, "requests-expired", total)

    ends = Counter(world.status(request_id) for request_id in found)
    assert ends["expired"] + ends["failed"] == len(found)
    assert (ends["expired"], ends["failed"]) == (total["expired"], total["failed"])
    for request_id in found:
        status = world.status(request_id)
        assert world.job(request_id)["status"] == status
        actions = Counter(action for _, action in world.trail(request_id))
        assert actions["request.expired"] == (status == "expired")
        assert actions["request.transition"] == (status == "failed")
        assert actions["job.requeued"] <= 1


async def outcome(world: World, op: Any, **kwargs: Any) -> str:
    """Return `ok`, or the code of the refusal."""
    try:
        await world.db.run(op, **kwargs)
    except SbError as problem:
        return problem.code
    return "ok"


async def test_an_agent_and_the_sweep_do_not_both_end_a_job(world: World) -> None:
    """The agent answers as its lease lapses: its word counts, or the sweep's, and never both."""
    crew = Crew.build(world)
    held = []
    for n in range(8):
        crew.approved(world, f"K{n}", minutes=1)
        held.append(world.held(crew.agent, now=ago(minutes=1)))
    said: dict[str, str] = {}
    total: Counter[str] = Counter()

    async def complete(number: int) -> None:
        mine = held[number]
        assert mine.job.request_id is not None
        said[mine.job.request_id] = await outcome(
            world,
            jobs.complete,
            agent=crew.agent,
            job_id=mine.job.id,
            lease_token_hash=mine.lease,
            outcome=jobs.Outcome(succeeded=True),
            now=utc_now(),
        )

    async with trio.open_nursery() as nursery:
        for number in range(len(held)):
            nursery.start_soon(complete, number)
            if number % 4 == 2:
                nursery.start_soon(drain, world, "jobs-recovery", total)

    assert set(said.values()) <= {"ok", "lease_lost"}
    for request_id, answer in said.items():
        ended = (world.job(request_id)["status"], world.status(request_id))
        expected = ("succeeded", "executed") if answer == "ok" else ("queued", "approved")
        assert ended == expected
        actions = Counter(action for _, action in world.trail(request_id))
        assert actions["job.complete"] == (answer == "ok")
        assert actions["job.requeued"] == (answer != "ok")
    assert total["requeued"] == sum(answer != "ok" for answer in said.values())


async def test_a_decision_and_the_sweep_do_not_both_end_a_request(world: World) -> None:
    """The approver and the requester are just in time by their clocks; the sweep's is ahead."""
    crew = Crew.build(world)
    submitted = [world.read(crew.asks, f"K{n}", now=ago(days=14, seconds=1)) for n in range(8)]
    in_time = ago(seconds=2)
    said: dict[str, str] = {}
    total: Counter[str] = Counter()

    async def decide(request_id: str, approve: bool) -> None:
        act = (
            partial(outcome, world, approvals.approve, caller=crew.approves, comment=None)
            if approve
            else partial(outcome, world, requests.cancel, caller=crew.asks)
        )
        said[request_id] = await act(request_id=request_id, now=in_time)

    async with trio.open_nursery() as nursery:
        for number, request_id in enumerate(submitted):
            nursery.start_soon(decide, request_id, number % 2 == 0)
            if number % 4 == 2:
                nursery.start_soon(drain, world, "requests-expired", total)
    await drain(world, "requests-expired", total)

    for number, request_id in enumerate(submitted):
        decided = "approved" if number % 2 == 0 else "cancelled"
        expected = decided if said[request_id] == "ok" else "expired"
        assert world.status(request_id) == expected
        actions = Counter(action for _, action in world.trail(request_id))
        assert actions["request.expired"] == (expected == "expired")
        assert actions["job.enqueue"] == (expected == "approved")
    assert total["expired"] == sum(answer != "ok" for answer in said.values())


async def test_a_heartbeat_among_the_sweeps_leaves_its_agent_alive(world: World) -> None:
    """Before the sweep it keeps the agent active, after it it brings the agent back."""
    connection = world.connection()
    found = [world.agent(connection, now=ago(hours=1)) for _ in range(8)]
    for agent in found:
        heard(world, agent, minutes=6)
    total: Counter[str] = Counter()
    beat = partial(trio.to_thread.run_sync, heard)

    async with trio.open_nursery() as nursery:
        for number, agent in enumerate(found[:6]):
            nursery.start_soon(beat, world, agent)
            if number % 2 == 0:
                nursery.start_soon(drain, world, "agents-stale", total)
    await drain(world, "agents-stale", total)

    assert [agent_status(world, agent) for agent in found] == ["active"] * 6 + ["stale"] * 2
    trail = DUE["agents-stale"].trail(world)
    assert set(trail.values()) == {1}
    assert trail.total() == total["flipped"]
