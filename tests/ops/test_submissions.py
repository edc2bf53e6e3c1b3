"""Submitting: what a request keeps for good, what comes with it, and what leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest

from sb.errors import ConstraintViolatedError, InvalidInputError, SbError
from sb.ids import new_id
from sb.kms.envelope import seal_wrap
from sb.ops import submissions
from sb.ops.errors import (
    AutoApprovalForbiddenError,
    CredentialInConfigError,
    EnvironmentNotInProjectError,
    NoWorkflowError,
    OutOfScopeKeyError,
    OutOfScopeOpError,
    OutOfScopeProjectError,
    ProviderConnectionRequiredError,
)
from sb.secret import Secret
from tests.ops.refusals import at_once, everything, kinds, refused
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, PLANTED, World, at

DAY = 86400
MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


def test_submit_read_leaves_a_pending_request_and_one_audit_row(world: World) -> None:
    connection = world.connection(cluster="east")
    workflow = world.rule({"operation": "read"}, min_approvers=2, request_ttl_seconds=DAY)
    dev = world.person("dev", "developer")
    request_id = world.read(dev, "B", "A", justification="  ticket 7 ")
    row = world.request(request_id)
    assert (row["status"], row["type"], row["requester_id"]) == ("pending", "read", dev.user_id)
    assert (row["justification"], row["target_keys"]) == ("ticket 7", ["A", "B"])
    assert (row["provider_connection_id"], row["cluster_name"]) == (connection, "east")
    assert (row["created_at"], row["expires_at"]) == (NOW, at(days=1))
    assert (row["job_id"], row["decided_at"]) == (None, None)
    assert everything(world)["secret_wraps"] == everything(world)["sync_jobs"] == []
    (event,) = world.events(correlation_id=request_id)
    assert (event.actor, event.action) == (dev.actor, "request.submit")
    assert (event.resource, event.http_request_id) == (f"request:{request_id}", "req-1")
    assert event.metadata == {
        "request_type": "read",
        "workflow_id": workflow,
        "policy_rule_id": row["matched_policy_rule_id"],
        "target_provider_type": "file",
        "target_secret_ref": "app/db",
        "key_count": 2,
        "min_approvers": 2,
    }


def test_submit_patch_stores_one_sealed_wrap_for_each_key(world: World) -> None:
    world.connection()
    world.rule({}, wrap_ttl_created_seconds=7200)
    dev = world.person("dev", "developer")
    request_id = world.patch(dev, "USER", "PASSWORD")
    found = world.wraps_of(request_id)
    assert [wrap["key_name"] for wrap in found] == ["PASSWORD", "USER"]
    assert {wrap["expires_at"] for wrap in found} == {at(hours=2)}
    assert {wrap["consumed_at"] for wrap in found} == {None}
    # Each value has a data key and a nonce of its own.
    for column in ("encrypted_value", "nonce", "data_key_ciphertext", "content_hmac"):
        assert len({bytes(wrap[column]) for wrap in found}) == 2
    created = world.events(action="wrap.create", correlation_id=request_id)
    assert {event.resource for event in created} == {f"wrap:{wrap['id']}" for wrap in found}
    assert {event.actor for event in created} == {dev.actor}
    for event in created:
        assert set(event.metadata) == {
            "key_name",
            "byte_length",
            "content_hmac",
            "kms_key_id",
            "ttl_seconds",
        }
        assert event.metadata["ttl_seconds"] == 7200


def test_submit_patch_leaves_no_value_in_any_table(world: World) -> None:
    world.connection()
    world.patch(world.person("dev", "developer"), "PASSWORD")
    stored = repr(everything(world))
    assert "PASSWORD" in stored
    assert PLANTED not in stored


def test_submit_patch_with_an_empty_value_keeps_it(world: World) -> None:
    world.connection()
    dev, request_id, wrap_id = world.person("dev", "developer"), new_id(), new_id()
    sealed = seal_wrap(
        world.kms, wrap_id=wrap_id, request_id=request_id, key_name="A", value=Secret(b"")
    )
    wrap = submissions.NewWrap(id=wrap_id, key_name="A", sealed=sealed)
    draft = _draft(id=request_id, type="patch", target_keys=["A"])
    world.run(submissions.submit, caller=dev, draft=draft, new_wraps=[wrap], now=NOW)
    assert [row["byte_length"] for row in world.wraps_of(request_id)] == [0]


def test_submit_keeps_the_rules_when_the_workflow_changes(world: World) -> None:
    world.connection()
    role = world.role("deputy", "secret.approve", "secret.list")
    world.rule(
        {},
        min_approvers=2,
        approver_role_id=role,
        allow_self_approval=True,
        wrap_ttl_created_seconds=1000,
        wrap_ttl_approved_seconds=2000,
        wrap_ttl_claimed_seconds=300,
        request_ttl_seconds=4000,
    )
    dev = world.person("dev", "developer")
    kept = [world.read(dev), world.patch(dev, "A")]
    world.write(
        "UPDATE workflow_definitions SET min_approvers = 1, allow_self_approval = :no, "
        "approver_role_id = NULL, wrap_ttl_created_seconds = 1, wrap_ttl_approved_seconds = 1, "
        "wrap_ttl_claimed_seconds = 1, request_ttl_seconds = 1",
        no=False,
    )
    world.write("UPDATE policy_rules SET enabled = :no", no=False)
    for request_id in kept:
        row = world.request(request_id)
        assert (row["snap_min_approvers"], row["snap_approver_role_id"]) == (2, role)
        assert row["snap_allow_self_approval"] is True
        assert row["snap_wrap_ttl_created_seconds"] == 1000
        assert row["snap_wrap_ttl_approved_seconds"] == 2000
        assert row["snap_wrap_ttl_claimed_seconds"] == 300
        assert row["expires_at"] == at(seconds=4000)
        assert row["matched_policy_rule_id"] is not None
    # The snapshot decides: one vote of the role is still not enough.
    deputies = [world.person(f"d{n}", "deputy") for n in range(2)]
    assert world.approve(deputies[0], kept[0]).row["status"] == "pending"
    assert world.approve(deputies[1], kept[0]).row["status"] == "approved"
    assert world.request(kept[0])["execute_before_at"] == at(seconds=2000)


def test_submit_without_approvers_approves_and_enqueues_at_once(world: World) -> None:
    connection = world.connection()
    world.rule({}, auto_approve=True, min_approvers=0, wrap_ttl_approved_seconds=60)
    dev = world.person("dev", "developer")
    draft = _draft(id=new_id(), type="read", target_keys=[])
    seen = world.run(submissions.submit, caller=dev, draft=draft, new_wraps=[], now=NOW)
    assert (seen.row["status"], seen.wake) == ("approved", f"jobs:{connection}")
    assert (seen.votes, seen.row["execute_before_at"]) == ([], at(seconds=60))
    assert seen.row["job_id"] == world.job(draft.id)["id"]
    assert world.trail(draft.id) == [
        ("system:policy", "job.enqueue"),
        ("system:policy", "request.approve"),
        (dev.actor, "request.submit"),
    ]


def test_submit_in_production_refuses_approval_by_nobody(world: World, tenancy: Tenancy) -> None:
    world.rule({}, auto_approve=True, min_approvers=0)
    world.write("UPDATE environments SET kind = 'prod'")
    for submit in (tenancy.read, tenancy.patch):
        refused(world, AutoApprovalForbiddenError, submit, tenancy.developer, "A", asks=None)


#: What is asked for, the refusal, and what the denial says if one is asked for.
OUTSIDE: list[tuple[dict[str, Any], type[SbError], str | None]] = [
    ({"target_secret_ref": "app/other"}, OutOfScopeProjectError, "out_of_scope_project"),
    ({"project_id": MISSING}, OutOfScopeProjectError, "out_of_scope_project"),
    ({"target_keys": ["USER", "ROOT"]}, OutOfScopeKeyError, "out_of_scope_key"),
    # Every key is more than the keys allowed (W9).
    ({"target_keys": []}, OutOfScopeKeyError, "out_of_scope_key"),
    ({"type": "patch", "target_keys": ["USER"]}, OutOfScopeOpError, "out_of_scope_op"),
    ({"environment": "moon"}, EnvironmentNotInProjectError, None),
    ({"provider_connection_id": MISSING}, OutOfScopeProjectError, "out_of_scope_project"),
    ({"target_provider_config": {"token": PLANTED}}, CredentialInConfigError, None),
    ({"justification": " \n"}, InvalidInputError, None),
]


def test_submit_outside_a_binding_changes_nothing(world: World, tenancy: Tenancy) -> None:
    tenancy.bind("app/limited", tenancy.east, "east", ops=["read"], keys=["USER"])
    target = {**tenancy.target, "target_secret_ref": "app/limited", "target_keys": ["USER"]}
    for changes, error, kind in OUTSIDE:
        draft = _draft(**{"id": new_id(), "type": "read", **target, **changes})
        new_wraps = [world.sealed(draft.id, "USER")] if draft.type == "patch" else []
        found = refused(
            world,
            error,
            world.run,
            submissions.submit,
            caller=tenancy.developer,
            draft=draft,
            new_wraps=new_wraps,
            now=NOW,
            asks=("request.submit", f"project:{draft.project_id}", kind) if kind else None,
        )
        assert PLANTED not in repr(found.details) + found.public_message


def test_submit_outside_the_grants_reveals_no_binding(world: World, tenancy: Tenancy) -> None:
    stranger = world.person("stranger", "developer", tenancy.scope("project_id", "other"))
    asks = ("request.submit", f"project:{tenancy.target['project_id']}", "out_of_scope_project")
    told = []
    for changes in ({}, {"target_secret_ref": "no/such"}, {"environment": "moon"}):
        error = refused(
            world, OutOfScopeProjectError, tenancy.read, stranger, "A", asks=asks, **changes
        )
        told.append((error.public_message, error.details))
    assert told == [told[0]] * 3


def test_submit_without_a_project_needs_an_unscoped_grant(world: World, tenancy: Tenancy) -> None:
    scoped = world.person("dev", "developer", tenancy.scope("project_id", "own"))
    anyone = tenancy.developer
    connection = {"provider_connection_id": tenancy.east}
    found = refused(world, InvalidInputError, world.read, scoped, "A", asks=None, **connection)
    assert found.details["field"] == "project_id"
    refused(world, ProviderConnectionRequiredError, world.read, anyone, "A", asks=None)
    row = world.request(world.read(anyone, "A", **connection))
    assert (row["project_id"], row["environment_id"], row["secret_id"]) == (None, None, None)


def test_submit_without_any_workflow_is_refused(world: World) -> None:
    world.connection()
    world.write("UPDATE workflow_definitions SET enabled = :no", no=False)
    dev = world.person("dev", "developer")
    refused(world, NoWorkflowError, world.read, dev, "A", asks=None)


def test_submit_of_one_draft_twice_keeps_the_first(world: World) -> None:
    world.connection()
    dev, draft_id = world.person("dev", "developer"), new_id()
    world.patch(dev, "A", id=draft_id)
    error = refused(
        world, ConstraintViolatedError, world.patch, dev, "A", "B", id=draft_id, asks=None
    )
    assert getattr(error, "constraint", None) == "access_requests_pkey"


def test_submit_with_one_bad_wrap_stores_nothing(world: World) -> None:
    world.connection()
    dev = world.person("dev", "developer")
    draft = _draft(id=new_id(), type="patch", target_keys=["A"])
    twice = [world.sealed(draft.id, "A"), world.sealed(draft.id, "A")]
    refused(
        world,
        ConstraintViolatedError,
        world.run,
        submissions.submit,
        caller=dev,
        draft=draft,
        new_wraps=twice,
        now=NOW,
        asks=None,
    )


def test_submit_of_one_draft_by_ten_threads_makes_one_request(world: World) -> None:
    world.connection()
    dev, draft_id = world.person("dev", "developer"), new_id()
    outcomes = at_once([lambda: world.patch(dev, "A", id=draft_id)] * 10)
    assert kinds(outcomes) == {"ok": 1, "internal_error": 9}
    assert len(world.wraps_of(draft_id)) == 1
    assert len(world.events(action="request.submit")) == 1


def _draft(**values: Any) -> submissions.Draft:
    return submissions.Draft(
        **{
            "justification": "ticket 1",
            "target_provider_type": "file",
            "target_provider_config": {},
            "target_secret_ref": "app/db",
            **values,
        }
    )


def test_submit_under_a_rule_that_would_reveal_production_says_it_does_not(
    world: World, tenancy: Tenancy
) -> None:
    world.rule({"secret_ref_prefix": "app/"})
    world.write("UPDATE policy_rules SET direct_reveal_allowed = TRUE WHERE NOT is_system")
    tenancy.read(tenancy.developer)
    violated = {"action": "policy.invariant.violated"}
    assert world.events(**violated) == []
    world.write("UPDATE environments SET kind = 'prod'")
    request_id = tenancy.read(tenancy.developer)
    row = world.request(request_id)
    (event,) = world.events(**violated)
    rule_id = row["matched_policy_rule_id"]
    assert (event.actor, event.status) == ("system:policy-engine", "success")
    assert event.resource == f"policy_rule:{rule_id}"
    assert (event.correlation_id, event.http_request_id) == (request_id, "req-1")
    assert event.metadata == {
        "reason": "direct_reveal_on_prod_env_zeroed",
        "rule_id": rule_id,
        "workflow_id": row["workflow_id"],
        "environment_name": "dev",
        "environment_kind": "prod",
        "project_id": tenancy.ids["project_id:own"],
    }
    # Once for each request that is made, and for none that is not; the rule stays as it is.
    dev, asks = tenancy.developer, ("request.submit", f"project:{tenancy.ids['project_id:own']}")
    scope = OutOfScopeProjectError
    refused(world, scope, tenancy.read, dev, target_secret_ref="app/none", asks=(*asks, scope.code))
    refused(world, InvalidInputError, tenancy.read, dev, justification=" ", asks=None)
    tenancy.read(tenancy.developer)
    assert len(world.events(**violated)) == 2
    (rule,) = world.rows(
        "SELECT direct_reveal_allowed FROM policy_rules WHERE id = :id", id=rule_id
    )
    assert bool(rule["direct_reveal_allowed"])
