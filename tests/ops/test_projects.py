"""Projects: moved within one's scope, read under one definition, archived for good reason."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sb.ops import projects, teams, users
from sb.ops.errors import OutOfScopeProjectError
from sb.ops.governance_errors import OutOfScopeTeamError, TeamNotFoundError
from sb.ops.tenancy_errors import ProjectNameTakenError, ProjectNotFoundError
from tests.ops.estate import Estate
from tests.ops.refusals import at_once, kinds
from tests.ops.world import NOW, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


@pytest.fixture
def estate(world: World) -> Estate:
    return Estate.of(world)


def seen(world: World, caller: Any, **filters: Any) -> set[str]:
    rows = world.run(projects.list_projects, caller=caller, before=None, limit=50, **filters)
    names = {row["name"] for row in rows}
    for row in rows:
        assert world.run(projects.show, caller=caller, project_id=row["id"])["name"] in names
    return names


def test_create_stays_in_the_callers_scope(world: World, estate: Estate) -> None:
    top, other = estate.team("top"), estate.team("other")
    head = estate.head(estate.team("mine", top))
    world.grant(head.user_id, "developer", {"team_id": top})
    head = estate.again(head)
    with pytest.raises(TeamNotFoundError):
        estate.project("p", other, head)
    with pytest.raises(TeamNotFoundError):
        estate.project("p", MISSING, head)
    with pytest.raises(OutOfScopeTeamError):
        estate.project("p", top, head)
    with pytest.raises(OutOfScopeProjectError):
        estate.project("p", None, head)
    below = estate.head(top)
    assert estate.project("p", top, below)
    with pytest.raises(ProjectNameTakenError):
        estate.project("p", None)
    (event,) = world.events(action="project.create")
    assert (event.actor, event.metadata["team_id"]) == (below.actor, top)


def test_projects_are_read_under_one_definition(world: World, estate: Estate) -> None:
    top, other = estate.team("top"), estate.team("other")
    below = estate.team("below", top)
    ids = {
        name: estate.project(name, team)
        for name, team in (("a", top), ("b", below), ("c", other), ("d", None))
    }
    environment_id = estate.environment(ids["c"])
    cases: list[tuple[dict[str, str], set[str]]] = [
        ({}, {"a", "b", "c", "d"}),
        ({"team_id": top}, {"a", "b"}),
        ({"project_id": ids["d"]}, {"d"}),
        ({"project_id": ids["a"], "team_id": other}, set()),
        ({"project_id": ids["a"], "secret_ref_prefix": "x/"}, {"a"}),
        ({"environment_id": environment_id}, {"c"}),
        ({"environment_id": environment_id, "project_id": ids["a"]}, set()),
        # Nothing is said of a place: that must not widen into every project.
        ({"provider": "file"}, set()),
        ({"secret_ref_prefix": "app/"}, set()),
        ({"cluster": "east"}, set()),
    ]
    for permission in projects.READABLE_BY:
        world.role(f"only {permission}", permission)
    for permission in ("secret.list", "secret.approve", "project.edit", "policy.author"):
        for scope, expected in cases:
            person = world.person("reader", f"only {permission}", scope)
            assert seen(world, person) == expected, (permission, scope)
            # What a person sees of themselves follows the same rule.
            mine = world.run(users.readable_projects, caller=person)
            assert {one.name for one in mine} == expected, (permission, scope)
            for name in ids.keys() - expected:
                args = {"caller": person, "project_id": ids[name]}
                world.refuse(ProjectNotFoundError, projects.show, **args)
    world.role("only audit", "audit.read", "agent.list")
    assert seen(world, world.person("auditor", "only audit")) == set()
    person = world.person("dev", "developer", {"environment_id": environment_id})
    (mine,) = world.run(users.readable_projects, caller=person)
    assert (mine.name, [e.id for e in mine.environments]) == ("c", [environment_id])


def test_list_is_filtered_and_paged(world: World, estate: Estate) -> None:
    top = estate.team("top")
    made = [estate.project(f"p{n}", top if n else None) for n in range(3)]
    for n, project_id in enumerate(made):
        world.write(
            "UPDATE projects SET created_at = :t WHERE id = :id", t=at(seconds=n), id=project_id
        )
    assert seen(world, estate.admin, team_id=top) == {"p1", "p2"}
    assert seen(world, estate.admin, status="archived") == set()
    page = world.run(
        projects.list_projects,
        caller=estate.admin,
        before=(at(seconds=2), made[2]),
        limit=1,
    )
    assert [row["id"] for row in page] == [made[1]]


def test_rename_is_audited_and_unique(world: World, estate: Estate) -> None:
    first, _ = estate.project("a"), estate.project("b")
    args = {"caller": estate.admin, "project_id": first, "now": NOW}
    world.refuse(ProjectNameTakenError, projects.rename, name="b", **args)
    assert world.run(projects.rename, name=None, **args)["name"] == "a"
    assert world.run(projects.rename, name="c", **args)["name"] == "c"
    (event,) = world.events(action="project.update")
    assert event.metadata == {"before": {"name": "a"}, "after": {"name": "c"}}


def test_two_projects_of_one_name_at_once_become_one(estate: Estate) -> None:
    found = at_once([partial(estate.project, "same")] * 4)
    assert kinds(found) == {"ok": 1, "project_name_taken": 3}


def test_change_needs_the_permission_over_the_project(world: World, estate: Estate) -> None:
    top = estate.team("top")
    project_id = estate.project("p", top)
    reader, stranger = world.person("dev", "developer", {"team_id": top}), world.person("nobody")
    calls: list[tuple[Any, dict[str, Any]]] = [
        (projects.rename, {"name": "x"}),
        (projects.set_status, {"status": "archived"}),
        (projects.set_team, {"team_id": top}),
    ]
    for op, more in calls:
        args = {"project_id": project_id, "now": NOW, **more}
        error = world.refuse(OutOfScopeProjectError, op, caller=reader, **args)
        assert error.audit is not None
        assert error.audit.resource == f"project:{project_id}"
        world.refuse(ProjectNotFoundError, op, caller=stranger, **args)
        world.refuse(
            ProjectNotFoundError, op, caller=estate.admin, **{**args, "project_id": MISSING}
        )


def test_move_takes_the_project_and_its_new_team(world: World, estate: Estate) -> None:
    left, right = estate.team("left"), estate.team("right")
    project_id = estate.project("p", left)
    head, both = estate.head(left), estate.head(left, right)

    def move(caller: Any, team_id: str | None) -> None:
        args = {"caller": caller, "project_id": project_id, "team_id": team_id, "now": NOW}
        world.run(projects.set_team, **args)

    for error, caller, team_id in (
        (TeamNotFoundError, head, right),
        (OutOfScopeProjectError, head, None),
        (ProjectNotFoundError, estate.head(right), right),
    ):
        with pytest.raises(error):
            move(caller, team_id)
    move(both, right)
    move(both, right)
    with pytest.raises(ProjectNotFoundError):
        move(head, left)
    move(estate.admin, None)
    events = world.events(action="project.move")
    assert [e.metadata["after"]["team_id"] for e in events] == [right, None]


def test_archive_and_restore_are_audited_once(world: World, estate: Estate) -> None:
    project_id = estate.project("p")
    for status in ("archived", "archived", "active", "active"):
        args = {"caller": estate.admin, "project_id": project_id, "now": NOW}
        world.run(projects.set_status, status=status, **args)
    assert len(world.events(action="project.archive")) == 1
    assert len(world.events(action="project.restore")) == 1


def test_moving_a_team_moves_who_covers_its_projects(world: World, estate: Estate) -> None:
    left, right = estate.team("left"), estate.team("right")
    team_id = estate.team("t", left)
    estate.project("p", team_id)
    mine, theirs = (world.person("dev", "developer", {"team_id": side}) for side in (left, right))
    assert (seen(world, mine), seen(world, theirs)) == ({"p"}, set())
    estate.move(team_id, right)
    assert seen(world, estate.again(mine)) == set()
    assert seen(world, estate.again(theirs)) == {"p"}
    world.run(teams.show, caller=estate.admin, team_id=team_id)
