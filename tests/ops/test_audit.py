"""The trail: found by any filter, paged without gaps, named, and never changed afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest

from sb.errors import Denial, SbError
from sb.ids import new_id
from sb.ops import approvals, audit, expiry, jobs, requests
from sb.ops.callers import Anonymous, Caller, System
from tests.ops.job_steps import LEASE, People, approved, people_of
from tests.ops.refusals import everything, outcome
from tests.ops.world import NOW, PLANTED, TEST, World, at

GONE = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
Cursor = tuple[datetime, str] | None


@pytest.fixture
def people(world: World) -> People:
    return people_of(world)


def record(world: World, action: str, now: datetime = NOW, **changes: Any) -> None:
    values: dict[str, Any] = {"by": TEST, "resource": "thing:1", **changes}
    world.run(audit.record, action=action, now=now, **values)


def listed(
    world: World, before: Cursor = None, limit: int = 50, **filters: Any
) -> list[audit.AuditEvent]:
    found: list[audit.AuditEvent] = world.run(
        audit.list_events, filters=audit.Filters(**filters), before=before, limit=limit
    )
    return found


def actions(world: World, **filters: Any) -> list[str]:
    return [event.action for event in listed(world, **filters)]


@contextmanager
def closed_trail(world: World) -> Iterator[None]:
    """Refuse every new audit row while the block runs."""
    if world.db.dialect == "sqlite":
        body = "BEGIN SELECT RAISE(ABORT, 'closed'); END"
    else:
        body = "FOR EACH ROW EXECUTE FUNCTION audit_events_refuse()"
    world.write(f"CREATE TRIGGER closed_trail BEFORE INSERT ON audit_events {body}")
    try:
        yield
    finally:
        on = "" if world.db.dialect == "sqlite" else " ON audit_events"
        world.write(f"DROP TRIGGER closed_trail{on}")


def test_list_with_every_filter_returns_what_fits_all(world: World) -> None:
    chain, part = new_id(), System(part="other", http_request_id="req-5")
    record(world, "a.one", correlation_id=chain)
    record(world, "a.two", at(seconds=1), correlation_id=chain, by=part)
    record(world, "a.two", at(seconds=2), resource="thing:2", status="failure")
    record(world, "a.three", at(seconds=3), status="denied", metadata={"error_kind": "no"})
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["a.three", "a.two", "a.two", "a.one"]),
        ({"actor": "system:other"}, ["a.two"]),
        ({"actor": "system"}, []),
        ({"action": "a.two"}, ["a.two", "a.two"]),
        ({"action": "a"}, []),
        ({"resource": "thing:2"}, ["a.two"]),
        ({"status": "denied"}, ["a.three"]),
        ({"correlation_id": chain}, ["a.two", "a.one"]),
        ({"correlation_id": GONE}, []),
        # From inclusive, to exclusive.
        ({"since": at(seconds=1), "until": at(seconds=3)}, ["a.two", "a.two"]),
        ({"action": "a.two", "status": "success", "correlation_id": chain}, ["a.two"]),
        ({"action": "a.one", "status": "denied"}, []),
    ]
    for filters, found in expected:
        assert actions(world, **filters) == found, filters
    (event,) = listed(world, actor="system:other")
    assert (event.http_request_id, event.occurred_at) == ("req-5", at(seconds=1))
    assert (event.status, event.metadata, event.correlation_id) == ("success", {}, chain)


def test_list_page_by_page_finds_each_event_once(world: World) -> None:
    for n in range(7):
        record(world, f"a.{n}", at(seconds=n // 3))
    found: list[str] = []
    before: Cursor = None
    while page := listed(world, before, limit=2):
        assert len(found) < 7, "the pages do not end"
        found += [event.action for event in page]
        before = page[-1].occurred_at, page[-1].id
        # New events do not shift the pages.
        record(world, "late", at(minutes=1))
    assert found == [f"a.{n}" for n in reversed(range(7))]
    assert len({event.id for event in listed(world)}) == len(listed(world))


def test_list_names_the_actors_as_people_know_them(world: World, people: People) -> None:
    agent = world.agent(world.connection(), agent_name="beta")

    class Gone:
        http_request_id = None

        def __init__(self, actor: str) -> None:
            self.actor = actor

    for by in (
        people[0],
        agent,
        System(part="worker"),
        Anonymous(),
        Gone(f"user:{GONE}"),
        Gone(f"agent:{GONE}"),
        Gone("user:x"),
    ):
        record(world, "named", by=by)
    assert {event.actor: event.actor_display for event in listed(world, action="named")} == {
        people[0].actor: people[0].email,
        agent.actor: "Agent beta",
        "system:worker": "System (worker)",
        "anonymous": "anonymous",
        f"user:{GONE}": "unknown user (01a20952…)",
        f"agent:{GONE}": "unknown agent (01a20952…)",
        "user:x": "unknown user (x…)",
    }


def test_list_names_an_agent_that_was_revoked(world: World) -> None:
    agent = world.agent(world.connection(), agent_name="beta")
    record(world, "named", by=agent)
    world.write("UPDATE agents SET status = 'revoked', revoked_at = :now", now=NOW)
    assert [event.actor_display for event in listed(world, action="named")] == ["Agent beta"]


def test_record_denial_says_who_was_refused_what(world: World, people: People) -> None:
    world.connection()
    request_id = world.read(people[0])
    error = outcome(world.approve, world.caller(people[0].user_id), request_id)
    assert isinstance(error, SbError)
    world.run(audit.record_denial, denial=error.audit, by=people[0], now=at(seconds=1))
    (event,) = listed(world, correlation_id=request_id, status="denied")
    assert (event.actor, event.action) == (people[0].actor, "request.approve")
    assert (event.resource, event.http_request_id) == (f"request:{request_id}", "req-1")
    assert set(event.metadata) == {"error_kind"}


def test_record_without_a_chain_starts_one_of_its_own(world: World) -> None:
    for _ in range(2):
        record(world, "loose")
    world.run(audit.record_denial, denial=Denial("loose", "thing:1"), by=Anonymous(), now=NOW)
    chains = {event.correlation_id for event in listed(world, action="loose")}
    assert len(chains) == 3


def test_record_with_an_unknown_status_is_refused(world: World) -> None:
    error = outcome(record, world, "odd", status="fine")
    assert getattr(error, "constraint", None) == "audit_events_status_known"
    assert listed(world) == []


SPOILT = {
    "update": "UPDATE audit_events SET actor = 'somebody'",
    "update nothing": "UPDATE audit_events SET actor = actor",
    "delete": "DELETE FROM audit_events",
    "delete one": "DELETE FROM audit_events WHERE action = 'a.one'",
}
COLUMNS = "id, actor, action, resource, status, correlation_id, metadata, occurred_at"
OTHERS = "id, 'somebody', action, resource, status, correlation_id, metadata, occurred_at"
AGAIN = f"INTO audit_events ({COLUMNS}) SELECT {OTHERS} FROM audit_events WHERE true"
SPOILT_BY = {
    "sqlite": {**SPOILT, "replace": f"INSERT OR REPLACE {AGAIN}"},
    "postgres": {
        **SPOILT,
        "truncate": "TRUNCATE audit_events",
        "truncate cascade": "TRUNCATE audit_events CASCADE",
    },
}
UPSERT = f"INSERT {AGAIN} ON CONFLICT (id) DO UPDATE SET actor = 'somebody'"


def test_change_of_a_written_event_is_refused_by_the_database(world: World) -> None:
    record(world, "a.one")
    record(world, "a.two")
    before = listed(world)
    for how, statement in {**SPOILT_BY[world.db.dialect], "upsert": UPSERT}.items():
        error = outcome(world.write, statement)
        assert isinstance(error, SbError), how
        assert "append-only" in str(error.__cause__), how
        assert listed(world) == before, how


def test_change_without_its_audit_row_does_not_happen(world: World, people: People) -> None:
    dev, approver = people
    agent = world.agent(world.connection())
    pending, _ = world.patch(dev, "A"), approved(world, people, "A")
    held = world.held(agent)
    approved(world, people, "A")
    before = everything(world)
    now = NOW + LEASE
    steps = {
        "submit": lambda: world.read(dev),
        "approve": lambda: world.approve(approver, pending),
        "reject": lambda: world.run(
            approvals.reject, caller=approver, request_id=pending, reason="no", now=NOW
        ),
        "cancel": lambda: world.run(requests.cancel, caller=dev, request_id=pending, now=NOW),
        "claim": lambda: world.claim(agent),
        "post": lambda: world.post(agent, held, "A"),
        "complete": lambda: world.finish(agent, held),
        "recover": lambda: world.run(jobs.recover, now=now, limit=10),
        "expire": lambda: world.run(expiry.expire_requests, now=at(days=15), limit=10),
        "purge": lambda: world.run(expiry.purge_wraps, now=at(days=15), limit=10),
    }
    with closed_trail(world):
        for name, step in steps.items():
            assert isinstance(outcome(step), SbError), name
            assert everything(world) == before, name
    # With the trail open again each of them would have done something.
    for name in ("approve", "post", "claim", "complete"):
        assert not isinstance(outcome(steps[name]), SbError), name
        assert everything(world) != before, name


def test_trail_of_a_request_tells_the_whole_story_in_one_chain(
    world: World, people: People
) -> None:
    dev, approver = people
    agent = world.agent(world.connection())
    request_id = approved(world, people, "A")
    held = world.held(agent)
    wrap_id = world.post(agent, held, "A")
    world.finish(agent, held)
    world.reveal(dev, request_id, wrap_id)
    assert world.trail(request_id) == sorted(
        [
            (dev.actor, "request.submit"),
            (approver.actor, "request.approve"),
            (approver.actor, "job.enqueue"),
            (agent.actor, "job.claim"),
            (agent.actor, "wrap.create"),
            (agent.actor, "job.complete"),
            ("system:jobs", "request.transition"),
            (dev.actor, "wrap.retrieve"),
        ]
    )
    told = repr(listed(world, correlation_id=request_id))
    assert PLANTED not in told
    assert held.lease.hex() not in told
    assert str(world.wraps_of(request_id)[0]["nonce"]) not in told


def test_trail_of_a_person_is_found_by_actor(world: World, people: People) -> None:
    world.connection()
    other: Caller = world.person("other", "developer")
    mine, _ = world.read(people[0]), world.read(other)
    events = listed(world, actor=people[0].actor)
    assert [event.correlation_id for event in events] == [mine]
