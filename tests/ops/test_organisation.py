"""A whole organisation from one document: made, made again, changed, refused, planned and read."""

from __future__ import annotations

import copy
import threading
from functools import partial
from typing import Any

import pytest
import trio

from sb.db.rehearsal import rehearse
from sb.errors import InvalidInputError, PermissionDeniedError, SbError
from sb.http.organisation_document import OrganisationDocument
from sb.ops import bootstrap, organisation, organisation_export
from sb.ops.callers import Caller
from sb.ops.governance_errors import EscalationError, PolicyScopeTooBroadError
from sb.ops.organisation_work import Step
from tests.ops.world import NOW, World, at

DOCUMENT: dict[str, Any] = {
    "version": 1,
    "roles": [
        {"name": "head", "description": "Heads a section", "permissions": ["team.edit"]},
    ],
    "teams": [
        {"path": "platform/payments", "members": ["dana@example.com"]},
        {"path": "platform", "description": "Runs the platform"},
        {"path": "platform/a~1b", "status": "archived"},
    ],
    "projects": [
        {
            "name": "billing",
            "team": "platform/payments",
            "environments": [
                {"name": "dev", "type": "dev", "kind": "non_prod"},
                {"name": "prod", "type": "prod", "kind": "prod", "risk_level": 3},
            ],
            "bindings": [
                {
                    "provider": "file",
                    "secret_ref": "apps/billing/db",
                    "connection": "store",
                    "environment": "dev",
                    "allowed_ops": ["read", "patch"],
                }
            ],
        },
        {
            "name": "attic",
            "team": "platform/a~1b",
            "status": "archived",
            "environments": [{"name": "old", "type": "other"}],
        },
    ],
    "workflows": [
        {"name": "pair", "min_approvers": 2, "approver_role": "approver", "is_default": True},
        {"name": "quick", "auto_approve": True},
    ],
    "policies": [
        {
            "name": "quick in dev",
            "project": "billing",
            "selector": {"environment_kind": "non_prod", "environment_path": "billing/dev"},
            "workflow": "quick",
        },
        {
            "name": "pair below platform",
            "team": "platform",
            "selector": {"environment_kind": "non_prod"},
            "workflow": "pair",
            "priority": 20,
        },
        {
            "name": "billing",
            "selector": {"project": "billing"},
            "workflow": "pair",
            "priority": 20,
        },
    ],
    "grants": [
        {"person": "dana@example.com", "role": "developer", "scope": {"project": "billing"}},
        {
            "person": "Ari@example.com",
            "role": "approver",
            "scope": {"team": "platform", "environment_path": "billing/prod"},
            "expires_at": "2026-06-01T12:00:00Z",
            "reason": "until the summer",
        },
    ],
}


@pytest.fixture
def admin(world: World) -> Caller:
    return settle(world)


def settle(world: World) -> Caller:
    """Leave what no document makes: accounts and a connection; return the administrator."""
    world.run(bootstrap.seed, now=NOW)
    ids = {}
    for name, role in (("ada", "admin"), ("dana", "developer"), ("ari", "approver")):
        ids[name] = world.run(
            bootstrap.create_user,
            email=f"{name}@example.com",
            password_hash="a hash nothing matches",
            display_name=name,
            role=role,
            action="auth.bootstrap_dev_user",
            now=NOW,
        )
    connection_id = world.connection(cluster="dev")
    world.write("UPDATE provider_connections SET name = 'store' WHERE id = :id", id=connection_id)
    return world.caller(ids["ada"])


def given(**sections: Any) -> dict[str, Any]:
    """Return the document, with these sections in place of its own, as the edge passes it on."""
    raw = {**copy.deepcopy(DOCUMENT), **sections}
    return OrganisationDocument.model_validate(raw, strict=True).given


def only(**sections: Any) -> dict[str, Any]:
    return OrganisationDocument.model_validate({"version": 1, **sections}, strict=True).given


def apply(world: World, admin: Caller, document: dict[str, Any], **more: Any) -> list[Step]:
    steps: list[Step] = world.run(
        organisation.apply, caller=admin, document=document, **{"now": NOW, **more}
    )
    return steps


def plan(world: World, admin: Caller, document: dict[str, Any]) -> list[Step]:
    op = partial(organisation.apply, caller=admin, document=document, now=NOW)
    return trio.run(rehearse, world.db, op)


def refused(world: World, admin: Caller, error: type[SbError], document: Any) -> dict[str, Any]:
    found = world.refuse(error, organisation.apply, caller=admin, document=document, now=NOW)
    return found.details


def export(world: World, admin: Caller) -> Any:
    found = world.run(organisation_export.export, caller=admin, now=NOW)
    assert found.left_out == []
    return found.document


def actions(steps: list[Step]) -> set[str]:
    return {step.action for step in steps}


def test_apply_to_an_empty_installation_creates_everything(world: World, admin: Caller) -> None:
    steps = apply(world, admin, given())
    assert actions(steps) == {"create"}
    assert len(steps) == 1 + 3 + 2 + 3 + 1 + 2 + 3 + 2
    found = export(world, admin)
    assert [team["path"] for team in found["teams"]] == [
        "platform",
        "platform/a~1b",
        "platform/payments",
    ]
    assert found["teams"][2]["members"] == ["dana@example.com"]
    assert found["teams"][1]["status"] == found["projects"][0]["status"] == "archived"
    assert found["projects"][1]["bindings"][0]["connection"] == "store"
    assert {w["name"] for w in found["workflows"] if w["is_default"]} == {"pair"}
    assert found["policies"][1]["selector"]["environment_path"] == "billing/dev"
    assert {"team": "platform", "environment_path": "billing/prod"} in [
        grant["scope"] for grant in found["grants"]
    ]
    events = {event.action for event in world.events(actor=admin.actor)}
    assert {"team.create", "project.create", "grant.create", "policy.create"} <= events


def test_apply_twice_changes_nothing_and_leaves_no_trace(world: World, admin: Caller) -> None:
    apply(world, admin, given())
    events, before = len(world.events()), export(world, admin)
    assert actions(apply(world, admin, given(), now=at(minutes=1))) == {"unchanged"}
    assert len(world.events()) == events
    assert export(world, admin) == before


def test_apply_its_own_export_changes_nothing(world: World, admin: Caller) -> None:
    apply(world, admin, given())
    events, before = len(world.events()), export(world, admin)
    again = OrganisationDocument.model_validate(before, strict=True).given
    assert actions(apply(world, admin, again)) == {"unchanged"}
    assert len(world.events()) == events


def test_apply_changes_only_what_the_document_names(world: World, admin: Caller) -> None:
    apply(world, admin, given())
    before = export(world, admin)
    steps = apply(
        world,
        admin,
        only(
            teams=[{"path": "platform", "description": "Runs all of it"}],
            projects=[
                {
                    "name": "billing",
                    "team": "platform",
                    "environments": [{"name": "prod", "type": "prod", "risk_level": 4}],
                    "bindings": [
                        {
                            "provider": "file",
                            "secret_ref": "apps/billing/db",
                            "allowed_ops": ["read"],
                            "environment": None,
                        }
                    ],
                }
            ],
            workflows=[{"name": "pair", "min_approvers": 3}],
        ),
    )
    assert [(step.kind, step.name, step.action) for step in steps] == [
        ("team", "platform", "update"),
        ("project", "billing", "update"),
        ("environment", "billing/prod", "update"),
        ("binding", "billing file:apps/billing/db", "update"),
        ("workflow", "pair", "update"),
    ]
    changes = {(s.kind, c.field): (c.before, c.after) for s in steps for c in s.changes}
    assert changes == {
        ("team", "description"): ("Runs the platform", "Runs all of it"),
        ("project", "team"): ("platform/payments", "platform"),
        ("environment", "risk_level"): (3, 4),
        ("binding", "environment"): ("dev", None),
        ("binding", "allowed_ops"): (["patch", "read"], ["read"]),
        ("workflow", "min_approvers"): (2, 3),
    }
    after = export(world, admin)
    assert after["grants"] == before["grants"]
    assert after["policies"] == before["policies"]


def test_apply_with_one_bad_step_leaves_nothing(world: World, admin: Caller) -> None:
    before, events = export(world, admin), len(world.events())
    bad = [{**DOCUMENT["policies"][1], "selector": {"environment": "dev"}}]
    details = refused(world, admin, PolicyScopeTooBroadError, given(policies=bad))
    assert details["at"] == "policies.0"
    assert export(world, admin) == before
    assert len(world.events()) == events


def test_plan_says_what_apply_does_and_writes_nothing(world: World, admin: Caller) -> None:
    before, events = export(world, admin), len(world.events())
    planned = plan(world, admin, given())
    assert export(world, admin) == before
    assert len(world.events()) == events
    assert planned == apply(world, admin, given())


def test_plan_of_what_would_be_refused_is_refused(world: World, admin: Caller) -> None:
    document = only(teams=[{"path": "nowhere/below"}])
    with pytest.raises(InvalidInputError):
        plan(world, admin, document)


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "person": (
        {"grants": [{"person": "eve@example.com", "role": "approver", "scope": {}}]},
        "grants.0.person",
        "eve@example.com",
    ),
    "member": (
        {"teams": [{"path": "a"}, {"path": "b", "members": ["eve@example.com"]}]},
        "teams.1.members.0",
        "eve@example.com",
    ),
    "role": (
        {"grants": [{"person": "dana@example.com", "role": "king", "scope": {}}]},
        "grants.0.role",
        "king",
    ),
    "scope": (
        {"grants": [{"person": "dana@example.com", "role": "head", "scope": {"team": "x/y"}}]},
        "grants.0.scope.team",
        "x/y",
    ),
    "team": ({"projects": [{"name": "p", "team": "x"}]}, "projects.0.team", "x"),
    "parent": ({"teams": [{"path": "x/y"}]}, "teams.0.path", "'x'"),
    "kind": (
        {
            "projects": [
                {"name": "p", "environments": [{"name": "e", "type": "dev"}]},
                {"name": "billing", "environments": [{"name": "prod", "kind": "non_prod"}]},
            ]
        },
        "projects.1.environments.0.kind",
        "'prod'",
    ),
    "connection": (
        {
            "projects": [
                {
                    "name": "billing",
                    "bindings": [{"provider": "file", "secret_ref": "x", "connection": "none"}],
                }
            ]
        },
        "projects.0.bindings.0.connection",
        "none",
    ),
    "binding": (
        {"projects": [{"name": "p", "bindings": [{"provider": "file", "secret_ref": "/x"}]}]},
        "projects.0.bindings.0.secret_ref",
        "slash",
    ),
    "workflow": (
        {"policies": [{"name": "r", "selector": {"operation": "read"}, "workflow": "none"}]},
        "policies.0.workflow",
        "none",
    ),
    "knob": (
        {"workflows": [{"name": "w", "min_approvers": 0}]},
        "workflows.0.min_approvers",
        "0 asks nobody",
    ),
    "selector": (
        {"policies": [{"name": "r", "selector": {"project": "none"}, "workflow": "quick"}]},
        "policies.0.selector.project",
        "none",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_apply_of_what_is_wrong_names_its_place(world: World, admin: Caller, name: str) -> None:
    apply(world, admin, given())
    before = export(world, admin)
    sections, field, reason = BAD[name]
    details = refused(world, admin, InvalidInputError, only(**sections))
    assert details["fields"][0]["field"] == field
    assert reason in details["fields"][0]["reason"]
    assert export(world, admin) == before


def test_apply_an_export_elsewhere_gives_the_same_export(world: World, admin: Caller) -> None:
    apply(world, admin, given())
    wanted = export(world, admin)
    for table in (
        "policy_rule_selectors",
        "policy_rules",
        "user_roles",
        "project_secrets",
        "secrets",
        "environments",
        "projects",
        "team_members",
    ):
        world.write(f"DELETE FROM {table}")
    while world.write(
        "DELETE FROM teams WHERE id NOT IN"
        " (SELECT parent_team_id FROM teams WHERE parent_team_id IS NOT NULL)"
    ):
        pass
    world.write("DELETE FROM workflow_definitions")
    world.write("DELETE FROM roles WHERE name = 'head'")
    world.grant(admin.user_id, "admin", {})
    world.run(bootstrap.seed, now=NOW)
    again = OrganisationDocument.model_validate(wanted, strict=True).given
    apply(world, world.caller(admin.user_id), again)
    assert export(world, admin) == wanted


def test_apply_without_being_an_administrator_is_refused(world: World, admin: Caller) -> None:
    head = world.person("head", "approver")
    for op, more in (
        (organisation.apply, {"document": given()}),
        (organisation_export.export, {}),
    ):
        denied = world.refuse(PermissionDeniedError, op, caller=head, now=NOW, **more)
        assert denied.audit is not None


def test_apply_gives_oneself_nothing_one_does_not_hold(world: World, admin: Caller) -> None:
    mine = [{"person": "ada@example.com", "role": "security_approver", "scope": {}}]
    details = refused(world, admin, EscalationError, only(grants=mine))
    assert details["at"] == "grants.0"


def test_apply_an_environment_made_anew_as_less_is_on_record(world: World, admin: Caller) -> None:
    apply(world, admin, given())
    world.write("UPDATE environments SET deleted_at = :now WHERE name = 'prod'", now=NOW)
    again = {"name": "prod", "type": "dev", "kind": "non_prod"}
    apply(world, admin, only(projects=[{"name": "billing", "environments": [again]}]))
    assert world.events(action="environment.kind_changed")


def test_apply_a_grant_that_has_ended_leaves_it_ended(world: World, admin: Caller) -> None:
    apply(world, admin, given())
    before = export(world, admin)["grants"]
    assert actions(apply(world, admin, given(), now=at(days=200))) == {"unchanged"}
    assert export(world, admin)["grants"] == before


def test_apply_by_two_at_once_makes_everything_once(world: World, admin: Caller) -> None:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(apply(world, admin, given()))
        except SbError as refusal:
            results.append(refusal)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = [found for found in results if isinstance(found, list) and "create" in actions(found)]
    assert len(made) == 1
    assert all(isinstance(found, list) for found in results), results
    assert actions(apply(world, admin, given())) == {"unchanged"}


def test_document_that_names_something_twice_is_refused() -> None:
    team = {"path": "a"}
    with pytest.raises(ValueError, match="names again what is named before it"):
        only(teams=[team, team])
    with pytest.raises(ValueError, match="one default workflow"):
        only(workflows=[{"name": n, "is_default": True} for n in ("a", "b")])
    with pytest.raises(ValueError, match="leave out"):
        only(grants=[{"person": "a@example.com", "role": "r", "scope": {"team": None}}])
    for path in ("", "/a", "a//b", "a/ b", "a~2"):
        with pytest.raises(ValueError, match="path"):
            only(teams=[{"path": path}])
