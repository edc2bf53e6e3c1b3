"""Every sweep over real rows: what it takes, what it leaves, how it counts and what it writes."""

from __future__ import annotations

from typing import Any

import pytest

from sb.clock import utc_now
from sb.ops import agents, jobs
from sb.ops.errors import LeaseLostError, WrapConsumedError, WrapExpiredError
from sb_worker.loop import Swept
from tests.ops.world import World
from tests.worker.due import (
    DUE,
    Crew,
    agent_status,
    ago,
    ahead,
    changed,
    end_of_attempts,
    heard,
    interval_of,
    keep_key,
    sweeps,
)

NOTHING = Swept(counts={}, more=False)


async def sweep(world: World, name: str, limit: int = 500, **more: str) -> Swept:
    """Return what one batch of the sweep did, without the counts that are zero."""
    swept = await sweeps(world, limit, **more)[name].batch()
    return Swept(counts=changed(swept.counts), more=swept.more)


def test_sweeps_are_those_of_the_manual_with_their_names_and_cadence(world: World) -> None:
    """A name is a lock in Redis that two releases share while one replaces the other."""
    found = {task.name: task.interval_seconds for task in sweeps(world).values()}
    assert found == {
        "wraps-expired": 60,
        "requests-expired": 60,
        "jobs-recovery": 30,
        "agents-stale": 60,
        "idempotency-expired": 300,
        "sessions-purge": 3600,
        "enrollment-tokens-expired": 300,
    }
    assert found.keys() == DUE.keys()


def test_a_sweeps_cadence_is_a_setting(world: World) -> None:
    changes = {interval_of(name): f"{number}s" for number, name in enumerate(DUE, start=1)}
    found = sweeps(world, **changes)
    assert [found[name].interval_seconds for name in DUE] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("name", DUE)
async def test_a_sweep_without_work_counts_and_writes_nothing(world: World, name: str) -> None:
    DUE[name].plant(world, 0)
    before = world.events()
    assert await sweep(world, name) == NOTHING
    assert world.events() == before


@pytest.mark.parametrize("name", DUE)
async def test_a_sweep_stops_at_its_limit_and_tells_that_there_is_more(
    world: World, name: str
) -> None:
    due = DUE[name]
    due.plant(world, 5)

    batches = [await sweep(world, name, limit=2) for _ in range(4)]

    assert batches == [
        Swept(counts={due.effect: 2}, more=True),
        Swept(counts={due.effect: 2}, more=True),
        Swept(counts={due.effect: 1}, more=False),
        NOTHING,
    ]
    trail = due.trail(world)
    if due.one_row_each:
        assert set(trail.values()) <= {1}
        assert len(trail) == (5 if due.action else 0)
    else:
        assert trail.total() == 3, "one row for each batch that changed something"


@pytest.mark.parametrize("name", DUE)
async def test_a_batch_as_large_as_its_limit_asks_for_another(world: World, name: str) -> None:
    due = DUE[name]
    due.plant(world, 2)
    assert await sweep(world, name, limit=2) == Swept(counts={due.effect: 2}, more=True)
    assert await sweep(world, name, limit=2) == NOTHING


# wraps-expired


async def test_wraps_past_their_end_are_deleted_spent_or_not(world: World) -> None:
    crew = Crew.build(world)
    kept = world.patch(crew.asks, "LIVE")
    gone = world.patch(crew.asks, "OVER", "SPENT", "SPENT_LIVE")
    to = "UPDATE secret_wraps SET expires_at = :at WHERE request_id = :id AND key_name = :key"
    spend = (
        "UPDATE secret_wraps SET consumed_at = created_at, consumed_by_user = :user "
        "WHERE request_id = :id AND key_name = :key"
    )
    for request_id, key, at in (
        (kept, "LIVE", ahead(minutes=1)),
        (gone, "OVER", ago(seconds=1)),
        (gone, "SPENT", ago(seconds=1)),
        (gone, "SPENT_LIVE", ahead(minutes=1)),
    ):
        world.write(to, at=at, id=request_id, key=key)
    for key in ("SPENT", "SPENT_LIVE"):
        world.write(spend, user=crew.asks.user_id, id=gone, key=key)

    assert await sweep(world, "wraps-expired") == Swept(counts={"deleted": 2}, more=False)

    assert [row["key_name"] for row in world.wraps_of(kept)] == ["LIVE"]
    assert [row["key_name"] for row in world.wraps_of(gone)] == ["SPENT_LIVE"]
    (event,) = world.events(action="wrap.purge")
    assert (event.actor, event.resource, event.metadata) == (
        "system:worker",
        "wrap:expired",
        {"deleted": 2},
    )


async def test_a_limit_takes_the_wraps_that_ended_first(world: World) -> None:
    request_id = world.patch(Crew.build(world).asks, "C", "A", "B")
    to = "UPDATE secret_wraps SET expires_at = :at WHERE request_id = :id AND key_name = :key"
    for hours, key in enumerate("ABC", start=1):
        world.write(to, at=ago(hours=hours), id=request_id, key=key)
    await sweep(world, "wraps-expired", limit=2)
    assert [row["key_name"] for row in world.wraps_of(request_id)] == ["A"]


async def test_a_deleted_wrap_is_over_to_its_requester_and_not_unheard_of(world: World) -> None:
    crew = Crew.build(world)
    request_id = world.read(crew.asks, "A", "B", now=utc_now())
    world.approve(crew.approves, request_id, now=utc_now())
    held = world.held(crew.agent, now=utc_now())
    unseen, seen = (world.post(crew.agent, held, key, now=utc_now()) for key in "AB")
    world.finish(crew.agent, held, now=utc_now())
    world.reveal(crew.asks, request_id, seen, now=utc_now())
    statement = "UPDATE secret_wraps SET expires_at = :at WHERE request_id = :id"
    world.write(statement, at=ago(seconds=1), id=request_id)

    assert await sweep(world, "wraps-expired") == Swept(counts={"deleted": 2}, more=False)

    for wrap_id, error in ((unseen, WrapExpiredError), (seen, WrapConsumedError)):
        with pytest.raises(error) as caught:
            world.find(crew.asks, request_id, wrap_id, now=utc_now())
        assert caught.value.status == 410


# requests-expired


async def test_pending_requests_past_their_end_expire_and_others_stay(world: World) -> None:
    crew = Crew.build(world)
    overdue = world.patch(crew.asks, "A", "B", now=ago(days=14, minutes=1))
    # Its own wraps end after a week; these were given longer than the request.
    statement = "UPDATE secret_wraps SET expires_at = :at WHERE request_id = :id"
    world.write(statement, at=ahead(days=1), id=overdue)
    young = world.read(crew.asks, "A", now=ago(days=13, hours=23))

    swept = await sweep(world, "requests-expired")

    assert swept == Swept(counts={"expired": 1}, more=False)
    found = world.request(overdue)
    assert (found["status"], found["failure_reason"]) == ("expired", "request_ttl")
    assert found["finished_at"] is not None
    assert all(wrap["expires_at"] <= utc_now() for wrap in world.wraps_of(overdue))
    assert world.status(young) == "pending"
    (event,) = world.events(action="request.expired")
    assert (event.actor, event.resource) == ("system:worker", f"request:{overdue}")
    assert event.correlation_id == overdue
    assert event.metadata == {"reason": "request_ttl", "expected_status": "pending"}


async def test_a_request_that_is_over_does_not_expire(world: World) -> None:
    crew = Crew.build(world)
    over = ("rejected", "cancelled", "executed", "failed", "expired")
    found = {world.read(crew.asks, status, now=ago(days=30)): status for status in over}
    statement = "UPDATE access_requests SET status = :status WHERE id = :id"
    for request_id, status in found.items():
        world.write(statement, status=status, id=request_id)
    assert await sweep(world, "requests-expired") == NOTHING
    assert {request_id: world.status(request_id) for request_id in found} == found


async def test_approved_requests_expire_when_their_job_ran_out_of_time(world: World) -> None:
    crew = Crew.build(world)
    queued = crew.approved(world, hours=1, minutes=1)
    in_time = crew.approved(world, minutes=59)
    swept = await sweep(world, "requests-expired")

    assert swept == Swept(counts={"expired": 1}, more=False)
    assert (world.status(queued), world.job(queued)["status"]) == ("expired", "expired")
    assert (world.status(in_time), world.job(in_time)["status"]) == ("approved", "queued")
    assert world.request(queued)["failure_reason"] == world.job(queued)["error"] == "job_ttl"
    (event,) = world.events(action="request.expired")
    assert event.metadata == {"reason": "job_ttl", "expected_status": "approved"}
    held = world.held(crew.agent, now=utc_now())
    assert held.job.request_id == in_time, "an expired job is handed to nobody"


async def test_an_agent_at_work_may_finish_however_late(world: World) -> None:
    """A live lease keeps its request open; a lapsed one does not, whichever sweep comes first."""
    crew = Crew.build(world)
    late = crew.approved(world, "LATE", hours=1, seconds=5)
    at_work = world.held(crew.agent, now=ago(seconds=10))
    lapsed = crew.claimed(world, "LAPSED", hours=2)
    pending = world.read(crew.asks, "A", now=ago(days=14, minutes=1))

    swept = await sweep(world, "requests-expired")

    assert swept == Swept(counts={"expired": 2}, more=False)
    assert [world.status(r) for r in (late, lapsed, pending)] == ["approved", "expired", "expired"]
    world.finish(crew.agent, at_work, now=utc_now())
    assert world.status(late) == "executed"
    assert await sweep(world, "requests-expired") == NOTHING


async def test_rows_that_cannot_move_do_not_make_the_sweep_spin(world: World) -> None:
    crew = Crew.build(world)
    for key in "AB":
        crew.approved(world, key, hours=1, seconds=5)
        world.held(crew.agent, now=ago(seconds=10))
    assert await sweep(world, "requests-expired", limit=2) == NOTHING


# jobs-recovery


async def test_lapsed_jobs_go_back_into_the_queue_and_live_ones_stay(world: World) -> None:
    crew = Crew.build(world)
    lapsed = crew.claimed(world, "A", seconds=31)
    live = crew.claimed(world, "B", seconds=20)
    queued = crew.approved(world, "C", minutes=1)
    before = {request_id: world.job(request_id) for request_id in (live, queued)}

    swept = await sweep(world, "jobs-recovery")

    assert swept == Swept(counts={"requeued": 1}, more=False)
    job = world.job(lapsed)
    assert (job["status"], job["attempts"], job["error"]) == (
        "queued",
        1,
        "the agent's lease lapsed",
    )
    assert job["claimed_by"] is job["claim_expires_at"] is job["lease_token_hash"] is None
    assert {request_id: world.job(request_id) for request_id in before} == before
    assert {world.status(r) for r in (lapsed, live, queued)} == {"approved"}
    (event,) = world.events(action="job.requeued")
    assert event.correlation_id == lapsed
    assert event.metadata["attempt"] == 1


async def test_a_job_without_attempts_left_fails_with_its_request(world: World) -> None:
    crew = Crew.build(world)
    request_id = crew.claimed(world, "A", "patch", seconds=31)
    end_of_attempts(world, request_id)

    assert await sweep(world, "jobs-recovery") == Swept(counts={"failed": 1}, more=False)

    assert (world.job(request_id)["status"], world.status(request_id)) == ("failed", "failed")
    error = "no agent finished the job in 3 attempts"
    assert world.job(request_id)["error"] == world.request(request_id)["failure_reason"] == error
    assert all(wrap["expires_at"] <= utc_now() for wrap in world.wraps_of(request_id))
    trail = world.trail(request_id)
    assert trail.count(("system:jobs", "job.expired")) == 1
    assert trail.count(("system:jobs", "request.transition")) == 1


async def test_both_kinds_of_recovery_count_towards_the_limit(world: World) -> None:
    crew = Crew.build(world)
    for key in "AB":
        end_of_attempts(world, crew.claimed(world, key, seconds=40))
    for key in "CD":
        crew.claimed(world, key, seconds=35)
    first = await sweep(world, "jobs-recovery", limit=3)
    assert first == Swept(counts={"failed": 2, "requeued": 1}, more=True)
    assert await sweep(world, "jobs-recovery", limit=3) == Swept(counts={"requeued": 1}, more=False)


async def test_a_recovered_job_is_lost_to_the_agent_that_had_it(world: World) -> None:
    crew = Crew.build(world)
    crew.approved(world, minutes=1)
    held = world.held(crew.agent, now=ago(minutes=1))
    await sweep(world, "jobs-recovery")

    args: Any = {"agent": crew.agent, "job_id": held.job.id, "lease_token_hash": held.lease}
    world.refuse(LeaseLostError, jobs.renew, **args, now=utc_now())
    with pytest.raises(LeaseLostError):
        world.finish(crew.agent, held, now=utc_now())
    # It waits a moment before somebody may try again.
    assert world.claim(crew.agent, now=utc_now()) is None
    again = world.held(crew.agent, now=ahead(seconds=2))
    assert (again.job.id, again.job.attempt) == (held.job.id, 2)


# agents-stale


async def test_silent_agents_become_stale_until_they_are_heard_again(world: World) -> None:
    connection = world.connection()
    silent, heard_lately = (world.agent(connection, now=ago(hours=1)) for _ in range(2))
    heard(world, silent, minutes=5, seconds=1)
    heard(world, heard_lately, minutes=4, seconds=50)

    assert await sweep(world, "agents-stale") == Swept(counts={"flipped": 1}, more=False)

    assert (agent_status(world, silent), agent_status(world, heard_lately)) == ("stale", "active")
    (event,) = world.events(action="agent.stale")
    assert (event.actor, event.resource) == ("system:worker", f"agent:{silent.agent_id}")
    assert event.metadata.keys() == {"last_seen_at", "cutoff"}
    assert event.metadata["last_seen_at"] < event.metadata["cutoff"]
    heard(world, silent, seconds=0)
    assert agent_status(world, silent) == "active"
    assert await sweep(world, "agents-stale") == NOTHING


async def test_an_active_agent_never_heard_counts_from_its_birth(world: World) -> None:
    connection = world.connection()
    old, young = (
        world.agent(connection, now=ago(hours=1)),
        world.agent(connection, now=utc_now()),
    )
    world.write("UPDATE agents SET status = 'active', last_seen_at = NULL")
    await sweep(world, "agents-stale")
    assert (agent_status(world, old), agent_status(world, young)) == ("stale", "active")
    (event,) = world.events(action="agent.stale")
    assert event.metadata["last_seen_at"] is None


async def test_an_agent_that_is_not_active_does_not_become_stale(world: World) -> None:
    connection = world.connection()
    statuses = ("enrolled", "error", "disabled", "revoked")
    found = {status: world.agent(connection, now=ago(days=1)) for status in statuses}
    statement = "UPDATE agents SET status = :status, revoked_at = :at WHERE id = :id"
    for status, agent in found.items():
        heard(world, agent, days=1)
        at = ago(days=1) if status == "revoked" else None
        world.write(statement, status=status, at=at, id=agent.agent_id)
    assert await sweep(world, "agents-stale") == NOTHING
    assert {status: agent_status(world, agent) for status, agent in found.items()} == {
        status: status for status in statuses
    }


async def test_how_long_an_agent_may_be_silent_is_a_setting(world: World) -> None:
    agent = world.agent(world.connection(), now=ago(hours=1))
    heard(world, agent, seconds=40)
    stale_after = {"SB_WORKER_AGENTS_STALE_AFTER": "1m"}
    assert await sweep(world, "agents-stale", **stale_after) == NOTHING
    stale_after["SB_WORKER_AGENTS_STALE_AFTER"] = "30s"
    assert (await sweep(world, "agents-stale", **stale_after)).counts == {"flipped": 1}


async def test_a_stale_agent_may_still_authenticate(world: World) -> None:
    agent = world.agent(world.connection(), now=ago(hours=1))
    heard(world, agent, minutes=6)
    await sweep(world, "agents-stale")
    statement = "SELECT secret_hash FROM agents WHERE id = :id"
    (row,) = world.rows(statement, id=agent.agent_id)
    found = world.run(
        agents.authenticate,
        agent_id=agent.agent_id,
        secret_hash=bytes(row["secret_hash"]),
        now=utc_now(),
    )
    assert found.agent_id == agent.agent_id


# idempotency-expired


async def test_idempotency_keys_past_their_day_are_forgotten(world: World) -> None:
    keep_key(world, "over", ago(seconds=1))
    keep_key(world, "kept", ahead(minutes=1))
    before = world.events()
    swept = await sweep(world, "idempotency-expired")
    assert swept == Swept(counts={"deleted": 1}, more=False)
    assert [row["key"] for row in world.rows("SELECT key FROM idempotency_keys")] == ["kept"]
    assert world.events() == before, "nobody sees a difference, so nothing is on record"
