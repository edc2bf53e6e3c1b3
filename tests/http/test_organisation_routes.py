"""The organisation over real HTTP: who may apply and read it, and how a bad document is refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from tests.stack import Stack

DOCUMENT: dict[str, Any] = {"version": 1, "teams": [{"path": "a"}, {"path": "a/b"}]}


async def test_apply_is_planned_then_done_then_done_already(plane: Stack) -> None:
    admin = await plane.person("ada", "admin")
    planned = await admin.post("/organisation/apply?plan=true", DOCUMENT)
    assert planned.status_code == 200, planned.text
    assert planned.json() == {
        "applied": False,
        "created": 2,
        "updated": 0,
        "unchanged": 0,
        "steps": [
            {
                "kind": "team",
                "name": name,
                "action": "create",
                "changes": [{"field": "status", "before": None, "after": "active"}],
            }
            for name in ("a", "a/b")
        ],
    }
    assert (await admin.get("/teams")).json() == []
    done = (await admin.post("/organisation/apply", DOCUMENT)).json()
    assert done == {**planned.json(), "applied": True}
    again = (await admin.post("/organisation/apply", DOCUMENT)).json()
    assert (again["created"], again["unchanged"]) == (0, 2)
    found = (await admin.get("/organisation/export")).json()
    assert [team["path"] for team in found["document"]["teams"]] == ["a", "a/b"]
    assert found["left_out"] == []


async def test_export_is_on_record_with_what_it_took_out(plane: Stack) -> None:
    admin, dev = await plane.person("ada", "admin"), await plane.person("dana", "developer")
    await admin.post("/organisation/apply", DOCUMENT)
    assert (await dev.get("/organisation/export")).status_code == 403
    bodies = [(await admin.get("/organisation/export")).json() for _ in range(2)]
    document = bodies[0]["document"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    found = await admin.get("/audit-events", params={"action": "organisation.exported"})
    counts = {name: len(rows) for name, rows in document.items() if name != "version"}
    assert counts["teams"] == 2
    assert [(event["actor"], event["resource"], event["metadata"]) for event in found.json()] == [
        (
            f"user:{admin.id}",
            "organisation:export",
            {
                "counts": counts,
                "document_sha256": hashlib.sha256(text.encode()).hexdigest(),
                "left_out": 0,
            },
        )
    ] * 2


async def test_export_of_rules_nothing_could_tell_apart_is_refused(plane: Stack) -> None:
    admin = await plane.person("ada", "admin")
    await admin.post("/organisation/apply", DOCUMENT)
    team_id = next(t["id"] for t in (await admin.get("/teams")).json() if t["name"] == "b")
    project = await admin.post("/projects", {"name": "p", "team_id": team_id})
    (system,) = (await admin.get("/policies")).json()
    rule = {"workflow_id": system["workflow_id"], "selector": {"environment_kind": "non_prod"}}
    anchors = ({}, {"team_id": team_id}, {"project_id": project.json()["id"]})

    async def add(name: str, anchor: dict[str, str]) -> str:
        answer = await admin.post("/policies", {**rule, "name": name, **anchor})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    # One name at three places, and names that differ in their case, are told apart.
    added = [await add(name, anchor) for name in ("twin", "Twin") for anchor in anchors]
    document = (await admin.get("/organisation/export")).json()["document"]
    again = (await admin.post("/organisation/apply?plan=true", document)).json()
    assert (again["created"], again["updated"]) == (0, 0)
    for anchor in anchors:
        added.append(await add("twin", anchor))
    added += [await add("Twin", anchors[1]), await add(system["name"], {})]
    answer = await admin.get("/organisation/export")
    assert (answer.status_code, answer.json()["error"]) == (409, "export_ambiguous")
    assert answer.json()["rules"] == [
        {"project": None, "team": None, "name": system["name"], "rules": 2},
        {"project": None, "team": None, "name": "twin", "rules": 2},
        {"project": None, "team": "a/b", "name": "Twin", "rules": 2},
        {"project": None, "team": "a/b", "name": "twin", "rules": 2},
        {"project": "p", "team": None, "name": "twin", "rules": 2},
    ]
    for number, rule_id in enumerate(added):
        renamed = await admin.http.put(f"/api/v1/policies/{rule_id}", json={"name": f"r{number}"})
        assert renamed.status_code == 200, renamed.text
    assert (await admin.get("/organisation/export")).status_code == 200
    found = await admin.get("/audit-events", params={"action": "organisation.exported"})
    assert len(found.json()) == 2


@pytest.mark.parametrize("role", ["approver", "developer", "policy_author"])
async def test_apply_and_export_by_anybody_else_are_refused(plane: Stack, role: str) -> None:
    person = await plane.person("dana", role)
    for answer in (
        await person.post("/organisation/apply", DOCUMENT),
        await person.post("/organisation/apply?plan=true", DOCUMENT),
        await person.get("/organisation/export"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (403, "permission_denied")


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "version"),
        ({"version": "1"}, "version"),
        ({"version": 1, "users": []}, "users"),
        ({"version": 1, "teams": {}}, "teams"),
        ({"version": 1, "teams": [{"path": "a", "id": "x"}]}, "teams.0.id"),
        ({"version": 1, "grants": [{"person": "a@b.c", "role": "r"}]}, "grants.0.scope"),
        (
            {"version": 1, "grants": [{"person": "a@b.c", "role": "r", "scope": {"all": "x"}}]},
            "grants.0.scope.all",
        ),
        (
            {
                "version": 1,
                "grants": [{"person": "a@b.c", "role": "r", "scope": {}, "expires_at": 1}],
            },
            "grants.0.expires_at",
        ),
        ({"version": 1, "workflows": [{"name": "w", "enabled": None}]}, "workflows.0.enabled"),
        ({"version": 1, "projects": [{"name": "p", "team": "none"}]}, "projects.0.team"),
    ],
)
async def test_apply_of_a_bad_document_names_the_field(
    plane: Stack, document: dict[str, Any], field: str
) -> None:
    admin = await plane.person("ada", "admin")
    answer = await admin.post("/organisation/apply", document)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert field in [fault["field"] for fault in answer.json()["fields"]]


@pytest.mark.parametrize(
    ("document", "field", "reason"),
    [
        (
            {"version": 1, "teams": [{"path": "a"}, {"path": "a"}]},
            "teams.1",
            "names again what is named before it",
        ),
        (
            {"version": 1, "projects": [{"name": "p", "environments": [{"name": "e"}] * 2}]},
            "projects.0.environments.1",
            "names again what is named before it",
        ),
        (
            {"version": 1, "workflows": [{"name": n, "is_default": True} for n in ("a", "b")]},
            "workflows",
            "there is one default workflow, not two",
        ),
        (
            {"version": 1, "teams": [{"path": "/a"}]},
            "teams.0.path",
            "must be names joined by slashes, from the root down",
        ),
    ],
)
async def test_apply_of_a_bad_document_says_where_and_why_in_our_words(
    plane: Stack, document: dict[str, Any], field: str, reason: str
) -> None:
    admin = await plane.person("ada", "admin")
    answer = await admin.post("/organisation/apply", document)
    assert answer.json()["fields"] == [{"field": field, "reason": reason}]


async def test_apply_of_too_large_a_document_is_refused_in_a_sentence(plane: Stack) -> None:
    admin = await plane.person("ada", "admin")
    # Counted wherever they stand: here two things with 4999 below them.
    members = [f"{number}@example.com" for number in range(2499)]
    bindings = [{"provider": "file", "secret_ref": f"apps/{number}"} for number in range(2500)]
    document = {
        "version": 1,
        "teams": [{"path": "a", "members": members}],
        "projects": [{"name": "p", "bindings": bindings}],
    }
    answer = await admin.post("/organisation/apply?plan=true", document)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    reason = "at most 5000 entries go into one document and here are 5001"
    assert [fault["reason"] for fault in answer.json()["fields"]] == [reason]
    # One less is looked at: nobody has these addresses.
    document["teams"] = [{"path": "a", "members": members[1:]}]
    answer = await admin.post("/organisation/apply?plan=true", document)
    assert answer.json()["fields"][0]["field"] == "teams.0.members.0"
