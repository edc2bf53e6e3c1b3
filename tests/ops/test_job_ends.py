"""How jobs end: reported under their lease, tried again, given up, each with its request."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.errors import SbError
from sb.ops import expiry, jobs
from sb.ops.errors import LeaseLostError
from tests.ops.job_steps import LEASE, MISSING, People, approved, people_of, recover
from tests.ops.refusals import at_once, refused
from tests.ops.world import MICROSECOND, NOW, PLANTED, Held, World, at


@pytest.fixture
def people(world: World) -> People:
    return people_of(world)


def test_complete_with_success_executes_the_request(world: World, people: People) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people, "A", kind="patch")
    held = world.held(agent)
    done = at(seconds=3)
    world.finish(agent, held, done, result={"version": 4})
    row, request = world.job(request_id), world.request(request_id)
    assert (row["status"], row["finished_at"], row["error"]) == ("succeeded", done, None)
    assert row["result"] == {"version": 4}
    assert (request["status"], request["finished_at"]) == ("executed", done)
    (wrap,) = world.wraps_of(request_id)
    assert (wrap["consumed_at"], wrap["consumed_by_agent"]) == (done, agent.agent_id)
    (event,) = world.events(action="job.complete")
    assert (event.actor, event.status, event.correlation_id) == (
        agent.actor,
        "success",
        request_id,
    )
    assert event.metadata == {"job_status": "succeeded"}
    (moved,) = world.events(action="request.transition")
    assert (moved.actor, moved.correlation_id) == ("system:jobs", request_id)
    assert moved.metadata == {"target": "executed", "job_id": held.job.id}


def test_complete_with_failure_fails_the_request_and_ends_its_values(
    world: World, people: People
) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people, "A", kind="patch")
    held = world.held(agent)
    text = f"denied: hvs.{'A' * 24} {'x' * 400}"
    world.finish(agent, held, at(seconds=3), succeeded=False, error=text)
    row, request = world.job(request_id), world.request(request_id)
    assert (row["status"], request["status"]) == ("failed", "failed")
    assert row["error"] == request["failure_reason"]
    assert row["error"].startswith("denied: [REDACTED]")
    assert len(row["error"]) <= 280
    (wrap,) = world.wraps_of(request_id)
    assert (wrap["expires_at"], wrap["consumed_at"]) == (at(seconds=3), None)
    (event,) = world.events(action="job.complete")
    assert (event.status, event.metadata) == ("failure", {"job_status": "failed"})
    assert world.events(action="request.transition")[0].metadata["target"] == "failed"
    (kept,) = world.rows("SELECT last_error FROM agents WHERE id = :id", id=agent.agent_id)
    assert kept == {"last_error": row["error"]}


@pytest.mark.parametrize("first", [True, False])
def test_complete_again_under_the_same_lease_keeps_the_first_outcome(
    world: World, people: People, first: bool
) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people, "A", kind="patch")
    held = world.held(agent)
    world.finish(agent, held, succeeded=first)
    kept = world.job(request_id), world.request(request_id), world.wraps_of(request_id)
    for again in (first, not first):
        world.finish(agent, held, at(minutes=2), succeeded=again, retryable=True)
    assert (world.job(request_id), world.request(request_id), world.wraps_of(request_id)) == kept
    assert len(world.events(action="job.complete")) == 1
    assert len(world.events(action="request.transition")) == 1
    repeats = world.events(action="job.complete.idempotent")
    assert [(event.status, event.correlation_id) for event in repeats] == [
        ("success", request_id)
    ] * 2


def test_complete_after_the_lease_is_taken_while_nobody_claimed_since(
    world: World, people: People
) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people)
    held = world.held(agent)
    world.finish(agent, held, at(minutes=5))
    assert (world.job(request_id)["status"], world.status(request_id)) == ("succeeded", "executed")


def test_complete_without_the_lease_is_refused(world: World, people: People) -> None:
    connection = world.connection()
    agent, other = world.agent(connection), world.agent(connection)
    request_id = approved(world, people, "A", kind="patch")
    held = world.held(agent)
    forged = Held(job=held.job, lease=token_hash(new_token()))
    asks = ("job.complete", f"job:{held.job.id}", "lease_lost")
    for who, what in ((other, held), (agent, forged), (other, forged)):
        refused(world, LeaseLostError, world.finish, who, what, asks=asks, about=request_id)
    # Back in the queue the job is nobody's.
    recover(world, NOW + LEASE)
    refused(world, LeaseLostError, world.finish, agent, held, asks=asks, about=request_id)
    # Nor does an end that somebody else reported become one's own.
    new = world.held(other, at(minutes=5))
    world.finish(other, new, at(minutes=5))
    refused(world, LeaseLostError, world.finish, agent, held, asks=asks, about=request_id)
    refused(
        world,
        LeaseLostError,
        world.run,
        jobs.complete,
        agent=agent,
        job_id=MISSING,
        lease_token_hash=held.lease,
        outcome=jobs.Outcome(succeeded=True),
        now=NOW,
        asks=("job.complete", f"job:{MISSING}", "lease_lost"),
    )


def test_complete_after_the_request_expired_is_refused(world: World, people: People) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people)
    held = world.held(agent)
    world.run(expiry.expire_requests, now=at(hours=1), limit=10)
    asks = ("job.complete", f"job:{held.job.id}", "lease_lost")
    refused(world, LeaseLostError, world.finish, agent, held, asks=asks, about=request_id)
    assert world.status(request_id) == "expired"
    assert world.claim(agent, at(hours=2)) is None


def test_complete_with_a_passing_failure_requeues_with_growing_delay_then_gives_up(
    world: World, people: People
) -> None:
    connection = world.connection()
    agent = world.agent(connection)
    request_id = approved(world, people, "A", kind="patch")
    now, failure = NOW, {"succeeded": False, "retryable": True, "error": "provider away"}
    for attempt, delay in ((1, 1), (2, 2)):
        held = world.held(agent, now)
        assert held.job.attempt == attempt
        assert world.finish(agent, held, now, **failure) == f"jobs:{connection}"
        row = world.job(request_id)
        assert (row["status"], row["error"]) == ("queued", "provider away")
        assert row["claim_expires_at"] is None
        assert world.status(request_id) == "approved"
        after = now + timedelta(seconds=delay)
        assert row["run_after"] == after
        assert world.claim(agent, after - MICROSECOND) is None
        now = after
    requeued = world.events(action="job.requeued")
    assert [event.metadata["attempt"] for event in requeued] == [1, 2]
    assert {event.actor for event in requeued} == {agent.actor}
    assert {event.correlation_id for event in requeued} == {request_id}
    world.finish(agent, world.held(agent, now), now, **failure)
    assert (world.job(request_id)["status"], world.status(request_id)) == ("failed", "failed")
    assert world.request(request_id)["failure_reason"] == "provider away"


def test_complete_with_a_passing_failure_twice_requeues_once(world: World, people: People) -> None:
    connection = world.connection()
    agent, other = world.agent(connection), world.agent(connection)
    request_id = approved(world, people, "A", kind="patch")
    held, failure = world.held(agent), {"succeeded": False, "retryable": True}
    world.finish(agent, held, **failure)
    kept = world.job(request_id)
    assert world.finish(agent, held, **failure) is None
    assert world.job(request_id) == kept
    assert len(world.events(action="job.requeued")) == 1
    assert len(world.events(action="job.complete.idempotent")) == 1
    # It was a failure: neither a success, nor another agent's word, nor the lease itself is back.
    asks = ("job.complete", f"job:{held.job.id}", "lease_lost")
    refused(world, LeaseLostError, world.finish, agent, held, asks=asks, about=request_id)
    with pytest.raises(LeaseLostError):
        world.finish(other, held, **failure)
    with pytest.raises(LeaseLostError):
        world.post(agent, held, "A")
    # Once it is leased again the old lease says nothing any more.
    world.held(other, at(seconds=1))
    with pytest.raises(LeaseLostError):
        world.finish(agent, held, at(seconds=1), **failure)


def test_complete_first_after_the_job_was_given_up_is_refused(world: World, people: People) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people)
    now = NOW
    for _ in range(3):
        held = world.held(agent, now)
        now += LEASE
        recover(world, now)
        now += timedelta(seconds=4)
    assert world.status(request_id) == "failed"
    asks = ("job.complete", f"job:{held.job.id}", "lease_lost")
    for succeeded in (True, False):
        refused(
            world,
            LeaseLostError,
            world.finish,
            agent,
            held,
            now,
            succeeded=succeeded,
            asks=asks,
            about=request_id,
        )
    assert (world.job(request_id)["status"], world.status(request_id)) == ("failed", "failed")


def test_recover_requeues_a_lapsed_lease_until_no_attempt_is_left(
    world: World, people: People
) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people, "A", kind="patch")
    now = NOW
    for delay in (1, 2):
        held = world.held(agent, now)
        assert recover(world, now + LEASE - MICROSECOND) == {"requeued": 0, "failed": 0}
        now += LEASE
        assert recover(world, now) == {"requeued": 1, "failed": 0}
        assert recover(world, now) == {"requeued": 0, "failed": 0}
        now += timedelta(seconds=delay)
        assert world.job(request_id)["run_after"] == now
    held = world.held(agent, now)
    now += LEASE
    # Lapsed with no attempt left: nobody claims it any more.
    assert world.claim(agent, now) is None
    assert recover(world, now) == {"requeued": 0, "failed": 1}
    assert (world.job(request_id)["status"], world.status(request_id)) == ("failed", "failed")
    assert {wrap["expires_at"] for wrap in world.wraps_of(request_id)} == {now}
    (event,) = world.events(action="job.expired")
    assert (event.actor, event.status) == ("system:jobs", "failure")
    assert (event.resource, event.correlation_id) == (f"job:{held.job.id}", request_id)
    assert world.events(action="request.transition")[0].metadata["target"] == "failed"
    assert recover(world, now + LEASE) == {"requeued": 0, "failed": 0}


def test_recover_with_a_limit_takes_the_oldest_leases(world: World, people: People) -> None:
    agent = world.agent(world.connection())
    for _ in range(3):
        approved(world, people)
    helds = [world.held(agent, at(seconds=n)) for n in range(3)]
    assert recover(world, at(minutes=1), limit=2) == {"requeued": 2, "failed": 0}
    left = world.rows("SELECT id FROM sync_jobs WHERE status = 'claimed'")
    assert left == [{"id": helds[2].job.id}]
    assert recover(world, at(minutes=1), limit=2) == {"requeued": 1, "failed": 0}


def test_complete_and_recover_at_once_have_one_outcome(world: World, people: People) -> None:
    agent = world.agent(world.connection())
    now = NOW + LEASE
    for _ in range(4):
        request_id = approved(world, people)
        held = world.held(agent)
        completed, *sweeps = at_once(
            [
                lambda found=held: world.finish(agent, found, now),
                lambda: recover(world, now),
                lambda: recover(world, now),
            ]
        )
        requeued = sum(sweep["requeued"] for sweep in sweeps)
        if isinstance(completed, SbError):
            assert type(completed) is LeaseLostError
            assert (requeued, world.job(request_id)["status"]) == (1, "queued")
            world.finish(agent, world.held(agent, at(minutes=2)), at(minutes=2))
        else:
            assert (requeued, world.status(request_id)) == (0, "executed")
    assert PLANTED not in repr(world.rows("SELECT payload FROM sync_jobs"))
