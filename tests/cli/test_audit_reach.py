"""Who may approve and administer in projects, through psql, held against the product's decision."""

from __future__ import annotations

import json

import pytest

from sb.auth.access import Resource, allowed, covering_roles
from sb.ops import accounts, connections, projects, teams
from tests.cli.audit_files import Rows
from tests.cli.governed import Governed, shown

pytestmark = pytest.mark.xdist_group("cli-audit")

REFS = ("app/db", "other/db")


def _estate(governed: Governed) -> dict[str, str]:
    """Make two teams below one, a project in each, and every kind of grant of approval."""
    top = governed.team("top")
    left, right = governed.team("left", top), governed.team("right", top)
    ids = {"top": top, "left": left, "right": right}
    for name, team_id in (("ledger", left), ("shop", right), ("alone", None)):
        ids[name] = governed.project(name, team_id)
        ids[f"{name}-dev"] = governed.environment(ids[name])
    ids["old"] = governed.environment(ids["ledger"], "old")
    governed.role("decider", "secret.approve")
    governed.role("manager", "project.edit")
    scopes: dict[str, dict[str, str]] = {
        "everywhere": {},
        "over": {"team_id": top},
        "in-left": {"team_id": left},
        "in-right": {"team_id": right},
        "of-ledger": {"project_id": ids["ledger"]},
        "both": {"team_id": top, "project_id": ids["shop"]},
        "in-dev": {"environment_id": ids["ledger-dev"]},
        "in-old": {"environment_id": ids["old"]},
        "by-path": {"team_id": left, "secret_ref_prefix": "app/"},
        "by-provider": {"project_id": ids["alone"], "provider": "vault"},
        "by-cluster": {"cluster": "east"},
    }
    for name, scope in scopes.items():
        for role in ("decider", "manager"):
            governed.grant(name, role, -30, scope=scope)
    governed.grant("ended", "decider", -30, ends=-1)
    governed.grant("ending", "decider", -30, ends=1)
    governed.grant("looker", "developer", -30)
    governed.grant("gone", "decider", -30)
    governed.run(
        accounts.disable,
        by=governed.caller(),
        user_id=governed.person("gone"),
        now=governed.at(-2),
    )
    governed.delete_environment(ids["old"], -1)
    _misgive(governed, "strange", region="eu")
    _misgive(governed, "empty", secret_ref_prefix="")
    _misgive(governed, "null", provider=None)
    _misgive(governed, "never", team_id=left, project_id=ids["shop"])
    _misgive(governed, "crossed", project_id=ids["shop"], environment_id=ids["ledger-dev"])
    return ids


def _misgive(governed: Governed, name: str, **scope: str | None) -> None:
    """Leave a grant that no operation would give."""
    grant_id = governed.grant(name, "decider", -30)
    statement = "UPDATE user_roles SET scope = CAST(:scope AS jsonb) WHERE id = :id"
    governed.write(statement, scope=json.dumps(scope), id=grant_id)


def _requests(ids: dict[str, str], project: str) -> list[Resource]:
    """Return what requests of the project may be about."""
    team = {"ledger": ids["left"], "shop": ids["right"], "alone": None}[project]
    return [
        Resource(
            team_id=team,
            project_id=ids[project],
            environment_id=environment,
            secret_ref=ref,
            provider=provider,
            cluster=cluster,
        )
        for environment in (None, ids[f"{project}-dev"])
        for ref in REFS
        for provider in ("file", "vault")
        for cluster in (None, "east")
    ]


def _may(governed: Governed, permission: str, resource: Resource) -> set[str]:
    """Return who may, as the product decides it for each person; a disabled one is nobody."""
    return {
        name
        for name in governed.people
        if name != "gone" and allowed(governed.caller(name).grants, permission, resource)
    }


def _names(found: Rows) -> set[str]:
    return {row["email"].split("@")[0] for row in found}


@pytest.mark.parametrize("project", ["ledger", "shop", "alone"])
def test_project_approvers_are_those_the_product_lets_approve(
    governed: Governed, project: str
) -> None:
    ids = _estate(governed)
    found = governed.ask("project_approvers", project=ids[project])
    everything = [row for row in found if row["limited_to"] == ""]
    asked = _requests(ids, project)
    plain = Resource(team_id=asked[0].team_id, project_id=ids[project])
    assert _names(everything) == _may(governed, "secret.approve", plain)
    anything = set().union(*(_may(governed, "secret.approve", each) for each in asked))
    assert _names(found) == anything
    assert {row["project"] for row in found} == {project}


def test_project_approvers_tell_through_what_and_how_far(governed: Governed) -> None:
    _estate(governed)
    found = governed.ask("project_approvers", project="ledger")
    told = {row["email"].split("@")[0]: row for row in found}
    assert {
        name: (row["reached_through"], row["limited_to"])
        for name, row in told.items()
        if name != "root"
    } == {
        "everywhere": ("everything", ""),
        "ending": ("everything", ""),
        "over": ("team top, 1 above", ""),
        "in-left": ("team left", ""),
        "of-ledger": ("project", ""),
        "in-dev": ("environment", "environment dev"),
        "by-path": ("team left", "paths from app/"),
        "by-cluster": ("everything", "cluster east"),
    }
    assert {row["role"] for name, row in told.items() if name != "root"} == {"decider"}
    assert told["over"]["granted_by"] == "root@example.com"
    assert told["ending"]["expires_at"] != ""


def test_project_approvers_tell_who_holds_the_role_a_workflow_asks_for(governed: Governed) -> None:
    team_id = governed.team("left")
    project_id = governed.project("ledger", team_id)
    place = Resource(team_id=team_id, project_id=project_id)
    for role in ("decider", "security"):
        governed.role(role, "secret.approve")
    governed.role("looker", "secret.list")
    elsewhere = {"project_id": governed.project("shop")}
    for name, role, scope in (
        ("ann", "decider", {}),
        ("ann", "security", {"team_id": team_id}),
        ("bob", "decider", {}),
        ("bob", "looker", {}),
        ("bob", "security", elsewhere),
        ("eve", "security", elsewhere),
    ):
        governed.grant(name, role, -30, scope=scope)
    found = governed.ask("project_approvers", project="ledger")
    assert shown(found, "email", "role") == [
        ("ann@example.com", "decider"),
        ("ann@example.com", "security"),
        ("bob@example.com", "decider"),
        ("root@example.com", "admin"),
    ]
    for name in governed.people:
        roles = {row["role"] for row in found if row["email"] == f"{name}@example.com"}
        held = covering_roles(governed.caller(name).grants, "secret.approve", place)
        assert {governed.role_id(role) for role in roles} == held


def test_project_approvers_tell_a_project_without_any(governed: Governed) -> None:
    project_id = governed.project("lonely")
    governed.write("UPDATE local_users SET disabled = :yes", yes=True)
    found = governed.ask("project_approvers", project_id=project_id)
    assert shown(found, "project", "email", "grant_id") == [("lonely", "", "")]


def test_who_may_approve_tells_what_is_below_and_what_has_no_effect(governed: Governed) -> None:
    ids = _estate(governed)
    governed.run(
        projects.set_status,
        caller=governed.caller(),
        project_id=ids["alone"],
        status="archived",
        now=governed.at(0),
    )
    found = governed.ask("who_may_approve")
    told = {row["email"].split("@")[0]: row for row in found if row["role"] == "decider"}
    assert "ended" not in told
    assert "looker" not in told
    assert {name: row["without_effect"] for name, row in told.items() if row["without_effect"]} == {
        "never": "project outside the team",
        "crossed": "environment of another project",
        "in-old": "environment gone",
        "by-provider": "project archived",
        "gone": "account disabled",
        "strange": "scope not understood",
        "empty": "scope not understood",
        "null": "scope not understood",
    }
    assert (told["over"]["team"], told["over"]["teams_below"]) == ("top", "left, right")
    assert (told["in-left"]["team"], told["in-left"]["teams_below"]) == ("left", "")
    assert (told["in-dev"]["environment"], told["of-ledger"]["project"]) == ("dev", "ledger")


# --- orphaned projects


def test_orphaned_projects_are_those_in_which_nobody_may(governed: Governed) -> None:
    ids = _estate(governed)
    names = {ids[name]: name for name in ("ledger", "shop", "alone")}
    people = [name for name in governed.people if name != "gone"]
    # One person after the other is switched off, until nobody is left.
    for position, leaving in enumerate(["", *people]):
        if leaving:
            governed.write(
                "UPDATE local_users SET disabled = :yes WHERE id = :id",
                yes=True,
                id=governed.people[leaving],
            )
        found = {(row["id"], row["finding"]) for row in governed.ask("orphaned_projects")}
        left = people[position:]
        grants = [grant for name in left for grant in governed.caller(name).grants]
        for project_id, name in names.items():
            asked = _requests(ids, name)
            whole = Resource(team_id=asked[0].team_id, project_id=project_id)
            approved = any(allowed(grants, "secret.approve", each) for each in asked)
            administered = allowed(grants, "project.edit", whole)
            assert ((project_id, "nobody may approve") in found) is not approved
            assert ((project_id, "nobody may administer") in found) is not administered


def test_orphaned_projects_tell_teams_that_are_gone_or_archived(governed: Governed) -> None:
    top = governed.team("top")
    below, gone = governed.team("below", top), governed.team("gone")
    teams_of = {"own": top, "under": below, "lost": gone, "moved": gone, "never": None}
    ids = {name: governed.project(name, team_id) for name, team_id in teams_of.items()}
    for project_id in ids.values():
        governed.bind(project_id, f"app/{project_id}")
    admin = governed.caller()
    governed.run(
        projects.set_team, caller=admin, project_id=ids["moved"], team_id=None, now=governed.at(-3)
    )
    assert governed.ask("orphaned_projects") == []
    governed.run(
        teams.set_status, caller=admin, team_id=top, status="archived", now=governed.at(-2)
    )
    governed.write("DELETE FROM teams WHERE id = :id", id=gone)
    found = governed.ask("orphaned_projects")
    assert shown(found, "project", "team", "finding", "detail") == [
        ("lost", "", "team is gone", gone),
        ("own", "top", "team is archived", "top"),
        ("under", "below", "team above is archived", "top"),
    ]
    governed.run(
        projects.set_status,
        caller=admin,
        project_id=ids["own"],
        status="archived",
        now=governed.at(-1),
    )
    assert {row["project"] for row in governed.ask("orphaned_projects")} == {"lost", "under"}


def _connection(governed: Governed, name: str) -> str:
    row = governed.run(
        connections.create,
        by=governed.caller(),
        name=name,
        provider_type="file",
        auth_method="none",
        scope={},
        cluster_name=None,
        description=None,
        now=governed.at(-20),
    )
    return str(row["id"])


def test_orphaned_projects_tell_projects_without_a_live_binding(governed: Governed) -> None:
    on, off = _connection(governed, "on"), _connection(governed, "off")
    ids = {name: governed.project(name) for name in ("bound", "empty", "ended", "off", "second")}
    environment_id = governed.environment(ids["bound"])
    governed.bind(ids["bound"], "app/bound", connection=on, environment_id=environment_id)
    over = {name: governed.environment(ids[name]) for name in ("ended", "second")}
    for name, environment_id in over.items():
        governed.bind(ids[name], f"app/{name}", connection=on, environment_id=environment_id)
    governed.bind(ids["second"], "app/more", connection=on)
    governed.bind(ids["off"], "app/off", connection=off)
    assert [row["project"] for row in governed.ask("orphaned_projects")] == ["empty"]
    for environment_id in over.values():
        # By hand: the product deletes no environment that a binding names.
        governed.write(
            "UPDATE environments SET deleted_at = updated_at WHERE id = :id", id=environment_id
        )
    governed.write("UPDATE provider_connections SET status = 'disabled' WHERE id = :id", id=off)
    found = governed.ask("orphaned_projects")
    assert shown(found, "project", "finding") == [
        (name, "no live binding") for name in ("empty", "ended", "off")
    ]
