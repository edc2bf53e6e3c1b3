"""Grants: nothing without one, scopes that cover what they name, teams with their subtrees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sb.errors import ConstraintViolatedError, InvalidInputError, PermissionDeniedError, SbError
from sb.ids import new_id
from sb.ops import approvals, bootstrap, policies, requests
from sb.ops.callers import Caller
from sb.ops.errors import OutOfScopeProjectError, RequestNotFoundError, UserNotFoundError
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


def visible(world: World, caller: Caller, **filters: Any) -> list[str]:
    found = world.run(
        requests.list_requests,
        caller=caller,
        filters=requests.Filters(**filters),
        before=None,
        limit=50,
        now=NOW,
    )
    return [seen.row["id"] for seen in found]


def sees(world: World, caller: Caller, request_id: str) -> bool:
    try:
        world.run(requests.show, caller=caller, request_id=request_id, now=NOW)
    except RequestNotFoundError:
        return False
    return True


def test_nothing_is_allowed_without_a_grant(world: World, tenancy: Tenancy) -> None:
    nobody, request_id = world.person("nobody"), tenancy.read(tenancy.developer)
    world.refuse(
        RequestNotFoundError,
        approvals.approve,
        caller=nobody,
        request_id=request_id,
        comment=None,
        now=NOW,
    )
    assert not sees(world, nobody, request_id)
    assert visible(world, nobody) == []
    with pytest.raises(OutOfScopeProjectError):
        tenancy.read(nobody)
    with pytest.raises(InvalidInputError):
        world.read(nobody)


def test_a_role_gives_only_its_own_permissions(world: World, tenancy: Tenancy) -> None:
    lister = world.person("lister", world_role(world, "lister", "secret.list"))
    request_id = tenancy.read(tenancy.developer)
    assert sees(world, lister, request_id)
    error = world.refuse(
        OutOfScopeProjectError,
        approvals.approve,
        caller=lister,
        request_id=request_id,
        comment=None,
        now=NOW,
    )
    assert error.audit is not None
    assert error.audit.metadata == {"error_kind": "out_of_scope_project"}
    assert (error.audit.action, error.audit.correlation_id) == ("request.approve", request_id)
    with pytest.raises(OutOfScopeProjectError):
        tenancy.read(lister)


def world_role(world: World, name: str, *permissions: str) -> str:
    world.role(name, *permissions)
    return name


#: A scope of each key that covers the tenancy's request, and one beside it.
SCOPES = [
    ("project_id", "own", True),
    ("project_id", "other", False),
    ("team_id", "own", True),
    ("team_id", "parent", True),
    ("team_id", "sibling", False),
    ("environment_id", "own", True),
    ("environment_id", "other", False),
    ("secret_ref_prefix", "app/", True),
    ("secret_ref_prefix", "ap", True),
    ("secret_ref_prefix", "app/db/", False),
    ("secret_ref_prefix", "APP/", False),
    ("provider", "file", True),
    ("provider", "vault", False),
    ("cluster", "east", True),
    ("cluster", "west", False),
]


@pytest.mark.parametrize(("key", "which", "covers"), SCOPES)
def test_a_scope_covers_what_it_names_and_no_more(
    world: World, tenancy: Tenancy, key: str, which: str, covers: bool
) -> None:
    request_id = tenancy.read(tenancy.developer)
    scope = tenancy.scope(key, which)
    approver = world.person("approver", "approver", scope)
    assert sees(world, approver, request_id) is covers
    assert visible(world, approver) == ([request_id] if covers else [])
    developer = world.person("dev", "developer", scope)
    if covers:
        assert world.status(tenancy.read(developer)) == "pending"
        assert tenancy.approve(approver, request_id) == "approved"
    else:
        with pytest.raises(OutOfScopeProjectError) as caught:
            tenancy.read(developer)
        assert caught.value.audit is not None
        with pytest.raises(RequestNotFoundError):
            tenancy.approve(approver, request_id)
        assert world.status(request_id) == "pending"


def test_every_key_of_one_scope_must_hold_and_grants_add_up(world: World, tenancy: Tenancy) -> None:
    request_id = tenancy.read(tenancy.developer)
    half = {**tenancy.scope("project_id", "own"), "cluster": "west"}
    person = world.person("approver", "approver", half)
    assert not sees(world, person, request_id)
    assert visible(world, person) == []
    world.grant(person.user_id, "approver", {"provider": "file", "cluster": "east"})
    person = world.caller(person.user_id)
    assert sees(world, person, request_id)
    assert visible(world, person) == [request_id]
    assert tenancy.approve(person, request_id) == "approved"


def test_a_grant_of_one_permission_lends_its_scope_to_no_other(
    world: World, tenancy: Tenancy
) -> None:
    person = world.person("mixed", "developer")
    world.grant(person.user_id, "approver", tenancy.scope("project_id", "other"))
    request_id = tenancy.read(tenancy.developer)
    with pytest.raises(OutOfScopeProjectError):
        tenancy.approve(world.caller(person.user_id), request_id)


@pytest.mark.parametrize("scope", [{"galaxy": "x"}, {"project_id": ""}, {"project_id": None}])
def test_a_scope_that_cannot_be_read_covers_nothing(
    world: World, tenancy: Tenancy, scope: Mapping[str, Any]
) -> None:
    request_id = tenancy.read(tenancy.developer)
    person = world.person("odd")
    world.grant(person.user_id, "admin", scope)
    person = world.caller(person.user_id)
    assert not sees(world, person, request_id)
    assert visible(world, person) == []
    with pytest.raises(SbError):
        tenancy.read(person)


def test_a_request_without_a_project_needs_unscoped_grants(world: World, tenancy: Tenancy) -> None:
    scoped = world.person("dev", "developer", tenancy.scope("project_id", "own"))
    with pytest.raises(InvalidInputError) as caught:
        world.read(scoped)
    assert caught.value.details["reason"] == "project_id_required"
    request_id = world.read(world.person("free", "developer"), provider_connection_id=tenancy.east)
    approver = world.person("approver", "approver", {"provider": "file"})
    with pytest.raises(RequestNotFoundError):
        tenancy.approve(approver, request_id)
    assert visible(world, approver) == []
    lister = world.person("lister", world_role(world, "lister", "secret.list"))
    error = world.refuse(
        PermissionDeniedError,
        approvals.approve,
        caller=lister,
        request_id=request_id,
        comment=None,
        now=NOW,
    )
    assert error.details == {"permission": "secret.approve"}
    assert tenancy.approve(world.person("boss", "approver"), request_id) == "approved"


def test_the_requester_always_sees_their_own(world: World, tenancy: Tenancy) -> None:
    request_id = tenancy.read(tenancy.developer)
    world.write("DELETE FROM user_roles WHERE user_id = :id", id=tenancy.developer.user_id)
    bare = world.caller(tenancy.developer.user_id)
    assert sees(world, bare, request_id)
    assert visible(world, bare) == [request_id]
    with pytest.raises(OutOfScopeProjectError):
        tenancy.read(bare)


def test_a_list_is_filtered_and_paged(world: World, tenancy: Tenancy) -> None:
    mine = [tenancy.read(tenancy.developer, now=at(seconds=n)) for n in range(5)]
    other = tenancy.read(tenancy.colleague, now=at(seconds=9))
    assert visible(world, tenancy.approver) == [other, *reversed(mine)]
    assert visible(world, tenancy.approver, requester_id=tenancy.colleague.user_id) == [other]
    assert visible(world, tenancy.approver, status="approved") == []
    assert visible(world, tenancy.approver, type="patch") == []
    assert visible(world, tenancy.approver, since=at(seconds=1), until=at(seconds=3)) == [
        mine[2],
        mine[1],
    ]
    page = world.run(
        requests.list_requests,
        caller=tenancy.approver,
        filters=requests.Filters(),
        before=(at(seconds=3), mine[3]),
        limit=2,
        now=NOW,
    )
    assert [seen.row["id"] for seen in page] == [mine[2], mine[1]]


def test_seeding_again_changes_nothing(world: World) -> None:
    def everything() -> list[Any]:
        tables = ("roles", "workflow_definitions", "policy_rules")
        return [world.rows(f"SELECT * FROM {table} ORDER BY id") for table in tables]

    before = everything()
    world.run(bootstrap.seed, now=at(days=1))
    assert everything() == before
    scope = policies.PolicyScope(operation="read", provider_type="file", secret_ref="x")
    decision = world.run(policies.decide, scope=scope)
    assert (decision.workflow.name, decision.workflow.min_approvers) == ("standard", 1)


def test_the_first_administrator_is_made_once(world: World) -> None:
    values = {"email": "Root@example.com", "password_hash": "x", "now": NOW}
    user_id = world.run(bootstrap.create_first_admin, **values)
    assert world.run(bootstrap.create_first_admin, **values) is None
    assert [grant.role_name for grant in world.caller(user_id).grants] == ["admin"]
    (event,) = world.events(action="auth.bootstrap_admin")
    assert (event.actor, event.resource) == ("system:bootstrap", f"user:{user_id}")


def test_an_account_is_adopted_only_where_nobody_administers(world: World) -> None:
    def adopt(user_id: str) -> bootstrap.Unused | None:
        return world.run(bootstrap.adopt_admin, user_id=user_id, now=NOW)

    root = world.run(
        bootstrap.create_first_admin, email="root@example.com", password_hash="x", now=NOW
    )
    other = world.person("other").user_id
    assert adopt(other) is bootstrap.Unused.ADMINISTERED
    assert adopt(new_id()) is bootstrap.Unused.NO_ACCOUNT
    world.write("UPDATE local_users SET disabled = TRUE WHERE id = :id", id=root)
    assert adopt(root) is bootstrap.Unused.DISABLED
    with pytest.raises(UserNotFoundError, match="SB_BOOTSTRAP_ADMIN_USER_ID"):
        adopt(new_id())
    assert len(world.events(action="auth.bootstrap_admin")) == 1
    # The one who holds the role is disabled and administers nothing.
    assert adopt(other) is None
    assert [grant.scope for grant in world.caller(other).grants] == [{}]
    assert adopt(other) is bootstrap.Unused.ADMINISTERED
    world.write("UPDATE local_users SET must_change_password = TRUE WHERE id = :id", id=other)
    assert adopt(other) is bootstrap.Unused.HELD
    assert len(world.caller(other).grants) == 1


def test_a_second_submit_of_one_draft_is_refused(world: World, tenancy: Tenancy) -> None:
    draft_id = new_id()
    tenancy.read(tenancy.developer, id=draft_id)
    with pytest.raises(ConstraintViolatedError):
        tenancy.read(tenancy.developer, id=draft_id)
    assert len(world.events(action="request.submit")) == 1
