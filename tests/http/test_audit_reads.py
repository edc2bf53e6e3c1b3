"""Who read the trail is in the trail: once for a while, and whatever page they began with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sb.clock import utc_now
from sb.ids import new_id
from sb.ops import audit
from sb.ops.callers import System
from tests.stack import Person, Stack


async def readings(plane: Stack) -> list[tuple[str, Any]]:
    """Return who read with which filters, oldest first."""
    found = await plane.db.read(
        audit.list_events, filters=audit.Filters(action="audit.read"), before=None, limit=100
    )
    assert {(event.resource, event.status) for event in found} <= {("audit_events", "success")}
    return [(event.actor, event.metadata) for event in reversed(found)]


async def get(person: Person, **params: Any) -> Any:
    answer = await person.get("/audit-events", params=params)
    assert answer.status_code == 200, answer.text
    return answer


async def test_reading_leaves_one_row_for_each_person_and_their_filters(plane: Stack) -> None:
    admin, other = await plane.person("admin", "admin"), await plane.person("other", "approver")
    await get(admin)
    await get(admin, limit=1)
    await get(admin, status="denied", actor="user:typed-by-mistake")
    await get(admin, actor="user:another", status="success")
    await get(other)
    everything, filtered = {"filters": []}, {"filters": ["actor", "status"]}
    assert await readings(plane) == [
        (f"user:{admin.id}", everything),
        (f"user:{admin.id}", filtered),
        (f"user:{other.id}", everything),
    ]
    assert "typed-by-mistake" not in repr(await readings(plane))


async def test_pages_of_one_reading_leave_no_further_row(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    answer = await get(admin, limit=1)
    for _ in range(2):
        link = answer.headers["link"].partition(">")[0].removeprefix("</api/v1")
        answer = await admin.get(link)
        assert answer.status_code == 200
    assert await readings(plane) == [(f"user:{admin.id}", {"filters": []})]


async def test_reading_that_begins_in_the_middle_is_on_record_too(plane: Stack) -> None:
    """A cursor can be made up: it must not be a way to read unseen."""
    admin, other = await plane.person("admin", "admin"), await plane.person("other", "approver")
    link = (await get(admin, limit=1)).headers["link"].partition(">")[0].removeprefix("</api/v1")
    assert len((await other.get(link)).json()) == 1
    assert [actor for actor, _ in await readings(plane)] == [f"user:{admin.id}", f"user:{other.id}"]


async def test_reading_again_after_a_while_is_on_record_again(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    await plane.db.run(_read_earlier, f"user:{admin.id}")
    await get(admin)
    assert len(await readings(plane)) == 2


def _read_earlier(tx: Any, actor: str) -> None:
    tx.count(
        "audit_insert",
        id=new_id(),
        actor=actor,
        action="audit.read",
        resource="audit_events",
        status="success",
        correlation_id=new_id(),
        http_request_id=None,
        metadata={"filters": []},
        now=utc_now() - timedelta(minutes=5, seconds=1),
    )


async def test_one_page_holds_up_to_a_thousand_events(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")

    def fill(tx: Any) -> None:
        for _ in range(1001):
            audit.record(tx, by=System(part="test"), action="filler", resource="x", now=utc_now())

    await plane.db.run(fill)
    for limit, length in ((None, 100), (0, 100), (201, 201), (1000, 1000), (1001, 1000)):
        params = {"action": "filler", **({} if limit is None else {"limit": limit})}
        answer = await get(admin, **params)
        assert len(answer.json()) == length
    link = answer.headers["link"].partition(">")[0].removeprefix("</api/v1")
    assert len((await admin.get(link)).json()) == 1


async def test_refused_reading_is_no_reading(plane: Stack) -> None:
    nobody = await plane.person("nobody")
    assert (await nobody.get("/audit-events")).status_code == 403
    assert await readings(plane) == []
