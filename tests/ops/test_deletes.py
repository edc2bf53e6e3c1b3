"""What governance deletes and what may still name it: every foreign key has an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sb.db.engine import Transaction
from sb.errors import InvalidInputError, SbError
from sb.ids import new_id
from sb.ops import grants, policy_rules, roles, scopes, teams, workflows
from sb.ops.callers import Caller
from sb.ops.errors import CONSTRAINT_ERRORS
from sb.ops.governance_errors import (
    InvalidScopeError,
    RoleInUseError,
    TeamNotFoundError,
    WorkflowInUseError,
)
from sb.ops.tenancy_errors import TeamInUseError
from tests.ops import rows
from tests.ops.refusals import behind, outcome
from tests.ops.ruling import NON_PROD, Ruling
from tests.ops.world import NOW, TEST, World

QUERIES = Path(__file__).parents[2] / "sql" / "queries"


@pytest.fixture
def ruling(world: World) -> Ruling:
    return Ruling.build(world)


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("root", "admin")


def deleted_tables() -> set[str]:
    """Return every table from which some query deletes."""
    text = "\n".join(path.read_text() for path in QUERIES.rglob("*.sql"))
    return set(re.findall(r"\bDELETE FROM (\w+)", text))


def foreign_keys(tx: Transaction) -> dict[str, str]:
    """Return the table that each foreign key of the schema points at."""
    if tx.dialect == "postgres":
        statement = (
            "SELECT conname AS name, CAST(CAST(confrelid AS regclass) AS text) AS target"
            " FROM pg_constraint WHERE contype = 'f'"
        )
        return {row["name"]: row["target"] for row in rows.find(tx, statement)}
    texts = rows.find(tx, "SELECT sql FROM sqlite_master WHERE type = 'table'")
    found = re.findall(
        r"CONSTRAINT (\w+)\s+REFERENCES (\w+)", "\n".join(row["sql"] for row in texts)
    )
    assert sum(row["sql"].count("REFERENCES") for row in texts) == len(found)
    return dict(found)


# --- one of each: it is named through exactly this foreign key, then deleted


def team(ruling: Ruling) -> str:
    return str(
        ruling.world.run(
            teams.create,
            caller=ruling.world.person("maker", "admin"),
            name="passing",
            parent_team_id=None,
            description=None,
            status="active",
            now=NOW,
        )["id"]
    )


def delete_team(ruling: Ruling, team_id: str) -> Any:
    caller = ruling.world.person("deleter", "admin")
    return outcome(ruling.world.run, teams.delete, caller=caller, team_id=team_id, now=NOW)


def delete_role(ruling: Ruling, role_id: str) -> Any:
    caller = ruling.world.person("deleter", "admin")
    return outcome(ruling.world.run, roles.delete, caller=caller, role_id=role_id, now=NOW)


def delete_workflow(ruling: Ruling, workflow_id: str) -> Any:
    world = ruling.world
    return outcome(world.run, workflows.delete, by=TEST, workflow_id=workflow_id, now=NOW)


def child_of_team(ruling: Ruling) -> Any:
    team_id = team(ruling)
    stamps = {"created_at": NOW, "updated_at": NOW}
    ruling.world.insert(
        "teams", id=new_id(), name="c", parent_team_id=team_id, status="active", **stamps
    )
    return delete_team(ruling, team_id)


def project_of_team(ruling: Ruling) -> Any:
    team_id = team(ruling)
    stamps = {"created_at": NOW, "updated_at": NOW}
    ruling.world.insert(
        "projects", id=new_id(), name="c", team_id=team_id, status="active", **stamps
    )
    return delete_team(ruling, team_id)


def rule_of_team(ruling: Ruling) -> Any:
    team_id = team(ruling)
    ruling.rule(team_id=team_id)
    return delete_team(ruling, team_id)


def member_of_team(ruling: Ruling) -> Any:
    team_id, person = team(ruling), ruling.world.person("member")
    ruling.world.insert("team_members", team_id=team_id, user_id=person.user_id, created_at=NOW)
    return delete_team(ruling, team_id)


def grant_of_role(ruling: Ruling) -> Any:
    role_id = ruling.world.role("passing", "secret.list")
    ruling.world.person("holder", "passing")
    return delete_role(ruling, role_id)


def workflow_of_role(ruling: Ruling) -> Any:
    role_id = ruling.world.role("passing", "secret.approve")
    ruling.workflow("asks", approver_role_id=role_id)
    return delete_role(ruling, role_id)


def rule_of_workflow(ruling: Ruling) -> Any:
    ruling.rule(workflow_id=ruling.closed)
    return delete_workflow(ruling, ruling.closed)


def request_of_workflow(ruling: Ruling) -> Any:
    rule = ruling.rule(workflow_id=ruling.closed)
    ruling.tenancy.read(ruling.tenancy.developer)
    ruling.world.run(policy_rules.delete, by=TEST, rule_id=rule["id"], now=NOW)
    return delete_workflow(ruling, ruling.closed)


def request_of_rule(ruling: Ruling) -> Any:
    rule = ruling.rule(workflow_id=ruling.closed)
    request_id = ruling.tenancy.read(ruling.tenancy.developer)
    assert ruling.world.request(request_id)["matched_policy_rule_id"] == rule["id"]
    found = outcome(ruling.world.run, policy_rules.delete, by=TEST, rule_id=rule["id"], now=NOW)
    assert ruling.world.request(request_id)["matched_policy_rule_id"] is None
    return found


#: For each foreign key into a table from which rows are deleted: how it comes to be used, how the
#: deletion is refused, if it is, and what of the refusal's details says by what it is used.
HIT: Mapping[str, tuple[Callable[[Ruling], Any], type[SbError] | None, Mapping[str, Any]]] = {
    "teams_parent_team_id_fkey": (child_of_team, TeamInUseError, {"teams_count": 1}),
    "projects_team_id_fkey": (project_of_team, TeamInUseError, {"projects_count": 1}),
    "policy_rules_team_id_fkey": (rule_of_team, TeamInUseError, {"rules_count": 1}),
    "team_members_team_id_fkey": (member_of_team, None, {}),
    "user_roles_role_id_fkey": (grant_of_role, RoleInUseError, {"used_by": ["grants"]}),
    "workflow_definitions_approver_role_id_fkey": (
        workflow_of_role,
        RoleInUseError,
        {"used_by": ["workflows"]},
    ),
    "policy_rules_workflow_id_fkey": (rule_of_workflow, WorkflowInUseError, {"rules": 1}),
    "access_requests_workflow_id_fkey": (request_of_workflow, WorkflowInUseError, {"requests": 1}),
    "access_requests_matched_policy_rule_id_fkey": (request_of_rule, None, {}),
}


def test_every_foreign_key_a_delete_can_hit_has_a_meaning(world: World) -> None:
    deleted = deleted_tables()
    assert {"teams", "roles", "workflow_definitions", "policy_rules"} <= deleted
    found = world.db.run_sync(foreign_keys)
    hit = {name for name, target in found.items() if target in deleted}
    assert hit == HIT.keys()
    for name in hit:
        assert name in CONSTRAINT_ERRORS, name
        assert 400 <= CONSTRAINT_ERRORS[name].status < 500


@pytest.mark.parametrize("name", HIT)
def test_delete_of_what_is_named_says_by_what(ruling: Ruling, name: str) -> None:
    use, error, details = HIT[name]
    found = use(ruling)
    if error is None:
        assert not isinstance(found, SbError), found
        return
    assert type(found) is error, found
    assert found.status == 409
    assert details.items() <= found.details.items()
    others = {key: n for key, n in found.details.items() if key not in details and n}
    assert others == {}


# --- named while it is being deleted: whoever comes second is refused, and nothing is left behind


def test_grant_at_a_team_that_is_being_deleted_is_refused(
    world: World, ruling: Ruling, admin: Caller
) -> None:
    team_id, person = team(ruling), world.person("p")
    asked: dict[str, Any] = {
        "user_id": person.user_id,
        "role_id": world.role("developer"),
        "scope": {"team_id": team_id},
        "expires_at": None,
        "reason": None,
        "now": NOW,
    }

    def delete(tx: Transaction) -> None:
        teams.delete(tx, caller=admin, team_id=team_id, now=NOW)

    late = behind(world, delete, lambda: world.run(grants.create, caller=admin, **asked))
    assert type(late) is InvalidScopeError, late
    assert world.rows("SELECT id FROM user_roles WHERE user_id = :id", id=person.user_id) == []


def test_delete_of_a_team_at_which_a_grant_is_being_made_is_refused(
    world: World, ruling: Ruling, admin: Caller
) -> None:
    team_id, person = team(ruling), world.person("p")

    def give(tx: Transaction) -> None:
        grants.create(
            tx,
            caller=admin,
            user_id=person.user_id,
            role_id=world_role(tx),
            scope={"team_id": team_id},
            expires_at=None,
            reason=None,
            now=NOW,
        )

    late = behind(
        world, give, lambda: world.run(teams.delete, caller=admin, team_id=team_id, now=NOW)
    )
    assert type(late) is TeamInUseError, late
    assert late.details["grants_count"] == 1
    assert world.db.run_sync(scopes.resolve, scope={"team_id": team_id}).team_id == team_id


def world_role(tx: Transaction) -> str:
    row = tx.one("role_find_by_name", name="developer")
    assert row is not None
    return str(row["id"])


@pytest.mark.parametrize("stored", [False, True])
def test_workflow_that_asks_a_role_being_deleted_is_refused(
    world: World, ruling: Ruling, admin: Caller, stored: bool
) -> None:
    role_id = world.role("passing", "secret.approve")
    workflow_id = ruling.workflow("stored")

    def delete(tx: Transaction) -> None:
        roles.delete(tx, caller=admin, role_id=role_id, now=NOW)

    def ask() -> Any:
        knobs = {"approver_role_id": role_id}
        if stored:
            args = {"workflow_id": workflow_id, "changes": knobs}
            return world.run(workflows.update, by=TEST, **args, now=NOW)
        return world.run(workflows.create, by=TEST, knobs={"name": "asks", **knobs}, now=NOW)

    late = behind(world, delete, ask)
    assert type(late) is InvalidInputError, late
    assert late.details["fields"][0]["field"] == "approver_role_id"


def test_delete_of_a_role_that_a_workflow_is_about_to_ask_is_refused(
    world: World, ruling: Ruling, admin: Caller
) -> None:
    role_id = world.role("passing", "secret.approve")
    stored = ruling.workflow("stored")

    def ask(tx: Transaction) -> None:
        changes = {"approver_role_id": role_id}
        workflows.update(tx, by=TEST, workflow_id=stored, changes=changes, now=NOW)

    late = behind(
        world, ask, lambda: world.run(roles.delete, caller=admin, role_id=role_id, now=NOW)
    )
    assert type(late) is RoleInUseError, late
    assert late.details == {"used_by": ["workflows"]}


def test_rule_for_a_team_that_is_being_deleted_is_refused(
    world: World, ruling: Ruling, admin: Caller
) -> None:
    team_id = team(ruling)

    def delete(tx: Transaction) -> None:
        teams.delete(tx, caller=admin, team_id=team_id, now=NOW)

    late = behind(world, delete, lambda: ruling.rule(selector=NON_PROD, team_id=team_id))
    assert isinstance(late, TeamNotFoundError | InvalidInputError), late
    assert world.rows("SELECT id FROM policy_rules WHERE team_id = :id", id=team_id) == []
