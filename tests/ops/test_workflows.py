"""Workflows as administrators make them: merged, bounded, never asking nobody by accident."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from sb.db.engine import Transaction
from sb.errors import InvalidInputError, PermissionDeniedError, SbError
from sb.ops import workflows
from sb.ops.governance_errors import (
    AutoApproveNotPinnedError,
    DefaultWorkflowRequiredError,
    RulesChangedError,
    SystemRowError,
    WorkflowInUseError,
    WorkflowNameTakenError,
    WorkflowNotFoundError,
)
from tests.ops import rows
from tests.ops.refusals import at_once, kinds
from tests.ops.world import NOW, TEST, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
#: Another value for every knob than its default, all of them allowed together.
OTHER: dict[str, Any] = {
    "description": "four eyes and two more",
    "min_approvers": 3,
    "wrap_ttl_created_seconds": 100,
    "wrap_ttl_approved_seconds": 200,
    "wrap_ttl_claimed_seconds": 3000,
    "request_ttl_seconds": 400,
    "fill_ttl_seconds": 500,
    "require_justification": False,
    "allow_self_approval": True,
    "requires_security_approval": True,
    "scoped_policy_authorable": True,
    "notification_channels": ["slack:#x", "email:y@example.com"],
    "enabled": False,
}
SPANS = sorted(workflows.MOST_SECONDS)


def create(world: World, **knobs: Any) -> Mapping[str, Any]:
    knobs.setdefault("name", "two-people")
    found: Mapping[str, Any] = world.run(workflows.create, by=TEST, knobs=knobs, now=NOW)
    return found


def update(world: World, workflow_id: str, **changes: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = world.run(
        workflows.update, by=TEST, workflow_id=workflow_id, changes=changes, now=at(minutes=1)
    )
    return found


def refuse_create(world: World, error: type[SbError], **knobs: Any) -> SbError:
    return world.refuse(error, workflows.create, by=TEST, knobs={"name": "x", **knobs}, now=NOW)


def refuse_update(world: World, error: type[SbError], workflow_id: str, **changes: Any) -> SbError:
    return world.refuse(
        error, workflows.update, by=TEST, workflow_id=workflow_id, changes=changes, now=NOW
    )


def default_of(world: World) -> Mapping[str, Any]:
    (row,) = world.rows("SELECT * FROM workflow_definitions WHERE is_default = :yes", yes=True)
    return row


def test_create_with_a_name_alone_asks_one_person(world: World) -> None:
    row = create(world)
    assert {name: row[name] for name in workflows.DEFAULTS} == workflows.DEFAULTS
    assert (row["name"], row["is_system"], row["created_at"]) == ("two-people", False, NOW)
    (event,) = world.events(action="workflow.create")
    assert (event.actor, event.resource) == (TEST.actor, f"workflow:{row['id']}")
    assert event.metadata["min_approvers"] == 1


def test_create_with_every_knob_keeps_every_knob(world: World) -> None:
    role = world.role("approver")
    row = create(world, **OTHER, approver_role_id=role)
    assert {name: row[name] for name in OTHER} == OTHER
    assert row["approver_role_id"] == role


def test_create_with_a_taken_name_is_refused(world: World) -> None:
    create(world)
    refuse_create(world, WorkflowNameTakenError, name="two-people")
    outcomes = at_once([lambda: create(world, name="raced")] * 2)
    assert kinds(outcomes) == {"ok": 1, "workflow_name_taken": 1}


@pytest.mark.parametrize("knob", sorted(OTHER))
def test_update_of_one_knob_keeps_all_others(world: World, knob: str) -> None:
    before = create(world)
    after = update(world, before["id"], **{knob: OTHER[knob]})
    differing = {name for name in before if before[name] != after[name]}
    assert differing == {knob, "updated_at"}
    (event,) = world.events(action="workflow.update")
    assert event.metadata == {
        "name": "two-people",
        "changes": {knob: {"before": before[knob], "after": OTHER[knob]}},
    }


def test_update_with_nothing_new_leaves_no_trace(world: World) -> None:
    row = create(world)
    assert update(world, row["id"]) == row
    assert update(world, row["id"], min_approvers=1, enabled=True) == row
    assert world.events(action="workflow.update") == []


def test_update_of_a_missing_workflow_is_not_found(world: World) -> None:
    refuse_update(world, WorkflowNotFoundError, MISSING, enabled=False)


def test_rename_to_a_taken_name_is_refused(world: World) -> None:
    create(world, name="first")
    second = create(world, name="second")
    refuse_update(world, WorkflowNameTakenError, second["id"], name="first")
    assert update(world, second["id"], name="third")["name"] == "third"


@pytest.mark.parametrize("number", [0, -1, None, True, "2", 1.5, 51])
def test_create_that_asks_nobody_by_number_is_refused(world: World, number: object) -> None:
    error = refuse_create(world, InvalidInputError, min_approvers=number)
    assert [fault["field"] for fault in error.details["fields"]] == ["min_approvers"]


@pytest.mark.parametrize("number", [0, -1, None, 51])
def test_update_that_asks_nobody_by_number_is_refused(world: World, number: object) -> None:
    row = create(world)
    refuse_update(world, InvalidInputError, row["id"], min_approvers=number)
    refuse_update(world, InvalidInputError, row["id"], min_approvers=number, auto_approve=False)


def test_auto_approve_has_to_be_said_and_goes_with_zero(world: World) -> None:
    row = create(world, auto_approve=True)
    assert (row["auto_approve"], row["min_approvers"]) == (True, 0)
    explicit = create(world, name="explicit", auto_approve=True, min_approvers=0)
    assert explicit["min_approvers"] == 0
    refuse_create(world, InvalidInputError, auto_approve=True, min_approvers=1)
    refuse_create(world, InvalidInputError, auto_approve=True, requires_security_approval=True)


def test_auto_approve_switches_the_quorum_with_it(world: World) -> None:
    row = create(world, min_approvers=3)
    on = update(world, row["id"], auto_approve=True)
    assert (on["auto_approve"], on["min_approvers"]) == (True, 0)
    refuse_update(world, InvalidInputError, row["id"], min_approvers=2)
    off = update(world, row["id"], auto_approve=False)
    assert (off["auto_approve"], off["min_approvers"]) == (False, 1)
    changes = [event.metadata["changes"] for event in world.events(action="workflow.update")]
    assert sorted(len(change) for change in changes) == [2, 2]
    back = update(world, on["id"], auto_approve=True, min_approvers=0)
    assert update(world, back["id"], auto_approve=False, min_approvers=2)["min_approvers"] == 2


@pytest.mark.parametrize("span", SPANS)
def test_spans_are_positive_and_bounded(world: World, span: str) -> None:
    most = workflows.MOST_SECONDS[span]
    row = create(world, **{span: 1})
    assert update(world, row["id"], **{span: most})[span] == most
    for value in (0, -1, most + 1, 2**40, None, "60", 1.5, True):
        for error in (
            refuse_create(world, InvalidInputError, **{span: value}),
            refuse_update(world, InvalidInputError, row["id"], **{span: value}),
        ):
            assert [fault["field"] for fault in error.details["fields"]] == [span]


def test_every_fault_is_named_at_once(world: World) -> None:
    spans = dict.fromkeys(SPANS, 0)
    error = refuse_create(world, InvalidInputError, name=" ", min_approvers=0, **spans)
    named = {fault["field"] for fault in error.details["fields"]}
    assert named == {"name", "min_approvers", *SPANS}
    assert len(world.rows("SELECT id FROM workflow_definitions")) == 1


def test_approver_role_must_be_able_to_approve(world: World) -> None:
    able, unable = world.role("approver"), world.role("developer")
    row = create(world, approver_role_id=able)
    for role in (MISSING, unable):
        error = refuse_update(world, InvalidInputError, row["id"], approver_role_id=role)
        assert error.details["fields"][0]["field"] == "approver_role_id"
    assert update(world, row["id"], approver_role_id=None)["approver_role_id"] is None


# --- the default


def test_default_moves_in_one_step_and_both_rows_say_so(world: World) -> None:
    old, new = default_of(world), create(world)
    assert update(world, new["id"], is_default=True)["is_default"] is True
    assert default_of(world)["id"] == new["id"]
    told = {e.resource: e.metadata["changes"] for e in world.events(action="workflow.update")}
    assert told == {
        f"workflow:{old['id']}": {"is_default": {"before": True, "after": False}},
        f"workflow:{new['id']}": {"is_default": {"before": False, "after": True}},
    }


def test_default_can_be_taken_by_a_new_workflow(world: World) -> None:
    made = create(world, is_default=True)
    assert default_of(world)["id"] == made["id"]


def test_there_is_never_no_default(world: World) -> None:
    default = create(world, is_default=True)
    for changes in ({"is_default": False}, {"enabled": False}, {"auto_approve": True}):
        refuse_update(world, DefaultWorkflowRequiredError, default["id"], **changes)
    world.refuse(
        DefaultWorkflowRequiredError, workflows.delete, by=TEST, workflow_id=default["id"], now=NOW
    )
    assert default_of(world) == default


def test_default_is_enabled_and_asks_somebody(world: World) -> None:
    standard = default_of(world)
    refuse_create(world, DefaultWorkflowRequiredError, is_default=True, enabled=False)
    refuse_create(world, DefaultWorkflowRequiredError, is_default=True, auto_approve=True)
    off = create(world, enabled=False)
    refuse_update(world, DefaultWorkflowRequiredError, off["id"], is_default=True)
    assert update(world, off["id"], is_default=True, enabled=True)["is_default"] is True
    assert default_of(world)["id"] != standard["id"]


def test_default_switched_by_many_at_once_is_one(world: World) -> None:
    made = [create(world, name=f"w{n}") for n in range(6)]
    outcomes = at_once([partial(update, world, row["id"], is_default=True) for row in made])
    found = kinds(outcomes)
    assert found["ok"] >= 1
    assert set(found) <= {"ok", "default_workflow_changed"}
    assert default_of(world)["id"] in {row["id"] for row in made}


def test_default_disabled_while_it_becomes_one_is_decided_once(world: World) -> None:
    row = create(world)
    outcomes = at_once(
        [
            lambda: update(world, row["id"], is_default=True),
            lambda: update(world, row["id"], enabled=False),
        ]
    )
    assert kinds(outcomes) == {"ok": 1, "default_workflow_required": 1}
    assert default_of(world)["enabled"]


# --- rules that point at it


def test_auto_approve_is_refused_while_a_rule_could_match_production(world: World) -> None:
    pinned = world.rule({"environment_kind": "non_prod"})
    loose = world.rule({"operation": "read"})
    assert update(world, pinned, auto_approve=True)["auto_approve"] is True
    error = refuse_update(world, AutoApproveNotPinnedError, loose, auto_approve=True)
    assert error.details == {"field": "auto_approve", "rules": 1}


def test_delete_of_an_unused_workflow_is_audited_and_final(world: World) -> None:
    row = create(world)
    world.run(workflows.delete, by=TEST, workflow_id=row["id"], now=NOW)
    (event,) = world.events(action="workflow.delete")
    assert (event.resource, event.metadata) == (f"workflow:{row['id']}", {"name": "two-people"})
    world.refuse(WorkflowNotFoundError, workflows.delete, by=TEST, workflow_id=row["id"], now=NOW)


def test_delete_of_one_in_use_is_refused_with_counts(world: World) -> None:
    world.connection()
    workflow_id = world.rule({"operation": "read"})
    world.read(world.person("dev", "developer"), "A")
    error = world.refuse(
        WorkflowInUseError, workflows.delete, by=TEST, workflow_id=workflow_id, now=NOW
    )
    assert error.details == {"rules": 1, "requests": 1}


def test_delete_of_the_systems_own_is_refused(world: World) -> None:
    standard = default_of(world)
    create(world, is_default=True)
    world.refuse(SystemRowError, workflows.delete, by=TEST, workflow_id=standard["id"], now=NOW)


def test_submit_under_a_workflow_deleted_meanwhile_says_to_try_again(world: World) -> None:
    if world.db.dialect == "sqlite":
        pytest.skip("one writer at a time: the submit finds the workflow gone before it begins")
    world.connection()
    workflow_id = world.rule({"operation": "read"})
    dev = world.person("dev", "developer")
    deleted = threading.Event()

    def op(tx: Transaction) -> None:
        rows.run(tx, "DELETE FROM policy_rules WHERE workflow_id = :id", id=workflow_id)
        workflows.delete(tx, by=TEST, workflow_id=workflow_id, now=NOW)
        deleted.set()
        # The submit has read the old rules and waits for the row that is being deleted.
        while not rows.find(tx, "SELECT pid FROM pg_locks WHERE NOT granted"):
            pass

    def remove() -> None:
        world.db.run_sync(op)

    def submit() -> str:
        assert deleted.wait(10)
        return world.read(dev, "A")

    outcomes = at_once([remove, submit])
    assert outcomes[0] is None
    assert isinstance(outcomes[1], RulesChangedError)


# --- who reads them


def test_workflows_are_read_by_those_who_work_with_them(world: World) -> None:
    row = create(world)
    page: dict[str, Any] = {"before": None, "limit": 10}
    for role in ("admin", "approver", "policy_author"):
        reader = world.person(role, role)
        assert world.run(workflows.show, caller=reader, workflow_id=row["id"]) == row
        assert row in world.run(workflows.list_workflows, caller=reader, **page)
    stranger = world.person("stranger", "developer")
    reads: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (workflows.show, {"workflow_id": row["id"]}),
        (workflows.list_workflows, page),
    ]
    for op, arguments in reads:
        error = world.refuse(PermissionDeniedError, op, caller=stranger, **arguments)
        assert error.audit is not None


def test_lists_are_paged_newest_first(world: World) -> None:
    made = [
        world.run(
            workflows.create,
            by=TEST,
            knobs={"name": f"w{n}", "scoped_policy_authorable": n != 2, "enabled": n != 3},
            now=at(minutes=n),
        )
        for n in range(5)
    ]
    admin = world.person("admin", "admin")
    # The seeded one is as old as this run.
    first = world.run(workflows.list_workflows, caller=admin, before=None, limit=3)
    before = (first[-1]["created_at"], first[-1]["id"])
    second = world.run(workflows.list_workflows, caller=admin, before=before, limit=2)
    names = [row["name"] for row in [*first, *second]]
    assert names == ["standard", "w4", "w3", "w2", "w1"]
    open_ones = world.run(workflows.list_authorable, before=None, limit=10)
    assert [row["id"] for row in open_ones] == [made[n]["id"] for n in (4, 1, 0)]
