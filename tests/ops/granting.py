"""Steps of the tests of grants: given, changed, taken and listed, and what a refusal says."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.errors import SbError
from sb.ops import grant_lists, grants
from sb.ops.callers import Caller
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
HEAD = ("user_role.edit", "secret.list", "secret.approve")


def section(world: World) -> Tenancy:
    """Return the tenancy, with a role that gives roles and one that only looks."""
    world.role("head", *HEAD)
    world.role("viewer", "secret.list")
    return Tenancy.build(world)


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
        grant_lists.list_grants,
        caller=caller,
        filters=grant_lists.Filters(**filters),
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


def scoped(tenancy: Tenancy, scope: Mapping[str, str]) -> dict[str, str]:
    return {key: tenancy.scope(key, which)[key] for key, which in scope.items()}


def disabled(world: World, caller: Caller) -> Caller:
    statement = "UPDATE local_users SET disabled = :yes WHERE id = :id"
    world.write(statement, yes=True, id=caller.user_id)
    return caller
