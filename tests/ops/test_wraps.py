"""Wraps: stored by whoever may, opened once, and 410 for ever after, even without a row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.kms.envelope import ERASED, open_wrap
from sb.ops import expiry, wraps
from sb.ops.callers import AgentCaller
from sb.ops.errors import (
    KeyNotRequestedError,
    LeaseLostError,
    NotTheRequesterError,
    ReadRequestsOnlyError,
    RequestNotFoundError,
    WrapConsumedError,
    WrapExpiredError,
    WrapNotFoundError,
)
from sb.ops.tenancy_errors import BindingRevokedError
from tests.ops.job_steps import LEASE, MISSING, People, approved, people_of
from tests.ops.refusals import everything, refused
from tests.ops.tenancy import Tenancy
from tests.ops.world import MICROSECOND, NOW, PLANTED, Held, World, at, post_args


@pytest.fixture
def people(world: World) -> People:
    return people_of(world)


@pytest.fixture
def agent(world: World) -> AgentCaller:
    return world.agent(world.connection())


def fetch(
    world: World, agent: AgentCaller, held: Held, wrap_id: str, now: datetime = NOW
) -> wraps.StoredWrap:
    found: wraps.StoredWrap = world.run(
        wraps.find_for_agent,
        agent=agent,
        lease_token_hash=held.lease,
        wrap_id=wrap_id,
        now=now,
    )
    return found


def purge(world: World, now: datetime, limit: int = 100) -> int:
    return int(world.run(expiry.purge_wraps, now=now, limit=limit))


def erased(world: World, request_id: str) -> list[bool]:
    """Tell of each wrap, in key order, whether neither ciphertext nor data key is left."""
    return [
        (bytes(wrap["encrypted_value"]), bytes(wrap["data_key_ciphertext"])) == (ERASED, ERASED)
        for wrap in world.wraps_of(request_id)
    ]


def test_store_under_the_lease_keeps_a_sealed_wrap(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A")
    held = world.held(agent)
    wrap_id = world.post(agent, held, "A", at(seconds=5))
    (row,) = world.wraps_of(request_id)
    assert (row["id"], row["key_name"], row["consumed_at"]) == (wrap_id, "A", None)
    # The lifetime runs from the post, by the request's own snapshot.
    assert row["expires_at"] == at(hours=1, seconds=5)
    assert row["byte_length"] == len(f"{PLANTED}A")
    assert PLANTED not in repr(everything(world))
    (event,) = world.events(action="wrap.create")
    assert (event.actor, event.resource) == (agent.actor, f"wrap:{wrap_id}")
    assert (event.correlation_id, event.metadata["ttl_seconds"]) == (request_id, 3600)


def test_store_of_an_unseen_key_again_replaces_it(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A")
    held = world.held(agent)
    old = world.post(agent, held, "A")
    new = world.sealed(request_id, "A", text=f"{PLANTED}newer-")
    state = world.run(wraps.store_from_agent, **post_args(agent, held, new), now=at(seconds=9))
    assert (state.id, state.consumed, state.created_at) == (new.id, False, at(seconds=9))
    assert [row["id"] for row in world.wraps_of(request_id)] == [new.id]
    assert world.wraps_of(request_id)[0]["expires_at"] == at(hours=1, seconds=9)
    # Whoever still holds the old id learns that it is over, not that it never was.
    asks = ("wrap.retrieve", f"wrap:{old}", "expired")
    refused(
        world, WrapExpiredError, world.find, people[0], request_id, old, asks=asks, about=request_id
    )
    assert world.reveal(people[0], request_id, new.id) == f"{PLANTED}newer-A"


def test_store_of_a_seen_key_again_keeps_the_spent_wrap(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A")
    held = world.held(agent)
    wrap_id = world.post(agent, held, "A")
    assert world.reveal(people[0], request_id, wrap_id) == f"{PLANTED}A"
    before = everything(world)
    state = world.run(
        wraps.store_from_agent, **post_args(agent, held, world.sealed(request_id, "A")), now=NOW
    )
    assert (state.id, state.consumed) == (wrap_id, True)
    # At most once: the value does not come back with a second execution, nor does an audit row.
    assert everything(world) == before
    asks = ("wrap.retrieve", f"wrap:{wrap_id}", "already_consumed")
    refused(world, WrapConsumedError, world.find, people[0], request_id, wrap_id, asks=asks)


def test_store_without_the_live_lease_is_refused(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, other_id = approved(world, people, "A"), approved(world, people, "A")
    colleague = world.agent(agent.provider_connection_id or "")
    held, other = world.held(agent), world.held(colleague)
    assert (held.job.request_id, other.job.request_id) == (request_id, other_id)
    forged = Held(job=held.job, lease=token_hash(new_token()))
    swapped = Held(job=held.job, lease=other.lease)
    asks = ("wrap.create", f"request:{request_id}", "lease_lost")
    for call in (
        lambda: world.post(agent, held, "A", NOW + LEASE),
        lambda: world.post(agent, forged, "A"),
        lambda: world.post(colleague, held, "A"),
        lambda: world.post(colleague, swapped, "A"),
    ):
        refused(world, LeaseLostError, call, asks=asks, about=request_id)
    world.finish(agent, held)
    refused(world, LeaseLostError, world.post, agent, held, "A", asks=asks, about=request_id)


def test_store_of_a_key_nobody_asked_for_is_refused(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A", "B")
    held = world.held(agent)
    asks = ("wrap.create", f"request:{request_id}", "key_not_requested")
    refused(world, KeyNotRequestedError, world.post, agent, held, "C", asks=asks, about=request_id)
    refused(world, KeyNotRequestedError, world.post, agent, held, "a", asks=asks, about=request_id)


def test_store_for_a_request_of_every_key_takes_any(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people)
    held = world.held(agent)
    for key in ("A", "b/c|d", "ключ"):
        wrap_id = world.post(agent, held, key)
        assert world.reveal(people[0], request_id, wrap_id) == f"{PLANTED}{key}"


def test_store_after_the_binding_is_gone_is_refused(world: World) -> None:
    tenancy = Tenancy.build(world)
    agent, request_id = world.agent(tenancy.east), tenancy.read(tenancy.developer, "A")
    tenancy.approve(tenancy.approver, request_id)
    held = world.held(agent)
    world.write("DELETE FROM project_secrets")
    asks = ("wrap.create", f"request:{request_id}", "binding_revoked")
    refused(world, BindingRevokedError, world.post, agent, held, "A", asks=asks, about=request_id)


def test_store_for_a_patch_is_refused(world: World, people: People, agent: AgentCaller) -> None:
    approved(world, people, "A", kind="patch")
    held = world.held(agent)
    refused(world, ReadRequestsOnlyError, world.post, agent, held, "A", asks=None)


def test_fetch_by_the_agent_under_its_lease_gives_the_value_again_and_again(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A", kind="patch")
    held = world.held(agent)
    (wrap_id,) = (wrap["id"] for wrap in world.wraps_of(request_id))
    for _ in range(2):
        found = fetch(world, agent, held, wrap_id)
        value = open_wrap(
            world.kms, found.sealed, wrap_id=wrap_id, request_id=request_id, key_name="A"
        )
        # The value goes into the test's comparison.
        assert value.reveal().decode() == f"{PLANTED}A"
    assert erased(world, request_id) == [False]
    seen = world.events(action="wrap.retrieve", status="success")
    assert [(event.actor, event.correlation_id) for event in seen] == [
        (agent.actor, request_id)
    ] * 2
    world.finish(agent, held)
    assert erased(world, request_id) == [True]


def test_fetch_without_the_live_lease_is_refused(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A", kind="patch")
    approved(world, people, "A", kind="patch")
    colleague = world.agent(agent.provider_connection_id or "")
    held, other = world.held(agent), world.held(colleague)
    (wrap_id,) = (wrap["id"] for wrap in world.wraps_of(request_id))
    asks = ("wrap.retrieve", f"wrap:{wrap_id}", "lease_lost")
    for call in (
        lambda: fetch(world, agent, held, wrap_id, NOW + LEASE),
        lambda: fetch(world, colleague, held, wrap_id),
        lambda: fetch(world, colleague, other, wrap_id),
    ):
        refused(world, LeaseLostError, call, asks=asks, about=request_id)
    # One that never was is refused as what is not the agent's.
    missing = ("wrap.retrieve", f"wrap:{MISSING}", "lease_lost")
    refused(world, LeaseLostError, fetch, world, agent, held, MISSING, asks=missing)
    world.finish(agent, held)
    refused(world, LeaseLostError, fetch, world, agent, held, wrap_id, asks=asks)


def test_fetch_of_an_expired_value_is_refused(
    world: World, people: People, agent: AgentCaller
) -> None:
    world.rule({}, wrap_ttl_claimed_seconds=10)
    request_id = approved(world, people, "A", kind="patch")
    held = world.held(agent)
    (wrap_id,) = (wrap["id"] for wrap in world.wraps_of(request_id))
    assert fetch(world, agent, held, wrap_id, at(seconds=10) - MICROSECOND)
    asks = ("wrap.retrieve", f"wrap:{wrap_id}", "expired")
    refused(world, WrapExpiredError, fetch, world, agent, held, wrap_id, at(seconds=10), asks=asks)


def test_fetch_of_a_read_value_by_the_agent_finds_nothing(
    world: World, people: People, agent: AgentCaller
) -> None:
    approved(world, people, "A")
    held = world.held(agent)
    wrap_id = world.post(agent, held, "A")
    refused(world, WrapNotFoundError, fetch, world, agent, held, wrap_id, asks=None)


def test_reveal_once_gives_the_value_and_erases_it(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, dev = approved(world, people, "A", "B"), people[0]
    held = world.held(agent)
    first, second = world.post(agent, held, "A"), world.post(agent, held, "B")
    world.finish(agent, held)
    assert world.reveal(dev, request_id, first, at(minutes=1)) == f"{PLANTED}A"
    assert erased(world, request_id) == [True, False]
    row = world.wraps_of(request_id)[0]
    assert (row["consumed_at"], row["consumed_by_user"]) == (at(minutes=1), dev.user_id)
    assert row["consumed_by_agent"] is None
    (event,) = world.events(action="wrap.retrieve")
    assert (event.actor, event.resource) == (dev.actor, f"wrap:{first}")
    assert event.correlation_id == request_id
    asks = ("wrap.retrieve", f"wrap:{first}", "already_consumed")
    refused(
        world, WrapConsumedError, world.find, dev, request_id, first, asks=asks, about=request_id
    )
    # One key spent leaves the other as it was.
    assert world.reveal(dev, request_id, second) == f"{PLANTED}B"
    states = world.run(wraps.list_wraps, caller=dev, request_id=request_id)
    assert [(state.key_name, state.consumed) for state in states] == [("A", True), ("B", True)]


def test_reveal_by_anybody_else_is_refused(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A")
    wrap_id = world.post(agent, world.held(agent), "A")
    resource = f"request:{request_id}"
    for other in (people[1], world.person("admin", "admin"), world.person("d", "developer")):
        asks = ("wrap.retrieve", resource, "not_requester")
        call: Callable[..., Any] = world.find
        refused(world, NotTheRequesterError, call, other, request_id, wrap_id, asks=asks)
        asks = ("wrap.list", resource, "not_requester")
        call = world.run
        refused(
            world,
            NotTheRequesterError,
            call,
            wraps.list_wraps,
            caller=other,
            request_id=request_id,
            asks=asks,
            about=request_id,
        )
    nobody = world.person("nobody")
    refused(world, RequestNotFoundError, world.find, nobody, request_id, wrap_id, asks=None)


def test_reveal_under_another_request_finds_nothing(
    world: World, people: People, agent: AgentCaller
) -> None:
    mine, other = approved(world, people, "A"), approved(world, people, "A")
    wrap_id = world.post(agent, world.held(agent), "A")
    dev = people[0]
    for found in (wrap_id, MISSING):
        refused(world, WrapNotFoundError, world.find, dev, other, found, asks=None)
    # Nor once only the trail remembers it.
    assert purge(world, at(days=1)) == 1
    refused(world, WrapNotFoundError, world.find, dev, other, wrap_id, at(days=1), asks=None)
    asks = ("wrap.retrieve", f"wrap:{wrap_id}", "expired")
    refused(world, WrapExpiredError, world.find, dev, mine, wrap_id, at(days=1), asks=asks)


def test_reveal_of_a_patch_value_finds_nothing(world: World, people: People) -> None:
    world.connection()
    request_id = approved(world, people, "A", kind="patch")
    (wrap_id,) = (wrap["id"] for wrap in world.wraps_of(request_id))
    refused(world, WrapNotFoundError, world.find, people[0], request_id, wrap_id, asks=None)
