"""What applying a document asks of the database grows with the document, not with its square."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from sb.ops import organisation
from sb.ops.callers import Caller
from tests.http.enumeration_work import Heard
from tests.ops.world import NOW, World

SIZES = (4, 8, 12)


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("admin", "admin")


def statements(world: World, admin: Caller, document: dict[str, Any]) -> Counter[str]:
    """Apply the document and return how often each named query was asked for."""
    known = vars(world.db)["_queries"]
    heard = Heard(known)
    vars(world.db)["_queries"] = heard
    try:
        world.run(organisation.apply, caller=admin, document=document, now=NOW)
    finally:
        vars(world.db)["_queries"] = known
    return Counter(heard.asked)


def bindings_of(size: int) -> dict[str, Any]:
    items = [{"provider": "file", "secret_ref": f"apps/{n}"} for n in range(size)]
    return {"version": 1, "projects": [{"name": f"p{size}", "bindings": items}]}


def test_bindings_of_a_project_are_listed_once(world: World, admin: Caller) -> None:
    for size in SIZES:
        # Made, then found as they are: each is shown once, beside the one list of them all.
        for _ in range(2):
            asked = statements(world, admin, bindings_of(size))
            assert asked["binding_list"] == size + 1


def test_grants_of_a_person_are_listed_once(world: World, admin: Caller) -> None:
    for size in SIZES:
        person = world.person("person")
        items = [
            {"person": person.email, "role": "developer", "scope": {"cluster": f"c{n}"}}
            for n in range(size)
        ]
        for _ in range(2):
            asked = statements(world, admin, {"version": 1, "grants": items})
            assert asked["grant_list"] == 1


def test_everything_a_document_asks_grows_evenly(world: World, admin: Caller) -> None:
    person = world.person("person")

    def total(size: int) -> int:
        named = [f"s{size}-{n}" for n in range(size)]
        grants = [{"person": person.email, "role": "admin", "scope": {"cluster": n}} for n in named]
        document = {
            **bindings_of(size),
            "roles": [{"name": name} for name in named],
            "teams": [{"path": name, "members": [person.email]} for name in named],
            "workflows": [{"name": name, "min_approvers": 1} for name in named],
            "policies": [
                {"name": name, "selector": {"secret_ref_prefix": name}, "workflow": named[0]}
                for name in named
            ],
            "grants": grants,
        }
        return statements(world, admin, document).total()

    small, middle, large = map(total, SIZES)
    assert large - middle == middle - small
