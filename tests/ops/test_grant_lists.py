"""Lists of grants: filtered, paged, and those of one person."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from sb.ops import grant_lists
from sb.ops.callers import Caller
from sb.ops.errors import UserNotFoundError
from tests.ops.granting import (
    MISSING,
    give,
    section,
)
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return section(world)


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("admin", "admin")


def test_list_is_filtered_and_paged(world: World, tenancy: Tenancy, admin: Caller) -> None:
    a, b = world.person("a"), world.person("b")
    own, other = tenancy.scope("team_id", "own"), tenancy.scope("project_id", "other")
    first = give(world, admin, a, "viewer", scope=own, now=at(seconds=1))
    second = give(world, admin, a, "approver", scope=other, now=at(seconds=2))
    third = give(world, admin, b, "viewer", scope={}, now=at(seconds=3), expires_at=at(seconds=9))
    ids = [first["id"], second["id"], third["id"]]

    def page(limit: int = 10, before: Any = None, now: datetime = NOW, **filters: Any) -> list[str]:
        values = {"filters": grant_lists.Filters(**filters), "before": before, "limit": limit}
        rows = world.run(grant_lists.list_grants, caller=admin, now=now, **values)
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
    rows = world.run(grant_lists.list_of_user, caller=caller, **values)
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
