"""Teams, projects, environments and bindings over HTTP, by an administrator and a section head."""

from __future__ import annotations

from typing import Any

import httpx

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.ids import new_id
from tests.http.hostile import MISSING, nothing_changes, refused
from tests.ops.estate import HEAD
from tests.stack import Person, Stack


def add_head_role(tx: Transaction) -> None:
    tx.count(
        "role_insert",
        id=new_id(),
        name="head",
        description="",
        permissions=list(HEAD),
        is_system=False,
        now=utc_now(),
    )


async def put(person: Person, path: str, body: Any) -> httpx.Response:
    return await person.http.put(f"/api/v1{path}", json=body)


async def delete(person: Person, path: str) -> httpx.Response:
    return await person.http.delete(f"/api/v1{path}")


async def made(person: Person, path: str, body: Any) -> dict[str, Any]:
    answer = await person.post(path, body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def head_of(plane: Stack, team_id: str) -> Person:
    await plane.db.run(add_head_role)
    return await plane.person("head", "head", {"team_id": team_id})


async def test_a_section_head_sets_up_a_team_to_its_first_request(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    top = await made(admin, "/teams", {"name": "Payments"})
    assert (top["parent_team_id"], top["status"], top["description"]) == (None, "active", None)
    head = await head_of(plane, top["id"])

    team = await made(head, "/teams", {"name": "Cards", "parent_team_id": top["id"]})
    project = await made(head, "/projects", {"name": "card-api", "team_id": team["id"]})
    env = await made(
        head,
        "/environments",
        {"project_id": project["id"], "name": "dev", "type": "dev", "risk_level": 0},
    )
    assert (env["kind"], env["risk_level"], env["description"]) == ("non_prod", 0, None)
    body = {"provider_type": "file", "secret_ref": "app/db", "created_by": "somebody else"}
    binding = await made(head, f"/projects/{project['id']}/secrets", body)
    assert binding["allowed_keys"] is None
    assert (binding["allowed_ops"], binding["environment_id"]) == (["read"], None)
    assert binding["created_by"] == f"user:{head.id}"
    assert binding["secret"]["secret_ref"] == "app/db"

    scope = {"project_id": project["id"]}
    dev = await plane.person("dev", "developer", scope)
    ask = {
        "target_provider_type": "file",
        "target_secret_ref": "app/db",
        "target_keys": ["USER"],
        "justification": "ticket 1",
        "project_id": project["id"],
        "environment": "dev",
    }
    request = await made(dev, "/requests/read", ask)
    assert request["environment_id"] == env["id"]
    path = f"/projects/{project['id']}/secrets/{binding['secret_id']}"
    assert (await dev.get(path)).json() == binding
    assert (await delete(head, path)).status_code == 204
    approver = await plane.person("approver", "approver", scope)
    answer = await approver.post(f"/requests/{request['id']}/approve")
    refused(answer, 409, "binding_revoked")
    events = await admin.get("/audit-events", params={"correlation_id": request["id"]})
    assert ("request.approve", "denied") in {(e["action"], e["status"]) for e in events.json()}


async def test_put_keeps_what_is_absent_and_null_is_something_else(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    top = await made(admin, "/teams", {"name": "top"})
    body = {"name": "a", "parent_team_id": top["id"], "description": "words"}
    team = await made(admin, "/teams", body)
    path = f"/teams/{team['id']}"
    changed = (await put(admin, path, {"name": "b"})).json()
    assert (changed["parent_team_id"], changed["description"]) == (top["id"], "words")
    changed = (await put(admin, path, {"parent_team_id": None})).json()
    assert (changed["name"], changed["parent_team_id"]) == ("b", None)
    assert (await put(admin, path, {})).json() == changed
    refused(await put(admin, path, {"name": None}), 400, "invalid_request")
    refused(
        await put(admin, f"/teams/{top['id']}", {"parent_team_id": top["id"]}), 409, "team_cycle"
    )

    project = await made(admin, "/projects", {"name": "p"})
    assert (await put(admin, f"/projects/{project['id']}", {})).json()["name"] == "p"
    env = await made(admin, "/environments", {"project_id": project["id"], "name": "dev"})
    path = f"/environments/{env['id']}"
    assert (await put(admin, path, {"risk_level": 0})).json()["risk_level"] == 0
    changed = (await put(admin, path, {"description": "x"})).json()
    assert (changed["risk_level"], changed["description"]) == (0, "x")
    for field in ("kind", "name", "type", "project_id"):
        body = refused(await put(admin, path, {field: "prod"}), 400, "invalid_request")
        assert body["fields"][0]["field"] == field

    body = {"provider_type": "file", "secret_ref": "x", "allowed_keys": ["B", "A"]}
    body["environment_id"] = env["id"]
    binding = await made(admin, f"/projects/{project['id']}/secrets", body)
    path = f"/projects/{project['id']}/secrets/{binding['secret_id']}"
    changed = (await put(admin, path, {"allowed_ops": ["patch"]})).json()
    assert (changed["allowed_keys"], changed["environment_id"]) == (["A", "B"], env["id"])
    changed = (await put(admin, path, {"allowed_keys": None})).json()
    assert (changed["allowed_keys"], changed["environment_id"]) == (None, env["id"])
    assert (await put(admin, path, {"environment_id": None})).json()["environment_id"] is None
    for bad in ({"allowed_keys": []}, {"allowed_ops": []}, {"allowed_ops": None}):
        refused(await put(admin, path, bad), 400, "invalid_request")
    answer = refused(
        await put(admin, path, {"allowed_ops": ["read", "own"]}), 400, "invalid_request"
    )
    assert answer["fields"][0]["field"] == "allowed_ops.1"


async def test_duplicates_are_conflicts(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    project = await made(admin, "/projects", {"name": "p"})
    team = await made(admin, "/teams", {"name": "t"})
    env = {"project_id": project["id"], "name": "dev"}
    bound = {"provider_type": "file", "secret_ref": "x"}
    cases = [
        ("/teams", {"name": "t"}, "team_name_taken"),
        ("/projects", {"name": "p"}, "project_name_taken"),
        ("/environments", env, "environment_name_taken"),
        (f"/projects/{project['id']}/secrets", bound, "binding_exists"),
        (f"/teams/{team['id']}/members", {"user_id": admin.id}, "already_member"),
    ]
    for path, body, code in cases:
        await admin.post(path, body)
        refused(await admin.post(path, body), 409, code)
    second = await made(admin, "/projects", {"name": "q"})
    answer = await put(admin, f"/projects/{second['id']}", {"name": "p"})
    refused(answer, 409, "project_name_taken")


async def test_an_idempotency_key_makes_one_of_each(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    project = await made(admin, "/projects", {"name": "p"})
    team = await made(admin, "/teams", {"name": "t"})
    cases: list[tuple[str, dict[str, Any]]] = [
        ("/teams", {"name": "new"}),
        ("/projects", {"name": "new"}),
        ("/environments", {"project_id": project["id"], "name": "dev"}),
        (f"/projects/{project['id']}/secrets", {"provider_type": "file", "secret_ref": "x"}),
        (f"/teams/{team['id']}/members", {"user_id": admin.id}),
    ]
    for path, body in cases:
        headers = {"Idempotency-Key": "once"}
        first = await admin.post(path, body, headers=headers)
        again = await admin.post(path, body, headers=headers)
        assert (first.status_code, again.status_code) == (201, 201), first.text
        assert again.json() == first.json()
        assert again.headers["idempotency-replayed"] == "true"


async def test_lists_are_arrays_paged_by_link(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    team = await made(admin, "/teams", {"name": "t0"})
    project = await made(admin, "/projects", {"name": "p0"})
    for n in range(1, 3):
        await made(admin, "/teams", {"name": f"t{n}"})
        await made(admin, "/projects", {"name": f"p{n}"})
    for n in range(3):
        person = await plane.person(f"member{n}")
        await made(admin, f"/teams/{team['id']}/members", {"user_id": person.id})
        await made(admin, "/environments", {"project_id": project["id"], "name": f"e{n}"})
        body = {"provider_type": "file", "secret_ref": f"s{n}"}
        await made(admin, f"/projects/{project['id']}/secrets", body)
    for path, field in (
        ("/teams", "name"),
        ("/projects", "name"),
        ("/environments", "name"),
        ("/secrets", "secret_ref"),
        (f"/projects/{project['id']}/environments", "name"),
        (f"/projects/{project['id']}/secrets", "secret_id"),
        (f"/teams/{team['id']}/members", "user_display"),
    ):
        everything = [row[field] for row in (await admin.get(path)).json()]
        found: list[str] = []
        next_path: str | None = f"/api/v1{path}?limit=2"
        while next_path:
            page = await admin.http.get(next_path)
            found += [row[field] for row in page.json()]
            link = page.headers.get("link")
            next_path = link.partition(">")[0].removeprefix("<") if link else None
        assert found == everything, path
        assert len(found) == 3


async def test_what_is_out_of_scope_is_not_there(plane: Stack, database_url: str) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    ids: dict[str, dict[str, str]] = {}
    for side in ("mine", "theirs"):
        team = await made(admin, "/teams", {"name": side})
        project = await made(admin, "/projects", {"name": side, "team_id": team["id"]})
        env = await made(admin, "/environments", {"project_id": project["id"], "name": "dev"})
        bound = {"provider_type": "file", "secret_ref": f"{side}/db"}
        binding = await made(admin, f"/projects/{project['id']}/secrets", bound)
        ids[side] = {
            "team": team["id"],
            "project": project["id"],
            "env": env["id"],
            "secret": binding["secret_id"],
        }
    head = await head_of(plane, ids["mine"]["team"])
    mine, theirs = ids["mine"], ids["theirs"]
    nowhere = dict.fromkeys(theirs, MISSING)
    async with nothing_changes(database_url):
        for gone in (theirs, nowhere):
            project, secret = f"/projects/{gone['project']}", f"/secrets/{gone['secret']}"
            calls = [
                head.get(f"/teams/{gone['team']}"),
                put(head, f"/teams/{gone['team']}", {"name": "x"}),
                put(head, f"/teams/{gone['team']}/status", {"status": "archived"}),
                delete(head, f"/teams/{gone['team']}"),
                head.get(f"/teams/{gone['team']}/members"),
                head.post(f"/teams/{gone['team']}/members", {"user_id": head.id}),
                delete(head, f"/teams/{gone['team']}/members/{head.id}"),
                head.post("/teams", {"name": "x", "parent_team_id": gone["team"]}),
                put(head, f"/teams/{mine['team']}", {"parent_team_id": gone["team"]}),
                head.post("/projects", {"name": "x", "team_id": gone["team"]}),
                head.get(project),
                put(head, project, {"name": "x"}),
                put(head, f"{project}/status", {"status": "archived"}),
                put(head, f"{project}/team", {"team_id": mine["team"]}),
                put(head, f"/projects/{mine['project']}/team", {"team_id": gone["team"]}),
                head.get(f"{project}/environments"),
                head.post("/environments", {"project_id": gone["project"], "name": "x"}),
                head.get(f"/environments/{gone['env']}"),
                put(head, f"/environments/{gone['env']}", {"risk_level": 4}),
                delete(head, f"/environments/{gone['env']}"),
                head.get(f"{project}/secrets"),
                head.get(f"{project}{secret}"),
                head.post(f"{project}/secrets", {"secret_id": mine["secret"]}),
                put(head, f"{project}{secret}", {"allowed_keys": None}),
                delete(head, f"{project}{secret}"),
                head.post(f"/projects/{mine['project']}/secrets", {"secret_id": gone["secret"]}),
            ]
            answers = [await call for call in calls]
            assert {answer.status_code for answer in answers} == {404}
    # A path is not an id: that somebody has it is all the answer tells.
    bound = {"provider_type": "file", "secret_ref": "theirs/db"}
    answer = await head.post(f"/projects/{mine['project']}/secrets", bound)
    body = refused(answer, 403, "secret_out_of_scope")
    assert set(body) == {"error", "message", "request_id"}
    assert not any(found in answer.text for found in theirs.values())
    for path in ("/teams", "/projects", "/environments"):
        assert len((await head.get(path)).json()) == 1
    lister = await plane.person("lister", "approver", {"team_id": mine["team"]})
    assert [row["id"] for row in (await lister.get("/secrets")).json()] == [mine["secret"]]
    assert (await lister.get(f"/secrets/{theirs['secret']}")).status_code == 404
    assert (await lister.get("/secrets", params={"project_id": theirs["project"]})).json() == []


async def test_without_the_permission_anywhere_nothing_is_changed(plane: Stack) -> None:
    person = await plane.person("dev", "developer")
    calls = [
        ("POST", "/teams", {"name": "x"}),
        ("PUT", f"/teams/{MISSING}", {}),
        ("DELETE", f"/teams/{MISSING}", None),
        ("POST", "/projects", {"name": "x"}),
        ("PUT", f"/projects/{MISSING}/team", {"team_id": None}),
        ("POST", "/environments", {"project_id": MISSING, "name": "x"}),
        ("DELETE", f"/environments/{MISSING}", None),
        ("POST", f"/projects/{MISSING}/secrets", {"secret_id": MISSING}),
        ("DELETE", f"/projects/{MISSING}/secrets/{MISSING}", None),
    ]
    for method, path, body in calls:
        answer = await person.http.request(method, f"/api/v1{path}", json=body)
        refused(answer, 403, "permission_denied")


SECRET = {"provider_type": "file", "secret_ref": "a/b"}


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("/teams", {"name": ""}, "name"),
    ("/teams", {"name": " x"}, "name"),
    ("/teams", {"name": "a\nb"}, "name"),
    ("/teams", {"name": 7}, "name"),
    ("/teams", {"name": "x", "id": MISSING}, "id"),
    ("/teams", {"name": "x", "status": "gone"}, "status"),
    ("/teams", {"name": "x", "parent_team_id": "root"}, "parent_team_id"),
    ("/projects", {"name": "x", "owner": "me"}, "owner"),
    ("/projects", {"name": "x" * 121}, "name"),
    ("/environments", {"name": "x"}, "project_id"),
    ("/environments", {"project_id": MISSING, "name": "x", "kind": "half"}, "kind"),
    ("/environments", {"project_id": MISSING, "name": "x", "risk_level": 5}, "risk_level"),
    ("/environments", {"project_id": MISSING, "name": "x", "risk_level": "1"}, "risk_level"),
    ("/environments", {"project_id": MISSING, "name": "x", "type": "live"}, "type"),
    ("bind", {}, "provider_type"),
    ("bind", {"provider_type": "file"}, "secret_ref"),
    ("bind", {"secret_id": MISSING, "secret_ref": "x"}, "secret_ref"),
    ("bind", {**SECRET, "allowed_keys": []}, "allowed_keys"),
    ("bind", {**SECRET, "allowed_ops": []}, "allowed_ops"),
    ("bind", {**SECRET, "allowed_ops": ["write"]}, "allowed_ops.0"),
    ("bind", {**SECRET, "secret_ref": "a/../b"}, "secret_ref"),
    ("bind", {**SECRET, "value": "x"}, "value"),
]


async def test_bad_input_names_its_field(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    project = await made(admin, "/projects", {"name": "p"})
    for path, body, field in BAD:
        where = f"/projects/{project['id']}/secrets" if path == "bind" else path
        answer = refused(await admin.post(where, body), 400, "invalid_request")
        assert field in [found["field"] for found in answer["fields"]], body
        assert all(found["reason"] for found in answer["fields"])


async def test_unknown_foreign_ids_are_told_apart_from_failures(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    project = await made(admin, "/projects", {"name": "p"})
    other = await made(admin, "/projects", {"name": "q"})
    alien = await made(admin, "/environments", {"project_id": other["id"], "name": "dev"})
    team = await made(admin, "/teams", {"name": "t"})
    bind = f"/projects/{project['id']}/secrets"
    for answer, status, code in (
        (
            await admin.post("/teams", {"name": "x", "parent_team_id": MISSING}),
            404,
            "team_not_found",
        ),
        (await admin.post("/projects", {"name": "x", "team_id": MISSING}), 404, "team_not_found"),
        (
            await admin.post("/environments", {"project_id": MISSING, "name": "x"}),
            404,
            "project_not_found",
        ),
        (
            await admin.post(f"/teams/{team['id']}/members", {"user_id": MISSING}),
            404,
            "user_not_found",
        ),
        (await admin.post(bind, {"secret_id": MISSING}), 404, "secret_not_found"),
        (
            await admin.post(bind, {**SECRET, "provider_connection_id": MISSING}),
            404,
            "connection_not_found",
        ),
        (
            await admin.post(bind, {**SECRET, "environment_id": alien["id"]}),
            400,
            "environment_not_in_project",
        ),
        (await delete(admin, f"/teams/{team['id']}/members/{MISSING}"), 404, "member_not_found"),
        (await admin.get("/teams/root"), 400, "invalid_id"),
    ):
        refused(answer, status, code)
