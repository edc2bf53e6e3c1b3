"""Scopes that could mean nothing are refused, each cause with a sentence of its own."""

from __future__ import annotations

from typing import Any

import pytest

from sb.errors import PermissionDeniedError
from sb.ops import grants, organisation_export, projects
from sb.ops.callers import Caller
from sb.ops.governance_errors import InvalidScopeError
from tests.ops.granting import MISSING, asked, denied, give, scoped, section
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at

Scope = dict[str, str]


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return section(world)


@pytest.fixture
def admin(world: World, tenancy: Tenancy) -> Caller:
    return world.person("admin", "admin")


def refused(world: World, admin: Caller, scope: Any) -> InvalidScopeError:
    call = asked(world, admin, world.person("other"), "developer", scope=scope)
    error = world.refuse(InvalidScopeError, grants.create, **call)
    assert isinstance(error, InvalidScopeError)
    return error


CONTRADICTIONS: list[tuple[Scope, str, str]] = [
    ({"team_id": "sibling", "project_id": "own"}, "project_id", "team_id"),
    ({"team_id": "sibling", "environment_id": "own"}, "environment_id", "team_id"),
    ({"project_id": "own", "environment_id": "other"}, "environment_id", "project_id"),
    (
        {"team_id": "own", "project_id": "own", "environment_id": "other"},
        "environment_id",
        "project_id",
    ),
]


@pytest.mark.parametrize(("scope", "inner", "outer"), CONTRADICTIONS)
def test_a_scope_that_excludes_itself_is_refused_by_both_its_fields(
    world: World, tenancy: Tenancy, admin: Caller, scope: Scope, inner: str, outer: str
) -> None:
    error = refused(world, admin, scoped(tenancy, scope))
    said = {one["field"]: one["reason"] for one in error.details["fields"]}
    assert list(said) == [f"scope.{inner}", f"scope.{outer}"]
    assert f"of scope.{outer}" in said[f"scope.{inner}"]
    assert "exclude each other" in error.public_message


CAUSES: list[dict[str, Any]] = [
    {"kluster": "east"},
    {"cluster": ""},
    {"team_id": "nope"},
    {"provider": "nope"},
    {"team_id": MISSING},
]


def test_every_cause_has_a_sentence_of_its_own(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    scopes = [*CAUSES, scoped(tenancy, CONTRADICTIONS[0][0])]
    sentences = {refused(world, admin, scope).public_message for scope in scopes}
    assert len(sentences) == len(scopes)
    assert InvalidScopeError.message not in sentences


@pytest.mark.parametrize(("scope", "_inner", "_outer"), CONTRADICTIONS)
def test_a_scoped_giver_is_not_told_how_things_hang_together(
    world: World, tenancy: Tenancy, scope: Scope, _inner: str, _outer: str
) -> None:
    head = world.person("head", "head", tenancy.scope("team_id", "own"))
    other = world.person("other")
    for wanted in (scoped(tenancy, scope), {**scoped(tenancy, scope), "team_id": MISSING}):
        call = asked(world, head, other, "viewer", scope=wanted)
        error = world.refuse(PermissionDeniedError, grants.create, **call)
        assert error.details == {"permission": "user_role.edit"}
        assert denied(error)[2] == "out_of_scope"


def test_a_scope_that_came_to_exclude_itself_stays_and_grants_nothing(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    scope = scoped(tenancy, {"team_id": "own", "project_id": "own"})
    person = world.person("person")
    row = give(world, admin, person, "developer", scope=scope)
    project_id, home = scope["project_id"], scope["team_id"]

    def move(team_id: str) -> None:
        args = {"project_id": project_id, "team_id": team_id, "now": NOW}
        world.run(projects.set_team, caller=admin, **args)

    def seen() -> int:
        caller = world.caller(person.user_id)
        found = world.run(projects.list_projects, caller=caller, before=None, limit=9)
        return len(found)

    assert seen() == 1
    move(tenancy.ids["team_id:sibling"])
    assert seen() == 0
    # It can be let go on, or taken back, and no document can say it.
    changes = {"expires_at": at(days=1)}
    kept = world.run(grants.update, caller=admin, grant_id=row["id"], changes=changes, now=NOW)
    assert kept["scope"] == scope
    (left_out,) = world.run(organisation_export.export, caller=admin, now=NOW).left_out
    assert left_out.endswith("parts of its scope exclude each other")
    move(home)
    assert seen() == 1
    assert world.run(organisation_export.export, caller=admin, now=NOW).left_out == []
