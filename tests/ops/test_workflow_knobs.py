"""Every knob of a workflow is in effect: set through the operation, seen in what happens."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sb.errors import InvalidInputError
from sb.ops import approvals, expiry, policy_rules, workflows
from sb.ops.callers import Caller
from sb.ops.errors import (
    ApproverRoleRequiredError,
    RequestNotPendingError,
    SelfApprovalForbiddenError,
)
from tests.ops.tenancy import Tenancy
from tests.ops.world import MICROSECOND, NOW, TEST, World, at


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


def govern(world: World, **knobs: Any) -> str:
    """Put a workflow with these knobs in charge of every non-production request."""
    row = world.run(workflows.create, by=TEST, knobs={"name": "knobs", **knobs}, now=NOW)
    rule = policy_rules.NewRule(
        name="all", selector={"environment_kind": "non_prod"}, workflow_id=row["id"]
    )
    world.run(policy_rules.create, by=TEST, rule=rule, now=NOW)
    return str(row["id"])


def voter(tenancy: Tenancy, name: str, *roles: str) -> Caller:
    person = tenancy.world.person(name)
    for role in roles:
        tenancy.world.grant(person.user_id, role, {})
    return tenancy.world.caller(person.user_id)


def vote(caller: Caller, request_id: str) -> dict[str, Any]:
    return {"caller": caller, "request_id": request_id, "comment": None, "now": NOW}


def test_min_approvers_is_how_many_must_vote(world: World, tenancy: Tenancy) -> None:
    govern(world, min_approvers=3)
    request_id = tenancy.read(tenancy.developer)
    voters = [voter(tenancy, f"v{n}", "approver") for n in range(3)]
    states = [tenancy.approve(person, request_id) for person in voters]
    assert states == ["pending", "pending", "approved"]


def test_auto_approve_asks_nobody(world: World, tenancy: Tenancy) -> None:
    govern(world, auto_approve=True)
    assert world.status(tenancy.read(tenancy.developer)) == "approved"


def test_approver_role_narrows_who_may_vote(world: World, tenancy: Tenancy) -> None:
    role = world.role("database-owner", "secret.approve")
    govern(world, approver_role_id=role)
    request_id = tenancy.read(tenancy.developer)
    arguments = vote(tenancy.approver, request_id)
    world.refuse(ApproverRoleRequiredError, approvals.approve, **arguments)
    owner = voter(tenancy, "owner", "database-owner")
    assert tenancy.approve(owner, request_id) == "approved"


def test_require_justification_refuses_a_submit_without_one(world: World, tenancy: Tenancy) -> None:
    workflow_id = govern(world)
    with pytest.raises(InvalidInputError):
        tenancy.read(tenancy.developer, justification="   ")
    change = {"require_justification": False}
    world.run(workflows.update, by=TEST, workflow_id=workflow_id, changes=change, now=NOW)
    assert world.status(tenancy.read(tenancy.developer, justification="  ")) == "pending"


def test_allow_self_approval_lets_the_requester_vote(world: World, tenancy: Tenancy) -> None:
    workflow_id = govern(world)
    both = voter(tenancy, "both", "developer", "approver")
    before = tenancy.read(both)
    world.refuse(SelfApprovalForbiddenError, approvals.approve, **vote(both, before))
    change = {"allow_self_approval": True}
    world.run(workflows.update, by=TEST, workflow_id=workflow_id, changes=change, now=NOW)
    after = tenancy.read(both)
    assert tenancy.approve(both, after) == "approved"
    # The earlier request keeps what it was submitted under.
    world.refuse(SelfApprovalForbiddenError, approvals.approve, **vote(both, before))


def test_request_ttl_ends_what_nobody_decided(world: World, tenancy: Tenancy) -> None:
    govern(world, request_ttl_seconds=90)
    request_id = tenancy.read(tenancy.developer)
    end = NOW + timedelta(seconds=90)
    assert world.request(request_id)["expires_at"] == end
    for moment, expired in ((end - MICROSECOND, 0), (end, 1)):
        assert world.run(expiry.expire_requests, now=moment, limit=10)["expired"] == expired
    arguments = vote(tenancy.approver, request_id)
    world.refuse(RequestNotPendingError, approvals.approve, **arguments)


def test_wrap_ttl_created_ends_values_that_wait_for_a_decision(
    world: World, tenancy: Tenancy
) -> None:
    govern(world, wrap_ttl_created_seconds=70)
    request_id = tenancy.patch(tenancy.developer, "A")
    assert [wrap["expires_at"] for wrap in world.wraps_of(request_id)] == [at(seconds=70)]


def test_wrap_ttl_approved_ends_values_and_the_job(world: World, tenancy: Tenancy) -> None:
    govern(world, wrap_ttl_approved_seconds=80)
    request_id = tenancy.patch(tenancy.developer, "A")
    tenancy.approve(tenancy.approver, request_id, at(minutes=1))
    end = at(minutes=1, seconds=80)
    assert [wrap["expires_at"] for wrap in world.wraps_of(request_id)] == [end]
    assert world.request(request_id)["execute_before_at"] == end


def test_wrap_ttl_claimed_ends_values_in_an_agents_hands(world: World, tenancy: Tenancy) -> None:
    govern(world, wrap_ttl_claimed_seconds=50)
    request_id = tenancy.patch(tenancy.developer, "A")
    tenancy.approve(tenancy.approver, request_id)
    world.held(world.agent(tenancy.east, cluster_name="east"), at(minutes=2))
    ends = [wrap["expires_at"] for wrap in world.wraps_of(request_id)]
    assert ends == [at(minutes=2, seconds=50)]


def test_enabled_false_takes_a_workflow_out_of_every_decision(
    world: World, tenancy: Tenancy
) -> None:
    workflow_id = govern(world)
    assert world.request(tenancy.read(tenancy.developer))["workflow_id"] == workflow_id
    change = {"enabled": False}
    world.run(workflows.update, by=TEST, workflow_id=workflow_id, changes=change, now=NOW)
    assert world.request(tenancy.read(tenancy.developer))["workflow_id"] != workflow_id


def test_is_default_governs_what_no_rule_matches(world: World, tenancy: Tenancy) -> None:
    knobs = {"name": "fallback", "is_default": True, "min_approvers": 2}
    row = world.run(workflows.create, by=TEST, knobs=knobs, now=NOW)
    world.write("UPDATE policy_rules SET enabled = :no", no=False)
    found = world.request(tenancy.read(tenancy.developer))
    assert (found["workflow_id"], found["snap_min_approvers"]) == (row["id"], 2)
