"""Requests as people see them: whose, in which order, what they may do next, and cancelling."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from sb.ops import approvals, requests
from sb.ops.callers import Caller
from sb.ops.errors import (
    NotTheRequesterError,
    RequestNotFoundError,
    RequestNotPendingError,
)
from tests.ops.refusals import at_once, kinds, refused
from tests.ops.tenancy import Tenancy
from tests.ops.world import MICROSECOND, NOW, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
Cursor = tuple[datetime, str] | None


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


def listed(
    world: World, caller: Caller, before: Cursor = None, limit: int = 50, **filters: Any
) -> list[requests.Seen]:
    found: list[requests.Seen] = world.run(
        requests.list_requests,
        caller=caller,
        filters=requests.Filters(**filters),
        before=before,
        limit=limit,
        now=NOW,
    )
    return found


def ids(found: Sequence[requests.Seen]) -> list[str]:
    return [str(seen.row["id"]) for seen in found]


def show(world: World, caller: Caller, request_id: str, now: datetime = NOW) -> requests.Seen:
    seen: requests.Seen = world.run(requests.show, caller=caller, request_id=request_id, now=now)
    return seen


def actions(world: World, caller: Caller, request_id: str, now: datetime = NOW) -> list[str]:
    return show(world, caller, request_id, now).allowed_actions


def cancel(world: World, caller: Caller, request_id: str, now: datetime = NOW) -> requests.Seen:
    seen: requests.Seen = world.run(requests.cancel, caller=caller, request_id=request_id, now=now)
    return seen


def test_show_in_scope_of_any_seeing_permission_shows_the_request(
    world: World, tenancy: Tenancy
) -> None:
    world.role("lister", "secret.list")
    request_id = tenancy.read(tenancy.developer)
    for role in ("developer", "approver", "admin", "lister"):
        person = world.person("person", role, tenancy.scope("project_id", "own"))
        seen = show(world, person, request_id)
        assert seen.row["requester_name"] == "dev"
        assert seen.row["requester_email"] == tenancy.developer.email
        assert ids(listed(world, person)) == [request_id]


def test_show_and_list_tell_the_names_of_where_a_request_reaches(
    world: World, tenancy: Tenancy
) -> None:
    within = tenancy.read(tenancy.developer)
    beside = world.read(tenancy.developer, now=at(seconds=1), provider_connection_id=tenancy.east)
    names = ("project_name", "environment_name", "environment_kind", "workflow_name")
    told = {
        seen.row["id"]: tuple(seen.row[name] for name in names)
        for seen in listed(world, tenancy.approver)
    }
    (workflow,) = {row[3] for row in told.values()}
    assert told == {
        within: ("own", "dev", "non_prod", workflow),
        beside: (None, None, None, workflow),
    }
    (row,) = world.rows("SELECT name FROM workflow_definitions WHERE is_default")
    assert row["name"] == workflow
    for request_id, found in told.items():
        row = show(world, tenancy.approver, request_id).row
        assert tuple(row[name] for name in names) == found


def test_show_without_a_seeing_permission_finds_nothing(world: World, tenancy: Tenancy) -> None:
    request_id = tenancy.read(tenancy.developer)
    for role in ("value_provider", "security_approver", "policy_author", None):
        person = world.person("person", role)
        refused(world, RequestNotFoundError, cancel, world, person, request_id, asks=None)
        assert listed(world, person) == []
        # An id that does not exist is refused with the same words.
        told = refused(world, RequestNotFoundError, show, world, person, request_id, asks=None)
        missing = refused(world, RequestNotFoundError, show, world, person, MISSING, asks=None)
        assert (told.public_message, told.details) == (missing.public_message, missing.details)


def test_list_with_every_filter_returns_what_fits_all(world: World, tenancy: Tenancy) -> None:
    own = tenancy.ids["environment_id:own"]
    read = tenancy.read(tenancy.developer)
    patch = tenancy.patch(tenancy.developer, "A", now=at(seconds=1))
    other = tenancy.read(tenancy.colleague, now=at(seconds=2), environment=None)
    free = world.read(tenancy.colleague, now=at(seconds=3), provider_connection_id=tenancy.west)
    cancel(world, tenancy.developer, read)
    boss = tenancy.approver
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [free, other, patch, read]),
        ({"requester_id": tenancy.developer.user_id}, [patch, read]),
        ({"requester_id": boss.user_id}, []),
        ({"status": "pending"}, [free, other, patch]),
        ({"status": "cancelled"}, [read]),
        ({"type": "patch"}, [patch]),
        ({"project_id": tenancy.ids["project_id:own"]}, [other, patch, read]),
        ({"project_id": tenancy.ids["project_id:other"]}, []),
        ({"environment_id": own}, [patch, read]),
        ({"since": at(seconds=1)}, [free, other, patch]),
        ({"until": at(seconds=1)}, [read]),
        ({"since": at(seconds=1), "until": at(seconds=2)}, [patch]),
        ({"type": "read", "status": "pending", "environment_id": own}, []),
        ({"type": "patch", "status": "pending", "environment_id": own}, [patch]),
    ]
    for filters, found in expected:
        assert ids(listed(world, boss, **filters)) == found, filters


def test_list_with_a_filter_never_widens_what_is_visible(world: World, tenancy: Tenancy) -> None:
    request_id = tenancy.read(tenancy.developer)
    mine = world.read(tenancy.colleague, provider_connection_id=tenancy.east)
    stranger = world.person("stranger", "approver", tenancy.scope("project_id", "other"))
    world.write("DELETE FROM user_roles WHERE user_id = :id", id=tenancy.colleague.user_id)
    bare = world.caller(tenancy.colleague.user_id)
    for filters in (
        {"requester_id": tenancy.developer.user_id},
        {"project_id": tenancy.ids["project_id:own"]},
        {"status": "pending", "type": "read"},
    ):
        assert listed(world, stranger, **filters) == []
        assert request_id not in ids(listed(world, bare, **filters))
    assert ids(listed(world, bare)) == [mine]


def test_list_of_a_scoped_viewer_holds_own_and_covered_ones(world: World, tenancy: Tenancy) -> None:
    covered = tenancy.read(tenancy.developer)
    scoped = world.person("scoped", "developer", tenancy.scope("team_id", "parent"))
    own = tenancy.read(scoped, now=at(seconds=1))
    world.read(tenancy.developer, now=at(seconds=2), provider_connection_id=tenancy.east)
    assert ids(listed(world, scoped)) == [own, covered]


def test_list_page_by_page_finds_each_request_once(world: World, tenancy: Tenancy) -> None:
    # Three moments, several requests each: within one moment the id decides.
    made = [tenancy.read(tenancy.developer, now=at(seconds=n // 3)) for n in range(7)]
    found: list[str] = []
    before: Cursor = None
    while page := listed(world, tenancy.approver, before=before, limit=2):
        assert len(page) <= 2
        assert len(found) < len(made), "the pages do not end"
        found += ids(page)
        before = page[-1].row["created_at"], page[-1].row["id"]
        # What arrives while somebody pages does not shift the pages.
        tenancy.read(tenancy.developer, now=at(seconds=60))
    assert found == made[::-1]


def test_list_page_of_a_scoped_viewer_is_filled_with_visible_ones(
    world: World, tenancy: Tenancy
) -> None:
    mine = []
    for n in range(3):
        mine.append(tenancy.read(tenancy.developer, now=at(seconds=2 * n)))
        world.read(
            tenancy.colleague, now=at(seconds=2 * n + 1), provider_connection_id=tenancy.east
        )
    viewer = world.person("viewer", "approver", tenancy.scope("project_id", "own"))
    page = listed(world, viewer, limit=2)
    assert ids(page) == mine[:0:-1]
    before = page[-1].row["created_at"], page[-1].row["id"]
    assert ids(listed(world, viewer, before=before, limit=2)) == mine[:1]


def test_allowed_actions_while_pending_follow_the_caller(world: World, tenancy: Tenancy) -> None:
    role = world.role("deputy", "secret.approve")
    request_id = tenancy.read(tenancy.developer)
    assert actions(world, tenancy.developer, request_id) == ["cancel"]
    assert actions(world, tenancy.approver, request_id) == ["approve", "reject"]
    assert actions(world, tenancy.colleague, request_id) == []
    # The list says the same.
    for caller in (tenancy.developer, tenancy.approver, tenancy.colleague):
        (seen,) = listed(world, caller)
        assert seen.allowed_actions == actions(world, caller, request_id)
    world.rule({}, approver_role_id=role, allow_self_approval=True)
    world.grant(tenancy.developer.user_id, "deputy", {})
    deputy = world.caller(tenancy.developer.user_id)
    own = tenancy.read(deputy)
    assert actions(world, deputy, own) == ["approve", "reject", "cancel"]
    assert actions(world, tenancy.approver, own) == []


def test_allowed_actions_after_a_vote_or_the_end_offer_no_vote(world: World) -> None:
    world.connection()
    world.rule({}, min_approvers=2, request_ttl_seconds=60)
    dev, voter = world.person("dev", "developer"), world.person("voter", "approver")
    other = world.person("other", "approver")
    request_id = world.read(dev)
    assert world.approve(voter, request_id).allowed_actions == []
    assert actions(world, other, request_id) == ["approve", "reject"]
    last = at(seconds=60) - MICROSECOND
    assert actions(world, other, request_id, last) == ["approve", "reject"]
    for caller in (dev, voter, other):
        assert actions(world, caller, request_id, at(seconds=60)) == []


def test_allowed_actions_offer_reveal_to_the_requester_only_while_unspent(world: World) -> None:
    agent = world.agent(world.connection())
    dev, approver = world.person("dev", "developer"), world.person("a", "approver")
    request_id = world.read(dev)
    world.approve(approver, request_id)
    assert actions(world, dev, request_id) == []
    held = world.held(agent)
    first, second = world.post(agent, held, "A"), world.post(agent, held, "B")
    # Values may be seen as soon as they are there, before the job is over.
    assert actions(world, dev, request_id) == ["reveal"]
    world.finish(agent, held)
    assert actions(world, dev, request_id) == ["reveal"]
    assert actions(world, approver, request_id) == []
    assert actions(world, dev, request_id, at(hours=1)) == []
    world.reveal(dev, request_id, first)
    assert actions(world, dev, request_id) == ["reveal"]
    world.reveal(dev, request_id, second)
    assert actions(world, dev, request_id) == []


def test_allowed_actions_of_a_patch_never_offer_reveal(world: World) -> None:
    agent = world.agent(world.connection())
    dev, approver = world.person("dev", "developer"), world.person("a", "approver")
    request_id = world.patch(dev, "A")
    world.approve(approver, request_id)
    assert actions(world, dev, request_id) == []
    world.finish(agent, world.held(agent))
    assert actions(world, dev, request_id) == []


def test_cancel_own_pending_request_cuts_its_values_short(world: World) -> None:
    world.connection()
    dev = world.person("dev", "developer")
    request_id = world.patch(dev, "A", "B")
    seen = cancel(world, dev, request_id, at(days=1))
    assert (seen.row["status"], seen.allowed_actions) == ("cancelled", [])
    assert seen.row["finished_at"] == at(days=1)
    assert {wrap["expires_at"] for wrap in world.wraps_of(request_id)} == {at(days=1, minutes=5)}
    (event,) = world.events(action="request.cancel")
    assert (event.actor, event.resource) == (dev.actor, f"request:{request_id}")
    assert event.correlation_id == request_id
    error = refused(world, RequestNotPendingError, cancel, world, dev, request_id, asks=None)
    assert error.details == {"status_now": "cancelled"}


def test_cancel_after_a_vote_below_the_quorum_ends_the_request(world: World) -> None:
    world.connection()
    world.rule({}, min_approvers=2)
    dev, (first, second) = (
        world.person("dev", "developer"),
        [world.person(f"a{n}", "approver") for n in range(2)],
    )
    request_id = world.read(dev)
    world.approve(first, request_id)
    assert cancel(world, dev, request_id).row["status"] == "cancelled"
    refused(world, RequestNotPendingError, world.approve, second, request_id, asks=None)


def test_cancel_by_somebody_else_is_refused(world: World) -> None:
    world.connection()
    request_id = world.patch(world.person("dev", "developer"), "A")
    asks = ("request.cancel", f"request:{request_id}", "not_the_requester")
    for role in ("admin", "approver", "developer"):
        other, error = world.person("other", role), NotTheRequesterError
        refused(world, error, cancel, world, other, request_id, asks=asks, about=request_id)


def test_cancel_without_any_grant_left_is_still_the_requesters_right(
    world: World, tenancy: Tenancy
) -> None:
    request_id = tenancy.read(tenancy.developer)
    world.write("DELETE FROM user_roles WHERE user_id = :id", id=tenancy.developer.user_id)
    bare = world.caller(tenancy.developer.user_id)
    assert cancel(world, bare, request_id).row["status"] == "cancelled"


def test_cancel_and_approve_at_once_have_one_outcome(world: World) -> None:
    world.connection()
    dev, approver = world.person("dev", "developer"), world.person("a", "approver")
    for _ in range(5):
        request_id = world.read(dev)
        outcomes = at_once(
            [
                lambda found=request_id: cancel(world, dev, found),
                lambda found=request_id: world.run(
                    approvals.approve, caller=approver, request_id=found, comment=None, now=NOW
                ),
            ]
        )
        assert kinds(outcomes) == {"ok": 1, "request_not_pending": 1}
        made = world.rows("SELECT id FROM sync_jobs WHERE request_id = :id", id=request_id)
        assert len(made) == (1 if world.status(request_id) == "approved" else 0)
