"""What applying a document tells: every unknown name at once, and each field of what is created."""

from __future__ import annotations

from typing import Any

import pytest

from sb.errors import InvalidInputError
from sb.ops import grants
from sb.ops.callers import Caller
from tests.ops.test_organisation import actions, apply, export, given, only, refused, settle
from tests.ops.world import NOW, World, at


@pytest.fixture
def admin(world: World) -> Caller:
    return settle(world)


def test_apply_of_many_unknown_names_tells_them_all(world: World, admin: Caller) -> None:
    apply(world, admin, given())
    before = export(world, admin)
    document = only(
        teams=[
            {"path": "gone/below", "members": ["dana@example.com", "eve@example.com"]},
            {"path": "gone/below/further"},
        ],
        projects=[
            {
                "name": "new",
                "team": "lost",
                "environments": [{"name": "dev"}],
                "bindings": [
                    {"provider": "file", "secret_ref": "a", "connection": "none"},
                    {"provider": "file", "secret_ref": "b", "environment": "dev"},
                    {"provider": "file", "secret_ref": "c", "environment": "prod"},
                ],
            }
        ],
        workflows=[{"name": "mine", "approver_role": "king"}],
        policies=[
            {
                "name": "r",
                "project": "lost",
                "team": "platform",
                "selector": {},
                "workflow": "pear",
            },
            {
                "name": "s",
                "selector": {"project": "new", "environment_path": "new/prod"},
                "workflow": "mine",
            },
        ],
        grants=[
            {"person": "eve@example.com", "role": "king", "scope": {"team": "platform/none"}},
            {"person": "ari@example.com", "role": "head", "scope": {"environment_path": "new/dev"}},
        ],
    )
    details = refused(world, admin, InvalidInputError, document)
    assert {(one["field"], one["reason"]) for one in details["fields"]} == {
        ("teams.0.path", "there is no team 'gone'"),
        ("teams.0.members.1", "nobody has an account with the address 'eve@example.com'"),
        ("projects.0.team", "there is no team 'lost'"),
        ("projects.0.bindings.0.connection", "there is no connection 'none'"),
        ("projects.0.bindings.2.environment", "there is no environment 'new/prod'"),
        ("workflows.0.approver_role", "there is no role 'king'"),
        ("policies.0.project", "there is no project 'lost'"),
        ("policies.0.workflow", "there is no workflow 'pear'"),
        ("policies.1.selector.environment_path", "there is no environment 'new/prod'"),
        ("grants.0.person", "nobody has an account with the address 'eve@example.com'"),
        ("grants.0.role", "there is no role 'king'"),
        ("grants.0.scope.team", "there is no team 'platform/none'"),
    }
    assert details["at"] == "teams.0"
    assert export(world, admin) == before
    people = [f"nobody-{number}@example.com" for number in range(60)]
    details = refused(
        world, admin, InvalidInputError, only(teams=[{"path": "a", "members": people}])
    )
    assert len(details["fields"]) == 50


def test_steps_that_create_tell_what_is_created(world: World, admin: Caller) -> None:
    steps = apply(world, admin, given())
    told: dict[tuple[str, str], list[tuple[str, Any]]] = {
        (step.kind, step.name): [(change.field, change.after) for change in step.changes]
        for step in steps
    }
    assert all(
        change.before is None
        for step in steps
        for change in step.changes
        if change.field != "members"
    )
    assert told["role", "head"] == [
        ("description", "Heads a section"),
        ("permissions", ["team.edit"]),
    ]
    assert told["team", "platform/payments"] == [
        ("status", "active"),
        ("members", "+ dana@example.com"),
    ]
    assert told["team", "platform/a~1b"] == [("status", "archived")], "as it is in the end"
    assert told["environment", "billing/prod"] == [
        ("type", "prod"),
        ("kind", "prod"),
        ("risk_level", 3),
    ]
    assert told["binding", "billing file:apps/billing/db (store)"] == [
        ("connection", "store"),
        ("cluster", "dev"),
        ("environment", "dev"),
        ("allowed_ops", ["patch", "read"]),
    ]
    assert dict(told["policy", "quick in dev (billing)"]) == {
        "selector": {"environment_kind": "non_prod", "environment_path": "billing/dev"},
        "workflow": "quick",
        "priority": 100,
        "enabled": True,
        "direct_reveal_allowed": False,
        "requires_mfa": False,
        "reveal_ttl_seconds": 60,
    }
    grant = "approver to Ari@example.com at environment_path=billing/prod, team=platform"
    assert [field for field, _ in told["grant", grant]] == ["expires_at", "reason"]
    assert ("approver_role", "approver") in told["workflow", "pair"]


def a_grant(**more: Any) -> dict[str, Any]:
    item = {"person": "dana@example.com", "role": "developer", "scope": {"cluster": "dev"}, **more}
    return only(grants=[item])


def take_back(world: World, admin: Caller, *, minutes: float) -> None:
    (grant_id,) = world.rows(
        "SELECT id FROM user_roles WHERE reason = 'told' AND expires_at IS NOT NULL"
    )
    world.run(grants.revoke, caller=admin, grant_id=grant_id["id"], now=at(minutes=minutes))


def test_a_grant_that_is_given_again_tells_when_it_was_taken_back(
    world: World, admin: Caller
) -> None:
    ends = at(days=9).isoformat()
    document = a_grant(expires_at=ends, reason="told")
    (first,) = apply(world, admin, document)
    assert [change.field for change in first.changes] == ["expires_at", "reason"]
    for minutes in (1.0, 2.0):
        take_back(world, admin, minutes=minutes)
        # The same role somewhere else, or of somebody else, was never taken back.
        others = [a_grant(scope={"cluster": "prod"}), a_grant(person="ari@example.com")]
        for other in others:
            (step,) = apply(world, admin, other, now=at(minutes=minutes))
            assert "taken_back" not in [change.field for change in step.changes]
        (step,) = apply(world, admin, document, now=at(minutes=3))
        assert step.action == "create"
        told = {change.field: (change.before, change.after) for change in step.changes}
        assert told["taken_back"] == (None, at(minutes=minutes))
    assert actions(apply(world, admin, document, now=at(minutes=4))) == {"unchanged"}
    # Taken back and meanwhile past its end: it was there, and stays away.
    take_back(world, admin, minutes=5)
    assert actions(apply(world, admin, document, now=at(days=10))) == {"unchanged"}


def test_a_grant_that_ended_before_it_was_given_is_refused(world: World, admin: Caller) -> None:
    details = refused(world, admin, InvalidInputError, a_grant(expires_at=NOW.isoformat()))
    reason = {"field": "grants.0.expires_at", "reason": "lies in the past"}
    assert (details["fields"], details["at"]) == ([reason], "grants.0")
