"""Grants: given within one's own powers, once, for a time; seen and taken back in scope only."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from sb.errors import InvalidInputError, PermissionDeniedError
from sb.ops import grant_lists, grants
from sb.ops.callers import Caller
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import (
    EscalationError,
    GranteeDisabledError,
    GrantExistsError,
    GrantNotFoundError,
    InvalidScopeError,
    RoleNotFoundError,
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


# --- giving


def test_create_gives_the_role_and_says_who_why_and_until_when(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    person = world.person("person")
    scope = tenancy.scope("team_id", "own")
    row = give(
        world, admin, person, "developer", scope=scope, expires_at=at(days=1), reason="ticket 7"
    )
    assert (row["user_id"], row["role_name"], row["scope"]) == (person.user_id, "developer", scope)
    assert (row["granted_by"], row["granted_at"]) == (admin.actor, NOW)
    assert (row["expires_at"], row["reason"]) == (at(days=1), "ticket 7")
    (grant,) = world.caller(person.user_id).grants
    assert (grant.role_name, grant.scope, grant.expires_at) == ("developer", scope, at(days=1))
    (event,) = world.events(action="grant.create")
    assert (event.actor, event.resource) == (admin.actor, f"grant:{row['id']}")
    assert event.metadata == {
        "user_id": person.user_id,
        "role_id": world.role("developer"),
        "role": "developer",
        "scope": scope,
        "expires_at": at(days=1).isoformat(),
        "reason": "ticket 7",
    }


def test_create_beyond_the_own_scope_is_refused_whether_it_is_there_or_not(
    world: World, tenancy: Tenancy
) -> None:
    head = world.person("head", "head", tenancy.scope("team_id", "own"))
    other = world.person("other")
    seen = set()
    for scope in (
        {},
        tenancy.scope("team_id", "sibling"),
        tenancy.scope("team_id", "parent"),
        tenancy.scope("project_id", "other"),
        {"team_id": MISSING},
        {"project_id": MISSING},
        {"environment_id": MISSING},
        {"cluster": "east"},
    ):
        error = world.refuse(
            PermissionDeniedError, grants.create, **asked(world, head, other, "viewer", scope=scope)
        )
        assert denied(error) == ("grant.create", f"user:{other.user_id}", "out_of_scope")
        seen.add(repr(error.details))
    assert len(seen) == 1
    assert world.caller(other.user_id).grants == ()


#: What a grant at the first scope may give at the second.
REACH = [
    ({"team_id": "own"}, {"team_id": "own"}, True),
    ({"team_id": "parent"}, {"team_id": "own"}, True),
    ({"team_id": "own"}, {"project_id": "own"}, True),
    ({"team_id": "parent"}, {"environment_id": "other"}, True),
    ({"team_id": "own"}, {"team_id": "own", "cluster": "east"}, True),
    ({"team_id": "own"}, {"project_id": "own", "provider": "vault"}, True),
    ({"project_id": "own"}, {"environment_id": "own"}, True),
    ({"project_id": "own"}, {"team_id": "sibling", "project_id": "own"}, False),
    ({"team_id": "own"}, {"team_id": "sibling", "project_id": "own"}, False),
    ({"project_id": "own"}, {"team_id": "own"}, False),
    ({"environment_id": "own"}, {"project_id": "own"}, False),
    ({"team_id": "own", "cluster": "east"}, {"team_id": "own"}, False),
    ({"team_id": "own", "project_id": "other"}, {"project_id": "other"}, False),
    ({"team_id": "own", "project_id": "other"}, {"team_id": "own"}, False),
    ({"team_id": "own", "cluster": "east"}, {"project_id": "own", "cluster": "east"}, True),
    ({"cluster": "east"}, {"team_id": "own", "cluster": "east"}, True),
    ({"cluster": "east"}, {"cluster": "west"}, False),
    ({"secret_ref_prefix": "app/"}, {"secret_ref_prefix": "app/db"}, True),
    ({"secret_ref_prefix": "app/"}, {"secret_ref_prefix": "ap"}, False),
    ({"secret_ref_prefix": "app_"}, {"secret_ref_prefix": "app/x"}, False),
    ({}, {"provider": "file"}, True),
    ({"provider": "file"}, {}, False),
]


@pytest.mark.parametrize(("held", "given", "reaches"), REACH)
def test_create_reaches_exactly_as_far_as_the_own_grant(
    world: World, tenancy: Tenancy, held: dict[str, str], given: dict[str, str], reaches: bool
) -> None:
    head = world.person("head", "head", scoped(tenancy, held))
    call = asked(world, head, world.person("other"), "viewer", scope=scoped(tenancy, given))
    if reaches:
        row = world.run(grants.create, **call)
        assert listed(world, head, user_id=row["user_id"]) == [row["id"]]
    else:
        world.refuse(PermissionDeniedError, grants.create, **call)


def test_create_of_a_permission_not_held_there_is_an_escalation(
    world: World, tenancy: Tenancy
) -> None:
    scope = tenancy.scope("team_id", "own")
    head, other = world.person("head", "head", scope), world.person("other")
    world.grant(head.user_id, "developer", tenancy.scope("team_id", "sibling"))
    head = world.caller(head.user_id)
    error = world.refuse(
        EscalationError, grants.create, **asked(world, head, other, "developer", scope=scope)
    )
    missing = ["audit.read", "secret.request", "secret.reveal.direct"]
    assert error.details == {"permissions": missing}
    assert denied(error) == ("grant.create", f"user:{other.user_id}", "permission_escalation")
    assert error.audit is not None
    assert error.audit.metadata["permissions"] == missing
    # To oneself it is no different, and what is held may be given on.
    call = asked(world, head, head, "developer", scope=scope)
    world.refuse(EscalationError, grants.create, **call)
    assert give(world, head, other, "head", scope=scope)["role_name"] == "head"


def test_an_administrator_gives_others_anything_and_themselves_nothing_new(
    world: World, admin: Caller
) -> None:
    other = world.person("other")
    assert give(world, admin, other, "security_approver")["scope"] == {}
    error = world.refuse(
        EscalationError, grants.create, **asked(world, admin, admin, "security_approver")
    )
    assert error.details == {"permissions": ["secret.security.approve"]}
    assert give(world, admin, admin, "approver", scope={"cluster": "east"})["user_id"] == (
        admin.user_id
    )


def test_what_ends_gives_nothing_that_lasts_longer(world: World, tenancy: Tenancy) -> None:
    scope = tenancy.scope("team_id", "own")
    head, other = world.person("head"), world.person("other")
    ends = {"scope": scope, "expires_at": at(days=7)}
    mine = give(world, world.person("admin", "admin"), head, "head", **ends)
    head = world.caller(head.user_id)
    for to in (head, other):
        for until in (None, at(days=7, seconds=1)):
            call = asked(world, head, to, "viewer", scope=scope, expires_at=until)
            assert denied(world.refuse(EscalationError, grants.create, **call))[0] == "grant.create"
    given = give(world, head, other, "viewer", **ends)
    for grant in (mine, given):
        for until in (None, at(days=8)):
            values = {"grant_id": grant["id"], "changes": {"expires_at": until}}
            world.refuse(EscalationError, grants.update, caller=head, **values, now=NOW)
    assert change(world, head, given["id"], expires_at=at(days=6))["expires_at"] == at(days=6)
    assert change(world, head, given["id"], expires_at=at(days=7))["expires_at"] == at(days=7)


def test_a_temporary_administrator_cannot_stay_one(world: World, admin: Caller) -> None:
    deputy = world.person("deputy")
    mine = give(world, admin, deputy, "admin", expires_at=at(days=1))
    deputy = world.caller(deputy.user_id)
    world.refuse(EscalationError, grants.create, **asked(world, deputy, deputy, "admin"))
    values = {"grant_id": mine["id"], "changes": {"expires_at": None}}
    world.refuse(EscalationError, grants.update, caller=deputy, **values, now=NOW)
    assert give(world, deputy, world.person("new"), "developer")["expires_at"] is None


@pytest.mark.parametrize("until", [NOW, at(seconds=-1), at(days=-400)])
def test_create_with_an_end_that_has_passed_is_refused(
    world: World, admin: Caller, until: datetime
) -> None:
    call = asked(world, admin, world.person("other"), "developer", expires_at=until)
    error = world.refuse(InvalidInputError, grants.create, **call)
    assert error.details["fields"] == [
        {"field": "expires_at", "reason": "a grant ends in the future"}
    ]


BAD_SCOPES = [
    ({"environment": "dev"}, "scope.environment"),
    ({"provider_type": "vault"}, "scope.provider_type"),
    ({"team_id": ""}, "scope.team_id"),
    ({"team_id": None}, "scope.team_id"),
    ({"team_id": 5}, "scope.team_id"),
    ({"team_id": ["x"]}, "scope.team_id"),
    ({"team_id": "nope"}, "scope.team_id"),
    ({"team_id": MISSING}, "scope.team_id"),
    ({"project_id": MISSING}, "scope.project_id"),
    ({"environment_id": MISSING}, "scope.environment_id"),
    ({"provider": "nope"}, "scope.provider"),
    ({"cluster": ""}, "scope.cluster"),
    ({"secret_ref_prefix": "x" * 1025}, "scope.secret_ref_prefix"),
    ({"secret_ref_prefix": "app/", "": "x"}, "scope."),
]


@pytest.mark.parametrize(("scope", "field"), BAD_SCOPES)
def test_create_at_a_scope_that_could_mean_nothing_is_refused(
    world: World, admin: Caller, scope: dict[str, Any], field: str
) -> None:
    call = asked(world, admin, world.person("other"), "developer", scope=scope)
    assert world.refuse(InvalidScopeError, grants.create, **call).details["field"] == field


def test_create_at_another_projects_environment_is_refused(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    scope = scoped(tenancy, {"project_id": "own", "environment_id": "other"})
    call = asked(world, admin, world.person("other"), "developer", scope=scope)
    error = world.refuse(InvalidScopeError, grants.create, **call)
    fields = [one["field"] for one in error.details["fields"]]
    assert fields == ["scope.environment_id", "scope.project_id"]


def test_create_for_nobody_or_of_nothing_is_refused(world: World, admin: Caller) -> None:
    other = world.person("other")
    call = asked(world, admin, other, "developer")
    world.refuse(UserNotFoundError, grants.create, **{**call, "user_id": MISSING})
    world.refuse(RoleNotFoundError, grants.create, **{**call, "role_id": MISSING})
    world.write("UPDATE local_users SET disabled = :yes WHERE id = :id", yes=True, id=other.user_id)
    world.refuse(GranteeDisabledError, grants.create, **call)
    assert world.caller(other.user_id).grants == ()


def test_create_twice_while_in_force_is_refused(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    other = world.person("other")
    scope = scoped(tenancy, {"team_id": "own", "cluster": "east"})
    call = asked(world, admin, other, "developer", scope=scope, expires_at=at(hours=1))
    world.run(grants.create, **call)
    turned = {"cluster": "east", "team_id": scope["team_id"].upper()}
    for again in (scope, turned):
        call = asked(world, admin, other, "developer", scope=again)
        world.refuse(GrantExistsError, grants.create, **call)
    give(world, admin, other, "developer", scope={"cluster": "east"})
    give(world, admin, other, "approver", scope=scope)
    # What has ended is followed by another one.
    assert world.run(grants.create, **{**call, "now": at(hours=1)})["expires_at"] is None


@pytest.mark.parametrize("until", [None, at(days=1)])
def test_create_at_once_makes_one_grant(
    world: World, admin: Caller, until: datetime | None
) -> None:
    other = world.person("other")
    call = asked(world, admin, other, "developer", scope={"cluster": "x"}, expires_at=until)
    outcomes = at_once([partial(world.run, grants.create, **call)] * 6)
    assert kinds(outcomes) == Counter({"grant_exists": 5, "ok": 1})
    assert len(world.caller(other.user_id).grants) == 1
    assert len(world.events(action="grant.create")) == 1


def test_create_by_somebody_whose_own_grant_was_just_taken_is_refused(
    world: World, admin: Caller
) -> None:
    second, other = world.person("second", "admin"), world.person("other")
    revoke(world, admin, grant_of(world, second))
    for caller in (second, disabled(world, world.person("third", "admin"))):
        call = asked(world, caller, other, "developer")
        assert denied(world.refuse(PermissionDeniedError, grants.create, **call))[2] == (
            "out_of_scope"
        )


# --- seeing


@pytest.fixture
def everywhere(world: World, tenancy: Tenancy, admin: Caller) -> list[str]:
    """Grants at scopes of every kind, dead and unreadable ones among them; their ids."""
    world.grant(world.person("everything").user_id, "viewer", {})
    for keys in (
        {"team_id": "parent"},
        {"team_id": "own"},
        {"team_id": "sibling"},
        {"project_id": "own"},
        {"project_id": "other"},
        {"environment_id": "own"},
        {"environment_id": "other"},
        {"secret_ref_prefix": "app/db"},
        {"secret_ref_prefix": "App/db"},
        {"provider": "file"},
        {"cluster": "east"},
        {"team_id": "own", "cluster": "east"},
        {"project_id": "own", "provider": "file", "secret_ref_prefix": "app/"},
    ):
        give(world, admin, world.person("somebody"), "viewer", scope=scoped(tenancy, keys))
    moved = scoped(tenancy, {"team_id": "sibling", "project_id": "own"})
    lost = ({"project_id": MISSING}, {"team_id": "nope"}, {"environment_id": 5}, {"x": "y"})
    for scope in (moved, *lost):
        world.grant(world.person("lost").user_id, "viewer", scope)
    return [row["id"] for row in world.rows("SELECT id FROM user_roles ORDER BY granted_at, id")]


HELD = [held for held, *_ in REACH] + [{"project_id": "other"}, {"environment_id": "other"}]


def test_list_shows_exactly_the_grants_one_could_have_given(
    world: World, tenancy: Tenancy, everywhere: list[str]
) -> None:
    def shown(caller: Caller, grant_id: str) -> bool:
        try:
            return bool(world.run(grant_lists.find, caller=caller, grant_id=grant_id))
        except GrantNotFoundError:
            return False

    counts = set()
    for held in HELD:
        head = world.person("head", "head", scoped(tenancy, held))
        found = [grant_id for grant_id in listed(world, head) if grant_id in everywhere]
        assert found == [grant_id for grant_id in everywhere if shown(head, grant_id)], held
        counts.add(len(found))
    assert len(everywhere) in counts
    assert len(counts) > 5
