"""Many grants of one person: told in proportion, and no more than so many in force at once."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb.db.engine import Transaction
from sb.errors import SbError
from sb.ids import new_id
from sb.ops import grants, organisation, scopes, teams
from sb.ops.callers import Caller
from sb.ops.governance_errors import TooManyGrantsError
from tests.ops.granting import asked, give, listed, revoke
from tests.ops.refusals import at_once, kinds
from tests.ops.world import NOW, TEST, World, at


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("admin", "admin")


def fill(world: World, user_id: str, count: int, **more: Any) -> None:
    """Give the person that many grants, each at a cluster of its own."""

    def op(tx: Transaction) -> None:
        for number in range(count):
            grants.give(
                tx,
                user_id=user_id,
                role_id=role_id,
                scope={"cluster": f"c{number}"},
                granted_by=TEST.actor,
                now=NOW,
                **more,
            )

    role_id = world.role("developer")
    world.run(op)


def test_create_beyond_the_most_is_refused_until_one_is_taken_back(
    world: World, admin: Caller
) -> None:
    person = world.person("person")
    fill(world, person.user_id, grants.MOST_IN_FORCE - 1)
    last = give(world, admin, person, "developer")
    call = asked(world, admin, person, "approver")
    before = listed(world, admin, user_id=person.user_id)
    refusal = world.refuse(TooManyGrantsError, grants.create, **call)
    assert str(grants.MOST_IN_FORCE) in refusal.message
    assert listed(world, admin, user_id=person.user_id) == before
    # Each person's are counted by themselves.
    give(world, admin, world.person("other"), "developer")
    revoke(world, admin, last["id"])
    world.run(grants.create, **call)


def test_grants_that_have_ended_are_not_counted(world: World, admin: Caller) -> None:
    person = world.person("person")
    fill(world, person.user_id, grants.MOST_IN_FORCE, expires_at=at(days=1))
    call = asked(world, admin, person, "developer")
    world.refuse(TooManyGrantsError, grants.create, **call)
    world.run(grants.create, **{**call, "now": at(days=1)})


def test_grants_made_at_once_do_not_pass_the_most(world: World, admin: Caller) -> None:
    person = world.person("person")
    fill(world, person.user_id, grants.MOST_IN_FORCE - 1)
    calls = [
        asked(world, admin, person, role) for role in ("developer", "approver", "value_provider")
    ]
    outcomes = at_once([partial(world.run, grants.create, **call) for call in calls])
    assert kinds(outcomes) == {"ok": 1, "too_many_grants": 2}
    assert len(world.caller(person.user_id).grants) == grants.MOST_IN_FORCE


def test_apply_gives_no_more_than_the_most(world: World, admin: Caller) -> None:
    person = world.person("person")
    fill(world, person.user_id, grants.MOST_IN_FORCE - 1)
    items = [
        {"person": person.email, "role": "approver", "scope": {"cluster": cluster}}
        for cluster in ("a", "b")
    ]
    call = {"caller": admin, "document": {"version": 1, "grants": items}, "now": NOW}
    refusal: SbError = world.refuse(TooManyGrantsError, organisation.apply, **call)
    assert refusal.details["at"] == "grants.1"
    assert len(world.caller(person.user_id).grants) == grants.MOST_IN_FORCE - 1


def test_load_tells_a_tree_of_teams_once_and_shares_it(world: World, admin: Caller) -> None:
    person, made = world.person("person"), dict[str, str]()
    for name, parent in (("root", None), ("a", "root"), ("b", "root"), ("c", "a"), ("d", None)):
        row = world.run(
            teams.create,
            caller=admin,
            name=name,
            parent_team_id=parent and made[parent],
            description=None,
            status="active",
            now=NOW,
        )
        made[name] = row["id"]
    for scope in (
        {},
        {"team_id": made["root"]},
        {"team_id": made["a"], "cluster": "x"},
        {"team_id": made["root"], "cluster": "x"},
        {"team_id": new_id()},
        {"team_id": made["root"], "cluster": "y"},
    ):
        world.grant(person.user_id, "developer", scope)

    def told(tx: Transaction) -> list[str]:
        rows = tx.many("grant_list_for_user", user_id=person.user_id, now=NOW)
        return [row["team_tree"] for row in rows if row["team_tree"] is not None]

    (tree,) = world.run(told)
    assert sorted(tree.split()[::2]) == sorted(made[name] for name in ("root", "a", "b", "c"))
    everywhere, root, a, first, gone, second = world.caller(person.user_id).grants
    assert (everywhere.team_ids, gone.team_ids) == (frozenset(), frozenset())
    assert root.team_ids == {made[name] for name in ("root", "a", "b", "c")}
    assert a.team_ids == {made["a"], made["c"]}
    assert root.team_ids is first.team_ids is second.team_ids


@given(st.data())
def test_below_is_what_walking_up_from_every_team_finds(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 12))
    # Any parent that is older, or one that nobody asked about.
    parents = {
        f"t{n}": data.draw(st.sampled_from(["-", "above", *(f"t{m}" for m in range(n))]))
        for n in range(size)
    }
    order = data.draw(st.permutations(sorted(parents)))
    asked_for = data.draw(st.lists(st.sampled_from([None, "gone", *sorted(parents)])))
    tree = " ".join(f"{team} {parents[team]}" for team in order)

    def stands_below(team: str, root: str | None) -> bool:
        return team == root or (team in parents and stands_below(parents[team], root))

    found = scopes.below(asked_for, tree=tree or None)
    for root in asked_for:
        assert found[root] == {team for team in parents if stands_below(team, root)}
