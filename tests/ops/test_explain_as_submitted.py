"""Explaining says what submitting does: the rule, the workflow, and every refusal by its code."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from sb.errors import SbError
from sb.ids import new_id
from sb.ops import connections, policy_preview, policy_simulation, submissions
from sb.ops.callers import Caller
from tests.ops.tenancy import Tenancy
from tests.ops.world import NOW, TEST, World, at

#: How many of all the drafts below are tried by each caller.
TRIED = 400
NOWHERE = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
#: What an explanation says of a project, or of a secret in it, that the caller may not see.
UNSEEN = "project_not_found"


@pytest.fixture
def tenancy(world: World) -> Tenancy:
    found = Tenancy.build(world)
    own = found.ids["project_id:own"]
    found.ids["connection:vault"] = str(
        world.run(
            connections.create,
            by=TEST,
            name="vault",
            provider_type="vault",
            auth_method="none",
            scope={"kvMount": "kv", "kvPrefix": "team"},
            cluster_name=None,
            description=None,
            now=NOW,
        )["id"]
    )
    for ref, ops, keys in (("app/db", ["read", "patch"], None), ("app/one", ["read"], ["A"])):
        secret_id = found.bind(ref, found.ids["connection:vault"], "", ops=ops, keys=keys)
        world.write("UPDATE secrets SET provider_type = 'vault' WHERE id = :id", id=secret_id)
    stamps = {"created_at": NOW, "updated_at": NOW}
    world.insert(
        "environments",
        id=new_id(),
        project_id=own,
        name="prod",
        type="prod",
        kind="prod",
        risk_level=3,
        **stamps,
    )
    world.insert("projects", id=new_id(), name="gone", status="archived", **stamps)
    return found


def rules(world: World) -> None:
    """Add rules of which each decides some of the drafts."""
    selectors: list[dict[str, str]] = [
        {"secret_ref_prefix": "team/app/db", "operation": "patch"},
        {"secret_ref_prefix": "app/"},
        {"secret_ref_prefix": "team/app/db", "environment_kind": "prod"},
        {"environment": "dev", "provider_type": "vault"},
        {"environment_kind": "non_prod", "provider_type": "file"},
        {"operation": "patch", "environment_kind": "prod"},
        {"operation": "read"},
    ]
    for place, selector in enumerate(selectors):
        world.rule(selector, 100 - place, name=f"r{place}")
    # Production asks nobody here, which a submit refuses.
    world.rule(
        {"environment_kind": "prod", "secret_ref_prefix": "team/app/one"},
        priority=200,
        auto_approve=True,
        min_approvers=0,
    )


def drafts(tenancy: Tenancy) -> list[dict[str, Any]]:
    """Return every combination, right and wrong, of what a draft may say."""
    gone = tenancy.world.rows("SELECT id FROM projects WHERE name = 'gone'")[0]["id"]
    own, other = tenancy.ids["project_id:own"], tenancy.ids["project_id:other"]
    choices: dict[str, list[Any]] = {
        "type": ["read", "patch"],
        "target_provider_type": ["vault", "vault", "file"],
        "target_secret_ref": ["app/db", "app/one", "app//db", "../app/db", "unbound"],
        "target_provider_config": [
            {},
            {},
            {"kvPrefix": "team"},
            {"kvPrefix": "team", "kvMount": "kv"},
            {"kvPrefix": "other/"},
            {"region": "eu"},
            {"token": "x"},
        ],
        "target_keys": [[], ["A"], ["A", "B"]],
        "project_id": [own, own, own, other, gone, None],
        "environment": ["dev", "dev", "prod", "nowhere", None],
        "provider_connection_id": [
            None,
            None,
            tenancy.ids["connection:vault"],
            tenancy.east,
            NOWHERE,
        ],
    }
    return [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]


def submitted(world: World, caller: Caller, facts: dict[str, Any]) -> tuple[str | None, Any]:
    """Return the code that refuses the submit, or what its request was told to follow."""
    draft = submissions.Draft(id=new_id(), justification="ticket 1", **facts)
    try:
        world.run(submissions.submit, caller=caller, draft=draft, new_wraps=[], now=NOW)
    except SbError as refusal:
        return refusal.code, None
    row = world.request(draft.id)
    return None, (row["matched_policy_rule_id"], row["workflow_id"])


def explained(world: World, caller: Caller, facts: dict[str, Any]) -> tuple[str | None, Any]:
    draft = policy_preview.Draft(
        operation=facts["type"], **{name: facts[name] for name in facts if name != "type"}
    )
    try:
        found = world.db.read_sync(policy_preview.explain, caller=caller, draft=draft, now=NOW)
    except SbError as refusal:
        return refusal.code, None
    if found.refused_as is not None:
        return found.refused_as, None
    return None, (found.decision.rule_id, found.decision.workflow.id)


def test_explain_decides_and_refuses_what_submit_does(world: World, tenancy: Tenancy) -> None:
    rules(world)
    own = {"project_id": tenancy.ids["project_id:own"]}
    narrow = world.person("narrow", "developer", {**own, "secret_ref_prefix": "app/one"})
    callers = [
        tenancy.developer,
        world.person("root", "admin"),
        world.person("scoped", "developer", own),
        narrow,
    ]
    # It sees all of it and asks for a part only.
    both = world.person("both", "developer", {**own, "secret_ref_prefix": "app/one"})
    world.grant(both.user_id, "approver", own)
    callers.append(world.caller(both.user_id))
    chosen = random.Random(7)
    codes: set[str | None] = set()
    workflows: set[str] = set()
    everything = drafts(tenancy)
    for caller in callers:
        for facts in chosen.sample(everything, TRIED):
            expected = submitted(world, caller, facts)
            told = explained(world, caller, facts)
            if told[0] == UNSEEN:
                # The submit says why, which a person of another part of the project may know.
                assert expected[0] == "out_of_scope_project" or (caller is narrow and expected[0])
            else:
                assert told == expected, facts
            codes.add(expected[0])
            workflows.update(expected[1][1:] if expected[1] else ())
    assert codes >= {
        None,
        "auto_approval_forbidden",
        "credential_in_config",
        "environment_not_in_project",
        "environment_required",
        "invalid_request",
        "out_of_scope_key",
        "out_of_scope_op",
        "out_of_scope_project",
        "connection_not_found",
        "unknown_config_key",
    }
    assert len(workflows) >= 4


def test_explain_refuses_what_is_productions_as_submit_does(world: World, tenancy: Tenancy) -> None:
    dev = tenancy.ids["environment_id:own"]
    secret_id = tenancy.bind("app/dev", tenancy.east, "east", ops=["read"], environment_id=dev)
    quick = world.rule({"environment_kind": "non_prod"}, auto_approve=True, min_approvers=0)
    approver = world.person("approver", "approver")
    facts = {
        **tenancy.target,
        "type": "read",
        "target_provider_type": "file",
        "target_secret_ref": "app/dev",
        "target_keys": [],
        "target_provider_config": {},
        "provider_connection_id": None,
    }

    def told() -> set[Any]:
        found = {
            submitted(world, tenancy.developer, facts),
            explained(world, tenancy.developer, facts),
            explained(world, approver, facts),
        }
        return {code or decided[1] for code, decided in found}

    assert told() == {quick}
    world.write("UPDATE secrets SET became_prod_at = :t WHERE id = :s", t=NOW, s=secret_id)
    assert told() == {"production_secret"}


def test_submit_follows_one_rule_however_the_prefix_is_written(
    world: World, tenancy: Tenancy
) -> None:
    strict = world.rule({"secret_ref_prefix": "team/"}, min_approvers=3)
    world.rule({"secret_ref_prefix": "app/"}, priority=20)
    for config in ({}, {"kvPrefix": "team"}, {"kvMount": "kv", "kvPrefix": "team"}):
        request_id = tenancy.read(
            tenancy.developer,
            environment="dev",
            target_provider_type="vault",
            target_provider_config=config,
        )
        assert world.request(request_id)["workflow_id"] == strict


def test_simulate_matches_a_request_by_its_whole_path(world: World, tenancy: Tenancy) -> None:
    workflow = world.workflow(min_approvers=2)
    request_id = tenancy.read(tenancy.developer, target_provider_type="vault")

    def changed(prefix: str) -> list[str]:
        rule = {"selector": {"secret_ref_prefix": prefix}, "workflow_id": workflow}
        proposal = policy_simulation.Proposal(changes=rule)
        found: policy_simulation.Simulation = world.db.read_sync(
            policy_simulation.simulate,
            caller=tenancy.approver,
            proposal=proposal,
            limit=10,
            now=at(days=1),
        )
        return [one.request["id"] for one in found.differences]

    assert changed("team/app/") == [request_id]
    assert changed("app/") == []
