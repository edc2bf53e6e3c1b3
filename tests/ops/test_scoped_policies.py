"""Rules of scoped authors: coverage first, then the gates in their order, never production."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sb.errors import NotFoundError, SbError
from sb.ops import policy_rules, scoped_policies, settings, workflows
from sb.ops.callers import Caller
from sb.ops.governance_errors import (
    AutoApproveNotPinnedError,
    OutOfScopePolicyError,
    OutOfScopeTeamPolicyError,
    PlatformPolicyNotEditableError,
    PolicyEnvironmentError,
    PolicyNotFoundError,
    PolicyPriorityReservedError,
    PolicyScopeTooBroadError,
    PolicySelectorMismatchError,
    ProdPolicyNotAllowedError,
    TeamNotFoundError,
    WorkflowNotAuthorableError,
)
from sb.ops.policy_rules import After
from sb.ops.scoped_policies import Anchor
from tests.ops.ruling import CAP, NON_PROD, Ruling
from tests.ops.world import NOW, TEST, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
PROD = {"environment_kind": "prod"}


@pytest.fixture
def ruling(world: World) -> Ruling:
    return Ruling.build(world)


@pytest.fixture(params=["project", "team"])
def anchor(request: pytest.FixtureRequest, ruling: Ruling) -> Anchor:
    return ruling.project if request.param == "project" else ruling.team()


def out_of_scope(anchor: Anchor) -> type[SbError]:
    return OutOfScopePolicyError if anchor.kind == "project" else OutOfScopeTeamPolicyError


def refuse_write(
    ruling: Ruling, error: type[SbError], caller: Caller, anchor: Anchor, **facts: Any
) -> SbError:
    return ruling.world.refuse(
        error,
        scoped_policies.create,
        caller=caller,
        anchor=anchor,
        draft=ruling.draft(**facts),
        now=NOW,
    )


def update(
    ruling: Ruling, caller: Caller, anchor: Anchor, rule_id: str, **changes: Any
) -> Mapping[str, Any]:
    found: Mapping[str, Any] = ruling.world.run(
        scoped_policies.update,
        caller=caller,
        anchor=anchor,
        rule_id=rule_id,
        changes=changes,
        now=at(minutes=1),
    )
    return found


def refuse_update(
    ruling: Ruling,
    error: type[SbError],
    caller: Caller,
    anchor: Anchor,
    rule_id: str,
    **changes: Any,
) -> SbError:
    return ruling.world.refuse(
        error,
        scoped_policies.update,
        caller=caller,
        anchor=anchor,
        rule_id=rule_id,
        changes=changes,
        now=NOW,
    )


def every_verb(ruling: Ruling, rule_id: str) -> list[tuple[Callable[..., Any], dict[str, Any]]]:
    return [
        (scoped_policies.create, {"draft": ruling.draft(), "now": NOW}),
        (scoped_policies.list_rules, {"after": None, "limit": 10}),
        (scoped_policies.show, {"rule_id": rule_id}),
        (scoped_policies.update, {"rule_id": rule_id, "changes": {"name": "x"}, "now": NOW}),
        (scoped_policies.delete, {"rule_id": rule_id, "now": NOW}),
    ]


def listed(ruling: Ruling, caller: Caller, anchor: Anchor) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = ruling.world.run(
        scoped_policies.list_rules, caller=caller, anchor=anchor, after=None, limit=100
    )
    return found


# --- coverage


def test_author_writes_where_the_grant_reaches(ruling: Ruling) -> None:
    project, own, parent = ruling.project, ruling.team(), ruling.team("parent")
    reaching: list[tuple[dict[str, str], tuple[Anchor, ...]]] = [
        ({}, (project, own, parent, ruling.other_project)),
        ({"project_id": project.id}, (project,)),
        ({"team_id": own.id}, (project, own)),
        ({"team_id": parent.id}, (project, own, parent, ruling.other_project)),
    ]
    everywhere = (project, own, parent, ruling.other_project, ruling.team("sibling"))
    for scope, covered in reaching:
        caller = ruling.author(**scope)
        for anchor in everywhere:
            if anchor in covered or scope in ({}, {"team_id": parent.id}):
                assert ruling.write(caller, anchor)["workflow_name"] == "open"
            else:
                refuse_write(ruling, out_of_scope(anchor), caller, anchor)


@pytest.mark.parametrize("extra", ["environment_id", "secret_ref_prefix", "provider", "cluster"])
def test_narrower_grants_cover_no_project(ruling: Ruling, extra: str) -> None:
    value = ruling.tenancy.ids["environment_id:own"] if extra == "environment_id" else "file"
    for anchor in (ruling.project, ruling.team()):
        scope = {f"{anchor.kind}_id": anchor.id, extra: value}
        refuse_write(ruling, out_of_scope(anchor), ruling.author(**scope), anchor)


def test_every_verb_asks_for_coverage_first(ruling: Ruling, anchor: Anchor) -> None:
    rule = ruling.write(ruling.author(), anchor)
    strangers = [
        ruling.world.person("admin", "admin"),
        ruling.author(project_id=ruling.other_project.id),
        ruling.author(team_id=ruling.team("sibling").id),
        ruling.world.person("nobody"),
    ]
    if anchor.kind == "team":
        strangers.append(ruling.author(project_id=ruling.project.id))
    for stranger in strangers:
        for rule_id in (rule["id"], MISSING):
            for op, arguments in every_verb(ruling, rule_id):
                error = ruling.world.refuse(
                    out_of_scope(anchor), op, caller=stranger, anchor=anchor, **arguments
                )
                denial = error.audit
                assert denial is not None
                assert (denial.action, denial.resource, denial.status) == (
                    "policy.denied_out_of_scope",
                    f"{anchor.kind}:{anchor.id}",
                    "denied",
                )
                assert denial.metadata == {
                    f"attempted_{anchor.kind}_id": anchor.id,
                    "scope": anchor.kind,
                    "actor_permission_attempted": "policy.author",
                }
                assert error.details == {}


def test_what_does_not_exist_looks_out_of_scope_unless_everything_is_covered(
    ruling: Ruling,
) -> None:
    scoped, everywhere = ruling.author_of(ruling.project), ruling.author()
    for kind, missing in (("project", NotFoundError), ("team", TeamNotFoundError)):
        nowhere = Anchor(kind=kind, id=MISSING)  # type: ignore[arg-type]
        refuse_write(ruling, out_of_scope(nowhere), scoped, nowhere)
        refuse_write(ruling, missing, everywhere, nowhere)


def test_archived_team_takes_no_new_rules_and_keeps_its_own(ruling: Ruling) -> None:
    team, author = ruling.team(), ruling.author_of(ruling.team())
    rule = ruling.write(author, team)
    ruling.world.write("UPDATE teams SET status = 'archived' WHERE id = :id", id=team.id)
    refuse_write(ruling, TeamNotFoundError, author, team)
    assert update(ruling, author, team, rule["id"], priority=1)["priority"] == 1


# --- what an author may write


def test_create_sets_what_administrators_decide_to_no(ruling: Ruling, anchor: Anchor) -> None:
    author = ruling.author_of(anchor)
    row = ruling.write(author, anchor, selector={**NON_PROD, "provider_type": "file"})
    stored = ruling.world.run(policy_rules.find, rule_id=row["id"])
    assert (stored["direct_reveal_allowed"], stored["requires_mfa"]) == (False, False)
    assert (stored["reveal_ttl_seconds"], stored["is_system"]) == (60, False)
    assert (stored["project_id"] or stored["team_id"]) == anchor.id
    (event,) = ruling.world.events(action="policy.create")
    assert (event.actor, event.metadata["actor_permission_used"]) == (author.actor, "policy.author")
    assert event.metadata["scope"] == anchor.kind
    assert event.metadata["selector_keys"] == ["environment_kind", "provider_type"]


def test_priority_stays_below_the_cap(ruling: Ruling, anchor: Anchor) -> None:
    author = ruling.author_of(anchor)
    for priority in (CAP, CAP + 1, 2**31 - 1):
        error = refuse_write(ruling, PolicyPriorityReservedError, author, anchor, priority=priority)
        assert error.details["cap"] == CAP
    rule = ruling.write(author, anchor, priority=CAP - 1)
    refuse_update(ruling, PolicyPriorityReservedError, author, anchor, rule["id"], priority=CAP)


def test_lowered_cap_keeps_rules_and_stops_their_changes(ruling: Ruling, anchor: Anchor) -> None:
    author = ruling.author_of(anchor)
    rule = ruling.write(author, anchor, priority=500)
    key = settings.RESERVED_PRIORITY
    ruling.world.run(settings.update, by=TEST, key=key, value=400, now=NOW)
    assert rule["id"] in {row["id"] for row in listed(ruling, author, anchor)}
    error = refuse_update(ruling, PolicyPriorityReservedError, author, anchor, rule["id"], name="x")
    assert error.details["cap"] == 400
    assert update(ruling, author, anchor, rule["id"], priority=399)["priority"] == 399


SELECTORS: list[tuple[str, dict[str, Any], type[SbError], str | None]] = [
    ("both", {}, PolicyScopeTooBroadError, "selector_empty"),
    ("both", {"operation": "read"}, PolicyScopeTooBroadError, "env_constraint_missing"),
    ("both", {**NON_PROD, "operation": "x"}, PolicyScopeTooBroadError, "operation_invalid"),
    ("both", {**NON_PROD, "provider_type": ""}, PolicyScopeTooBroadError, "provider_type_invalid"),
    ("both", {"environment_kind": "dev"}, PolicyScopeTooBroadError, "env_kind_invalid"),
    ("both", PROD, ProdPolicyNotAllowedError, None),
    ("project", {**NON_PROD, "project_id": MISSING}, PolicySelectorMismatchError, None),
    ("project", {**NON_PROD, "project_id": 7}, PolicySelectorMismatchError, None),
    ("project", {"environment_id": "dev"}, PolicyEnvironmentError, None),
    ("project", {"environment_id": MISSING}, PolicyEnvironmentError, None),
    ("project", {"environment_id": "environment_id:other"}, PolicyEnvironmentError, None),
    ("project", {"environment_id": "environment_id:prod"}, ProdPolicyNotAllowedError, None),
    (
        "project",
        {**NON_PROD, "environment_id": "environment_id:prod"},
        ProdPolicyNotAllowedError,
        None,
    ),
    (
        "team",
        {**NON_PROD, "project_id": MISSING},
        PolicyScopeTooBroadError,
        "team_selector_pins_project_id",
    ),
    (
        "team",
        {**NON_PROD, "environment_id": MISSING},
        PolicyScopeTooBroadError,
        "team_selector_pins_environment_id",
    ),
    (
        "team",
        {**NON_PROD, "team_id": MISSING},
        PolicyScopeTooBroadError,
        "team_selector_pins_team_id",
    ),
]


@pytest.mark.parametrize(("family", "selector", "error", "reason"), SELECTORS)
def test_selectors_are_narrow_and_never_production(
    ruling: Ruling,
    family: str,
    selector: dict[str, Any],
    error: type[SbError],
    reason: str | None,
) -> None:
    named = {
        key: ruling.tenancy.ids.get(value, value) if isinstance(value, str) else value
        for key, value in selector.items()
    }
    families = {"project": ruling.project, "team": ruling.team()}
    for kind in ("project", "team") if family == "both" else (family,):
        anchor = families[kind]
        author = ruling.author_of(anchor)
        rule = ruling.write(author, anchor)
        for refusal in (
            refuse_write(ruling, error, author, anchor, selector=named),
            refuse_update(ruling, error, author, anchor, rule["id"], selector=named),
        ):
            assert refusal.details.get("reason") == reason
            if error is ProdPolicyNotAllowedError:
                assert refusal.details == {"env_kind": "prod"}
                assert refusal.audit is not None
                assert refusal.audit.action == "policy.denied"


def test_environment_id_of_non_production_is_enough_for_a_project(ruling: Ruling) -> None:
    selector = {"environment_id": ruling.tenancy.ids["environment_id:own"]}
    row = ruling.write(ruling.author_of(ruling.project), ruling.project, selector=selector)
    assert row["selector"] == selector


def test_workflow_is_known_enabled_and_open(ruling: Ruling, anchor: Anchor) -> None:
    author = ruling.author_of(anchor)
    off = ruling.workflow("off", scoped_policy_authorable=True, enabled=False)
    rule = ruling.write(author, anchor)
    for workflow_id in (MISSING, ruling.closed, off):
        for error in (
            refuse_write(
                ruling, WorkflowNotAuthorableError, author, anchor, workflow_id=workflow_id
            ),
            refuse_update(
                ruling,
                WorkflowNotAuthorableError,
                author,
                anchor,
                rule["id"],
                workflow_id=workflow_id,
            ),
        ):
            assert error.details == {"workflow_id": workflow_id}
            assert error.audit is not None
            assert error.audit.action == "policy.denied_workflow_not_authorable"
            assert error.audit.resource == f"workflow:{workflow_id}"


def test_rule_keeps_a_workflow_that_was_closed_later(ruling: Ruling, anchor: Anchor) -> None:
    author = ruling.author_of(anchor)
    rule = ruling.write(author, anchor)
    ruling.world.run(
        workflows.update,
        by=TEST,
        workflow_id=ruling.open,
        changes={"scoped_policy_authorable": False},
        now=NOW,
    )
    same = {"name": "renamed", "workflow_id": ruling.open}
    assert update(ruling, author, anchor, rule["id"], **same)["name"] == "renamed"
    refuse_write(ruling, WorkflowNotAuthorableError, author, anchor)


NARROW = {**NON_PROD, "secret_ref_prefix": "app/public/"}


@pytest.mark.parametrize(
    ("changes", "enabled"),
    [
        ({"selector": NON_PROD}, True),
        # Which of two selectors covers less is not guessed at.
        ({"selector": {**NARROW, "operation": "read"}}, True),
        ({"priority": 201}, True),
        ({"enabled": True}, False),
        ({"selector": NON_PROD, "enabled": False}, True),
        ({"name": "kept", "priority": 8999, "enabled": True}, True),
    ],
)
def test_rule_with_a_closed_workflow_reaches_no_further_than_its_administrator_meant(
    ruling: Ruling, anchor: Anchor, changes: dict[str, Any], enabled: bool
) -> None:
    nobody = ruling.workflow("nobody", auto_approve=True)
    place = {f"{anchor.kind}_id": anchor.id, "selector": NARROW, "priority": 200}
    rule = ruling.rule(workflow_id=nobody, enabled=enabled, **place)
    author = ruling.author_of(anchor)
    error = refuse_update(ruling, WorkflowNotAuthorableError, author, anchor, rule["id"], **changes)
    assert error.details == {"workflow_id": nobody}
    assert error.audit is not None
    assert error.audit.action == "policy.denied_workflow_not_authorable"
    assert ruling.world.run(policy_rules.find, rule_id=rule["id"]) == rule
    # With the workflow open, or another one that is, it may.
    moved = update(ruling, author, anchor, rule["id"], workflow_id=ruling.open, **changes)
    assert {name: moved[name] for name in changes} == changes


def test_rule_with_a_closed_workflow_may_say_and_reach_less(ruling: Ruling, anchor: Anchor) -> None:
    rule = ruling.rule(selector=NARROW, priority=200, **{f"{anchor.kind}_id": anchor.id})
    author = ruling.author_of(anchor)
    same = {"selector": NARROW, "enabled": True, "workflow_id": ruling.closed}
    row = update(ruling, author, anchor, rule["id"], name="lower", priority=199, **same)
    assert (row["name"], row["priority"]) == ("lower", 199)
    assert update(ruling, author, anchor, rule["id"], enabled=False)["enabled"] is False
    refuse_update(ruling, WorkflowNotAuthorableError, author, anchor, rule["id"], enabled=True)


def test_workflow_that_asks_nobody_needs_the_kind_pinned(ruling: Ruling) -> None:
    nobody = ruling.workflow("nobody", auto_approve=True, scoped_policy_authorable=True)
    project, author = ruling.project, ruling.author_of(ruling.project)
    by_id = {"environment_id": ruling.tenancy.ids["environment_id:own"]}
    refuse_write(
        ruling, AutoApproveNotPinnedError, author, project, workflow_id=nobody, selector=by_id
    )
    rule = ruling.write(author, project, workflow_id=nobody)
    refuse_update(ruling, AutoApproveNotPinnedError, author, project, rule["id"], selector=by_id)


# --- the order of the gates: each draft breaks everything from one gate on


def test_create_says_the_first_thing_that_is_wrong(ruling: Ruling) -> None:
    project = ruling.project
    author = ruling.author_of(project)
    stranger = ruling.author_of(ruling.other_project)
    worst: dict[str, Any] = {
        "priority": CAP,
        "selector": {**PROD, "project_id": MISSING, "operation": "x"},
        "workflow_id": MISSING,
    }
    refuse_write(ruling, OutOfScopePolicyError, stranger, project, **worst)
    refuse_write(ruling, PolicyPriorityReservedError, author, project, **worst)
    worst["priority"] = 1
    refuse_write(ruling, PolicySelectorMismatchError, author, project, **worst)
    worst["selector"] = {**PROD, "operation": "x"}
    refuse_write(ruling, PolicyScopeTooBroadError, author, project, **worst)
    worst["selector"] = PROD
    refuse_write(ruling, ProdPolicyNotAllowedError, author, project, **worst)
    worst["selector"] = NON_PROD
    refuse_write(ruling, WorkflowNotAuthorableError, author, project, **worst)


def test_update_says_the_first_thing_that_is_wrong(ruling: Ruling) -> None:
    project, author = ruling.project, ruling.author_of(ruling.project)
    worst: dict[str, Any] = {"priority": CAP, "selector": PROD, "workflow_id": MISSING}
    foreign = ruling.write(ruling.author(), ruling.other_project)
    platform, own = ruling.rule(), ruling.write(author, project)
    refuse_update(ruling, PolicyNotFoundError, author, project, MISSING, **worst)
    refuse_update(ruling, PolicyNotFoundError, author, project, foreign["id"], **worst)
    refuse_update(ruling, PlatformPolicyNotEditableError, author, project, platform["id"], **worst)
    refuse_update(ruling, PolicyPriorityReservedError, author, project, own["id"], **worst)
    worst["priority"] = 1
    refuse_update(ruling, ProdPolicyNotAllowedError, author, project, own["id"], **worst)
    worst["selector"] = NON_PROD
    refuse_update(ruling, WorkflowNotAuthorableError, author, project, own["id"], **worst)


# --- whose rule it is


def test_only_own_rules_are_changed(ruling: Ruling, anchor: Anchor) -> None:
    author = ruling.author_of(anchor)
    foreign = {
        "platform": (ruling.rule(), PlatformPolicyNotEditableError),
        "parent": (ruling.write(ruling.author(), ruling.team("parent")), PolicyNotFoundError),
        "sibling": (ruling.write(ruling.author(), ruling.team("sibling")), PolicyNotFoundError),
        "project": (ruling.write(ruling.author(), ruling.other_project), PolicyNotFoundError),
    }
    for rule, error in foreign.values():
        refused = refuse_update(ruling, error, author, anchor, rule["id"], name="mine")
        assert (refused.audit is not None) == (error is PlatformPolicyNotEditableError)
        ruling.world.refuse(
            error,
            scoped_policies.delete,
            caller=author,
            anchor=anchor,
            rule_id=rule["id"],
            now=NOW,
        )


def test_delete_of_an_own_rule_is_final(ruling: Ruling, anchor: Anchor) -> None:
    author = ruling.author_of(anchor)
    rule = ruling.write(author, anchor)
    arguments = {"caller": author, "anchor": anchor, "rule_id": rule["id"], "now": NOW}
    ruling.world.run(scoped_policies.delete, **arguments)
    ruling.world.refuse(PolicyNotFoundError, scoped_policies.delete, **arguments)
    (event,) = ruling.world.events(action="policy.delete")
    assert event.metadata["actor_permission_used"] == "policy.author"


def test_what_an_administrator_allowed_is_kept_and_not_stretched(
    ruling: Ruling, anchor: Anchor
) -> None:
    narrow = {**NON_PROD, "secret_ref_prefix": "app/"}
    facts = {"direct_reveal_allowed": True, "requires_mfa": True, "reveal_ttl_seconds": 20}
    rule = ruling.rule(selector=narrow, **{f"{anchor.kind}_id": anchor.id}, **facts)
    author = ruling.author_of(anchor)
    refuse_update(
        ruling, PlatformPolicyNotEditableError, author, anchor, rule["id"], selector=NON_PROD
    )
    refuse_update(ruling, PlatformPolicyNotEditableError, author, anchor, rule["id"], priority=501)
    update(ruling, author, anchor, rule["id"], enabled=False, name="off")
    refuse_update(ruling, PlatformPolicyNotEditableError, author, anchor, rule["id"], enabled=True)
    stored = ruling.world.run(policy_rules.find, rule_id=rule["id"])
    assert {name: stored[name] for name in facts} == facts
    assert (stored["name"], stored["enabled"], stored["selector"]) == ("off", False, narrow)


# --- what is seen


def test_list_holds_what_governs_in_order_of_precedence(ruling: Ruling) -> None:
    everyone = ruling.author()
    project, own, parent = ruling.project, ruling.team(), ruling.team("parent")
    ruling.rule(name="platform", priority=500)
    ruling.rule(name="platform, off", enabled=False)
    ruling.write(everyone, parent, name="parent")
    ruling.write(everyone, parent, name="parent, off", enabled=False)
    ruling.write(everyone, own, name="own team")
    ruling.write(everyone, own, name="own team, off", enabled=False)
    ruling.write(everyone, ruling.team("sibling"), name="sibling")
    ruling.write(everyone, project, name="own")
    ruling.write(everyone, project, name="own, off", enabled=False)
    ruling.write(everyone, ruling.other_project, name="other")
    ruling.write(everyone, project, name="own, strong", priority=501)

    system = "match-all (system default)"
    names = [row["name"] for row in listed(ruling, ruling.author_of(project), project)]
    assert names == [
        "own, strong", "own", "own, off", "own team", "parent", "platform", system,
    ]  # fmt: skip
    names = [row["name"] for row in listed(ruling, ruling.author_of(own), own)]
    assert names == ["own team", "own team, off", "parent", "platform", system]
    names = [row["name"] for row in listed(ruling, everyone, parent)]
    assert names == ["parent", "parent, off", "platform", system]


def test_list_is_paged_without_gap_or_repeat(ruling: Ruling, anchor: Anchor) -> None:
    everyone = ruling.author()
    for n in range(4):
        ruling.write(everyone, anchor, name=f"own {n}", priority=n % 2)
        ruling.rule(name=f"platform {n}", priority=n % 2)
        ruling.write(everyone, ruling.team("parent"), name=f"parent {n}", priority=n % 2)
    whole, pages, after = listed(ruling, everyone, anchor), [], None
    while True:
        rows = ruling.world.run(
            scoped_policies.list_rules, caller=everyone, anchor=anchor, after=after, limit=3
        )
        pages += rows
        if len(rows) < 3:
            break
        last = rows[-1]
        after = After(
            priority=last["priority"], depth=last["depth"], at=last["created_at"], id=last["id"]
        )
    assert pages == whole
    assert len(whole) == 13


def test_show_finds_what_the_list_holds_and_nothing_else(ruling: Ruling, anchor: Anchor) -> None:
    everyone, author = ruling.author(), ruling.author_of(anchor)
    hidden = [
        ruling.rule(enabled=False),
        ruling.write(everyone, ruling.team("sibling")),
        ruling.write(everyone, ruling.other_project),
        ruling.write(everyone, ruling.team("parent"), enabled=False),
    ]
    if anchor.kind == "team":
        hidden.append(ruling.write(everyone, ruling.project))
    for rule in hidden:
        ruling.world.refuse(
            PolicyNotFoundError,
            scoped_policies.show,
            caller=author,
            anchor=anchor,
            rule_id=rule["id"],
        )
    shown = [ruling.rule(), ruling.write(everyone, ruling.team("parent"))]
    shown += [ruling.write(author, anchor, enabled=False)]
    for rule in shown:
        row = ruling.world.run(
            scoped_policies.show, caller=author, anchor=anchor, rule_id=rule["id"]
        )
        assert row["id"] == rule["id"]
