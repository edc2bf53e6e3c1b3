"""Roles: known permissions only, edited by whoever could give them, deleted when unused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from sb.auth.permissions import CATALOGUE, PERMISSION_KEYS, SEED_ROLES
from sb.errors import PermissionDeniedError, SbError
from sb.ops import bootstrap, grants, roles
from sb.ops.callers import Caller
from sb.ops.governance_errors import (
    EscalationError,
    LastAdminError,
    RoleInUseError,
    RoleNameTakenError,
    RoleNotFoundError,
    SystemRoleNameError,
    SystemRowError,
    UnknownPermissionError,
)
from tests.ops.refusals import at_once, kinds, outcome
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("admin", "admin")


def make(world: World, caller: Caller, name: str, *permissions: str, **changes: Any) -> Any:
    values = {"name": name, "description": "", "permissions": permissions, "now": NOW, **changes}
    return world.run(roles.create, caller=caller, **values)


def edit(world: World, caller: Caller, role_id: str, **changes: Any) -> Mapping[str, Any]:
    row: Mapping[str, Any] = world.run(
        roles.update, caller=caller, role_id=role_id, changes=changes, now=at(minutes=1)
    )
    return row


def refuse_edit(
    world: World, error: type[SbError], caller: Caller, role_id: str, **changes: Any
) -> SbError:
    return world.refuse(
        error, roles.update, caller=caller, role_id=role_id, changes=changes, now=at(minutes=1)
    )


def names(world: World, caller: Caller, **page: Any) -> list[str]:
    values = {"before": None, "limit": 50, **page}
    return [row["name"] for row in world.run(roles.list_roles, caller=caller, **values)]


def held(world: World, caller: Caller) -> frozenset[str]:
    found = world.caller(caller.user_id).grants
    return frozenset[str]().union(*(grant.permissions for grant in found))


def test_seeded_roles_hold_permissions_of_the_catalogue_only() -> None:
    for role in SEED_ROLES:
        assert set(role.permissions) <= PERMISSION_KEYS, role.name
        assert len(set(role.permissions)) == len(role.permissions), role.name
    assert len(PERMISSION_KEYS) == len(CATALOGUE)


def test_create_makes_a_role_that_nobody_holds(world: World, admin: Caller) -> None:
    row = make(world, admin, "reader", "audit.read", "secret.list", "audit.read", description="d")
    assert row == {
        "id": row["id"],
        "name": "reader",
        "description": "d",
        "permissions": ["secret.list", "audit.read"],
        "is_system": False,
        "created_at": NOW,
        "updated_at": NOW,
    }
    (event,) = world.events(action="role.create")
    assert (event.actor, event.resource) == (admin.actor, f"role:{row['id']}")
    assert event.metadata == {
        "name": "reader",
        "description": "d",
        "permissions": ["secret.list", "audit.read"],
    }
    values = {"name": "reader", "description": "", "permissions": [], "now": NOW}
    world.refuse(RoleNameTakenError, roles.create, caller=admin, **values)


def test_unknown_permissions_are_refused_by_name(world: World, admin: Caller) -> None:
    wanted = ["secret.list", "secret.read", "root"]
    values = {"name": "r", "description": "", "permissions": wanted, "now": NOW}
    error = world.refuse(UnknownPermissionError, roles.create, caller=admin, **values)
    assert error.details == {"field": "permissions", "unknown": ["root", "secret.read"]}
    role_id = make(world, admin, "r")["id"]
    refuse_edit(world, UnknownPermissionError, admin, role_id, permissions=wanted)


def test_create_at_once_makes_one_role(world: World, admin: Caller) -> None:
    outcomes = at_once([partial(make, world, admin, "same", "secret.list")] * 5)
    assert kinds(outcomes) == Counter({"role_name_taken": 4, "ok": 1})


def test_roles_are_seen_by_who_chooses_among_them_and_by_who_holds_them(
    world: World, admin: Caller
) -> None:
    make(world, admin, "newest", "secret.list", now=at(days=365))
    everything = {role.name for role in SEED_ROLES} | {"newest"}
    world.role("auditor", "audit.read")
    head = world.person("head", world_role(world, "head", "user_role.edit"), {"cluster": "east"})
    for caller in (admin, head, world.person("auditor", "auditor")):
        assert set(names(world, caller)) == everything | {"auditor", "head"}
    dev = world.person("dev", "developer", {"cluster": "east"})
    assert names(world, dev) == ["developer"]
    assert names(world, world.person("nobody")) == []
    assert names(world, admin, limit=1) == ["newest"]
    found = world.run(roles.find, caller=dev, role_id=world.role("developer"))
    assert found["name"] == "developer"
    assert names(world, admin, before=(found["created_at"], found["id"])).count("developer") == 0
    for role_id in (world.role("admin"), MISSING):
        world.refuse(RoleNotFoundError, roles.find, caller=dev, role_id=role_id)
    world.refuse(RoleNotFoundError, roles.find, caller=admin, role_id=MISSING)


def test_a_role_held_in_a_deleted_environment_only_is_not_seen(world: World) -> None:
    scope = Tenancy.build(world).scope("environment_id", "own")
    dev = world.person("dev", "developer", scope)
    world.grant(dev.user_id, "approver", {"cluster": "east"})
    dev = world.caller(dev.user_id)
    assert names(world, dev) == ["developer", "approver"]
    world.write("UPDATE environments SET deleted_at = :now", now=NOW)
    dev, role_id = world.caller(dev.user_id), world.role("developer")
    assert names(world, dev) == ["approver"]
    world.refuse(RoleNotFoundError, roles.find, caller=dev, role_id=role_id)


def world_role(world: World, name: str, *permissions: str) -> str:
    world.role(name, *permissions)
    return name


def test_update_keeps_what_is_left_out_and_says_what_was(world: World, admin: Caller) -> None:
    role_id = make(world, admin, "reader", "secret.list", description="d")["id"]
    row = edit(world, admin, role_id, permissions=["audit.read", "secret.list"])
    assert (row["name"], row["description"]) == ("reader", "d")
    assert row["permissions"] == ["secret.list", "audit.read"]
    assert (row["created_at"], row["updated_at"]) == (NOW, at(minutes=1))
    row = edit(world, admin, role_id, name="auditor", description="")
    assert (row["name"], row["description"]) == ("auditor", "")
    assert row["permissions"] == ["secret.list", "audit.read"]
    assert edit(world, admin, role_id) == row
    assert edit(world, admin, role_id, permissions=["audit.read", "secret.list"]) == row
    first, second = world.events(action="role.update")
    assert first.metadata == {
        "name": "reader",
        "before": {"permissions": ["secret.list"]},
        "after": {"permissions": ["secret.list", "audit.read"]},
    }
    assert second.metadata["before"] == {"name": "reader", "description": "d"}
    assert second.metadata["after"] == {"name": "auditor", "description": ""}
    taken = outcome(edit, world, admin, role_id, name="developer")
    assert type(taken) is RoleNameTakenError
    refuse_edit(world, RoleNotFoundError, admin, MISSING, name="developer")


def test_seeded_roles_take_permissions_and_keep_their_names(world: World, admin: Caller) -> None:
    developer = world.role("developer")
    row = edit(world, admin, developer, permissions=["secret.list"], name="developer")
    assert (row["permissions"], row["is_system"]) == (["secret.list"], True)
    edit(world, admin, developer, description="Ours.")
    refuse_edit(world, SystemRoleNameError, admin, developer, name="dev")
    world.refuse(SystemRowError, roles.delete, caller=admin, role_id=developer, now=NOW)
    world.run(bootstrap.seed, now=at(days=1))
    kept = world.run(roles.find, caller=admin, role_id=developer)
    assert (kept["permissions"], kept["description"]) == (["secret.list"], "Ours.")


def test_edits_need_the_permission_everywhere_at_this_moment(world: World, admin: Caller) -> None:
    world_role(world, "editor", "role.edit")
    scoped = world.person("scoped", "editor", {"cluster": "east"})
    taken = world.person("taken", "editor")
    world.write("DELETE FROM user_roles WHERE user_id = :id", id=taken.user_id)
    role_id = make(world, admin, "r")["id"]
    for caller in (scoped, taken, world.person("nobody")):
        new = {"name": "mine", "description": "", "permissions": ["role.edit"], "now": NOW}
        one = {"role_id": role_id, "now": NOW}
        for op, values in (
            (roles.create, new),
            (roles.update, {**one, "changes": {"name": "mine"}}),
            (roles.delete, one),
        ):
            error = world.refuse(PermissionDeniedError, op, caller=caller, **values)
            assert error.audit is not None
            assert error.audit.metadata == {"error_kind": "permission_denied"}
            assert error.details == {"permission": "role.edit"}


# --- nobody grows


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


@pytest.fixture
def editor(world: World) -> Caller:
    """Somebody who edits roles and is no administrator."""
    return world.person("editor", world_role(world, "editor", "role.edit"))


def test_a_permission_is_added_only_where_the_editor_holds_it_too(
    world: World, tenancy: Tenancy, admin: Caller, editor: Caller
) -> None:
    role_id = world.role("shared", "secret.list")
    other = world.person("other", "shared", tenancy.scope("project_id", "own"))
    wanted = {"permissions": ["secret.list", "secret.approve"]}
    error = refuse_edit(world, EscalationError, editor, role_id, **wanted)
    assert error.details == {"permissions": ["secret.approve"]}
    assert error.audit is not None
    assert (error.audit.action, error.audit.resource) == ("role.update", f"role:{role_id}")
    # With it over the first holder's scope, and not over the second's.
    world.grant(editor.user_id, "approver", tenancy.scope("team_id", "own"))
    editor = world.caller(editor.user_id)
    world.person("second", "shared", tenancy.scope("project_id", "other"))
    refuse_edit(world, EscalationError, editor, role_id, **wanted)
    world.grant(editor.user_id, "approver", tenancy.scope("team_id", "sibling"))
    assert edit(world, world.caller(editor.user_id), role_id, **wanted)["id"] == role_id
    assert held(world, other) == {"secret.list", "secret.approve"}
    # Taking away is no question of what one holds.
    edit(world, editor, role_id, permissions=[])
    assert held(world, other) == frozenset()


def test_a_permission_is_added_for_no_longer_than_the_editor_holds_it(
    world: World, admin: Caller, editor: Caller
) -> None:
    role_id = world.role("shared", "secret.list")
    give = partial(world.run, grants.create, caller=admin, scope={}, reason=None, now=NOW)
    approver, wanted = world.role("approver"), ["secret.approve"]
    give(user_id=editor.user_id, role_id=approver, expires_at=at(days=7))
    other = world.person("other")
    short = give(user_id=other.user_id, role_id=role_id, expires_at=at(days=7))
    edit(world, world.caller(editor.user_id), role_id, permissions=wanted)
    edit(world, editor, role_id, permissions=[])
    world.run(
        grants.update, caller=admin, grant_id=short["id"], changes={"expires_at": None}, now=NOW
    )
    refuse_edit(world, EscalationError, editor, role_id, permissions=wanted)


def test_an_administrator_adds_to_others_and_nothing_to_themselves(
    world: World, admin: Caller
) -> None:
    developer = world.role("developer")
    other = world.person("other", "developer")
    wanted = ["secret.security.approve"]
    edit(world, admin, developer, permissions=wanted)
    assert held(world, other) == {"secret.security.approve"}
    edit(world, admin, developer, permissions=[])
    world.grant(admin.user_id, "developer", {"cluster": "east"})
    refuse_edit(world, EscalationError, admin, developer, permissions=wanted)
    edit(world, admin, developer, permissions=["secret.approve"])
    own = [*next(r.permissions for r in SEED_ROLES if r.name == "admin"), "secret.reveal.direct"]
    error = refuse_edit(world, EscalationError, admin, world.role("admin"), permissions=own)
    assert error.details == {"permissions": ["secret.reveal.direct"]}


def test_an_ended_grant_does_not_stand_in_the_way(
    world: World, admin: Caller, editor: Caller
) -> None:
    role_id = world.role("shared", "secret.list")
    values = {"scope": {}, "expires_at": at(seconds=1), "reason": None, "now": NOW}
    user_id = world.person("other").user_id
    world.run(grants.create, caller=admin, user_id=user_id, role_id=role_id, **values)
    edit(world, editor, role_id, permissions=["secret.approve"])


def test_every_holder_counts_however_many_there_are(
    world: World, editor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "BATCH", 2)
    world.grant(editor.user_id, "approver", {"cluster": "east"})
    editor = world.caller(editor.user_id)
    role_id = world.role("shared", "secret.list")
    for n in range(4):
        world.person(f"inside-{n}", "shared", {"cluster": "east"})
    edit(world, editor, role_id, permissions=["secret.approve"])
    edit(world, editor, role_id, permissions=[])
    world.person("outside", "shared", {"cluster": "west"})
    refuse_edit(world, EscalationError, editor, role_id, permissions=["secret.approve"])


# --- somebody stays


@pytest.mark.parametrize("lost", ["role.edit", "user_role.edit"])
def test_an_edit_leaves_an_administrator(world: World, admin: Caller, lost: str) -> None:
    role_id = world.role("admin")
    row = world.run(roles.find, caller=admin, role_id=role_id)
    without = [key for key in row["permissions"] if key != lost]
    refuse_edit(world, LastAdminError, admin, role_id, permissions=without)
    assert lost in held(world, admin)
    edit(world, admin, role_id, permissions=[k for k in row["permissions"] if k != "agent.list"])
    without.remove("agent.list")
    keeper = world.person("keeper", world_role(world, "root", "role.edit", "user_role.edit"))
    edit(world, admin, role_id, permissions=without)
    assert lost not in held(world, admin)
    root = world.role("root")
    refuse_edit(world, LastAdminError, keeper, root, permissions=["role.edit"])


def test_two_edits_at_once_leave_an_administrator(world: World) -> None:
    for n in range(4):
        ids = [world.role(f"{n}-{s}", "role.edit", "user_role.edit") for s in "ab"]
        people = [world.person(s, f"{n}-{s}") for s in "ab"]
        # Each takes the other's powers away.
        outcomes = at_once(
            [
                partial(edit, world, people[0], ids[1], permissions=[]),
                partial(edit, world, people[1], ids[0], permissions=[]),
            ]
        )
        assert kinds(outcomes) == Counter({"ok": 1, "permission_denied": 1})
        world.write("DELETE FROM user_roles")


# --- deleting


def test_delete_is_refused_while_anything_names_the_role(
    world: World, admin: Caller, tenancy: Tenancy
) -> None:
    role_id = make(world, admin, "lead", "secret.approve")["id"]
    values = {"scope": {}, "expires_at": at(seconds=1), "reason": None, "now": NOW}
    user_id = world.person("other").user_id
    grant = world.run(grants.create, caller=admin, user_id=user_id, role_id=role_id, **values)
    workflow = world.rule({}, approver_role_id=role_id)
    request_id = tenancy.read(tenancy.developer)

    def refused_for() -> list[str]:
        error = world.refuse(
            RoleInUseError, roles.delete, caller=admin, role_id=role_id, now=at(days=1)
        )
        found: list[str] = error.details["used_by"]
        return found

    assert refused_for() == ["grants", "requests", "workflows"]
    # A grant that has ended is a record, and is not swept away with its role.
    world.run(grants.revoke, caller=admin, grant_id=grant["id"], now=at(days=1))
    assert refused_for() == ["requests", "workflows"]
    statement = "UPDATE workflow_definitions SET approver_role_id = NULL WHERE id = :id"
    world.write(statement, id=workflow)
    assert refused_for() == ["requests"]
    world.write("UPDATE access_requests SET status = 'cancelled' WHERE id = :id", id=request_id)
    world.run(roles.delete, caller=admin, role_id=role_id, now=at(days=1))
    world.refuse(RoleNotFoundError, roles.delete, caller=admin, role_id=role_id, now=at(days=1))
    (event,) = world.events(action="role.delete")
    assert (event.actor, event.resource) == (admin.actor, f"role:{role_id}")
    assert event.metadata == {
        "name": "lead",
        "description": "",
        "permissions": ["secret.approve"],
    }


def test_delete_at_once_deletes_once(world: World, admin: Caller) -> None:
    role_id = make(world, admin, "passing")["id"]
    call = partial(world.run, roles.delete, caller=admin, role_id=role_id, now=NOW)
    assert kinds(at_once([call] * 4)) == Counter({"role_not_found": 3, "ok": 1})
    assert len(world.events(action="role.delete")) == 1
