"""Which rule governs a request: the database and the pure function agree, in the same order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sb.db.engine import Database, Transaction
from sb.ids import new_id
from sb.ops import policies
from tests.ops import rows
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, World, at

IDS = ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002")
#: What selectors may hold; a few of these could only have been written behind the API's back.
VALUES: dict[str, list[Any]] = {
    "project_id": list(IDS),
    "environment": ["dev", "de", "", "É%_"],
    "environment_id": list(IDS),
    "environment_kind": ["prod", "non_prod"],
    "provider_type": ["vault", "file"],
    "operation": ["read", "patch", 1, None, ["read"], {"read": "read"}, True],
    "secret_ref_prefix": ["app/", "app/db", "", "a%", "É", 1, None, ["app/"], False],
    "team_id": [IDS[0]],
    "": ["", "read"],
}
SELECTORS = st.dictionaries(st.sampled_from(sorted(VALUES)), st.none(), max_size=4).flatmap(
    lambda keys: st.fixed_dictionaries({key: st.sampled_from(VALUES[key]) for key in keys})
)
SCOPES = st.builds(
    policies.PolicyScope,
    operation=st.sampled_from(["read", "patch"]),
    provider_type=st.sampled_from(["vault", "file"]),
    secret_ref=st.sampled_from(["app/db", "app", "1app", "a%", "Élan", "a"]),
    project_id=st.sampled_from([None, *IDS]),
    environment=st.sampled_from([None, "dev", "É%_"]),
    environment_id=st.sampled_from([None, *IDS]),
    environment_kind=st.sampled_from([None, "prod", "non_prod"]),
)


def insert(tx: Transaction, workflow_id: str, selector: dict[str, Any], **facts: Any) -> str:
    rule = {
        "id": new_id(),
        "name": "r",
        "priority": 10,
        "enabled": True,
        "direct_reveal_allowed": False,
        "project_id": None,
        "team_id": None,
        "requires_mfa": False,
        "reveal_ttl_seconds": 60,
        "now": NOW,
        **facts,
    }
    tx.count("policy_insert", selector=selector, workflow_id=workflow_id, is_system=False, **rule)
    return str(rule["id"])


class Undone(Exception):  # noqa: N818 # no error: how an example leaves nothing behind
    """Rolls one example's rules back."""


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    return Tenancy.build(world)


def check_agreement(
    db: Database, workflow_id: str, selectors: list[dict[str, Any]], scope: policies.PolicyScope
) -> None:
    def op(tx: Transaction) -> None:
        rows.run(tx, "DELETE FROM policy_rules")
        ids = [insert(tx, workflow_id, selector) for selector in selectors]
        expected = [
            rule_id
            for rule_id, selector in zip(ids, selectors, strict=True)
            if policies.matches(selector, scope)
        ]
        found = policies.candidates(tx, scope=scope, limit=200)
        assert [row["id"] for row in found] == sorted(expected)
        first = policies.first_match(tx, scope=scope)
        assert (first and first["id"]) == (min(expected) if expected else None)
        raise Undone

    with pytest.raises(Undone):
        db.run_sync(op)


def test_match_of_random_rules_in_sql_agrees_with_the_pure_function(
    db: Database, world: World
) -> None:
    workflow_id = world.workflow()

    @given(st.lists(SELECTORS, max_size=8), SCOPES)
    @hypothesis_settings(max_examples=150, deadline=None)
    def run(selectors: list[dict[str, Any]], scope: policies.PolicyScope) -> None:
        check_agreement(db, workflow_id, selectors, scope)

    run()


def test_match_of_long_prefixes_looks_at_all_of_them(db: Database, world: World) -> None:
    # Longer than what the index keeps of a prefix, and longer than the path.
    long, other = "é" * 70 + "/", "é" * 69 + "/"
    selectors = [{"secret_ref_prefix": value} for value in (long, other, long[:60], long * 2)]
    scope = policies.PolicyScope(operation="read", provider_type="vault", secret_ref=f"{long}a")
    check_agreement(db, world.workflow(), selectors, scope)


def test_decide_orders_by_priority_then_anchor_then_distance_then_age(
    world: World, tenancy: Tenancy
) -> None:
    project, own, parent = (
        tenancy.ids[key] for key in ("project_id:own", "team_id:own", "team_id:parent")
    )
    pinned = {"environment_kind": "non_prod"}
    first_to_last: list[dict[str, Any]] = [
        {"priority": 900},
        {"project_id": project},
        {"project_id": project, "now": at(seconds=1)},
        {"team_id": own},
        {"team_id": parent, "now": at(seconds=-1)},
        {"now": at(seconds=-2)},
        {"priority": 9, "project_id": project},
    ]
    workflow_id = world.workflow()
    ids = [
        world.run(insert, workflow_id=workflow_id, selector=pinned, **facts)
        for facts in reversed(first_to_last)
    ][::-1]
    others = ({"team_id": tenancy.ids["team_id:sibling"]}, {"enabled": False})
    for never in others:
        world.run(insert, workflow_id=workflow_id, selector=pinned, priority=999, **never)
    disabled = world.workflow(enabled=False)
    world.run(insert, workflow_id=disabled, selector=pinned, priority=999)
    scope = policies.PolicyScope(
        operation="read",
        provider_type="file",
        secret_ref="app/db",
        project_id=project,
        environment_kind="non_prod",
    )
    for rule_id in ids:
        assert world.run(policies.decide, scope=scope).rule_id == rule_id
        world.write("DELETE FROM policy_rules WHERE id = :id", id=rule_id)
    assert world.run(policies.decide, scope=scope).workflow.name == "standard"


def test_decide_over_production_never_allows_a_direct_reveal(world: World) -> None:
    world.run(
        insert,
        workflow_id=world.workflow(),
        selector={"provider_type": "file"},
        direct_reveal_allowed=True,
        requires_mfa=True,
        reveal_ttl_seconds=30,
    )
    for kind, expected in (("prod", False), ("non_prod", True)):
        scope = policies.PolicyScope(
            operation="reveal", provider_type="file", secret_ref="x", environment_kind=kind
        )
        found = world.run(policies.decide, scope=scope)
        assert found.direct_reveal_allowed is expected
        assert found.reveal_refused is not expected
        assert (found.requires_mfa, found.reveal_ttl_seconds) == (True, 30)


def test_decide_without_a_rule_follows_the_default(world: World) -> None:
    world.write("DELETE FROM policy_rules")
    scope = policies.PolicyScope(operation="read", provider_type="file", secret_ref="x")
    found = world.run(policies.decide, scope=scope)
    assert (found.rule_id, found.workflow.name) == (None, "standard")
    assert (found.direct_reveal_allowed, found.requires_mfa) == (False, False)
