"""Teams: a tree that never closes a circle, scoped administration, nothing lost by deleting."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sb.errors import SbError
from sb.ids import new_id
from sb.ops import projects, teams
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import OutOfScopeTeamError, TeamNotFoundError
from sb.ops.tenancy_errors import (
    AlreadyMemberError,
    MemberNotFoundError,
    TeamArchivedError,
    TeamCycleError,
    TeamInUseError,
    TeamNameTakenError,
    TeamTooDeepError,
)
from tests.ops.estate import Estate
from tests.ops.refusals import at_once, kinds
from tests.ops.world import NOW, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


@pytest.fixture
def estate(world: World) -> Estate:
    return Estate.of(world)


def seen(world: World, caller: Any, **filters: Any) -> set[str]:
    rows = world.run(teams.list_teams, caller=caller, before=None, limit=50, **filters)
    return {row["name"] for row in rows}


def parent(world: World, team_id: str) -> Any:
    return world.rows("SELECT parent_team_id AS p FROM teams WHERE id = :id", id=team_id)[0]["p"]


def test_create_below_a_parent_takes_the_parent_and_a_root_takes_everything(
    world: World, estate: Estate
) -> None:
    top = estate.team("top")
    head = estate.head(top)
    below = estate.team("below", top, head)
    assert parent(world, below) == top
    # What was made below is theirs at the next call.
    assert estate.team("deep", below, head)
    with pytest.raises(OutOfScopeTeamError) as caught:
        estate.team("root", None, head)
    assert caught.value.audit is not None
    other = estate.team("other")
    with pytest.raises(TeamNotFoundError):
        estate.team("intruder", other, head)
    with pytest.raises(TeamNotFoundError):
        estate.team("orphan", MISSING, head)
    events = [e for e in world.events(action="team.create") if e.actor == head.actor]
    assert [e.metadata["name"] for e in events] == ["below", "deep"]


def test_create_under_a_seen_team_without_the_permission_is_refused(
    world: World, estate: Estate
) -> None:
    top, mine = estate.team("top"), estate.team("mine")
    head = estate.head(mine)
    world.grant(head.user_id, "approver", {"team_id": top})
    head = estate.again(head)
    assert seen(world, head) == {"top", "mine"}
    with pytest.raises(OutOfScopeTeamError):
        estate.team("x", top, head)


def test_names_are_used_once_on_one_level(estate: Estate) -> None:
    top = estate.team("top")
    estate.team("a", top)
    estate.team("a")
    for where in (top, None):
        with pytest.raises(TeamNameTakenError):
            estate.team("a", where)
    second = estate.team("b", top)
    with pytest.raises(TeamNameTakenError):
        estate.world.run(
            teams.update,
            caller=estate.admin,
            team_id=second,
            changes={"name": "a"},
            now=NOW,
        )


def test_list_shows_own_teams_and_those_under_any_grant(world: World, estate: Estate) -> None:
    top = estate.team("top")
    below, other, mine = estate.team("below", top), estate.team("other"), estate.team("mine")
    person = world.person("dev", "developer", {"team_id": top})
    args = {"caller": estate.admin, "team_id": mine, "user_id": person.user_id, "now": NOW}
    world.run(teams.add_member, **args)
    assert seen(world, person) == {"top", "below", "mine"}
    assert seen(world, person, parent_team_id=top) == {"below"}
    assert seen(world, world.person("nobody")) == set()
    assert seen(world, estate.admin) == {"top", "below", "mine", "other"}
    for hidden in (other, MISSING):
        world.refuse(TeamNotFoundError, teams.show, caller=person, team_id=hidden)
        world.refuse(
            TeamNotFoundError,
            teams.list_members,
            caller=person,
            team_id=hidden,
            before=None,
            limit=5,
        )
    assert world.run(teams.show, caller=person, team_id=below)["name"] == "below"
    world.write(
        "UPDATE user_roles SET scope = :s WHERE user_id = :u", s={"x": "y"}, u=person.user_id
    )
    assert seen(world, estate.again(person)) == {"mine"}


def test_list_is_paged_newest_first(world: World, estate: Estate) -> None:
    made = [estate.team(f"t{n}") for n in range(3)]
    for n, team_id in enumerate(made):
        world.write("UPDATE teams SET created_at = :t WHERE id = :id", t=at(seconds=n), id=team_id)
    first = world.run(teams.list_teams, caller=estate.admin, before=None, limit=2)
    assert [row["id"] for row in first] == [made[2], made[1]]
    before = (first[-1]["created_at"], first[-1]["id"])
    rest = world.run(teams.list_teams, caller=estate.admin, before=before, limit=2)
    assert [row["id"] for row in rest] == [made[0]]


def test_update_keeps_what_is_absent_and_audits_what_changed(world: World, estate: Estate) -> None:
    top = estate.team("top")
    team_id = estate.team("a", top)

    def put(**changes: Any) -> Any:
        args = {"caller": estate.admin, "team_id": team_id, "changes": changes, "now": NOW}
        return world.run(teams.update, **args)

    put(description="who we are")
    row = put(name="b")
    assert (row["name"], row["description"], row["parent_team_id"]) == ("b", "who we are", top)
    assert put(name="b", parent_team_id=top)["name"] == "b"
    assert put(description=None)["description"] is None
    events = world.events(action="team.update")
    assert [e.metadata["changed"] for e in events] == [["description"], ["name"], ["description"]]
    assert events[1].metadata["before"] == {"name": "a"}
    assert world.events(action="policy.team_lineage_changed") == []


def test_move_tells_what_it_means_in_the_same_transaction(world: World, estate: Estate) -> None:
    left, right = estate.team("left"), estate.team("right")
    team_id = estate.team("a", left)
    below = estate.team("b", team_id)
    estate.project("p", below)
    estate.project("q", team_id)
    assert estate.move(team_id, right)["parent_team_id"] == right
    estate.move(team_id, None)
    first, second = (e.metadata for e in world.events(action="policy.team_lineage_changed"))
    assert first == {
        "team_id": team_id,
        "old_parent_team_id": left,
        "new_parent_team_id": right,
        "team_policy_rule_count": 0,
        "affected_project_count": 2,
    }
    assert second["new_parent_team_id"] == ""


def test_move_takes_the_team_and_its_new_place(world: World, estate: Estate) -> None:
    left, right = estate.team("left"), estate.team("right")
    team_id, seen_only = estate.team("a", left), estate.team("seen")
    head = estate.head(left)
    world.grant(head.user_id, "developer", {"team_id": seen_only})
    head = estate.again(head)
    for error, target in (
        (TeamNotFoundError, right),
        (OutOfScopeTeamError, seen_only),
        (OutOfScopeTeamError, None),
    ):
        with pytest.raises(error):
            estate.move(team_id, target, head)
    with pytest.raises(OutOfScopeTeamError):
        estate.move(seen_only, left, head)
    assert parent(world, team_id) == left
    both = estate.head(left, right)
    assert estate.move(team_id, right, both)["parent_team_id"] == right
    # The head of the old place has lost the team at once.
    with pytest.raises(TeamNotFoundError):
        estate.move(team_id, left, estate.again(head))


def test_move_below_itself_is_refused(world: World, estate: Estate) -> None:
    chain = estate.chain(100)
    for target in (chain[0], chain[1], chain[-1]):
        with pytest.raises(TeamCycleError):
            estate.move(chain[0], target)
    assert parent(world, chain[0]) is None
    assert estate.move(chain[-1], chain[0])["parent_team_id"] == chain[0]


def test_teams_stand_at_most_a_hundred_deep(world: World, estate: Estate) -> None:
    chain, other = estate.chain(100), estate.chain(3, "o")
    head = estate.head(chain[0], other[0])
    for caller in (estate.admin, head):
        with pytest.raises(TeamTooDeepError) as caught:
            estate.team("x", chain[99], caller)
        assert caught.value.details == {"field": "parent_team_id", "most": 100}
    # A move takes everything below along, on its longest branch.
    estate.team("short", other[0])
    for target in (97, 98, 99):
        with pytest.raises(TeamTooDeepError):
            estate.move(other[0], chain[target], head)
    assert parent(world, other[0]) is None
    assert estate.move(other[0], chain[96], head)["parent_team_id"] == chain[96]
    with pytest.raises(TeamTooDeepError):
        estate.team("x", other[2])
    # Up is always a way out, also of a tree that is deeper than it may be.
    world.write("UPDATE teams SET parent_team_id = :p WHERE id = :id", p=chain[99], id=other[0])
    assert estate.move(chain[1], None)["parent_team_id"] is None


def test_move_and_create_at_once_never_stand_too_deep(world: World, estate: Estate) -> None:
    upper, lower = estate.chain(60), estate.chain(40, "l")
    for n in range(5):
        found = kinds(
            at_once(
                [
                    partial(estate.move, lower[0], upper[59]),
                    partial(estate.team, f"x{n}", lower[39]),
                ]
            )
        )
        assert found == {"ok": 1, "team_too_deep": 1}
        estate.move(lower[0], None)
        world.write("DELETE FROM teams WHERE name = :name", name=f"x{n}")


def test_two_moves_at_once_never_close_a_circle(world: World, estate: Estate) -> None:
    for attempt in range(5):
        pair = [estate.team(f"{side}{attempt}") for side in "ab"]
        deep = [estate.team("deep", team_id) for team_id in pair]
        found = kinds(
            at_once(
                [
                    partial(estate.move, pair[0], deep[1]),
                    partial(estate.move, pair[1], deep[0]),
                ]
            )
        )
        assert found == {"ok": 1, "team_cycle": 1}
        assert [parent(world, team_id) is None for team_id in pair].count(True) == 1


def test_many_moves_at_once_leave_a_forest(world: World, estate: Estate) -> None:
    ring = [estate.team(f"r{n}") for n in range(6)]
    calls = [partial(estate.move, ring[n], ring[(n + 1) % 6]) for n in range(6)]
    found = kinds(at_once(calls))
    assert found == {"ok": 5, "team_cycle": 1}
    for team_id in ring:
        steps, here = 0, team_id
        while (here := parent(world, here)) is not None:
            steps += 1
            assert steps < 6


def test_delete_is_refused_while_anything_names_the_team(world: World, estate: Estate) -> None:
    top = estate.team("top")
    child = estate.team("child", top)
    project_id = estate.project("p", top)
    head = estate.head(top)
    caught = world.refuse(TeamInUseError, teams.delete, caller=estate.admin, team_id=top, now=NOW)
    assert caught.details == {
        "teams_count": 1,
        "projects_count": 1,
        "rules_count": 0,
        "grants_count": 1,
    }
    world.run(teams.delete, caller=head, team_id=child, now=NOW)
    move = {"caller": estate.admin, "project_id": project_id, "team_id": None, "now": NOW}
    world.run(projects.set_team, **move)
    world.refuse(TeamInUseError, teams.delete, caller=estate.admin, team_id=top, now=NOW)
    world.write("UPDATE user_roles SET expires_at = :t WHERE user_id = :u", t=NOW, u=head.user_id)
    world.run(teams.delete, caller=estate.admin, team_id=top, now=NOW)
    world.refuse(TeamNotFoundError, teams.delete, caller=estate.admin, team_id=top, now=NOW)
    assert len(world.events(action="team.delete")) == 2


def test_delete_and_what_hangs_itself_on_the_team_at_once_never_both(
    world: World, estate: Estate
) -> None:
    for attempt in range(5):
        team_id = estate.team(f"t{attempt}")
        delete = partial(world.run, teams.delete, caller=estate.admin, team_id=team_id, now=NOW)
        found = at_once([delete, partial(estate.project, f"p{attempt}", team_id)])
        left = world.rows("SELECT id FROM teams WHERE id = :id", id=team_id)
        hung = world.rows("SELECT team_id FROM projects WHERE name = :n", n=f"p{attempt}")
        assert bool(left) == bool(hung)
        assert all(row["team_id"] == team_id for row in hung)
        assert set(kinds(found)) <= {"ok", "team_in_use", "team_not_found"}


def test_archived_team_takes_nothing_new_and_still_covers(world: World, estate: Estate) -> None:
    top = estate.team("top")
    below = estate.team("below", top)
    head = estate.head(top)

    def put(status: str) -> None:
        args = {"caller": estate.admin, "team_id": top, "status": status, "now": NOW}
        world.run(teams.set_status, **args)

    put("archived")
    put("archived")
    assert len(world.events(action="team.archive")) == 1
    with pytest.raises(TeamArchivedError):
        estate.team("new", top, head)
    with pytest.raises(TeamArchivedError):
        estate.project("new", top, head)
    with pytest.raises(TeamArchivedError):
        estate.move(estate.team("elsewhere"), top)
    assert seen(world, head) == {"top", "below"}
    assert estate.team("deep", below, head)
    put("active")
    assert estate.team("new", top, head)
    assert len(world.events(action="team.restore")) == 1


def test_members_come_and_go_once(world: World, estate: Estate) -> None:
    team_id, person = estate.team("t"), world.person("p")
    head = estate.head(team_id)
    args = {"caller": head, "team_id": team_id, "user_id": person.user_id, "now": NOW}
    row = world.run(teams.add_member, **args)
    assert (row["created_by"], row["display_name"]) == (head.user_id, "p")
    world.refuse(AlreadyMemberError, teams.add_member, **args)
    world.refuse(UserNotFoundError, teams.add_member, **{**args, "user_id": MISSING})
    # A member sees the team and cannot change it.
    page = {"caller": person, "team_id": team_id, "before": None, "limit": 5}
    (member,) = world.run(teams.list_members, **page)
    assert member["user_id"] == person.user_id
    world.refuse(OutOfScopeTeamError, teams.add_member, **{**args, "caller": person})
    world.refuse(OutOfScopeTeamError, teams.remove_member, **{**args, "caller": person})
    world.run(teams.remove_member, **args)
    world.refuse(MemberNotFoundError, teams.remove_member, **args)
    world.refuse(TeamNotFoundError, teams.list_members, **page)
    assert [e.action for e in world.events(resource=f"team:{team_id}")][1:] == [
        "team.member.add",
        "team.member.remove",
    ]


def test_a_refused_change_changes_nothing(world: World, estate: Estate) -> None:
    top, foreign = estate.team("top"), estate.team("foreign")
    head = estate.head(top)
    before = world.rows("SELECT * FROM teams ORDER BY id")
    calls: list[tuple[Any, dict[str, Any]]] = [
        (teams.update, {"changes": {"name": "x"}}),
        (teams.set_status, {"status": "archived"}),
        (teams.delete, {}),
        (teams.add_member, {"user_id": head.user_id}),
        (teams.remove_member, {"user_id": head.user_id}),
    ]
    for op, more in calls:
        for hidden in (foreign, new_id()):
            args = {"caller": head, "team_id": hidden, "now": NOW, **more}
            error: SbError = world.refuse(TeamNotFoundError, op, **args)
            assert error.details == {}
    assert world.rows("SELECT * FROM teams ORDER BY id") == before
