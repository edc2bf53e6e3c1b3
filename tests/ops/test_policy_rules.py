"""Policy rules as administrators write them: any anchor, and production never without anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sb.errors import InvalidInputError, SbError
from sb.ops import policy_rules, workflows
from sb.ops.governance_errors import (
    AutoApproveNotPinnedError,
    DirectRevealNotPinnedError,
    PolicyEnvironmentError,
    PolicyNotFoundError,
    PolicyScopeTooBroadError,
    PolicySelectorMismatchError,
    SystemRowError,
    SystemRuleSelectorError,
)
from sb.ops.policy_rules import After, NewRule
from tests.ops.refusals import at_once, kinds
from tests.ops.ruling import NON_PROD, Ruling
from tests.ops.world import NOW, TEST, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
PROVIDERS = ("vault", "aws-sm", "gcp-sm", "azure-kv", "kubernetes", "file")


@pytest.fixture
def ruling(world: World) -> Ruling:
    return Ruling.build(world)


def refuse(ruling: Ruling, error: type[SbError], **facts: Any) -> SbError:
    """Return the refusal of a new rule, which must leave no rule behind."""
    before = ruling.world.rows("SELECT id FROM policy_rules ORDER BY id")
    values = {"name": "rule", "selector": NON_PROD, "workflow_id": ruling.closed, **facts}
    found = ruling.world.refuse(
        error, policy_rules.create, by=TEST, rule=NewRule(**values), now=NOW
    )
    assert ruling.world.rows("SELECT id FROM policy_rules ORDER BY id") == before
    return found


def update(ruling: Ruling, rule_id: str, **changes: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = ruling.world.run(
        policy_rules.update, by=TEST, rule_id=rule_id, changes=changes, now=at(minutes=1)
    )
    return found


def refuse_update(ruling: Ruling, error: type[SbError], rule_id: str, **changes: Any) -> SbError:
    return ruling.world.refuse(
        error, policy_rules.update, by=TEST, rule_id=rule_id, changes=changes, now=NOW
    )


def system_rule(world: World) -> Mapping[str, Any]:
    (row,) = world.rows("SELECT * FROM policy_rules WHERE is_system = :yes", yes=True)
    return row


def test_create_with_the_least_has_the_defaults(ruling: Ruling) -> None:
    row = ruling.rule()
    assert (row["priority"], row["enabled"], row["reveal_ttl_seconds"]) == (100, True, 60)
    assert (row["direct_reveal_allowed"], row["requires_mfa"]) == (False, False)
    assert (row["project_id"], row["team_id"], row["is_system"]) == (None, None, False)
    (event,) = ruling.world.events(action="policy.create")
    assert event.resource == f"policy_rule:{row['id']}"
    assert event.metadata == {
        "policy_rule_id": row["id"],
        "project_id": None,
        "team_id": None,
        "scope": "platform",
        "name": "rule",
        "workflow_id": ruling.closed,
        "priority": 100,
        "enabled": True,
        "direct_reveal_allowed": False,
        "requires_mfa": False,
        "reveal_ttl_seconds": 60,
        "selector_keys": ["environment_kind"],
        "actor_permission_used": "policy.edit",
    }


def test_create_with_every_fact_keeps_every_fact(ruling: Ruling) -> None:
    ids = ruling.tenancy.ids
    facts: dict[str, Any] = {
        "selector": {
            "project_id": ids["project_id:own"].upper(),
            "environment": "dev",
            "environment_id": ids["environment_id:own"],
            "environment_kind": "non_prod",
            "provider_type": "file",
            "secret_ref_prefix": "app/",
            "operation": "reveal",
        },
        "priority": 2**31 - 1,
        "enabled": False,
        "direct_reveal_allowed": True,
        "requires_mfa": True,
        "reveal_ttl_seconds": 300,
    }
    row = ruling.rule(**facts)
    expected = {**facts["selector"], "project_id": ids["project_id:own"]}
    assert row["selector"] == expected
    assert {name: row[name] for name in facts if name != "selector"} == {
        name: value for name, value in facts.items() if name != "selector"
    }


def test_the_trail_never_says_what_a_selector_is_set_to(ruling: Ruling) -> None:
    row = ruling.rule(selector={"secret_ref_prefix": "hidden-prefix/"})
    update(ruling, row["id"], selector={"secret_ref_prefix": "hidden-other/"})
    ruling.world.run(policy_rules.delete, by=TEST, rule_id=row["id"], now=at(minutes=2))
    told = repr(ruling.world.events(resource=f"policy_rule:{row['id']}"))
    assert "secret_ref_prefix" in told
    assert "hidden-" not in told


# --- selectors

BAD_VALUES: list[tuple[dict[str, Any], type[SbError], str]] = [
    ({}, PolicyScopeTooBroadError, "selector_empty"),
    *[
        ({"provider_type": value}, PolicyScopeTooBroadError, "provider_type_invalid")
        for value in ("", "aws", "Vault", None, 1, [], {}, True)
    ],
    *[
        ({"operation": value}, PolicyScopeTooBroadError, "operation_invalid")
        for value in ("", "cross_team", "READ", None, 1)
    ],
    *[
        ({"environment_kind": value}, PolicyScopeTooBroadError, "env_kind_invalid")
        for value in ("", "dev", "Prod", None, 0)
    ],
    *[
        ({"environment_id": value}, PolicyEnvironmentError, "selector.environment_id")
        for value in ("", "dev", MISSING, None, 7)
    ],
    *[
        ({"project_id": value}, InvalidInputError, "selector.project_id")
        for value in ("", "billing", MISSING, None, 7)
    ],
    *[
        ({"secret_ref_prefix": value}, InvalidInputError, "selector.secret_ref_prefix")
        for value in ("", "x" * 1025, None, 7, ["a"])
    ],
    *[
        (
            {"provider_type": "vault", "secret_ref_prefix": value},
            InvalidInputError,
            "selector.secret_ref_prefix",
        )
        for value in ("/app", "app//db", "../app", "app/./db", "/")
    ],
    *[
        ({"environment": value}, InvalidInputError, "selector.environment")
        for value in ("", "x" * 256, None)
    ],
    *[
        ({**NON_PROD, key: "x"}, InvalidInputError, f"selector.{key}")
        for key in ("type", "team_id", "cluster", "", "Operation", "environment_kind ")
    ],
]


@pytest.mark.parametrize(("selector", "error", "said"), BAD_VALUES)
def test_create_with_a_selector_that_cannot_match_is_refused(
    ruling: Ruling, selector: dict[str, Any], error: type[SbError], said: str
) -> None:
    _says(refuse(ruling, error, selector=selector), said)
    rule = ruling.rule()
    _says(refuse_update(ruling, error, rule["id"], selector=selector), said)


def _says(error: SbError, said: str) -> None:
    details = error.details
    named = details.get("reason") or details.get("field") or details["fields"][0]["field"]
    assert named == said


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_type_can_be_pinned(ruling: Ruling, provider: str) -> None:
    assert ruling.rule(selector={"provider_type": provider})["selector"]


def test_environment_and_its_kind_have_to_agree(ruling: Ruling) -> None:
    ids = ruling.tenancy.ids
    pairs = ((ids["environment_id:prod"], "non_prod"), (ids["environment_id:own"], "prod"))
    for environment_id, kind in pairs:
        selector = {"environment_id": environment_id, "environment_kind": kind}
        error = refuse(ruling, PolicyScopeTooBroadError, selector=selector)
        assert error.details == {"reason": "env_kind_id_inconsistent"}
    selector = {"project_id": ids["project_id:other"], "environment_id": ids["environment_id:own"]}
    refuse(ruling, PolicyEnvironmentError, selector=selector)


def test_facts_out_of_range_are_named(ruling: Ruling) -> None:
    facts = {"name": "  ", "priority": 2**31, "reveal_ttl_seconds": 9}
    error = refuse(ruling, InvalidInputError, **facts)
    assert [fault["field"] for fault in error.details["fields"]] == list(facts)
    refuse(ruling, InvalidInputError, reveal_ttl_seconds=301)
    refuse(ruling, InvalidInputError, workflow_id=MISSING)


# --- anchors


def test_anchors_are_one_and_exist(ruling: Ruling) -> None:
    project, team = ruling.project.id, ruling.team().id
    for anchors, field in (
        ({"project_id": project, "team_id": team}, "team_id"),
        ({"project_id": MISSING}, "project_id"),
        ({"team_id": MISSING}, "team_id"),
    ):
        error = refuse(ruling, InvalidInputError, **anchors)
        assert [fault["field"] for fault in error.details["fields"]] == [field]


def test_project_rules_are_pinned_before_the_database_says_so(ruling: Ruling) -> None:
    project, ids = ruling.project.id, ruling.tenancy.ids
    other = {**NON_PROD, "project_id": ids["project_id:other"]}
    refuse(ruling, PolicySelectorMismatchError, project_id=project, selector=other)
    for selector, reason in (
        ({}, "selector_empty"),
        ({"operation": "read"}, "env_constraint_missing"),
        ({"environment_kind": "prod"}, "env_kind_invalid"),
    ):
        error = refuse(ruling, PolicyScopeTooBroadError, project_id=project, selector=selector)
        assert error.details == {"reason": reason}
        assert (reason == "env_kind_invalid") == ("leave the anchor out" in error.public_message)
    foreign = {"environment_id": ids["environment_id:other"]}
    refuse(ruling, PolicyEnvironmentError, project_id=project, selector=foreign)
    for selector in (
        NON_PROD,
        {**NON_PROD, "project_id": project},
        {"environment_id": ids["environment_id:prod"]},
        {"environment_id": ids["environment_id:prod"], "environment_kind": "prod"},
    ):
        assert ruling.rule(project_id=project, selector=selector)["project_id"] == project


def test_rule_for_the_production_of_a_project_is_a_platform_rule(ruling: Ruling) -> None:
    # What the refusal of an anchored one says.
    selector = {"project_id": ruling.project.id, "environment_kind": "prod"}
    assert ruling.rule(selector=selector)["project_id"] is None
    error = refuse(ruling, PolicyScopeTooBroadError, selector={"environment_kind": "dev"})
    assert "anchor" not in error.public_message


def test_team_rules_pin_no_ids_and_no_production(ruling: Ruling) -> None:
    team, ids = ruling.team().id, ruling.tenancy.ids
    for selector, reason in (
        ({}, "selector_empty"),
        ({**NON_PROD, "project_id": ids["project_id:own"]}, "team_selector_pins_project_id"),
        (
            {**NON_PROD, "environment_id": ids["environment_id:own"]},
            "team_selector_pins_environment_id",
        ),
        ({**NON_PROD, "team_id": team}, "team_selector_pins_team_id"),
        ({"operation": "read"}, "env_constraint_missing"),
        ({"environment_kind": "prod"}, "env_kind_invalid"),
    ):
        error = refuse(ruling, PolicyScopeTooBroadError, team_id=team, selector=selector)
        assert error.details == {"reason": reason}
        assert (reason == "env_kind_invalid") == ("leave the anchor out" in error.public_message)
    assert ruling.rule(team_id=team)["team_id"] == team


def test_update_never_moves_a_rule(ruling: Ruling) -> None:
    rule = ruling.rule(project_id=ruling.project.id)
    for changes in (
        {"project_id": ruling.other_project.id},
        {"project_id": None},
        {"team_id": ruling.team().id},
    ):
        refuse_update(ruling, InvalidInputError, rule["id"], **changes)
    same = update(ruling, rule["id"], project_id=rule["project_id"], team_id=None, name="renamed")
    assert (same["name"], same["project_id"]) == ("renamed", rule["project_id"])


# --- what must never happen to production


LOOSE: list[dict[str, Any]] = [
    {"operation": "read"},
    {"environment_kind": "prod"},
    {"environment": "dev"},
    {"secret_ref_prefix": "app/"},
]


@pytest.mark.parametrize("selector", LOOSE)
def test_rule_that_could_match_production_cannot_ask_nobody(
    ruling: Ruling, selector: dict[str, Any]
) -> None:
    nobody = ruling.workflow("nobody", auto_approve=True)
    refuse(ruling, AutoApproveNotPinnedError, selector=selector, workflow_id=nobody)
    refuse(ruling, DirectRevealNotPinnedError, selector=selector, direct_reveal_allowed=True)
    pinned = ruling.rule(workflow_id=nobody, direct_reveal_allowed=True)
    refuse_update(ruling, AutoApproveNotPinnedError, pinned["id"], selector=selector)
    loose = ruling.rule(selector=selector)
    refuse_update(ruling, AutoApproveNotPinnedError, loose["id"], workflow_id=nobody)
    refuse_update(ruling, DirectRevealNotPinnedError, loose["id"], direct_reveal_allowed=True)
    both = {"selector": NON_PROD, "workflow_id": nobody, "direct_reveal_allowed": True}
    assert update(ruling, loose["id"], **both)["direct_reveal_allowed"] is True


def test_environment_id_alone_does_not_pin_the_kind(ruling: Ruling) -> None:
    nobody = ruling.workflow("nobody", auto_approve=True)
    selector = {"environment_id": ruling.tenancy.ids["environment_id:own"]}
    refuse(ruling, AutoApproveNotPinnedError, selector=selector, workflow_id=nobody)
    assert ruling.rule(selector={**selector, **NON_PROD}, workflow_id=nobody)


def test_rule_and_workflow_cannot_both_loosen_at_once(ruling: Ruling) -> None:
    rule = ruling.rule(workflow_id=ruling.open)
    outcomes = at_once(
        [
            lambda: update(ruling, rule["id"], selector={"operation": "read"}),
            lambda: ruling.world.run(
                workflows.update,
                by=TEST,
                workflow_id=ruling.open,
                changes={"auto_approve": True},
                now=NOW,
            ),
        ]
    )
    assert kinds(outcomes) == {"ok": 1, "auto_approve_needs_non_prod": 1}


# --- update, delete, the system's own


CHANGES: dict[str, Any] = {
    "name": "another",
    "selector": {**NON_PROD, "operation": "read"},
    "priority": -5,
    "enabled": False,
    "direct_reveal_allowed": True,
    "requires_mfa": True,
    "reveal_ttl_seconds": 10,
}


@pytest.mark.parametrize("fact", sorted(CHANGES))
def test_update_of_one_fact_keeps_all_others(ruling: Ruling, fact: str) -> None:
    before = ruling.rule()
    after = update(ruling, before["id"], **{fact: CHANGES[fact]})
    assert {name for name in before if before[name] != after[name]} == {fact, "updated_at"}
    (event,) = ruling.world.events(action="policy.update")
    assert event.metadata["changed_keys"] == [fact]
    if fact == "selector":
        assert event.metadata["before"] == {"selector_keys": ["environment_kind"]}
    else:
        assert event.metadata["before"] == {fact: before[fact]}


def test_update_with_nothing_new_leaves_no_trace(ruling: Ruling) -> None:
    rule = ruling.rule()
    assert update(ruling, rule["id"], name="rule", selector=dict(NON_PROD)) == rule
    assert ruling.world.events(action="policy.update") == []


def test_missing_rules_are_not_found(ruling: Ruling) -> None:
    refuse_update(ruling, PolicyNotFoundError, MISSING, name="x")
    for op, extra in ((policy_rules.delete, {"by": TEST, "now": NOW}), (policy_rules.find, {})):
        ruling.world.refuse(PolicyNotFoundError, op, rule_id=MISSING, **extra)


def test_delete_is_final_and_audited(ruling: Ruling) -> None:
    rule = ruling.rule(team_id=ruling.team().id)
    arguments = {"by": TEST, "rule_id": rule["id"], "now": NOW}
    assert ruling.world.run(policy_rules.delete, **arguments) == "team"
    ruling.world.refuse(PolicyNotFoundError, policy_rules.delete, **arguments)
    (event,) = ruling.world.events(action="policy.delete")
    assert (event.metadata["name"], event.metadata["scope"]) == ("rule", "team")


def test_delete_of_a_rule_that_decided_keeps_the_request(ruling: Ruling) -> None:
    rule = ruling.rule()
    request_id = ruling.tenancy.read(ruling.tenancy.developer)
    assert ruling.world.request(request_id)["matched_policy_rule_id"] == rule["id"]
    ruling.world.run(policy_rules.delete, by=TEST, rule_id=rule["id"], now=NOW)
    row = ruling.world.request(request_id)
    assert (row["status"], row["matched_policy_rule_id"]) == ("pending", None)


def test_the_systems_own_rule_can_be_edited_and_stays(world: World, ruling: Ruling) -> None:
    own = system_rule(world)
    changed = update(ruling, own["id"], workflow_id=ruling.closed, name="all", selector={})
    assert (changed["workflow_id"], changed["selector"]) == (ruling.closed, {})
    refuse_update(ruling, SystemRuleSelectorError, own["id"], selector=NON_PROD)
    refuse_update(ruling, DirectRevealNotPinnedError, own["id"], direct_reveal_allowed=True)
    nobody = ruling.workflow("nobody", auto_approve=True)
    refuse_update(ruling, AutoApproveNotPinnedError, own["id"], workflow_id=nobody)
    world.refuse(SystemRowError, policy_rules.delete, by=TEST, rule_id=own["id"], now=NOW)


def test_updates_at_once_lose_nothing(ruling: Ruling) -> None:
    rule = ruling.rule()
    outcomes = at_once(
        [
            lambda: update(ruling, rule["id"], priority=7),
            lambda: update(ruling, rule["id"], requires_mfa=True),
            lambda: update(ruling, rule["id"], workflow_id=ruling.open),
        ]
    )
    assert set(kinds(outcomes)) <= {"ok", "rules_changed"}
    row = ruling.world.run(policy_rules.find, rule_id=rule["id"])
    done = [outcome for outcome in outcomes if not isinstance(outcome, SbError)]
    assert len(ruling.world.events(action="policy.update")) == len(done)
    told = (row["priority"] == 7) + row["requires_mfa"] + (row["workflow_id"] == ruling.open)
    assert told == len(done)


def test_list_is_paged_in_order_of_precedence(ruling: Ruling) -> None:
    for minute, priority in enumerate((5, 9, 5, 7, 9, 5)):
        ruling.rule(at(minutes=minute), name=f"{priority}@{minute}", priority=priority)
    names, after = [], None
    while True:
        rows = ruling.world.run(policy_rules.list_rules, after=after, limit=2)
        names += [row["name"] for row in rows]
        if len(rows) < 2:
            break
        last = rows[-1]
        after = After(priority=last["priority"], depth=0, at=last["created_at"], id=last["id"])
    assert names[:-1] == ["9@1", "9@4", "7@3", "5@0", "5@2", "5@5"]
    assert names[-1] == "match-all (system default)"
