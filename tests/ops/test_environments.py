"""Environments: production stays production, whoever deletes it and makes it anew."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sb.ops import environments, projects
from sb.ops.errors import OutOfScopeProjectError
from sb.ops.tenancy_errors import (
    EnvironmentInUseError,
    EnvironmentKindProtectedError,
    EnvironmentNameTakenError,
    EnvironmentNotFoundError,
    ProjectArchivedError,
    ProjectNotFoundError,
)
from tests.ops.estate import Estate, place
from tests.ops.refusals import at_once, kinds
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


@pytest.fixture
def estate(world: World) -> Estate:
    return Estate.of(world)


def delete(estate: Estate, environment_id: str, caller: Any = None) -> None:
    estate.world.run(
        environments.delete,
        caller=caller or estate.admin,
        environment_id=environment_id,
        now=NOW,
    )


def row_of(estate: Estate, environment_id: str, caller: Any = None) -> Any:
    args = {"caller": caller or estate.admin, "environment_id": environment_id}
    return estate.world.run(environments.show, **args)


def test_kind_follows_the_type_unless_it_is_said(estate: Estate) -> None:
    project_id = estate.project("p")
    cases = [
        ("a", "prod", None, "prod"),
        ("b", "uat", None, "non_prod"),
        ("c", "dev", "prod", "prod"),
        ("d", "prod", "non_prod", "non_prod"),
    ]
    for name, kind_of, kind, expected in cases:
        found = estate.environment(project_id, name, environment_type=kind_of, kind=kind)
        assert row_of(estate, found)["kind"] == expected


def test_create_needs_the_project_in_scope_and_active(world: World, estate: Estate) -> None:
    top = estate.team("top")
    project_id, other = estate.project("p", top), estate.project("other")
    head, reader = estate.head(top), world.person("dev", "developer", {"team_id": top})
    estate.environment(project_id, "dev", head)
    for error, caller, target in (
        (OutOfScopeProjectError, reader, project_id),
        (ProjectNotFoundError, head, other),
        (ProjectNotFoundError, head, MISSING),
    ):
        with pytest.raises(error):
            estate.environment(target, "x", caller)
    with pytest.raises(EnvironmentNameTakenError):
        estate.environment(project_id, "dev", head)
    args = {"caller": head, "project_id": project_id, "status": "archived", "now": NOW}
    world.run(projects.set_status, **args)
    with pytest.raises(ProjectArchivedError):
        estate.environment(project_id, "new", head)
    (event,) = world.events(action="environment.create")
    assert event.metadata["kind"] == "non_prod"


@pytest.mark.parametrize("name", ["live", "LIVE"])
def test_production_does_not_come_back_as_less(world: World, estate: Estate, name: str) -> None:
    top = estate.team("top")
    project_id = estate.project("p", top)
    head = estate.head(top)
    delete(estate, estate.environment(project_id, "live", head, kind="prod"), head)
    with pytest.raises(EnvironmentKindProtectedError) as caught:
        estate.environment(project_id, name, head)
    assert caught.value.audit is not None
    assert caught.value.audit.metadata["error_kind"] == "environment_kind_protected"
    # A policy editor of one team is none of the installation.
    world.role("team policy", "policy.edit")
    world.grant(head.user_id, "team policy", {"team_id": top})
    with pytest.raises(EnvironmentKindProtectedError):
        estate.environment(project_id, name, estate.again(head))
    # Another project never had it; and it may come back as what it was.
    assert estate.environment(estate.project("q", top), name, head)
    again = estate.environment(project_id, name, head, kind="prod")
    assert world.events(action="environment.kind_changed") == []
    delete(estate, again)
    lowered = estate.environment(project_id, name, kind="non_prod")
    (event,) = world.events(action="environment.kind_changed")
    assert (event.resource, event.metadata["kind"]) == (f"environment:{lowered}", "non_prod")
    assert event.metadata["before"] == {"kind": "prod"}


def test_a_second_production_in_another_case_is_not_less_than_the_first(estate: Estate) -> None:
    project_id = estate.project("p")
    head = estate.world.person("head", "head", {"project_id": project_id})
    estate.environment(project_id, "live", head, kind="prod")
    with pytest.raises(EnvironmentKindProtectedError):
        estate.environment(project_id, "Live", head)


def test_one_name_at_once_becomes_one_environment(estate: Estate) -> None:
    project_id = estate.project("p")
    calls = [
        partial(estate.environment, project_id, "same", kind=kind)
        for kind in ("prod", "non_prod", "prod", "non_prod")
    ]
    assert kinds(at_once(calls)) == {"ok": 1, "environment_name_taken": 3}


def test_update_keeps_what_is_absent_and_takes_zero(world: World, estate: Estate) -> None:
    found = estate.environment(estate.project("p"))

    def put(**changes: Any) -> Any:
        args = {"caller": estate.admin, "environment_id": found, "changes": changes, "now": NOW}
        return world.run(environments.update, **args)

    assert put(risk_level=0)["risk_level"] == 0
    row = put(description="x")
    assert (row["risk_level"], row["description"]) == (0, "x")
    assert put()["description"] == "x"
    assert put(description=None)["description"] is None
    assert len(world.events(action="environment.update")) == 3


def test_change_needs_the_permission_over_the_environment(world: World, estate: Estate) -> None:
    project_id = estate.project("p")
    one, two = estate.environment(project_id, "one"), estate.environment(project_id, "two")
    keeper = world.person("keeper", "head", {"environment_id": one})
    reader = world.person("dev", "developer", {"project_id": project_id})
    args = {"changes": {"risk_level": 3}, "now": NOW}
    world.run(environments.update, caller=keeper, environment_id=one, **args)
    for error, caller, target in (
        (EnvironmentNotFoundError, keeper, two),
        (EnvironmentNotFoundError, estate.admin, MISSING),
        (OutOfScopeProjectError, reader, two),
    ):
        world.refuse(error, environments.update, caller=caller, environment_id=target, **args)
        with pytest.raises(error):
            delete(estate, target, caller)
    rows = world.run(environments.list_environments, caller=keeper, before=None, limit=9)
    assert [row["id"] for row in rows] == [one]
    page = {"caller": keeper, "project_id": project_id, "before": None, "limit": 9}
    assert [row["id"] for row in world.run(environments.list_of_project, **page)] == [one]
    stranger = {**page, "caller": world.person("nobody")}
    world.refuse(ProjectNotFoundError, environments.list_of_project, **stranger)


def test_delete_is_refused_while_bindings_or_open_requests_name_it(world: World) -> None:
    tenancy = Tenancy.build(world)
    estate = Estate.of(world)
    env = tenancy.ids["environment_id:own"]
    request_id = tenancy.read(tenancy.developer)
    secret_id = tenancy.bind("app/dev", tenancy.east, "east", ops=["read"], environment_id=env)
    with pytest.raises(EnvironmentInUseError) as caught:
        delete(estate, env)
    assert caught.value.details == {"bindings_count": 1, "open_requests_count": 1}
    estate.unbind(tenancy.ids["project_id:own"], secret_id)
    with pytest.raises(EnvironmentInUseError):
        delete(estate, env)
    world.write("UPDATE access_requests SET status = 'rejected' WHERE id = :id", id=request_id)
    delete(estate, env)
    with pytest.raises(EnvironmentNotFoundError):
        delete(estate, env)
    assert world.request(request_id)["environment_id"] == env
    # The name is free again; what was is remembered.
    assert estate.environment(tenancy.ids["project_id:own"], "dev") != env


def test_delete_and_bind_at_once_never_both(world: World, estate: Estate) -> None:
    world.connection()
    project_id = estate.project("p")
    for n in range(5):
        env = estate.environment(project_id, f"e{n}")
        calls = [
            partial(delete, estate, env),
            partial(estate.bind, project_id, place(f"app/{n}"), environment_id=env),
        ]
        found = kinds(at_once(calls))
        assert found in (
            {"ok": 1, "environment_in_use": 1},
            {"ok": 1, "environment_not_in_project": 1},
        )


def test_list_is_paged(world: World, estate: Estate) -> None:
    project_id = estate.project("p")
    made = [estate.environment(project_id, f"e{n}") for n in range(3)]
    for n, found in enumerate(made):
        world.write(
            "UPDATE environments SET created_at = :t WHERE id = :id", t=at(seconds=n), id=found
        )
    args = {"caller": estate.admin, "limit": 1, "before": (at(seconds=2), made[2])}
    rows = world.run(environments.list_environments, project_id=project_id, **args)
    assert [row["id"] for row in rows] == [made[1]]
