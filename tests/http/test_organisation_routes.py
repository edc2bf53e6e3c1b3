"""The organisation over real HTTP: who may apply and read it, and how a bad document is refused."""

from __future__ import annotations

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
            {"kind": "team", "name": name, "action": "create", "changes": []}
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
