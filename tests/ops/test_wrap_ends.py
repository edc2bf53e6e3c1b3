"""What becomes of wraps: spent by one of many, expired, swept, with their request, or damaged."""

from __future__ import annotations

from datetime import datetime

import pytest

from sb.errors import SbError
from sb.kms.envelope import ERASED, WrapIntegrityError, open_wrap, unwrap_key
from sb.ops import approvals, audit, expiry, jobs, requests, wraps
from sb.ops.callers import AgentCaller
from sb.ops.errors import (
    RequestNotRetrievableError,
    WrapConsumedError,
    WrapExpiredError,
    WrapNotFoundError,
)
from tests.ops.job_steps import LEASE, People, approved, people_of
from tests.ops.refusals import at_once, everything, kinds, refused
from tests.ops.world import MICROSECOND, NOW, PLANTED, World, at


@pytest.fixture
def people(world: World) -> People:
    return people_of(world)


@pytest.fixture
def agent(world: World) -> AgentCaller:
    return world.agent(world.connection())


def purge(world: World, now: datetime, limit: int = 100) -> int:
    return int(world.run(expiry.purge_wraps, now=now, limit=limit))


def executed(world: World, people: People, agent: AgentCaller) -> tuple[str, str]:
    """Return an executed read and its wrap, which nobody has seen yet."""
    request_id = approved(world, people, "A")
    held = world.held(agent)
    wrap_id = world.post(agent, held, "A")
    world.finish(agent, held)
    return request_id, wrap_id


def test_reveal_at_the_end_of_the_wrap_is_refused(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, wrap_id = executed(world, people, agent)
    dev, asks = people[0], ("wrap.retrieve", f"wrap:{wrap_id}", "expired")
    found = world.find(dev, request_id, wrap_id, at(hours=1) - MICROSECOND)
    for call in (
        lambda: world.find(dev, request_id, wrap_id, at(hours=1)),
        # The end that comes between looking and spending counts as well.
        lambda: world.run(wraps.spend_by_requester, caller=dev, wrap=found, now=at(hours=1)),
    ):
        error = refused(world, WrapExpiredError, call, asks=asks, about=request_id)
        assert error.status == 410
    world.run(wraps.spend_by_requester, caller=dev, wrap=found, now=at(hours=1) - MICROSECOND)


@pytest.mark.parametrize("spent", [True, False])
def test_reveal_after_the_sweep_is_gone_for_good(
    world: World, people: People, agent: AgentCaller, spent: bool
) -> None:
    request_id, wrap_id = executed(world, people, agent)
    error: type[SbError] = WrapExpiredError
    dev, kind = people[0], "expired"
    if spent:
        world.reveal(dev, request_id, wrap_id)
        error, kind = WrapConsumedError, "already_consumed"
    assert purge(world, at(hours=1) - MICROSECOND) == 0
    assert purge(world, at(hours=1)) == 1
    assert world.wraps_of(request_id) == []
    asks = ("wrap.retrieve", f"wrap:{wrap_id}", kind)
    for later in (at(hours=1), at(days=400)):
        found = refused(
            world, error, world.find, dev, request_id, wrap_id, later, asks=asks, about=request_id
        )
        assert found.status == 410


def test_spend_of_a_wrap_swept_since_it_was_found_is_gone(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, wrap_id = executed(world, people, agent)
    found = world.find(people[0], request_id, wrap_id)
    purge(world, at(hours=1))
    refused(
        world,
        WrapExpiredError,
        world.run,
        wraps.spend_by_requester,
        caller=people[0],
        wrap=found,
        now=at(hours=1),
        asks=("wrap.retrieve", f"wrap:{wrap_id}", "expired"),
        about=request_id,
    )


def test_reveal_of_what_was_denied_before_does_not_count_as_spent(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, wrap_id = executed(world, people, agent)
    error = refused(
        world,
        WrapExpiredError,
        world.find,
        people[0],
        request_id,
        wrap_id,
        at(hours=1),
        asks=("wrap.retrieve", f"wrap:{wrap_id}", "expired"),
    )
    world.run(audit.record_denial, denial=error.audit, by=people[0], now=at(hours=1))
    purge(world, at(hours=1))
    asks = ("wrap.retrieve", f"wrap:{wrap_id}", "expired")
    refused(
        world, WrapExpiredError, world.find, people[0], request_id, wrap_id, at(hours=2), asks=asks
    )


@pytest.mark.parametrize("ended", ["failed", "expired"])
def test_reveal_after_the_request_ended_otherwise_is_refused(
    world: World, people: People, agent: AgentCaller, ended: str
) -> None:
    request_id, dev = approved(world, people, "A", "B"), people[0]
    held = world.held(agent)
    wrap_id = world.post(agent, held, "A")
    found = world.find(dev, request_id, wrap_id)
    if ended == "failed":
        now = at(seconds=5)
        world.finish(agent, held, now, succeeded=False)
    else:
        now = at(hours=1)
        world.run(expiry.expire_requests, now=now, limit=10)
    assert world.status(request_id) == ended
    error = refused(
        world, RequestNotRetrievableError, world.find, dev, request_id, wrap_id, now, asks=None
    )
    assert error.details == {"status_now": ended}
    # Whoever looked before the end comes too late to spend it.
    asks = ("wrap.retrieve", f"wrap:{wrap_id}", "expired")
    refused(
        world,
        WrapExpiredError,
        world.run,
        wraps.spend_by_requester,
        caller=dev,
        wrap=found,
        now=now,
        asks=asks,
    )


def test_reveal_fifty_at_once_has_one_winner(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, wrap_id = executed(world, people, agent)
    outcomes = at_once([lambda: world.reveal(people[0], request_id, wrap_id)] * 50)
    assert kinds(outcomes) == {"ok": 1, "wrap_already_consumed": 49}
    assert [found for found in outcomes if not isinstance(found, SbError)] == [f"{PLANTED}A"]
    assert len(world.events(action="wrap.retrieve", status="success")) == 1
    for error in outcomes:
        if isinstance(error, SbError):
            assert error.audit is not None
            assert error.audit.resource == f"wrap:{wrap_id}"


def test_reveal_and_replace_at_once_never_shows_two_values(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people)
    held = world.held(agent)
    for n in range(5):
        key = f"K{n}"
        wrap_id = world.post(agent, held, key)
        shown, _ = at_once(
            [
                lambda found=wrap_id: world.reveal(people[0], request_id, found),
                lambda name=key: world.post(agent, held, name),
            ]
        )
        (row,) = [wrap for wrap in world.wraps_of(request_id) if wrap["key_name"] == key]
        if isinstance(shown, SbError):
            assert (row["consumed_at"], row["id"] != wrap_id) == (None, True)
        else:
            assert (row["consumed_at"], row["id"]) == (NOW, wrap_id)


def test_spend_of_a_wrap_leaves_no_key_to_it(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, wrap_id = executed(world, people, agent)
    world.reveal(people[0], request_id, wrap_id)
    (row,) = world.wraps_of(request_id)
    assert bytes(row["encrypted_value"]) == bytes(row["data_key_ciphertext"]) == ERASED
    # The row still says that there was a value, how long, and who saw it.
    assert (row["byte_length"], row["consumed_by_user"]) == (
        len(f"{PLANTED}A"),
        people[0].user_id,
    )


def test_unwrap_that_fails_leaves_the_wrap_unspent(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, wrap_id = executed(world, people, agent)
    found = world.find(people[0], request_id, wrap_id)
    world.write("UPDATE secret_wraps SET data_key_ciphertext = :bad", bad=b"x" * 60)
    before = everything(world)
    with pytest.raises(WrapIntegrityError):
        unwrap_key(world.kms, world.find(people[0], request_id, wrap_id).sealed)
    assert everything(world) == before
    world.write(
        "UPDATE secret_wraps SET data_key_ciphertext = :good",
        good=found.sealed.data_key_ciphertext,
    )
    assert world.reveal(people[0], request_id, wrap_id) == f"{PLANTED}A"


def test_transplant_of_a_ciphertext_to_another_row_does_not_open(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, held = approved(world, people), world.held(agent)
    first, second = world.post(agent, held, "A"), world.post(agent, held, "B")
    stolen = world.find(people[0], request_id, first).sealed
    world.write(
        "UPDATE secret_wraps SET encrypted_value = :value, nonce = :nonce, "
        "data_key_ciphertext = :key WHERE id = :id",
        value=stolen.encrypted_value,
        nonce=stolen.nonce,
        key=stolen.data_key_ciphertext,
        id=second,
    )
    moved = world.find(people[0], request_id, second)
    with pytest.raises(WrapIntegrityError):
        open_wrap(world.kms, moved.sealed, wrap_id=second, request_id=request_id, key_name="B")


@pytest.mark.parametrize("how", ["reject", "cancel"])
def test_refuse_a_patch_cuts_its_values_to_five_minutes(
    world: World, people: People, how: str
) -> None:
    world.connection()
    dev, approver = people
    request_id = world.patch(dev, "A")
    if how == "reject":
        world.run(
            approvals.reject, caller=approver, request_id=request_id, reason="no", now=at(hours=1)
        )
    else:
        world.run(requests.cancel, caller=dev, request_id=request_id, now=at(hours=1))
    assert purge(world, at(hours=1, minutes=5) - MICROSECOND) == 0
    assert purge(world, at(hours=1, minutes=5)) == 1


@pytest.mark.parametrize("how", ["reject", "cancel"])
def test_refuse_a_patch_whose_values_end_sooner_leaves_their_end(
    world: World, people: People, how: str
) -> None:
    world.connection()
    world.rule({}, wrap_ttl_created_seconds=120)
    (dev, approver), sooner = people, at(seconds=60)
    request_id = world.patch(dev, "A")
    (before,) = world.wraps_of(request_id)
    if how == "reject":
        world.run(
            approvals.reject,
            caller=approver,
            request_id=request_id,
            reason="no",
            now=at(seconds=60),
        )
    else:
        world.run(requests.cancel, caller=dev, request_id=request_id, now=sooner)
    (after,) = world.wraps_of(request_id)
    assert after["expires_at"] == before["expires_at"] == at(seconds=120)


def test_fail_after_one_value_was_spent_ends_the_other(
    world: World, people: People, agent: AgentCaller
) -> None:
    # A spent wrap must not stop the walk: upstream left every later one alive (spec §3.5).
    request_id, held = approved(world, people), world.held(agent)
    first = world.post(agent, held, "A")
    world.post(agent, held, "B")
    world.reveal(people[0], request_id, first)
    world.finish(agent, held, at(seconds=9), succeeded=False)
    spent, unspent = world.wraps_of(request_id)
    assert (spent["expires_at"], unspent["expires_at"]) == (at(hours=1), at(seconds=9))


def test_purge_takes_the_oldest_up_to_its_limit_and_says_how_many(
    world: World, people: People
) -> None:
    world.connection()
    made = [world.patch(people[0], "A", "B", now=at(seconds=n)) for n in range(3)]
    end = at(days=7, seconds=1)
    assert purge(world, end, limit=3) == 3
    assert [len(world.wraps_of(request_id)) for request_id in made] == [0, 1, 2]
    assert purge(world, end, limit=3) == 1
    assert purge(world, end, limit=3) == 0
    purged = world.events(action="wrap.purge")
    assert [event.metadata for event in purged] == [{"deleted": 3}, {"deleted": 1}]
    assert {event.actor for event in purged} == {"system:worker"}


def test_purge_twice_at_once_counts_each_wrap_once(world: World, people: People) -> None:
    world.connection()
    for _ in range(5):
        world.patch(people[0], "A", "B")
    outcomes = at_once([lambda: purge(world, at(days=7))] * 4)
    assert sum(outcomes) == 10
    counted = [event.metadata["deleted"] for event in world.events(action="wrap.purge")]
    assert sum(counted) == 10
    assert world.rows("SELECT id FROM secret_wraps") == []


def test_fetch_after_the_lapsed_lease_was_requeued_needs_the_new_lease(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id = approved(world, people, "A", kind="patch")
    world.held(agent)
    world.run(jobs.recover, now=NOW + LEASE, limit=10)
    held = world.held(agent, at(seconds=40))
    (wrap_id,) = (wrap["id"] for wrap in world.wraps_of(request_id))
    found = world.run(
        wraps.find_for_agent,
        agent=agent,
        lease_token_hash=held.lease,
        wrap_id=wrap_id,
        now=at(seconds=41),
    )
    assert found.id == wrap_id


def test_find_of_a_wrap_that_never_was_finds_nothing(
    world: World, people: People, agent: AgentCaller
) -> None:
    request_id, _ = executed(world, people, agent)
    refused(world, WrapNotFoundError, world.find, people[0], request_id, request_id, asks=None)
