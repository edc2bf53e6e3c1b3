"""Production sticks to a secret: a head moves it about, an administrator lets it go."""

from __future__ import annotations

from typing import Any

import httpx

from sb.ids import new_id
from tests.http.hostile import nothing_changes, refused
from tests.http.test_tenancy import head_of, made, put
from tests.stack import Person, Stack


async def asked(person: Person, project: dict[str, Any], environment: str) -> httpx.Response:
    ask = {
        "target_provider_type": "file",
        "target_secret_ref": "app/db",
        "target_keys": ["USER"],
        "justification": "ticket 1",
        "project_id": project["id"],
        "environment": environment,
    }
    return await person.post("/requests/read", ask)


async def test_a_secret_of_production_is_asked_for_as_such_until_it_is_let_go(
    plane: Stack, database_url: str
) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    team = await made(admin, "/teams", {"name": "Payments"})
    head = await head_of(plane, team["id"])
    project = await made(head, "/projects", {"name": "card-api", "team_id": team["id"]})
    envs = {
        kind: await made(
            head, "/environments", {"project_id": project["id"], "name": kind, "type": kind}
        )
        for kind in ("dev", "prod")
    }
    developer = await plane.person("dev", "developer", {"project_id": project["id"]})
    body = {"provider_type": "file", "secret_ref": "app/db", "environment_id": envs["prod"]["id"]}
    bound = await made(head, f"/projects/{project['id']}/secrets", body)
    assert (await asked(developer, project, "prod")).json()["environment_kind"] == "prod"
    refused(await asked(developer, project, "dev"), 403, "out_of_scope_project")

    # A head moves it, which opens no way to it.
    path = f"/projects/{project['id']}/secrets/{bound['secret_id']}"
    answer = await put(admin, f"/secrets/{bound['secret_id']}", {"kind": "non_prod", "reason": "x"})
    refused(answer, 409, "secret_in_production")
    assert (await put(head, path, {"environment_id": envs["dev"]["id"]})).status_code == 200
    refused(await asked(developer, project, "dev"), 409, "production_secret")
    (row, *_) = (await admin.get("/audit-events?action=request.submit")).json()
    assert (row["status"], row["metadata"]["error_kind"]) == ("denied", "production_secret")
    shown = (await admin.get(f"/secrets/{bound['secret_id']}")).json()
    assert shown["kind"] == "prod"

    # Letting it go is an administrator's, with a reason.
    path = f"/secrets/{bound['secret_id']}"
    answer = await put(head, path, {"kind": "non_prod", "reason": "mine"})
    assert (answer.status_code, answer.json()["error"]) == (403, "permission_denied")
    async with nothing_changes(database_url):
        for wrong in (
            {"kind": "non_prod"},
            {"kind": "dev", "reason": "x"},
            {"kind": "non_prod", "reason": "x", "id": new_id()},
        ):
            refused(await put(admin, path, wrong), 400, "invalid_request")
        missing = await put(admin, f"/secrets/{new_id()}", {"kind": "prod", "reason": "x"})
        refused(missing, 404, "secret_not_found")
    answer = await put(admin, path, {"kind": "non_prod", "reason": "holds test data now"})
    assert (answer.status_code, answer.json()["kind"]) == (200, "non_prod")
    assert (await asked(developer, project, "dev")).json()["environment_kind"] == "non_prod"
    auditor = await plane.person("auditor", "admin")
    rows = (await auditor.get("/audit-events?action=secret.kind_changed")).json()
    assert [row["metadata"]["after"]["kind"] for row in rows] == ["non_prod", "prod"]
    assert rows[0]["metadata"]["reason"] == "holds test data now"
    assert rows[0]["actor"] == f"user:{admin.id}"
