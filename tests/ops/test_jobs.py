"""Jobs: who may claim which, and the lease that fences everybody else off."""

from __future__ import annotations

from datetime import datetime

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.errors import ConstraintViolatedError
from sb.ids import new_id
from sb.ops import approvals
from sb.ops.errors import LeaseLostError
from tests.ops.job_steps import LEASE, People, approved, claimed, minted, people_of, recover, renew
from tests.ops.refusals import at_once, kinds, refused
from tests.ops.tenancy import Tenancy
from tests.ops.world import MICROSECOND, NOW, TEST, Held, World, at


@pytest.fixture
def people(world: World) -> People:
    return people_of(world)


def test_enqueue_for_one_request_twice_is_refused(world: World, people: People) -> None:
    world.connection()
    request_id = approved(world, people)
    error = refused(
        world,
        ConstraintViolatedError,
        world.run,
        approvals.enqueue,
        row=world.request(request_id),
        job_id=new_id(),
        by=TEST,
        now=NOW,
        asks=None,
    )
    assert getattr(error, "constraint", None) == "sync_jobs_request_key"


def test_claim_gives_the_job_and_leaves_an_audit_row(world: World, people: People) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people, "A")
    held = world.held(agent, at(seconds=5))
    row = world.job(request_id)
    assert (held.job.id, held.job.job_type) == (row["id"], "read")
    assert (held.job.correlation_id, held.job.request_id) == (request_id, request_id)
    assert (held.job.attempt, held.job.max_attempts) == (1, 3)
    assert held.job.claim_expires_at == row["claim_expires_at"] == at(seconds=35)
    assert held.job.payload["target_keys"] == ["A"]
    assert (row["status"], row["claimed_by"]) == ("claimed", agent.agent_id)
    (event,) = world.events(action="job.claim")
    assert (event.actor, event.resource) == (agent.actor, f"job:{row['id']}")
    assert (event.correlation_id, event.metadata["attempt"]) == (request_id, 1)
    assert held.lease.hex() not in repr(world.events())


def test_claim_takes_the_oldest_first_and_each_once(world: World, people: People) -> None:
    agent = world.agent(world.connection())
    made = [approved(world, people, now=at(seconds=n)) for n in range(3)]
    found = [claimed(world, agent, at(seconds=5)) for _ in range(4)]
    assert found == [*made, None]


def test_claim_without_affinity_finds_nothing(world: World, people: People) -> None:
    mine, other = world.connection(), world.connection()
    stranger, agent = world.agent(other), world.agent(mine)
    unbound = minted(world)
    request_id = approved(world, people, provider_connection_id=mine)
    assert claimed(world, stranger) is None
    # An agent without a connection covers no job that names one, even of its own type.
    assert claimed(world, unbound) is None
    assert claimed(world, minted(world, provider="file")) is None
    assert world.events(action="job.claim") == []
    assert claimed(world, agent) == request_id


def test_claim_on_another_cluster_finds_nothing(world: World) -> None:
    tenancy = Tenancy.build(world)
    anywhere = world.connection("vault")
    world.write("UPDATE provider_connections SET type = 'file' WHERE id = :id", id=anywhere)
    # The secret was bound on `east`; the connection serves any cluster.
    tenancy.bind("app/any", anywhere, "east", ops=["read"])
    request_id = tenancy.read(tenancy.developer, target_secret_ref="app/any")
    tenancy.approve(tenancy.approver, request_id)
    assert world.job(request_id)["cluster_name"] == "east"
    west, nowhere = world.agent(anywhere, cluster_name="west"), world.agent(anywhere)
    assert claimed(world, west) is None
    assert claimed(world, nowhere) is None
    assert claimed(world, world.agent(anywhere, cluster_name="east")) == request_id


def test_claim_of_an_unbound_job_goes_by_provider_type(world: World, people: People) -> None:
    # With no connection of the type the job names none.
    bound = world.agent(world.connection("vault"))
    first, second = approved(world, people), approved(world, people)
    assert world.job(first)["provider_connection_id"] is None
    assert claimed(world, bound) is None
    assert claimed(world, minted(world, provider="vault")) is None
    assert claimed(world, minted(world, provider="file", cluster="east")) == first
    assert claimed(world, minted(world)) == second


def test_claim_of_a_held_job_waits_for_the_end_of_its_lease(world: World, people: People) -> None:
    connection = world.connection()
    first, second = world.agent(connection), world.agent(connection)
    request_id = approved(world, people, "A")
    old = world.held(first)
    assert world.claim(second, NOW + LEASE - MICROSECOND) is None
    new = world.held(second, NOW + LEASE)
    assert (new.job.id, new.job.attempt) == (old.job.id, 2)
    assert world.job(request_id)["claimed_by"] == second.agent_id
    # The first holder is fenced off from everything the job allows.
    now, job, request = NOW + LEASE, f"job:{old.job.id}", f"request:{request_id}"
    for call, asks in (
        (lambda: renew(world, first, old, now), ("job.renew", job, "lease_lost")),
        (lambda: world.post(first, old, "A", now), ("wrap.create", request, "lease_lost")),
        (lambda: world.finish(first, old, now), ("job.complete", job, "lease_lost")),
    ):
        refused(world, LeaseLostError, call, asks=asks)
    world.post(second, new, "A", now)
    world.finish(second, new, now)
    assert world.status(request_id) == "executed"


def test_claim_again_by_the_same_agent_fences_its_own_old_lease(
    world: World, people: People
) -> None:
    agent = world.agent(world.connection())
    approved(world, people)
    old, new = world.held(agent), world.held(agent, NOW + LEASE)
    asks = ("job.complete", f"job:{old.job.id}", "lease_lost")
    refused(world, LeaseLostError, world.finish, agent, old, NOW + LEASE, asks=asks)
    assert renew(world, agent, new, NOW + LEASE) == NOW + 2 * LEASE


@pytest.mark.parametrize(("kind", "ends_at"), [("patch", at(seconds=310)), ("read", None)])
def test_claim_of_a_patch_starts_the_claimed_lifetime_of_its_values(
    world: World, people: People, kind: str, ends_at: datetime | None
) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people, "A", "B", kind=kind)
    world.held(agent, at(seconds=10))
    found = {wrap["expires_at"] for wrap in world.wraps_of(request_id)}
    assert found == ({ends_at} if ends_at else set())


def test_renew_before_the_end_moves_it(world: World, people: People) -> None:
    agent = world.agent(world.connection())
    request_id = approved(world, people)
    held = world.held(agent)
    last = NOW + LEASE - MICROSECOND
    assert renew(world, agent, held, last) == last + LEASE
    assert world.job(request_id)["claim_expires_at"] == last + LEASE
    assert recover(world, NOW + LEASE) == {"requeued": 0, "failed": 0}
    assert world.claim(agent, NOW + LEASE) is None


def test_renew_without_the_live_lease_is_refused(world: World, people: People) -> None:
    connection = world.connection()
    agent, other = world.agent(connection), world.agent(connection)
    approved(world, people)
    held = world.held(agent)
    forged = Held(job=held.job, lease=token_hash(new_token()))
    asks = ("job.renew", f"job:{held.job.id}", "lease_lost")
    refused(world, LeaseLostError, renew, world, agent, held, NOW + LEASE, asks=asks)
    refused(world, LeaseLostError, renew, world, other, held, NOW, asks=asks)
    refused(world, LeaseLostError, renew, world, agent, forged, NOW, asks=asks)
    world.finish(agent, held)
    refused(world, LeaseLostError, renew, world, agent, held, NOW, asks=asks)


def test_claim_by_twenty_at_once_gives_no_job_twice(world: World, people: People) -> None:
    connection = world.connection()
    crowd = [world.agent(connection) for _ in range(20)]
    made = {approved(world, people) for _ in range(20)}
    outcomes = at_once([lambda who=who: world.held(who) for who in crowd])
    assert kinds(outcomes) == {"ok": 20}
    assert {held.job.request_id for held in outcomes} == made
    rows = world.rows("SELECT claimed_by, attempts FROM sync_jobs")
    assert {row["claimed_by"] for row in rows} == {who.agent_id for who in crowd}
    assert {row["attempts"] for row in rows} == {1}
    assert len(world.events(action="job.claim")) == 20
    assert at_once([lambda who=who: world.claim(who) for who in crowd[:5]]) == [None] * 5
