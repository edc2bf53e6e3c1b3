"""Grants: given within one's own powers, once, for a time; seen and taken back in scope only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from sb.auth.access import Resource, allowed
from sb.errors import InvalidInputError, PermissionDeniedError, SbError
from sb.ids import new_id
from sb.ops import grants, roles
from sb.ops.callers import Caller
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import (
    EscalationError,
    GranteeDisabledError,
    GrantEndedError,
    GrantExistsError,
    GrantNotFoundError,
    InvalidScopeError,
    LastAdminError,
    RoleNotFoundError,
)
from tests.ops.refusals import at_once, kinds
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
HEAD = ("user_role.edit", "secret.list", "secret.approve")


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    world.role("head", *HEAD)
    world.role("viewer", "secret.list")
    return Tenancy.build(world)


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("admin", "admin")


def give(world: World, caller: Caller, to: Caller, role: str, **changes: Any) -> Mapping[str, Any]:
    row: Mapping[str, Any] = world.run(grants.create, **asked(world, caller, to, role, **changes))
    return row


def asked(world: World, caller: Caller, to: Caller, role: str, **changes: Any) -> dict[str, Any]:
    values = {"scope": {}, "expires_at": None, "reason": None, "now": NOW, **changes}
    return {"caller": caller, "user_id": to.user_id, "role_id": world.role(role), **values}


def change(world: World, caller: Caller, grant_id: str, now: datetime = NOW, **changes: Any) -> Any:
    return world.run(grants.update, caller=caller, grant_id=grant_id, changes=changes, now=now)


def revoke(world: World, caller: Caller, grant_id: str) -> None:
    world.run(grants.revoke, caller=caller, grant_id=grant_id, now=NOW)


def listed(world: World, caller: Caller, **filters: Any) -> list[str]:
    """Return the ids of the grants the caller sees, oldest first."""
    rows = world.run(
        grants.list_grants,
        caller=caller,
        filters=grants.Filters(**filters),
        before=None,
        limit=200,
        now=NOW,
    )
    return [row["id"] for row in reversed(rows)]


def grant_of(world: World, caller: Caller) -> str:
    statement = "SELECT id FROM user_roles WHERE user_id = :id"
    (row,) = world.rows(statement, id=caller.user_id)
    return str(row["id"])


def denied(error: SbError) -> tuple[str, str, str]:
    assert error.audit is not None
    return error.audit.action, error.audit.resource, error.audit.metadata["error_kind"]


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
    ({"project_id": "own"}, {"team_id": "sibling", "project_id": "own"}, True),
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


def scoped(tenancy: Tenancy, scope: Mapping[str, str]) -> dict[str, str]:
    return {key: tenancy.scope(key, which)[key] for key, which in scope.items()}


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
    assert error.details["field"] == "scope.environment_id"


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


def disabled(world: World, caller: Caller) -> Caller:
    statement = "UPDATE local_users SET disabled = :yes WHERE id = :id"
    world.write(statement, yes=True, id=caller.user_id)
    return caller


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
        {"team_id": "sibling", "project_id": "own"},
        {"project_id": "own", "provider": "file", "secret_ref_prefix": "app/"},
    ):
        give(world, admin, world.person("somebody"), "viewer", scope=scoped(tenancy, keys))
    for scope in ({"project_id": MISSING}, {"team_id": "nope"}, {"environment_id": 5}, {"x": "y"}):
        world.grant(world.person("lost").user_id, "viewer", scope)
    return [row["id"] for row in world.rows("SELECT id FROM user_roles ORDER BY granted_at, id")]


HELD = [held for held, *_ in REACH] + [{"project_id": "other"}, {"environment_id": "other"}]


def test_list_shows_exactly_the_grants_one_could_have_given(
    world: World, tenancy: Tenancy, everywhere: list[str]
) -> None:
    def shown(caller: Caller, grant_id: str) -> bool:
        try:
            return bool(world.run(grants.find, caller=caller, grant_id=grant_id))
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


def test_list_is_filtered_and_paged(world: World, tenancy: Tenancy, admin: Caller) -> None:
    a, b = world.person("a"), world.person("b")
    own, other = tenancy.scope("team_id", "own"), tenancy.scope("project_id", "other")
    first = give(world, admin, a, "viewer", scope=own, now=at(seconds=1))
    second = give(world, admin, a, "approver", scope=other, now=at(seconds=2))
    third = give(world, admin, b, "viewer", scope={}, now=at(seconds=3), expires_at=at(seconds=9))
    ids = [first["id"], second["id"], third["id"]]

    def page(limit: int = 10, before: Any = None, now: datetime = NOW, **filters: Any) -> list[str]:
        values = {"filters": grants.Filters(**filters), "before": before, "limit": limit}
        rows = world.run(grants.list_grants, caller=admin, now=now, **values)
        return [row["id"] for row in rows if row["id"] in ids]

    assert page() == ids[::-1]
    assert page(user_id=a.user_id) == [ids[1], ids[0]]
    assert page(role_id=world.role("viewer")) == [ids[2], ids[0]]
    assert page(team_id=own["team_id"]) == [ids[0]]
    assert page(team_id=tenancy.ids["team_id:sibling"]) == [ids[1]]
    assert page(team_id=MISSING) == []
    assert page(active=True, now=at(seconds=9)) == [ids[1], ids[0]]
    assert page(active=False, now=at(seconds=9)) == [ids[2]]
    assert page(limit=1) == [ids[2]]
    assert page(limit=1, before=(at(seconds=3), ids[2])) == [ids[1]]
    assert page(before=(at(seconds=2), ids[1]))[0] == ids[0]


def of_user(world: World, caller: Caller, user_id: str) -> list[str]:
    values = {"user_id": user_id, "active": None, "before": None, "limit": 50, "now": NOW}
    rows = world.run(grants.list_of_user, caller=caller, **values)
    return [row["role_name"] for row in rows]


def test_list_of_a_user_shows_own_grants_and_others_in_scope(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    plain = world.person("plain", "viewer", {"project_id": MISSING})
    give(world, admin, plain, "approver", scope=tenancy.scope("team_id", "own"))
    head = world.person("head", "head", tenancy.scope("team_id", "own"))
    assert of_user(world, plain, plain.user_id) == ["approver", "viewer"]
    assert of_user(world, admin, plain.user_id) == ["approver", "viewer"]
    assert of_user(world, head, plain.user_id) == ["approver"]
    assert of_user(world, head, admin.user_id) == []
    for caller, user_id in ((plain, head.user_id), (plain, MISSING), (head, MISSING)):
        with pytest.raises(UserNotFoundError):
            of_user(world, caller, user_id)


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
    assert world.run(grants.find, caller=head, grant_id=extra["id"])["id"] == extra["id"]


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
        "was_in_force": True,
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
    revoke(world, world.caller(keeper.user_id), mine)
    assert world.caller(admin.user_id).grants == ()


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


def test_a_grant_of_a_team_and_a_project_needs_both(
    world: World, tenancy: Tenancy, admin: Caller
) -> None:
    both = scoped(tenancy, {"team_id": "own", "project_id": "own"})
    split = scoped(tenancy, {"team_id": "sibling", "project_id": "own"})
    own = Resource(team_id=tenancy.ids["team_id:own"], project_id=tenancy.ids["project_id:own"])
    for scope, covers in ((both, True), (split, False)):
        person = world.person("person")
        give(world, admin, person, "viewer", scope=scope)
        held = world.caller(person.user_id).grants
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
