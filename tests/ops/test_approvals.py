"""Votes: who may cast one, when they are enough, and that enough makes exactly one job."""

from __future__ import annotations

from typing import Any

import pytest

from sb.errors import PermissionDeniedError, SbError
from sb.ops import approvals, expiry, requests
from sb.ops.callers import Caller
from sb.ops.errors import (
    AlreadyVotedError,
    ApproverRoleRequiredError,
    OutOfScopeProjectError,
    RequestNotFoundError,
    RequestNotPendingError,
    SelfApprovalForbiddenError,
    WrapExpiredError,
)
from tests.ops.refusals import at_once, kinds, refused
from tests.ops.tenancy import Tenancy
from tests.ops.world import MICROSECOND, NOW, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


def reject(world: World, caller: Caller, request_id: str, now: Any = NOW) -> requests.Seen:
    seen: requests.Seen = world.run(
        approvals.reject, caller=caller, request_id=request_id, reason="not now", now=now
    )
    return seen


def approve(world: World, caller: Caller, request_id: str) -> requests.Seen:
    return world.approve(caller, request_id)


DECISIONS = {"request.approve": approve, "request.reject": reject}


def cancel(world: World, caller: Caller, request_id: str) -> requests.Seen:
    seen: requests.Seen = world.run(requests.cancel, caller=caller, request_id=request_id, now=NOW)
    return seen


def approvers(world: World, count: int) -> list[Caller]:
    return [world.person(f"approver-{n}", "approver") for n in range(count)]


def test_approve_below_the_quorum_stays_pending(world: World) -> None:
    world.connection()
    world.rule({}, min_approvers=2)
    dev, (first,) = world.person("dev", "developer"), approvers(world, 1)
    request_id = world.patch(dev, "A")
    seen = world.run(
        approvals.approve, caller=first, request_id=request_id, comment="fine", now=at(days=1)
    )
    assert (seen.row["status"], seen.wake, seen.row["job_id"]) == ("pending", None, None)
    assert seen.row["approvals_count"] == 1
    (vote,) = seen.votes
    assert (vote["approver_id"], vote["decision"]) == (first.user_id, "approve")
    assert (vote["comment"], vote["created_at"]) == ("fine", at(days=1))
    assert world.rows("SELECT id FROM sync_jobs") == []
    assert {wrap["expires_at"] for wrap in world.wraps_of(request_id)} == {at(days=7)}
    (event,) = world.events(action="request.approve")
    assert (event.actor, event.correlation_id) == (first.actor, request_id)
    assert event.metadata == {"approves": 1, "required": 2, "became_approved": False}


def test_approve_at_the_quorum_makes_the_job(world: World) -> None:
    connection = world.connection(cluster="east")
    world.rule({}, min_approvers=2, wrap_ttl_approved_seconds=900)
    dev, (first, second) = world.person("dev", "developer"), approvers(world, 2)
    request_id = world.patch(dev, "B", "A")
    world.approve(first, request_id)
    seen = world.approve(second, request_id, at(days=2))
    assert (seen.row["status"], seen.wake) == ("approved", f"jobs:{connection}")
    assert seen.row["decided_at"] == at(days=2)
    assert seen.row["execute_before_at"] == at(days=2, seconds=900)
    assert {wrap["expires_at"] for wrap in world.wraps_of(request_id)} == {at(days=2, seconds=900)}
    job = world.job(request_id)
    assert (seen.row["job_id"], job["correlation_id"]) == (job["id"], request_id)
    assert (job["job_type"], job["status"], job["attempts"]) == ("patch", "queued", 0)
    assert (job["provider_connection_id"], job["cluster_name"]) == (connection, "east")
    assert [event.actor for event in world.events(action="job.enqueue")] == [second.actor]
    last = world.events(action="request.approve", actor=second.actor)[0]
    assert last.metadata == {"approves": 2, "required": 2, "became_approved": True}


@pytest.mark.parametrize("kind", ["read", "patch"])
def test_approve_makes_a_job_that_names_keys_and_no_value(
    world: World, tenancy: Tenancy, kind: str
) -> None:
    submit = tenancy.patch if kind == "patch" else tenancy.read
    request_id = submit(tenancy.developer, "B", "A")
    tenancy.approve(tenancy.approver, request_id)
    expected: dict[str, Any] = {
        "request_id": request_id,
        "provider_connection_id": tenancy.east,
        "target_provider_type": "file",
        "target_provider_config": {},
        "target_secret_ref": "app/db",
        "target_keys": ["A", "B"],
        "target_scope": {"project_id": tenancy.target["project_id"], "environment": "dev"},
    }
    if kind == "patch":
        expected["wraps"] = [
            {"wrap_id": wrap["id"], "key_name": wrap["key_name"]}
            for wrap in world.wraps_of(request_id)
        ]
    assert world.job(request_id)["payload"] == expected


def test_approve_own_request_is_refused_unless_the_workflow_allows(world: World) -> None:
    world.connection()
    both = world.person("both", "developer")
    world.grant(both.user_id, "approver", {})
    both = world.caller(both.user_id)
    own = world.read(both)
    for action, decide in DECISIONS.items():
        asks = (action, f"request:{own}", "self_approval_forbidden")
        refused(world, SelfApprovalForbiddenError, decide, world, both, own, asks=asks, about=own)
    world.rule({}, allow_self_approval=True)
    assert world.approve(both, world.read(both)).row["status"] == "approved"


def test_approve_own_request_without_the_permission_is_refused(world: World) -> None:
    world.connection()
    world.rule({}, allow_self_approval=True)
    dev = world.person("dev", "developer")
    own = world.read(dev)
    asks = ("request.approve", f"request:{own}", "out_of_scope_project")
    refused(world, PermissionDeniedError, world.approve, dev, own, asks=asks, about=own)


def test_approve_outside_the_scope_is_refused(world: World, tenancy: Tenancy) -> None:
    request_id = tenancy.read(tenancy.developer)
    other = world.person("other", "approver", tenancy.scope("project_id", "other"))
    world.grant(other.user_id, "developer", tenancy.scope("project_id", "own"))
    seer = world.caller(other.user_id)
    error = OutOfScopeProjectError
    for action, decide in DECISIONS.items():
        asks = (action, f"request:{request_id}", "out_of_scope_project")
        refused(world, error, decide, world, seer, request_id, asks=asks, about=request_id)
    # Whoever may not even see it, as `other` before the second grant, is told it is not there.
    for caller in (other, world.person("nobody")):
        for decide in DECISIONS.values():
            refused(world, RequestNotFoundError, decide, world, caller, request_id, asks=None)
    refused(world, RequestNotFoundError, world.approve, tenancy.approver, MISSING, asks=None)


def test_approve_without_the_workflows_role_is_refused(world: World, tenancy: Tenancy) -> None:
    role = world.role("deputy", "secret.approve")
    world.rule({}, approver_role_id=role)
    request_id = tenancy.read(tenancy.developer)
    asks = ("request.approve", f"request:{request_id}", "approver_role_required")
    elsewhere = world.person("elsewhere", "approver")
    world.grant(elsewhere.user_id, "deputy", tenancy.scope("project_id", "other"))
    for caller in (tenancy.approver, world.caller(elsewhere.user_id)):
        error = refused(
            world,
            ApproverRoleRequiredError,
            world.approve,
            caller,
            request_id,
            asks=asks,
            about=request_id,
        )
        assert error.details == {"role": "deputy"}
    # Whoever may not see the request is not told of the role.
    refused(world, RequestNotFoundError, world.approve, world.person("far"), request_id, asks=None)
    deputy = world.person("deputy", "deputy", tenancy.scope("project_id", "own"))
    assert world.approve(deputy, request_id).row["status"] == "approved"


@pytest.mark.parametrize("action", list(DECISIONS))
def test_vote_twice_keeps_the_first_vote(world: World, action: str) -> None:
    world.connection()
    world.rule({}, min_approvers=2)
    dev, (approver,) = world.person("dev", "developer"), approvers(world, 1)
    request_id = world.read(dev)
    world.approve(approver, request_id)
    asks, decide = (action, f"request:{request_id}", "already_voted"), DECISIONS[action]
    refused(
        world, AlreadyVotedError, decide, world, approver, request_id, asks=asks, about=request_id
    )


def test_reject_once_ends_the_request_whatever_the_quorum(world: World) -> None:
    world.connection()
    world.rule({}, min_approvers=3)
    dev, (first, second) = world.person("dev", "developer"), approvers(world, 2)
    request_id = world.patch(dev, "A")
    world.approve(first, request_id)
    seen = reject(world, second, request_id, at(days=1))
    assert (seen.row["status"], seen.row["reject_reason"]) == ("rejected", "not now")
    assert (seen.row["finished_at"], seen.allowed_actions) == (at(days=1), [])
    # The approval before it stays on record.
    assert {(vote["decision"], vote["comment"]) for vote in seen.votes} == {
        ("approve", None),
        ("reject", "not now"),
    }
    assert world.rows("SELECT id FROM sync_jobs") == []
    assert {wrap["expires_at"] for wrap in world.wraps_of(request_id)} == {at(days=1, minutes=5)}
    assert world.trail(request_id) == sorted(
        [
            (dev.actor, "request.submit"),
            (dev.actor, "wrap.create"),
            (first.actor, "request.approve"),
            (second.actor, "request.reject"),
        ]
    )


@pytest.mark.parametrize("ended", ["approved", "rejected", "cancelled", "expired", "executed"])
def test_decide_on_a_request_that_is_not_pending_is_refused(world: World, ended: str) -> None:
    agent = world.agent(world.connection())
    dev, (first, second) = world.person("dev", "developer"), approvers(world, 2)
    request_id = world.read(dev)
    match ended:
        case "approved" | "executed":
            world.approve(first, request_id)
        case "rejected":
            reject(world, first, request_id)
        case "cancelled":
            cancel(world, dev, request_id)
        case "expired":
            world.run(expiry.expire_requests, now=at(days=14), limit=10)
    if ended == "executed":
        world.finish(agent, world.held(agent))
    assert world.status(request_id) == ended
    for decide in (
        lambda: world.approve(second, request_id),
        lambda: reject(world, second, request_id),
        lambda: cancel(world, dev, request_id),
    ):
        error = refused(world, RequestNotPendingError, decide, asks=None)
        assert error.details == {"status_now": ended}


def test_approve_at_the_end_of_the_request_is_refused(world: World) -> None:
    world.connection()
    world.rule({}, request_ttl_seconds=60)
    dev, (first, second) = world.person("dev", "developer"), approvers(world, 2)
    late, in_time = world.read(dev), world.read(dev)
    for decide in (
        lambda: world.approve(first, late, at(seconds=60)),
        lambda: reject(world, first, late, at(seconds=60)),
    ):
        error = refused(world, RequestNotPendingError, decide, asks=None)
        assert error.details == {"status_now": "expired"}
    seen = world.approve(second, in_time, at(seconds=60) - MICROSECOND)
    assert seen.row["status"] == "approved"


def test_approve_with_expired_values_does_not_revive_them(world: World) -> None:
    world.connection()
    world.rule({}, wrap_ttl_created_seconds=60)
    dev, (first,) = world.person("dev", "developer"), approvers(world, 1)
    request_id = world.patch(dev, "A", "B")
    refused(world, WrapExpiredError, world.approve, first, request_id, at(seconds=60), asks=None)
    assert world.status(request_id) == "pending"
    seen = world.approve(first, request_id, at(seconds=60) - MICROSECOND)
    assert seen.row["status"] == "approved"


def test_approve_with_swept_values_is_refused(world: World) -> None:
    world.connection()
    dev, (first,) = world.person("dev", "developer"), approvers(world, 1)
    request_id = world.patch(dev, "A", "B")
    # By default a request waits a fortnight and its values a week: the sweep comes in between.
    for limit, left in ((1, 1), (10, 0)):
        world.run(expiry.purge_wraps, now=at(days=7), limit=limit)
        assert len(world.wraps_of(request_id)) == left
        refused(world, WrapExpiredError, world.approve, first, request_id, at(days=7), asks=None)


def test_approve_by_twenty_at_once_makes_one_job(world: World) -> None:
    connection = world.connection()
    world.rule({}, min_approvers=2)
    dev, people = world.person("dev", "developer"), approvers(world, 20)
    request_id = world.patch(dev, "A")
    outcomes = at_once([lambda who=who: world.approve(who, request_id) for who in people])
    assert kinds(outcomes) == {"ok": 2, "request_not_pending": 18}
    row = world.request(request_id)
    assert (row["status"], row["approvals_count"]) == ("approved", 2)
    assert [job["id"] for job in world.rows("SELECT id FROM sync_jobs")] == [row["job_id"]]
    assert len(world.events(action="job.enqueue")) == 1
    assert len(world.events(action="request.approve")) == 2
    woken = [seen.wake for seen in outcomes if not isinstance(seen, SbError)]
    assert woken.count(f"jobs:{connection}") == 1


def test_approve_ten_times_at_once_by_one_person_counts_once(world: World) -> None:
    world.connection()
    world.rule({}, min_approvers=2)
    dev, (person,) = world.person("dev", "developer"), approvers(world, 1)
    request_id = world.read(dev)
    outcomes = at_once([lambda: world.approve(person, request_id)] * 10)
    assert kinds(outcomes) == {"ok": 1, "already_voted": 9}
    assert (world.status(request_id), world.request(request_id)["approvals_count"]) == (
        "pending",
        1,
    )


def test_decide_in_three_ways_at_once_has_one_outcome(world: World) -> None:
    world.connection()
    dev, (first, second) = world.person("dev", "developer"), approvers(world, 2)
    for _ in range(5):
        request_id = world.patch(dev, "A")
        outcomes = at_once(
            [
                lambda found=request_id: world.approve(first, found),
                lambda found=request_id: reject(world, second, found),
                lambda found=request_id: cancel(world, dev, found),
            ]
        )
        assert kinds(outcomes) == {"ok": 1, "request_not_pending": 2}
        (won,) = [seen for seen in outcomes if not isinstance(seen, SbError)]
        made = world.rows("SELECT id FROM sync_jobs WHERE request_id = :id", id=request_id)
        assert len(made) == (1 if won.row["status"] == "approved" else 0)
        assert world.status(request_id) == won.row["status"]
        assert len(world.trail(request_id)) == 3 + len(made)
