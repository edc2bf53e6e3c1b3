"""Two hundred requests through two APIs: each done once, on record, and no value told twice."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import httpx
import pytest
import trio

from sb.clock import utc_now
from sb.db.engine import Database, Transaction
from sb.ids import new_id
from sb.ops import audit
from sb.ops.callers import System
from tests.http.hostile import refused
from tests.processes import leaks
from tests.processes.fleet import READABLE, WRITABLE, Fleet
from tests.processes.load import CALL_SECONDS, Crowd, Done, Work, crowd

pytestmark = pytest.mark.xdist_group("processes")

IN_FLIGHT = 20
READ_STORY = [
    ("request.submit", "success", "user"),
    ("request.approve", "success", "user"),
    ("job.enqueue", "success", "user"),
    ("job.claim", "success", "agent"),
    ("wrap.create", "success", "agent"),
    ("job.complete", "success", "agent"),
    ("request.transition", "success", "system"),
    ("wrap.retrieve", "success", "user"),
    ("wrap.retrieve", "denied", "user"),
]
PATCH_STORY = [
    ("wrap.create", "success", "user"),
    ("request.submit", "success", "user"),
    ("request.approve", "success", "user"),
    ("job.enqueue", "success", "user"),
    ("job.claim", "success", "agent"),
    ("wrap.retrieve", "success", "agent"),
    ("job.complete", "success", "agent"),
    ("request.transition", "success", "system"),
]


def works(fleet: Fleet) -> list[Work]:
    """Return three reads for every patch, over all people and both APIs."""
    found = []
    for number in range(READABLE + WRITABLE):
        pair = number % len(fleet.developers)
        patch = number % 4 == 3
        ref = f"patch/{number // 4}" if patch else f"read/{number - number // 4}"
        found.append(
            Work(
                ref=ref,
                developer=fleet.developers[pair],
                approver=fleet.approvers[(number // 7) % len(fleet.approvers)],
                first=number // 2,
                new_value=leaks.new_value(fleet.mark, f"new {ref}") if patch else None,
            )
        )
    assert len({work.ref for work in found}) == READABLE + WRITABLE
    return found


async def take_through(people: Crowd, work: Work) -> Done:
    """Take one request to its end, the value shown once and refused by the other API then."""
    done = Done(work=work, request_id=await people.submit(work))
    await people.approve(work, done.request_id)
    await people.executed(work, done.request_id)
    wrap = await people.listed(work, done.request_id)
    assert wrap["consumed"] is (work.new_value is not None)
    if work.new_value is None:
        done.wrap_id = wrap["id"]
        await people.reveal(done, work.first)
        path = f"/requests/{done.request_id}/wraps/{done.wrap_id}"
        again = await people.call(work.first + 1, "GET", path, by=work.developer)
        refused(again, 410, "wrap_already_consumed")
    return done


async def take_all(fleet: Fleet, todo: list[Work]) -> list[Done]:
    """Take them all through, so many at a time; nothing may fail on the way."""
    found: list[Done] = []
    limiter = trio.CapacityLimiter(IN_FLIGHT)

    async def one(work: Work) -> None:
        async with limiter:
            found.append(await take_through(people, work))

    async with crowd(fleet) as people:
        with trio.fail_after(240):
            async with trio.open_nursery() as nursery:
                for work in todo:
                    nursery.start_soon(one, work)
        assert not people.failures
    return found


def stories(fleet: Fleet) -> dict[str, list[dict[str, Any]]]:
    """Return the audit trail in its order, by request."""
    found = defaultdict(list)
    for row in fleet.rows(
        "SELECT correlation_id::text AS request_id, action, status, actor FROM audit_events "
        "ORDER BY occurred_at, id"
    ):
        found[row["request_id"]].append(row)
    return found


async def test_two_hundred_requests_end_once_and_leak_nothing(fleet: Fleet) -> None:
    todo = works(fleet)
    before = {work.ref: fleet.store.read(work.ref, {}).values for work in todo}

    finished = await take_all(fleet, todo)

    assert len({done.request_id for done in finished}) == len(todo)
    _values_arrived(fleet, finished, before)
    _each_job_succeeded_once(fleet, finished)
    _every_story_is_whole(fleet, finished)
    _nothing_leaked(fleet, finished)


def _values_arrived(fleet: Fleet, finished: list[Done], before: dict[str, Any]) -> None:
    for done in finished:
        work, stored = done.work, fleet.store.read(done.work.ref, {}).values
        if work.new_value is None:
            assert done.revealed == [before[work.ref]["PASSWORD"]]
            assert stored == before[work.ref]
        else:
            assert stored == {**before[work.ref], "PASSWORD": work.new_value}


def _each_job_succeeded_once(fleet: Fleet, finished: list[Done]) -> None:
    ids = [done.request_id for done in finished]
    jobs = fleet.rows(
        "SELECT request_id::text AS request_id, status, attempts, claimed_by::text AS agent "
        "FROM sync_jobs WHERE request_id = ANY(%s)",
        ids,
    )
    assert sorted(job["request_id"] for job in jobs) == sorted(ids)
    assert {(job["status"], job["attempts"]) for job in jobs} == {("succeeded", 1)}
    assert {job["agent"] for job in jobs} == {fleet.agent_id(agent) for agent in fleet.agents}
    ended = fleet.rows(
        "SELECT status, count(*) AS number FROM access_requests WHERE id = ANY(%s) GROUP BY status",
        ids,
    )
    assert ended == [{"status": "executed", "number": len(ids)}]


def _every_story_is_whole(fleet: Fleet, finished: list[Done]) -> None:
    told = stories(fleet)
    for done in finished:
        expected = READ_STORY if done.work.new_value is None else PATCH_STORY
        events = told[done.request_id]
        assert [_event(row) for row in events] == expected
        developer, approver = f"user:{done.work.developer.id}", f"user:{done.work.approver.id}"
        people = [row["actor"] for row in events if row["actor"].startswith("user:")]
        asked = 1 if done.work.new_value is None else 2
        assert people[:asked] == [developer] * asked
        assert people[asked : asked + 2] == [approver] * 2
        assert people[asked + 2 :] == ([developer] * 2 if asked == 1 else [])


def _event(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["action"], row["status"], row["actor"].partition(":")[0]


async def test_events_of_one_transaction_are_listed_as_they_were_written(fleet: Fleet) -> None:
    request_id, now = new_id(), utc_now()
    written = [f"test.step-{number}" for number in range(100)]

    def write(tx: Transaction) -> None:
        for action in written:
            audit.record(
                tx,
                by=System(part="test"),
                action=action,
                resource=f"request:{request_id}",
                correlation_id=request_id,
                now=now,
            )

    db = Database.open(fleet.database)
    try:
        db.run_sync(write)
    finally:
        db.close()
    url = f"{fleet.apis[0].url}/api/v1/audit-events"
    async with httpx.AsyncClient(timeout=CALL_SECONDS, trust_env=False) as http:
        answer = await http.get(
            url,
            params={"correlation_id": request_id, "limit": 100},
            headers={"Authorization": f"Bearer {fleet.admin.token}"},
        )
    assert [event["action"] for event in answer.json()] == written[::-1]


def _nothing_leaked(fleet: Fleet, finished: list[Done]) -> None:
    # The search itself first: every form of a value is found, and every place has been looked at.
    sample = next(done for done in finished if done.revealed).revealed[0]
    for name, form in leaks.forms(sample).items():
        assert leaks.hits(fleet.mark, {name: b"..." + form.encode() + b"..."}), name
    places = fleet.places()
    request_id = finished[0].request_id.encode()
    for place in ("table access_requests", "printed table audit_events", "answers"):
        assert request_id in places[place], place
    for processes, said in ((fleet.apis, b'"request"'), (fleet.agents, b'"job completed"')):
        for process in processes:
            assert said in places[f"{fleet.root.name}/{process.log.name}"], process.name
    # An idle worker has nothing to say, but its file has been looked at too.
    assert {f"{fleet.root.name}/{process.log.name}" for process in fleet.workers} <= places.keys()
    assert b'"evalsha"' in places[f"{fleet.root.name}/redis-monitor.log"].lower()
    assert any(place.startswith("redis ") for place in places)

    assert leaks.hits(fleet.mark, places) == []
