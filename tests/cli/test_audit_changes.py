"""Who changed rules and workflows, from what to what, through psql."""

from __future__ import annotations

from typing import Any

import pytest

from sb.ops import policy_rules, workflows
from tests.cli.governed import Governed, shown

pytestmark = pytest.mark.xdist_group("cli-audit")

# --- changes of a rule


def test_rule_changes_tell_every_change_from_what_to_what(governed: Governed) -> None:
    workflow_ids = {}
    for name in ("first", "second"):
        row = governed.run(
            workflows.create, by=governed.caller(), knobs={"name": name}, now=governed.at(-40)
        )
        workflow_ids[name] = str(row["id"])
    selector = {"environment_kind": "non_prod"}
    common = {"selector": selector, "workflow_id": workflow_ids["first"]}
    rule_id = governed.rule("mine", -30, **common)
    other = governed.rule("other", -29, **common)
    governed.grant("ann", "admin", -28)
    changed = {"environment_kind": "non_prod", "secret_ref_prefix": "app/"}
    governed.edit_rule(rule_id, -20, by="ann", priority=7, selector=changed)
    governed.edit_rule(other, -19, name="another")
    governed.edit_rule(rule_id, -10, workflow_id=workflow_ids["second"])
    # To the same is no change.
    governed.edit_rule(rule_id, -9, priority=7)
    governed.run(policy_rules.delete, by=governed.caller(), rule_id=rule_id, now=governed.at(-5))
    found = governed.ask("rule_changes", rule=rule_id)
    assert governed.ask("rule_changes", rule_id=rule_id.upper()) == found
    assert {row["rule_id"] for row in found} == {rule_id}
    changes = [row for row in found if row["action"] == "policy.update"]
    assert shown(changes, "who", "changed", "before", "after") == [
        ("ann@example.com", "priority", "100", "7"),
        (
            "ann@example.com",
            "selector",
            '{"environment_kind": "non_prod"}',
            '{"environment_kind": "non_prod", "secret_ref_prefix": "app/"}',
        ),
        ("root@example.com", "workflow", "first", "second"),
    ]
    made = [row for row in found if row["action"] == "policy.create"]
    ended = [row for row in found if row["action"] == "policy.delete"]
    assert found == [*made, *changes, *ended]
    assert {row["changed"]: row["after"] for row in made} == {
        "name": "mine",
        "enabled": "true",
        "priority": "100",
        "selector": '{"environment_kind": "non_prod"}',
        "workflow": "first",
        "direct_reveal_allowed": "false",
        "requires_mfa": "false",
        "reveal_ttl_seconds": "60",
    }
    assert {row["before"] for row in made} == {row["after"] for row in ended} == {""}
    was = {row["changed"]: row["before"] for row in ended}
    assert (was["priority"], was["workflow"]) == ("7", "second")
    assert was["selector"] == changes[1]["after"]
    assert {(row["anchor"], row["permission_used"]) for row in found} == {
        ("platform", "policy.edit")
    }


def test_rule_changes_tell_rules_apart_that_had_the_name_one_time(governed: Governed) -> None:
    workflow = governed.run(lambda tx: tx.one("workflow_find_default"))
    first, second, other = (
        governed.rule(
            name, days, selector={"secret_ref_prefix": f"{name}/"}, workflow_id=workflow["id"]
        )
        for name, days in (("twin", -30), ("twin", -29), ("other", -28))
    )
    governed.edit_rule(first, -20, name="elder", priority=7)
    governed.edit_rule(first, -15, selector={"secret_ref_prefix": "a/"})
    governed.edit_rule(second, -10, selector={"secret_ref_prefix": "b/"})
    governed.run(policy_rules.delete, by=governed.caller(), rule_id=second, now=governed.at(-5))
    found = governed.ask("rule_changes", rule="twin")
    told = {row["rule_id"]: [row] for row in found}
    assert list(told) == [first, second]
    changes = [row for row in found if row["action"] == "policy.update"]
    assert shown(changes, "rule_id", "changed", "before", "after") == [
        (first, "name", "twin", "elder"),
        (first, "priority", "100", "7"),
        (first, "selector", '{"secret_ref_prefix": "twin/"}', '{"secret_ref_prefix": "a/"}'),
        (second, "selector", '{"secret_ref_prefix": "twin/"}', '{"secret_ref_prefix": "b/"}'),
    ]
    assert {row["rule_id"] for row in governed.ask("rule_changes", rule="elder")} == {first}
    assert {row["rule_id"] for row in governed.ask("rule_changes", rule="other")} == {other}


def test_rule_changes_begin_with_the_system_where_it_made_the_rule(governed: Governed) -> None:
    row = governed.run(lambda tx: tx.many("policy_list", **NO_CURSOR))[-1]
    (made,) = governed.ask("rule_changes", rule=row["name"])
    assert (made["actor"], made["who"], made["action"]) == ("system", "", "policy.create")
    governed.run(
        policy_rules.update,
        by=governed.caller(),
        rule_id=row["id"],
        changes={"name": "catch-all"},
        now=row["created_at"],
    )
    found = governed.ask("rule_changes", rule="catch-all")
    assert found == governed.ask("rule_changes", rule=row["name"])
    assert shown(found, "actor", "changed", "after")[0] == ("system", "", "")
    assert shown(found, "who", "changed", "before", "after")[1:] == [
        ("root@example.com", "name", row["name"], "catch-all")
    ]
    # So it does where another one of its name was made by somebody.
    twin = {"selector": {"operation": "read"}, "workflow_id": row["workflow_id"]}
    twin_id = governed.rule("catch-all", 0.5, **twin)
    both = governed.ask("rule_changes", rule="catch-all")
    assert both == [*found, *governed.ask("rule_changes", rule=twin_id)]


NO_CURSOR = {"after_priority": None, "after_at": None, "after_id": None, "limit": 100}


# --- changes of a workflow


def _edit_workflow(governed: Governed, id_: str, days: float, by: str = "root", **to: Any) -> None:
    caller = governed.caller(by, days)
    governed.run(workflows.update, by=caller, workflow_id=id_, changes=to, now=governed.at(days))


def _workflow(governed: Governed, name: str, days: float, **knobs: Any) -> str:
    row = governed.run(
        workflows.create,
        by=governed.caller(),
        knobs={"name": name, **knobs},
        now=governed.at(days),
    )
    return str(row["id"])


def test_workflow_changes_tell_every_change_from_what_to_what(governed: Governed) -> None:
    governed.grant("ann", "admin", -40)
    workflow_id = _workflow(governed, "pair", -30, min_approvers=2)
    _workflow(governed, "other", -29)
    role_id = governed.role_id("approver")
    _edit_workflow(governed, workflow_id, -20, "ann", min_approvers=3, approver_role_id=role_id)
    _edit_workflow(governed, workflow_id, -10, name="three", notification_channels=["mail"])
    # To the same is no change.
    _edit_workflow(governed, workflow_id, -9, min_approvers=3)
    caller, now = governed.caller(), governed.at(-5)
    governed.run(workflows.delete, by=caller, workflow_id=workflow_id, now=now)
    found = governed.ask("workflow_changes", workflow=workflow_id)
    made, changes, ended = (
        [row for row in found if row["action"] == f"workflow.{verb}"]
        for verb in ("create", "update", "delete")
    )
    assert found == [*made, *changes, *ended]
    assert shown(changes, "who", "changed", "before", "after") == [
        ("ann@example.com", "min_approvers", "2", "3"),
        ("ann@example.com", "approver_role", "", "approver"),
        ("root@example.com", "name", "pair", "three"),
        ("root@example.com", "notification_channels", "[]", '["mail"]'),
    ]
    knobs = {knob.removesuffix("_id") for knob in workflows.KNOBS}
    was, began = ({row["changed"]: row for row in rows} for rows in (ended, made))
    assert was.keys() == began.keys() == knobs
    assert {row["before"] for row in made} == {row["after"] for row in ended} == {""}
    told = ("name", "min_approvers", "approver_role", "request_ttl_seconds", "enabled")
    assert [began[knob]["after"] for knob in told] == ["pair", "2", "", "1209600", "true"]
    assert [was[knob]["before"] for knob in told] == ["three", "3", "approver", "1209600", "true"]
    assert {row["workflow_id"] for row in found} == {workflow_id}
    for name in ("pair", "three"):
        assert governed.ask("workflow_changes", workflow=name) == found


def test_workflow_changes_begin_with_the_system_where_it_made_it(governed: Governed) -> None:
    default = governed.run(lambda tx: tx.one("workflow_find_default"))
    new = _workflow(governed, "new", 0.5, is_default=True)
    found = governed.ask("workflow_changes", workflow=default["name"])
    assert shown(found, "actor", "who", "action", "changed", "before", "after") == [
        ("system", "", "workflow.create", "", "", ""),
        (found[1]["actor"], "root@example.com", "workflow.update", "is_default", "true", "false"),
    ]
    # What nothing told of the one that was there before is not made up.
    governed.write(
        "UPDATE workflow_definitions SET is_system = false WHERE id = :id", id=default["id"]
    )
    for rule in governed.run(lambda tx: tx.many("policy_list", **NO_CURSOR)):
        governed.edit_rule(rule["id"], 0.6, workflow_id=new)
    governed.run(
        workflows.delete, by=governed.caller(), workflow_id=default["id"], now=governed.at(0.7)
    )
    told = {
        row["changed"]: row["before"]
        for row in governed.ask("workflow_changes", workflow=default["id"])
        if row["action"] == "workflow.delete"
    }
    assert {knob: value for knob, value in told.items() if value} == {
        "name": default["name"],
        "is_default": "false",
    }
