"""What ends by itself: nothing waits for ever, nothing ends under an agent's hands."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from sb.errors import SbError
from sb.ops import expiry, jobs, requests
from sb.ops.callers import AgentCaller
from sb.ops.errors import LeaseLostError, WrapConsumedError
from tests.ops.job_steps import LEASE, People, approved, people_of, recover, renew
from tests.ops.refusals import at_once, everything, refused
from tests.ops.world import MICROSECOND, World, at


@pytest.fixture
def people(world: World) -> People:
    return people_of(world)


@pytest.fixture
def agent(world: World) -> AgentCaller:
    return world.agent(world.connection())


def expire(world: World, now: datetime, limit: int = 10) -> dict[str, int]:
    return dict(world.run(expiry.expire_requests, now=now, limit=limit))


NOTHING = {"seen": 0, "expired": 0}
ONE = {"seen": 1, "expired": 1}


def test_expire_before_the_end_changes_nothing(
    world: World, people: People, agent: AgentCaller
) -> None:
    world.patch(people[0], "A")
    approved(world, people, "A", kind="patch")
    before = everything(world)
    # The approved one ends with its job's hour, the pending one with its fortnight.
    assert expire(world, at(hours=1) - MICROSECOND) == NOTHING
    assert everything(world) == before
    assert expire(world, at(hours=1)) == ONE
    assert expire(world, at(days=14) - MICROSECOND) == NOTHING
    assert expire(world, at(days=14)) == ONE


def test_a_pending_request_past_its_end_is_overdue_until_it_is_swept(
    world: World, people: People, agent: AgentCaller
) -> None:
    world.rule({}, request_ttl_seconds=600)
    waiting = world.read(people[0])
    done = approved(world, people, "A")

    def told(now: datetime) -> dict[str, tuple[str, bool]]:
        page: dict[str, Any] = {"filters": requests.Filters(), "before": None, "limit": 10}
        listed = world.run(requests.list_requests, caller=people[0], now=now, **page)
        for seen in listed:
            one = world.run(requests.show, caller=people[0], request_id=seen.row["id"], now=now)
            assert (one.overdue, one.row["status"]) == (seen.overdue, seen.row["status"])
        return {seen.row["id"]: (seen.row["status"], seen.overdue) for seen in listed}

    end = at(minutes=10)
    pending, other = ("pending", False), ("approved", False)
    assert told(end - MICROSECOND) == {waiting: pending, done: other}
    assert told(end) == {waiting: ("pending", True), done: other}
    assert told(at(days=1)) == {waiting: ("pending", True), done: other}
    assert expire(world, end) == ONE
    assert told(end) == {waiting: ("expired", False), done: other}


def test_expire_of_a_pending_request_ends_it_with_its_values(
    world: World, people: People, agent: AgentCaller
) -> None:
    world.rule({}, request_ttl_seconds=600)
    request_id = world.patch(people[0], "A", "B")
    assert expire(world, at(minutes=10)) == ONE
    row = world.request(request_id)
    assert (row["status"], row["failure_reason"]) == ("expired", "request_ttl")
    assert (row["finished_at"], row["job_id"]) == (at(minutes=10), None)
    assert {wrap["expires_at"] for wrap in world.wraps_of(request_id)} == {at(minutes=10)}
    (event,) = world.events(action="request.expired")
    assert (event.actor, event.status) == ("system:worker", "success")
    assert (event.resource, event.correlation_id) == (f"request:{request_id}", request_id)
    assert event.metadata == {"reason": "request_ttl", "expected_status": "pending"}
    assert expire(world, at(minutes=20)) == NOTHING


def test_expire_of_an_approved_request_ends_its_unclaimed_job(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A", kind="patch")
    assert expire(world, at(hours=1)) == ONE
    assert (world.status(request_id), world.job(request_id)["status"]) == ("expired", "expired")
    assert world.request(request_id)["failure_reason"] == "job_ttl"
    assert world.job(request_id)["finished_at"] == at(hours=1)
    (event,) = world.events(action="request.expired")
    assert event.metadata == {"reason": "job_ttl", "expected_status": "approved"}
    assert world.claim(agent, at(hours=1)) is None


def test_expire_waits_for_the_agent_that_holds_the_job(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A")
    held = world.held(agent, at(minutes=59, seconds=45))
    assert (
        renew(world, agent, held, at(hours=1) - MICROSECOND)
        == at(hours=1, seconds=30) - MICROSECOND
    )
    # From the end on the lease cannot be prolonged any more: no agent keeps a request for ever.
    with pytest.raises(LeaseLostError):
        renew(world, agent, held, at(hours=1))
    before = everything(world)
    assert expire(world, at(hours=1, seconds=29)) == NOTHING
    assert everything(world) == before
    world.finish(agent, held, at(hours=1, seconds=29))
    assert world.status(request_id) == "executed"
    assert expire(world, at(hours=2)) == NOTHING


def test_expire_after_the_lease_lapsed_fences_the_agent_off(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A")
    held = world.held(agent, at(minutes=59, seconds=45))
    end = at(hours=1, seconds=15)
    assert expire(world, end - MICROSECOND) == NOTHING
    assert expire(world, end) == ONE
    asks = ("job.complete", f"job:{held.job.id}", "lease_lost")
    refused(world, LeaseLostError, world.finish, agent, held, end, asks=asks, about=request_id)
    asks = ("wrap.create", f"request:{request_id}", "lease_lost")
    refused(world, LeaseLostError, world.post, agent, held, "A", end, asks=asks, about=request_id)
    assert recover(world, at(hours=2)) == {"requeued": 0, "failed": 0}


def test_expire_ends_a_job_that_waits_for_another_attempt(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A")
    held = world.held(agent, at(minutes=59))
    world.finish(agent, held, at(minutes=59), succeeded=False, retryable=True)
    assert expire(world, at(hours=1)) == ONE
    assert world.job(request_id)["status"] == "expired"
    assert world.claim(agent, at(hours=1)) is None


def test_expire_leaves_requests_that_have_ended(
    world: World, people: People, agent: AgentCaller
) -> None:
    done, failed = approved(world, people), approved(world, people)
    world.finish(agent, world.held(agent))
    world.finish(agent, world.held(agent), succeeded=False)
    before = everything(world)
    assert expire(world, at(days=400)) == NOTHING
    assert everything(world) == before
    assert (world.status(done), world.status(failed)) == ("executed", "failed")


def test_expire_with_a_limit_takes_the_oldest(
    world: World, people: People, agent: AgentCaller
) -> None:
    made = [world.read(people[0], now=at(seconds=n)) for n in range(3)]
    assert expire(world, at(days=15), limit=2) == {"seen": 2, "expired": 2}
    assert [world.status(request_id) for request_id in made] == ["expired", "expired", "pending"]
    assert expire(world, at(days=15), limit=2) == ONE


def test_expire_twice_at_once_ends_each_request_once(
    world: World, people: People, agent: AgentCaller
) -> None:
    for _ in range(4):
        world.read(people[0])
        approved(world, people, "A")
    outcomes = at_once([lambda: expire(world, at(days=15))] * 4)
    assert sum(counts["expired"] for counts in outcomes) == 8
    assert len(world.events(action="request.expired")) == 8


def test_expire_and_claim_at_once_have_one_outcome(
    world: World, people: People, agent: AgentCaller
) -> None:
    for _ in range(5):
        request_id = approved(world, people, "A")
        _, held = at_once(
            [lambda: expire(world, at(hours=1)), lambda: world.claim(agent, at(hours=1))]
        )
        assert not isinstance(held, SbError)
        status = "expired" if held is None else "approved"
        assert world.status(request_id) == status
        assert world.job(request_id)["status"] == ("expired" if held is None else "claimed")
        if held is not None:
            world.finish(agent, held, at(hours=1))


def test_expire_and_approve_at_once_have_one_outcome(
    world: World, people: People, agent: AgentCaller
) -> None:
    # Their clocks disagree by a moment: the vote is cast just before the end the sweep sees.
    world.rule({}, request_ttl_seconds=60)
    for _ in range(5):
        request_id = world.patch(people[0], "A")
        counts, seen = at_once(
            [
                lambda: expire(world, at(seconds=60)),
                lambda found=request_id: world.approve(
                    people[1], found, at(seconds=60) - MICROSECOND
                ),
            ]
        )
        won = "expired" if isinstance(seen, SbError) else "approved"
        assert world.status(request_id) == won
        assert counts["expired"] == (1 if won == "expired" else 0)
        made = world.rows("SELECT id FROM sync_jobs WHERE request_id = :id", id=request_id)
        assert len(made) == (1 if won == "approved" else 0)


def test_expire_and_complete_at_once_have_one_outcome(
    world: World, people: People, agent: AgentCaller
) -> None:
    now = at(hours=1) + LEASE
    for _ in range(5):
        request_id = approved(world, people, "A")
        held = world.held(agent, at(hours=1) - MICROSECOND)
        _, _, done = at_once(
            [
                lambda: expire(world, now),
                lambda: world.run(jobs.recover, now=now, limit=10),
                lambda found=held: world.finish(agent, found, now),
            ]
        )
        # Whichever came first, the request is over or its job waits for its end.
        expire(world, at(hours=2))
        ended = world.status(request_id)
        assert ended == ("expired" if isinstance(done, SbError) else "executed")


def test_purge_keeps_a_spent_value_while_its_job_could_post_it_again(world: World) -> None:
    dev, approver = world.person("dev", "developer"), world.person("approver", "approver")
    agent = world.agent(world.connection())
    world.rule({"operation": "read"}, wrap_ttl_approved_seconds=25)
    request_id = world.read(dev, "A")
    world.approve(approver, request_id)
    held = world.held(agent, at(seconds=1))
    wrap_id = world.post(agent, held, "A", at(seconds=2))
    world.reveal(dev, request_id, wrap_id, at(seconds=3))

    assert world.run(expiry.purge_wraps, now=at(seconds=27), limit=10) == 0

    assert world.post(agent, held, "A", at(seconds=28)) == wrap_id
    with pytest.raises(WrapConsumedError):
        world.reveal(dev, request_id, wrap_id, at(seconds=29))
