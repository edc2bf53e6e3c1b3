"""The secrets of one environment, key by key; and the catalogue by labels."""

from __future__ import annotations

from typing import Any

from tests.db import raw
from tests.http.hostile import refused
from tests.stack import Person, Stack

MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


async def made(admin: Person, path: str, body: Any) -> dict[str, Any]:
    answer = await admin.post(path, body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


class Site:
    """A team's project with two environments, each with a secret, and one for both."""

    def __init__(self, admin: Person) -> None:
        self.admin = admin
        self.team = self.project = ""
        self.envs: dict[str, str] = {}
        self.secrets: dict[str, str] = {}

    @classmethod
    async def build(cls, plane: Stack) -> Site:
        site = cls(await plane.person("admin", "admin"))
        await plane.connection()
        site.team = (await made(site.admin, "/teams", {"name": "t"}))["id"]
        project = {"name": "p", "team_id": site.team}
        site.project = (await made(site.admin, "/projects", project))["id"]
        for name in ("dev", "live"):
            body = {"project_id": site.project, "name": name}
            site.envs[name] = (await made(site.admin, "/environments", body))["id"]
        for name, limits in (
            ("both", {}),
            ("dev", {"environment_id": site.envs["dev"], "allowed_keys": ["A", "B"]}),
            ("live", {"environment_id": site.envs["live"], "allowed_ops": ["read", "patch"]}),
        ):
            body = {"provider_type": "file", "secret_ref": f"app/{name}", **limits}
            row = await made(site.admin, f"/projects/{site.project}/secrets", body)
            site.secrets[name] = row["secret_id"]
        return site

    def path(self, env: str, project: str | None = None) -> str:
        found = self.envs.get(env, env)
        return f"/projects/{project or self.project}/environments/{found}/secrets"


async def test_secrets_of_an_environment_are_listed_key_by_key(plane: Stack) -> None:
    site = await Site.build(plane)
    rows = (await site.admin.get(site.path("dev"))).json()
    assert [(row["secret_ref"], row["key_name"]) for row in rows] == [
        ("app/dev", "A"),
        ("app/dev", "B"),
        ("app/both", ""),
    ]
    assert [row["environment_id"] for row in rows] == [site.envs["dev"]] * 2 + [None]
    (first, _) = (await site.admin.get(site.path("live"))).json()
    assert first["provider_connection_id"] is not None
    assert {name: first[name] for name in ("secret_id", "provider_type", "allowed_ops")} == {
        "secret_id": site.secrets["live"],
        "provider_type": "file",
        "allowed_ops": ["patch", "read"],
    }
    # A page counts bindings: none is cut in two.
    page = await site.admin.get(site.path("dev"), params={"limit": 1})
    assert [row["key_name"] for row in page.json()] == ["A", "B"]
    rest = page.headers["link"].partition(">")[0].removeprefix("<")
    assert [row["secret_ref"] for row in (await site.admin.http.get(rest)).json()] == ["app/both"]


async def test_secrets_of_an_environment_out_of_scope_are_not_there(plane: Stack) -> None:
    site = await Site.build(plane)
    other = (await made(site.admin, "/projects", {"name": "q"}))["id"]
    foreign = (await made(site.admin, "/environments", {"project_id": other, "name": "dev"}))["id"]
    reader = await plane.person("reader", "developer", {"environment_id": site.envs["dev"]})
    assert len((await reader.get(site.path("dev"))).json()) == 3
    for path in (
        site.path("live"),
        site.path(MISSING),
        site.path(foreign),
        site.path("dev", other),
        site.path("dev", MISSING),
        site.path(foreign, other),
    ):
        refused(await reader.get(path), 404, "environment_not_found")
    # Whoever may read it lists what their scope covers of it, and no more.
    narrow = {"team_id": site.team, "secret_ref_prefix": "app/b"}
    by_path = await plane.person("by-path", "developer", narrow)
    rows = (await by_path.get(site.path("dev"))).json()
    assert [row["secret_ref"] for row in rows] == ["app/both"]
    await made(site.admin, "/roles", {"name": "editor", "permissions": ["environment.edit"]})
    editor = await plane.person("editor", "editor", {"team_id": site.team})
    refused(await editor.get(site.path("dev")), 403, "permission_denied")


async def test_reading_an_environment_lends_nothing_to_listing_its_secrets(plane: Stack) -> None:
    site = await Site.build(plane)
    await made(site.admin, "/roles", {"name": "editor", "permissions": ["environment.edit"]})
    other = await plane.person("other", "editor", {"team_id": site.team})
    roles = {row["name"]: row["id"] for row in (await site.admin.get("/roles")).json()}
    elsewhere = {"project_id": (await made(site.admin, "/projects", {"name": "q"}))["id"]}
    grant = {"user_id": other.id, "role_id": roles["developer"], "scope": elsewhere}
    await made(site.admin, "/user-roles", {**grant, "reason": "why"})
    assert (await other.get(site.path("dev"))).json() == []


async def test_catalogue_is_filtered_by_every_label_given(plane: Stack, database_url: str) -> None:
    site = await Site.build(plane)
    for name, more in (("dev", "x"), ("live", "x:y"), ("both", "z")):
        labels = f'{{"of": "app", "more": "{more}"}}'
        raw.execute(
            database_url, f"UPDATE secrets SET labels = '{labels}' WHERE secret_ref = 'app/{name}'"
        )

    async def found(*labels: str) -> list[str]:
        rows = (await site.admin.get("/secrets", params={"label": list(labels)})).json()
        return sorted(row["secret_ref"] for row in rows)

    assert await found("of:app") == ["app/both", "app/dev", "app/live"]
    assert await found("of:app", "more:x:y") == ["app/live"]
    assert await found("more:x", "more:z") == []
    # The next page is of the same labels.
    page = await site.admin.get("/secrets", params={"label": ["of:app", "of:app"], "limit": 2})
    assert [row["secret_ref"] for row in page.json()] == ["app/live", "app/dev"]
    rest = page.headers["link"].partition(">")[0].removeprefix("<")
    assert [row["secret_ref"] for row in (await site.admin.http.get(rest)).json()] == ["app/both"]
    for bad in (["nothing"], ["of:app", ""], ["a:b"] * 17, ["a:" + "b" * 600]):
        refused(await site.admin.get("/secrets", params={"label": bad}), 400, "invalid_request")
    refused(
        await site.admin.get("/secrets", params={"status": ["present", "missing"]}),
        400,
        "invalid_request",
    )
