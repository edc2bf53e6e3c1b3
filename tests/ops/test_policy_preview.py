"""Explaining a request that might be made, and simulating a rule against those that were."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sb.db.engine import Transaction
from sb.errors import InvalidInputError, SbError
from sb.ids import new_id
from sb.ops import policy_preview, policy_simulation, requests
from sb.ops.callers import Caller
from sb.ops.errors import EnvironmentNotInProjectError, RequestNotFoundError
from sb.ops.governance_errors import (
    AutoApproveNotPinnedError,
    PolicyNotFoundError,
    PolicyScopeTooBroadError,
    SystemRowError,
)
from sb.ops.tenancy_errors import ProjectNotFoundError
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at

NON_PROD = {"environment_kind": "non_prod"}


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


def add(world: World, selector: dict[str, Any], workflow_id: str, **facts: Any) -> str:
    rule = {
        "id": new_id(),
        "name": "r",
        "priority": 10,
        "enabled": True,
        "direct_reveal_allowed": False,
        "project_id": None,
        "team_id": None,
        **facts,
    }

    def op(tx: Transaction) -> None:
        tx.count(
            "policy_insert",
            selector=selector,
            workflow_id=workflow_id,
            is_system=False,
            requires_mfa=False,
            reveal_ttl_seconds=60,
            now=NOW,
            **rule,
        )

    world.db.run_sync(op)
    return str(rule["id"])


def draft_of(tenancy: Tenancy, **changes: Any) -> policy_preview.Draft:
    values = {
        "operation": "read",
        "target_provider_type": "file",
        "target_secret_ref": "app/db",
        **tenancy.target,
        **changes,
    }
    return policy_preview.Draft(**values)


def explain(
    world: World, tenancy: Tenancy, caller: Caller, **changes: Any
) -> policy_preview.Explanation:
    found: policy_preview.Explanation = world.db.read_sync(
        policy_preview.explain, caller=caller, draft=draft_of(tenancy, **changes), now=NOW
    )
    return found


def refuse(
    error: type[SbError], world: World, tenancy: Tenancy, caller: Caller, **changes: Any
) -> SbError:
    draft = draft_of(tenancy, **changes)
    return world.refuse(error, policy_preview.explain, caller=caller, draft=draft, now=NOW)


def test_explain_lists_the_matching_rules_in_order_with_reasons(
    world: World, tenancy: Tenancy
) -> None:
    workflow, off = world.workflow(), world.workflow(enabled=False)
    project, team, above = (
        tenancy.ids[key] for key in ("project_id:own", "team_id:own", "team_id:parent")
    )
    skipped = add(world, NON_PROD, off, priority=99)
    won = add(world, NON_PROD, workflow, project_id=project)
    younger = add(world, NON_PROD, workflow, project_id=project)
    near = add(world, NON_PROD, workflow, team_id=team)
    far = add(world, NON_PROD, workflow, team_id=above)
    low = add(world, {"operation": "read"}, workflow, priority=9)
    add(world, {"operation": "patch"}, workflow, priority=99)
    add(world, NON_PROD, workflow, priority=99, enabled=False)
    found = explain(world, tenancy, world.person("admin", "admin"))
    assert [(m.row["id"], m.anchor, m.outcome, m.reason) for m in found.rules[:6]] == [
        (skipped, "platform", "workflow_disabled", None),
        (won, "project", "won", "id"),
        (younger, "project", "lost", "id"),
        (near, "team", "lost", "anchor"),
        (far, "team", "lost", "anchor"),
        (low, "platform", "lost", "priority"),
    ]
    assert (found.rules_count, found.decision.rule_id, found.reason) == (7, won, "id")
    assert found.decision.workflow.id == workflow
    assert all(match.selector is not None for match in found.rules)


def test_explain_names_those_who_could_approve(world: World, tenancy: Tenancy) -> None:
    admin = world.person("admin", "admin")
    other = world.role("others", "secret.approve")
    add(world, NON_PROD, world.workflow(approver_role_id=world.role("approver")))
    scopes: list[dict[str, str]] = [
        {"team_id": tenancy.ids["team_id:parent"]},
        {"project_id": tenancy.ids["project_id:own"], "provider": "file", "cluster": "east"},
        {"environment_id": tenancy.ids["environment_id:own"], "secret_ref_prefix": "app/"},
    ]
    beside: list[dict[str, str]] = [
        {"team_id": tenancy.ids["team_id:sibling"]},
        {"project_id": tenancy.ids["project_id:own"], "provider": "vault"},
        {"secret_ref_prefix": "other/"},
        {"cluster": "west"},
    ]
    inside = [world.person("yes", "approver", scope) for scope in scopes]
    for scope in beside:
        world.person("no", "approver", scope)
    assert other
    world.person("wrong-role", "others")
    gone = world.person("gone", "approver")
    world.write("UPDATE local_users SET disabled = TRUE WHERE id = :id", id=gone.user_id)
    ended = world.person("ended", "approver")
    statement = "UPDATE user_roles SET expires_at = :now WHERE user_id = :id"
    world.write(statement, id=ended.user_id, now=NOW)
    expected = {tenancy.approver.user_id, *(person.user_id for person in inside)}
    found = explain(world, tenancy, admin).approvers
    assert found is not None
    assert ({row["id"] for row in found.rows}, found.total) == (expected, len(expected))
    # Whoever asks would be the requester, who does not approve their own.
    found = explain(world, tenancy, inside[0]).approvers
    assert found is not None
    assert {row["id"] for row in found.rows} == expected - {inside[0].user_id}
    world.write("UPDATE workflow_definitions SET allow_self_approval = TRUE")
    found = explain(world, tenancy, inside[0]).approvers
    assert found is not None
    assert {row["id"] for row in found.rows} == expected


def test_explain_shows_scoped_callers_what_is_theirs_only(world: World, tenancy: Tenancy) -> None:
    team, project = tenancy.ids["team_id:own"], tenancy.ids["project_id:own"]
    workflow = world.workflow()
    own = add(world, NON_PROD, workflow, project_id=project)
    of_team = add(world, NON_PROD, workflow, team_id=team)
    of_parent = add(world, NON_PROD, workflow, team_id=tenancy.ids["team_id:parent"])

    def shown(caller: Caller) -> set[str]:
        found = explain(world, tenancy, caller)
        assert found.rules_count == 4
        return {match.row["id"] for match in found.rules if match.selector is not None}

    world.role("author", "policy.author")
    assert shown(world.person("p", "author", {"project_id": project})) == {own}
    assert shown(world.person("t", "author", {"team_id": team})) == {own, of_team}
    everywhere = shown(world.person("g", "author"))
    assert everywhere == {own, of_team, of_parent}
    assert shown(tenancy.developer) == set()
    assert explain(world, tenancy, tenancy.developer).approvers is None
    assert explain(world, tenancy, tenancy.approver).approvers is not None


def test_explain_out_of_scope_is_not_found(world: World, tenancy: Tenancy) -> None:
    sibling = {"team_id": tenancy.ids["team_id:sibling"]}
    outsider = world.person("outsider", "developer", sibling)
    unknown = refuse(ProjectNotFoundError, world, tenancy, outsider, project_id=new_id())
    foreign = refuse(ProjectNotFoundError, world, tenancy, outsider)
    assert (unknown.code, unknown.details) == (foreign.code, foreign.details)
    refuse(ProjectNotFoundError, world, tenancy, outsider, environment="nowhere")
    refuse(ProjectNotFoundError, world, tenancy, world.person("nobody"))
    world.role("auditors", "audit.read", "secret.list")
    refuse(ProjectNotFoundError, world, tenancy, world.person("auditor", "auditors"))
    own = {"project_id": tenancy.ids["project_id:own"]}
    narrow = world.person("narrow", "developer", {**own, "secret_ref_prefix": "app/"})
    explain(world, tenancy, narrow)
    refuse(ProjectNotFoundError, world, tenancy, narrow, target_secret_ref="other")
    refuse(InvalidInputError, world, tenancy, narrow, project_id=None, environment=None)
    refuse(EnvironmentNotInProjectError, world, tenancy, tenancy.developer, environment="nowhere")
    admin = world.person("admin", "admin")
    refuse(ProjectNotFoundError, world, tenancy, admin, project_id=new_id())


def test_explain_says_how_a_submit_would_be_refused(world: World, tenancy: Tenancy) -> None:
    tenancy.bind("app/one", tenancy.east, "east", ops=["read"], keys=["A"])
    developer = tenancy.developer
    one = {"target_secret_ref": "app/one"}
    assert explain(world, tenancy, developer).refused_as is None
    assert explain(world, tenancy, developer, **one).refused_as == "out_of_scope_key"
    patch = explain(world, tenancy, developer, **one, operation="patch", target_keys=["A"])
    assert patch.refused_as == "out_of_scope_op"
    unbound = explain(world, tenancy, developer, target_secret_ref="unbound")
    assert unbound.refused_as == "out_of_scope_project"
    world.write("UPDATE environments SET kind = 'prod'")
    add(world, {"operation": "read"}, world.workflow(auto_approve=True, min_approvers=0))
    found = explain(world, tenancy, tenancy.approver)
    assert found.refused_as == "auto_approval_forbidden"
    assert found.approvers is not None
    assert (found.approvers.rows, found.approvers.total) == ([], 0)
    world.role("author", "policy.author")
    assert explain(world, tenancy, world.person("a", "author")).refused_as is None


# --- simulate


def simulate(
    world: World, limit: int = 200, caller: Caller | None = None, **proposal: Any
) -> policy_simulation.Simulation:
    found: policy_simulation.Simulation = world.db.read_sync(
        policy_simulation.simulate,
        caller=caller or world.person(new_id()),
        proposal=policy_simulation.Proposal(**proposal),
        limit=limit,
        now=at(days=1),
    )
    return found


def changed(found: policy_simulation.Simulation) -> list[str]:
    return [one.request["id"] for one in found.differences]


def test_simulate_a_new_rule_names_the_requests_it_would_decide(
    world: World, tenancy: Tenancy
) -> None:
    strict = world.workflow(min_approvers=3, name="strict")
    reads = [tenancy.read(tenancy.developer, now=at(seconds=n)) for n in range(3)]
    patch = tenancy.patch(tenancy.developer, "K", now=at(seconds=5))
    admin, east = world.person("global", "admin"), tenancy.east
    bare = world.read(admin, now=at(seconds=6), provider_connection_id=east)
    counts = (
        "SELECT (SELECT count(*) FROM policy_rules) AS r, (SELECT count(*) FROM audit_events) AS a"
    )
    before = world.rows(counts)
    rule = {"selector": {"operation": "read"}, "workflow_id": strict}
    found = simulate(world, changes=rule)
    assert (found.examined, changed(found)) == (5, [bare, *reversed(reads)])
    one = found.differences[0]
    assert (one.before.workflow_name, one.before.min_approvers) == ("standard", 1)
    assert (one.after.workflow_name, one.after.min_approvers) == ("strict", 3)
    assert one.after.rule_id == found.draft_id
    assert changed(simulate(world, changes=rule, limit=2)) == [bare]
    assert changed(simulate(world, changes={**rule, "priority": -1})) == []
    assert changed(simulate(world, changes={**rule, "enabled": False})) == []
    off = world.workflow(enabled=False)
    assert changed(simulate(world, changes={**rule, "workflow_id": off})) == []
    for key, which, expected in (
        ("project_id", "own", [patch, *reversed(reads)]),
        ("project_id", "other", []),
        ("team_id", "parent", [patch, *reversed(reads)]),
        ("team_id", "sibling", []),
    ):
        anchor = {key: tenancy.ids[f"{key}:{which}"]}
        pinned = {"selector": NON_PROD, "workflow_id": strict, **anchor}
        assert changed(simulate(world, changes=pinned)) == expected
    assert world.rows(counts) == before


def test_simulate_a_new_rule_agrees_with_really_adding_it(world: World, tenancy: Tenancy) -> None:
    workflows = [world.workflow() for _ in range(3)]
    project, team = tenancy.ids["project_id:own"], tenancy.ids["team_id:own"]
    add(world, NON_PROD, workflows[0], project_id=project)
    add(world, NON_PROD, workflows[1], team_id=team, priority=11)
    tenancy.read(tenancy.developer)
    anchors: list[dict[str, Any]] = [{}, {"project_id": project}, {"team_id": team}]
    for anchor in anchors:
        for priority in (9, 10, 11, 12):
            rule = {**anchor, "priority": priority}
            found = simulate(
                world,
                changes={"selector": NON_PROD, "workflow_id": workflows[2], **rule},
            )
            # Younger than all others, as what is simulated is.
            rule_id = add(world, NON_PROD, workflows[2], **rule)
            decided = explain(world, tenancy, world.person("a", "admin")).decision.rule_id
            assert bool(found.differences) is (decided == rule_id)
            world.write("DELETE FROM policy_rules WHERE id = :id", id=rule_id)


def test_simulate_replacing_or_removing_a_rule_finds_what_would_decide_instead(
    world: World, tenancy: Tenancy
) -> None:
    first, second, third = (world.workflow(name=name) for name in ("first", "second", "third"))
    top = add(world, {"operation": "read"}, first, priority=20)
    below = add(world, {"provider_type": "file"}, second, priority=10)
    read = tenancy.read(tenancy.developer, now=at(seconds=1))
    tenancy.patch(tenancy.developer, "K", now=at(seconds=2))
    removed = simulate(world, removes=top)
    assert changed(removed) == [read]
    assert removed.differences[0].before.rule_id == top
    assert removed.differences[0].after.rule_id == below
    assert removed.draft_id is None
    for changes in ({"priority": 5}, {"enabled": False}, {"selector": {"operation": "patch"}}):
        found = simulate(world, replaces=top, changes=changes)
        after = [(one.after.rule_id, one.request["id"]) for one in found.differences]
        assert (below, read) in after
    other = simulate(world, replaces=top, changes={"workflow_id": third})
    assert [(one.after.rule_id, one.after.workflow_name) for one in other.differences] == [
        (top, "third")
    ]
    assert changed(simulate(world, replaces=top, changes={"priority": 30})) == []


def test_simulate_shows_of_requests_what_the_caller_may_see_of_them(
    world: World, tenancy: Tenancy
) -> None:
    made = [tenancy.read(tenancy.developer, now=at(seconds=1))]
    admin = world.person("global", "admin")
    made.append(world.read(admin, now=at(seconds=2), provider_connection_id=tenancy.east))
    rule = {"selector": {"operation": "read"}, "workflow_id": world.workflow()}
    world.role("author", "policy.author")
    near, far = (
        world.person(which, "approver", tenancy.scope("project_id", which))
        for which in ("own", "other")
    )
    people = (admin, near, far, world.person("writer", "author"))
    told = {}
    for person in people:
        found = simulate(world, caller=person, changes=rule).differences
        assert {one.request["id"] for one in found} == set(made)
        told[person.user_id] = {one.request["id"] for one in found if one.in_sight}
        for request_id in made:
            show = partial(requests.show, caller=person, request_id=request_id, now=at(seconds=3))
            if request_id in told[person.user_id]:
                world.db.read_sync(show)
            else:
                world.refuse(RequestNotFoundError, show)
    assert list(map(len, told.values())) == [2, 1, 0, 0]


def test_simulate_what_could_not_be_saved_is_refused(world: World, tenancy: Tenancy) -> None:
    workflow = world.workflow()
    auto = world.workflow(auto_approve=True, min_approvers=0)
    rule_id = add(world, NON_PROD, workflow, project_id=tenancy.ids["project_id:own"])
    system = world.rows("SELECT id FROM policy_rules WHERE is_system")[0]["id"]
    read = {"operation": "read"}
    both = {key: tenancy.ids[f"{key}:own"] for key in ("project_id", "team_id")}
    refused: list[tuple[type[SbError], dict[str, Any]]] = [
        (InvalidInputError, {}),
        (InvalidInputError, {"changes": {"selector": read}}),
        (InvalidInputError, {"changes": {"selector": read, "workflow_id": new_id()}}),
        (InvalidInputError, {"changes": {"selector": read, "workflow_id": workflow, **both}}),
        (InvalidInputError, {"changes": {"selector": {"no": "x"}, "workflow_id": workflow}}),
        (PolicyScopeTooBroadError, {"changes": {"selector": {}, "workflow_id": workflow}}),
        (AutoApproveNotPinnedError, {"changes": {"selector": read, "workflow_id": auto}}),
        (PolicyNotFoundError, {"removes": new_id()}),
        (PolicyNotFoundError, {"replaces": new_id(), "changes": {"priority": 1}}),
        (InvalidInputError, {"replaces": rule_id, "changes": {"project_id": new_id()}}),
        (InvalidInputError, {"removes": rule_id, "changes": {"priority": 1}}),
        (SystemRowError, {"removes": system}),
    ]
    for error, proposal in refused:
        world.refuse(
            error,
            policy_simulation.simulate,
            caller=tenancy.approver,
            proposal=policy_simulation.Proposal(**proposal),
            limit=10,
            now=NOW,
        )
