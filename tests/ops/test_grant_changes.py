"""Grants changed and taken back in scope only, an administrator always left, what they cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from sb.auth.access import Resource, allowed
from sb.errors import InvalidInputError, PermissionDeniedError, SbError
from sb.ids import new_id
from sb.ops import grant_lists, grants, roles
from sb.ops.callers import Caller
from sb.ops.governance_errors import (
    GrantEndedError,
    GrantNotFoundError,
    LastAdminError,
)
from tests.ops.granting import (
    MISSING,
    asked,
    change,
    denied,
    disabled,
    give,
    grant_of,
    listed,
    revoke,
    scoped,
    section,
)
from tests.ops.refusals import at_once, kinds
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return section(world)


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("admin", "admin")


# --- changing


def test_update_changes_what_is_given_and_says_what_was(world: World, admin: Caller) -> None:
    grant = give(world, admin, world.person("other"), "developer", reason="ticket 1")
    changed = change(world, admin, grant["id"], expires_at=at(days=2))
    assert (changed["expires_at"], changed["reason"]) == (at(days=2), "ticket 1")
    changed = change(world, admin, grant["id"], reason=None)
    assert (changed["expires_at"], changed["reason"]) == (at(days=2), None)
    assert change(world, admin, grant["id"], expires_at=at(days=2), reason=None) == changed
    assert change(world, admin, grant["id"]) == changed
    first, second = world.events(action="grant.update")
    assert first.metadata["before"] == {"expires_at": None, "reason": "ticket 1"}
    assert first.metadata["expires_at"] == at(days=2).isoformat()
    assert second.metadata["before"] == {
        "expires_at": at(days=2).isoformat(),
        "reason": "ticket 1",
    }
    assert (second.metadata["reason"], second.resource) == (None, f"grant:{grant['id']}")


def test_update_of_a_grant_that_has_ended_is_refused(world: World, admin: Caller) -> None:
    grant = give(world, admin, world.person("other"), "developer", expires_at=at(hours=1))
    for changes in ({"expires_at": None}, {"expires_at": at(days=1)}, {"reason": "again"}):
        values = {"grant_id": grant["id"], "changes": changes, "now": at(hours=1)}
        world.refuse(GrantEndedError, grants.update, caller=admin, **values)
    values = {"grant_id": grant["id"], "changes": {"expires_at": NOW}, "now": NOW}
    world.refuse(InvalidInputError, grants.update, caller=admin, **values)


CHANGES: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
    ("grant.update", grants.update, {"changes": {"reason": "mine"}}),
    ("grant.revoke", grants.revoke, {}),
]


@pytest.mark.parametrize(("action", "op", "values"), CHANGES)
def test_a_grant_out_of_scope_looks_like_none(
    world: World, tenancy: Tenancy, admin: Caller, action: str, op: Any, values: dict[str, Any]
) -> None:
    scope = tenancy.scope("team_id", "sibling")
    beside = give(world, admin, world.person("other"), "viewer", scope=scope)
    head = world.person("head", "head", tenancy.scope("team_id", "own"))
    for grant_id in (beside["id"], grant_of(world, admin), MISSING):
        error = world.refuse(
            GrantNotFoundError, op, caller=head, grant_id=grant_id, now=NOW, **values
        )
        assert denied(error) == (action, f"grant:{grant_id}", "out_of_scope")
        assert error.details == {}
    # One's own grant is seen, and not one's own to change.
    extra = give(world, admin, head, "viewer")
    error = world.refuse(
        PermissionDeniedError, op, caller=head, grant_id=extra["id"], now=NOW, **values
    )
    assert denied(error) == (action, f"grant:{extra['id']}", "out_of_scope")
    assert world.run(grant_lists.find, caller=head, grant_id=extra["id"])["id"] == extra["id"]


# --- taking


def test_revoke_takes_the_grant_and_says_what_it_was(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    other, scope = world.person("other"), tenancy.scope("team_id", "own")
    grant = give(world, admin, other, "viewer", scope=scope, reason="ticket 1")
    head = world.person("head", "head", scope)
    revoke(world, head, grant["id"])
    assert world.caller(other.user_id).grants == ()
    (event,) = world.events(action="grant.revoke")
    assert (event.actor, event.resource) == (head.actor, f"grant:{grant['id']}")
    assert event.metadata == {
        "user_id": other.user_id,
        "role_id": world.role("viewer"),
        "role": "viewer",
        "scope": scope,
        "expires_at": None,
        "reason": "ticket 1",
        "granted_by": admin.actor,
        "granted_at": NOW.isoformat(),
        "was_in_force": True,
        "revoke_reason": None,
    }
    world.refuse(GrantNotFoundError, grants.revoke, caller=head, grant_id=grant["id"], now=NOW)


def test_revoke_at_once_takes_it_once(world: World, admin: Caller) -> None:
    grant = give(world, admin, world.person("other"), "developer")
    call = partial(revoke, world, admin, grant["id"])
    assert kinds(at_once([call] * 5)) == Counter({"grant_not_found": 4, "ok": 1})
    assert len(world.events(action="grant.revoke")) == 1


def test_the_last_administrator_stays(world: World, admin: Caller) -> None:
    mine = grant_of(world, admin)
    keeper = world.person("keeper")
    temporary = give(world, admin, keeper, "admin", expires_at=at(days=9))
    for caller in (admin, world.caller(keeper.user_id)):
        world.refuse(LastAdminError, grants.revoke, caller=caller, grant_id=mine, now=NOW)
        values = {"grant_id": mine, "changes": {"expires_at": at(days=30)}, "now": NOW}
        world.refuse(LastAdminError, grants.update, caller=caller, **values)
    assert len(world.caller(admin.user_id).grants) == 1
    assert change(world, admin, mine, reason="founder")["reason"] == "founder"
    # Whoever may not sign in does not count; whoever stays for good does.
    disabled(world, world.person("gone", "admin"))
    world.refuse(LastAdminError, grants.revoke, caller=admin, grant_id=mine, now=NOW)
    change(world, admin, temporary["id"], expires_at=None)
    # Nor does who has yet to change a password that somebody else made up.
    must_change_password(world, keeper, True)
    world.refuse(LastAdminError, grants.revoke, caller=admin, grant_id=mine, now=NOW)
    must_change_password(world, keeper, False)
    revoke(world, world.caller(keeper.user_id), mine)
    assert world.caller(admin.user_id).grants == ()


def test_where_nobody_administers_yet_other_grants_are_taken_back(
    world: World, admin: Caller
) -> None:
    """The only administrator has not come yet; section heads go on with what is theirs."""
    team = {"team_id": Tenancy.build(world).ids["team_id:own"]}
    world.role("head", "user_role.edit", "secret.list")
    head, other = world.person("head", "head", team), world.person("other", "head", team)
    must_change_password(world, admin, True)
    revoke(world, head, grant_of(world, other))
    world.role("people", "user_role.edit")
    helper = world.person("helper", "people")
    kept = grant_of(world, admin)
    world.refuse(LastAdminError, grants.revoke, caller=helper, grant_id=kept, now=NOW)


def must_change_password(world: World, person: Caller, yes: bool) -> None:
    world.write(
        "UPDATE local_users SET must_change_password = :yes WHERE id = :id",
        yes=yes,
        id=person.user_id,
    )


@pytest.mark.parametrize("bystanders", [0, 1])
def test_two_administrators_who_strip_each_other_at_once_leave_one(
    world: World, admin: Caller, bystanders: int
) -> None:
    for n in range(bystanders):
        world.person(f"bystander-{n}", "admin")
    for _ in range(5):
        second = world.person("second", "admin")
        outcomes = at_once(
            [
                partial(revoke, world, admin, grant_of(world, second)),
                partial(revoke, world, second, grant_of(world, admin)),
            ]
        )
        assert kinds(outcomes)["ok"] == 1, outcomes
        # The loser holds nothing any more by then, so may not even see the other's grant.
        assert kinds(outcomes)["grant_not_found"] == 1, outcomes
        (admin,) = (one for one in (admin, second) if world.caller(one.user_id).grants)


def test_administrators_who_step_down_at_once_leave_one(world: World) -> None:
    admins = [world.person(f"admin-{n}", "admin") for n in range(4)]
    outcomes = at_once([partial(revoke, world, one, grant_of(world, one)) for one in admins])
    assert kinds(outcomes) == Counter({"ok": 3, "last_admin": 1})
    assert len([one for one in admins if world.caller(one.user_id).grants]) == 1


def test_a_role_is_given_or_deleted_at_once_never_both(world: World, admin: Caller) -> None:
    for n in range(5):
        role_id = world.role(f"passing-{n}", "secret.list")
        other = world.person("other")
        given, deleted = at_once(
            [
                partial(world.run, grants.create, **asked(world, admin, other, f"passing-{n}")),
                partial(world.run, roles.delete, caller=admin, role_id=role_id, now=NOW),
            ]
        )
        codes = tuple(o.code if isinstance(o, SbError) else "ok" for o in (given, deleted))
        assert codes in {("ok", "role_in_use"), ("role_not_found", "ok")}
        held = len(world.caller(other.user_id).grants)
        assert held == (1 if codes[0] == "ok" else 0)


# --- what a grant covers


def test_a_grant_covers_nothing_once_what_it_names_is_gone(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    stamps = {"created_at": NOW, "updated_at": NOW}
    team, project, environment = new_id(), new_id(), new_id()
    world.insert("teams", id=team, name="t", parent_team_id=None, status="active", **stamps)
    world.insert("projects", id=project, name="p", team_id=None, status="active", **stamps)
    facts = {"project_id": project, "type": "dev", "kind": "non_prod", "risk_level": 1}
    world.insert("environments", id=environment, name="e", **facts, **stamps)
    resource = Resource(
        team_id=team, project_id=project, environment_id=environment, cluster="east"
    )
    names = {"team_id": team, "project_id": project, "environment_id": environment}
    people = {}
    for key, value in names.items():
        for scope in ({key: value}, {key: value, "cluster": "east"}):
            person = world.person("person")
            give(world, admin, person, "viewer", scope=scope)
            people[person.user_id] = key
            assert allowed(world.caller(person.user_id).grants, "secret.list", resource)
    world.write("UPDATE environments SET deleted_at = :now", now=NOW)
    for user_id, key in people.items():
        still = allowed(world.caller(user_id).grants, "secret.list", resource)
        assert still is (key != "environment_id")
    world.write("DELETE FROM environments WHERE id = :id", id=environment)
    world.write("DELETE FROM projects WHERE id = :id", id=project)
    world.write("DELETE FROM teams WHERE id = :id", id=team)
    for user_id in people:
        assert not allowed(world.caller(user_id).grants, "secret.list", resource)
        assert not allowed(world.caller(user_id).grants, "secret.list", Resource())
    # They can still be found and taken back.
    for user_id in people:
        (grant,) = listed(world, admin, user_id=user_id)
        revoke(world, admin, grant)


def test_a_grant_of_a_team_and_a_project_needs_both(world: World, tenancy: Tenancy) -> None:
    both = scoped(tenancy, {"team_id": "own", "project_id": "own"})
    split = scoped(tenancy, {"team_id": "sibling", "project_id": "own"})
    own = Resource(team_id=tenancy.ids["team_id:own"], project_id=tenancy.ids["project_id:own"])
    for scope, covers in ((both, True), (split, False)):
        held = world.person("person", "viewer", scope).grants
        assert allowed(held, "secret.list", own) is covers
        for part in (
            Resource(team_id=own.team_id),
            Resource(project_id=own.project_id),
            Resource(team_id=tenancy.ids["team_id:sibling"]),
        ):
            assert not allowed(held, "secret.list", part)


def test_an_environments_name_is_no_scope(world: World, tenancy: Tenancy) -> None:
    person = world.person("person", "viewer", {"environment": "dev"})
    own = Resource(
        project_id=tenancy.ids["project_id:own"], environment_id=tenancy.ids["environment_id:own"]
    )
    assert not allowed(person.grants, "secret.list", own)
    assert not allowed(person.grants, "secret.list", Resource())
