"""What people make of an organisation call by call can be taken out as a file and put in again.

Everything has names that are legal and odd, every field is set to something unusual, and what can
be archived, disabled or moved is: the file must change nothing where it comes from, and make the
same of an installation that is empty.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sb.cli.organisation import read, written
from sb.clock import utc_now
from tests import servers, stack
from tests.cli.trail import new_name
from tests.conftest import TEMPLATE
from tests.http.granting import put, role_id
from tests.stack import Person, Stack

#: Legal wherever people give a name: printable, no spaces around it, at most 120 characters.
ODD = (
    "yes", "null", "0x1F", "1e3", "2026-01-01", "~", "a/b", "~1", "~0/~1", "- x: y # z", "{}",
    "[a]", "'quoted'", '"', "Ops", "ops", "OPS", "Søn & Ærø", "\u0065\u0301", "\u00e9", "a  b",
    "..", "\u9375", "\U0001f511",
    "%s %d {name}", "' OR 1=1 --", "\\n", "x" * 120, "/" * 120, "*", "&anchor", "!!str", "|", "on:",
)  # fmt: skip
TEXTS = (
    "", "a\nb\n", " spaces ", "tab\there", "\u2028", "#", "é" * 1000, "x: y", "a\u0085b", "\r",
)  # fmt: skip
PEOPLE = ("ann", "ben", "cat", "gone")


class Choice:
    """Draws from the odd things; each name is given once for each of the nouns."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._names: dict[str, Iterator[str]] = {}

    def name(self, noun: str) -> str:
        if noun not in self._names:
            self._names[noun] = iter(self.random.sample(ODD, len(ODD)))
        return next(self._names[noun])

    def text(self) -> str:
        return self.random.choice(TEXTS)

    def yes(self) -> bool:
        return self.random.random() < 0.5


@dataclass
class Maker:
    """Makes an organisation as its administrators do, over HTTP."""

    plane: Stack
    admin: Person
    chosen: Choice
    people: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)

    async def post(self, path: str, body: Any = None) -> dict[str, Any]:
        answer = await self.admin.post(path, body)
        assert answer.status_code in (200, 201), (path, body, answer.text)
        found: dict[str, Any] = answer.json()
        return found

    async def make(self, path: str, **body: Any) -> str:
        made = str((await self.post(path, body))["id"])
        self.ids.setdefault(path, []).append(made)
        return made

    async def change(self, path: str, **body: Any) -> None:
        answer = await put(self.admin, path, body)
        assert answer.status_code in (200, 204), (path, body, answer.text)

    async def everything(self) -> None:
        await self.roles()
        await self.teams()
        await self.projects()
        await self.workflows()
        await self.rules()
        await self.grants()
        await self.afterwards()

    async def roles(self) -> None:
        for permissions in ([], ["secret.approve"], ["secret.list", "audit.read"]):
            name, description = self.chosen.name("role"), self.chosen.text()
            await self.make("/roles", name=name, description=description, permissions=permissions)
        seeded = await role_id(self.admin, "developer")
        await self.change(f"/roles/{seeded}", description="ours", permissions=["secret.request"])

    async def teams(self) -> None:
        parent = None
        for _ in range(4):
            name, description = self.chosen.name("team"), self.chosen.text()
            of = {"name": name, "parent_team_id": parent, "description": description}
            parent = await self.make("/teams", **of)
            await self.post(f"/teams/{parent}/members", {"user_id": self.people["ann"]})
        # One name below several parents, and one that differs in its case alone.
        for where in (None, *self.ids["/teams"][:2]):
            for name in ("Twin", "twin"):
                await self.make("/teams", name=name, parent_team_id=where)
        await self.post(f"/teams/{parent}/members", {"user_id": self.people["gone"]})

    async def projects(self) -> None:
        for team_id in (None, *self.ids["/teams"][:3]):
            name = self.chosen.name("project")
            project_id = await self.make("/projects", name=name, team_id=team_id)
            for kind in ("dev", "prod", "other"):
                await self.make(
                    "/environments",
                    project_id=project_id,
                    name=self.chosen.name("environment"),
                    type=kind,
                    kind="prod" if kind == "prod" else "non_prod",
                    risk_level=self.chosen.random.randint(0, 4),
                    description=self.chosen.text(),
                )
            await self.bind(project_id, self.ids["/environments"][-3:])

    async def bind(self, project_id: str, environments: list[str]) -> None:
        for index, (line, connection_id) in enumerate(self.lines.items()):
            ref = f"{project_id[-6:]}/{index}/{self.chosen.name('ref').strip('/.') or 'x'}"
            for more in ({"environment_id": environments[index % 3]}, {"cluster_name": "Ost"}):
                body = {
                    "provider_type": "file",
                    "secret_ref": f"{ref}/{len(more)}{next(iter(more))}".replace("//", "/-/"),
                    "provider_connection_id": connection_id,
                    "allowed_ops": ["patch", "read"] if self.chosen.yes() else ["read"],
                    "allowed_keys": None if line == "one" else ["a b", "yes", "2026"],
                    **more,
                }
                await self.post(f"/projects/{project_id}/secrets", body)

    async def workflows(self) -> None:
        knobs: list[dict[str, Any]] = [
            {"min_approvers": 50, "approver_role_id": self.ids["/roles"][1]},
            {"auto_approve": True, "enabled": False, "notification_channels": ["yes", "a b"]},
            {"is_default": True, "request_ttl_seconds": 1, "require_justification": False},
            {"enabled": False, "allow_self_approval": True, "requires_security_approval": True},
        ]
        for more in knobs:
            name, description = self.chosen.name("workflow"), self.chosen.text()
            await self.make("/workflows", name=name, description=description, **more)

    async def rules(self) -> None:
        asks, auto, default, off = self.ids["/workflows"]
        project_id, environment_id = self.ids["/projects"][1], self.ids["/environments"][3]
        names = [self.chosen.name("rule") for _ in range(8)]
        pinned = {"environment_kind": "non_prod"}
        for place, (workflow_id, anchor, selector) in enumerate((
            (asks, {}, {"secret_ref_prefix": "yes/ "}),
            (auto, {}, {**pinned, "project_id": project_id}),
            (off, {}, {"environment": "0x1F", "provider_type": "file", "operation": "patch"}),
            (asks, {"project_id": project_id}, {**pinned, "environment_id": environment_id}),
            (auto, {"project_id": project_id}, {**pinned, "project_id": project_id}),
            (off, {"team_id": self.ids["/teams"][1]}, {**pinned, "secret_ref_prefix": "~1"}),
            (default, {"team_id": self.ids["/teams"][3]}, pinned),
        )):  # fmt: skip
            await self.make(
                "/policies",
                # One name at several places, each of which has it once.
                name=names[0] if place in (0, 3, 5) else names[place],
                selector=selector,
                workflow_id=workflow_id,
                priority=self.chosen.random.choice([-5, 100, 100, 9000]),
                enabled=self.chosen.yes(),
                requires_mfa=self.chosen.yes(),
                **anchor,
            )
        (system,) = [one for one in (await self.admin.get("/policies")).json() if one["is_system"]]
        body = {"name": names[7], "workflow_id": asks, "priority": -7, "reveal_ttl_seconds": 30}
        await self.change(f"/policies/{system['id']}", **body)

    async def grants(self) -> None:
        scopes: list[dict[str, str]] = [
            {},
            {"team_id": self.ids["/teams"][2], "provider": "file"},
            {"project_id": self.ids["/projects"][1], "secret_ref_prefix": "~1/yes "},
            {"environment_id": self.ids["/environments"][4], "cluster": "Ost"},
        ]
        for place, scope in enumerate(scopes):
            for person in PEOPLE[: 1 + place]:
                await self.make(
                    "/user-roles",
                    user_id=self.people[person],
                    role_id=self.chosen.random.choice(self.ids["/roles"]),
                    scope=scope,
                    expires_at=(utc_now() + timedelta(days=place)).isoformat() if place else None,
                    reason=self.chosen.text() or None,
                )
        await self.admin.http.delete(f"/api/v1/user-roles/{self.ids['/user-roles'][1]}")

    async def afterwards(self) -> None:
        """Archive, disable and move what has something on it; grants of what is gone go too."""
        for noun, index in (("projects", 3), ("teams", 3)):
            path = f"/{noun}/{self.ids[f'/{noun}'][index]}"
            await self.change(f"{path}/status", status="archived")
        moved = self.ids["/teams"][-1]
        await self.change(f"/teams/{moved}", parent_team_id=self.ids["/teams"][1])
        body = {"name": "2026-12-31 ~/", "auto_approve": True, "description": "asks nobody"}
        (standard,) = [
            one for one in (await self.admin.get("/workflows")).json() if one["name"] == "standard"
        ]
        await self.change(f"/workflows/{standard['id']}", **{**body, "name": "standard"})


async def settled(plane: Stack, seed: int) -> Maker:
    """Return an installation with what no file makes: accounts and provider connections."""
    admin = await plane.person("admin", "admin")
    made = Maker(plane, admin, Choice(seed))
    for name in PEOPLE:
        made.people[name] = (await plane.person(name)).id
    for name in ("one", "two"):
        made.lines[name] = await plane.connection(name=name)
    return made


@pytest.fixture
def other_url(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[str]:
    """Another empty database of the same kind."""
    if database_url.startswith("sqlite"):
        template: Path = request.getfixturevalue("sqlite_template")
        shutil.copy(template, tmp_path / "other.db")
        yield f"sqlite:///{tmp_path / 'other.db'}"
        return
    server: servers.PostgresServer = request.getfixturevalue("postgres_server")
    name = new_name()
    server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield server.url(name)
    server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def elsewhere(request: pytest.FixtureRequest, url: str, root: Path) -> AsyncIterator[Stack]:
    redis_url = None
    if url.startswith("postgres"):
        redis_url = request.getfixturevalue("redis_server").url
    async with stack.running(url, redis_url, root) as found:
        yield found


async def exported(admin: Person) -> dict[str, Any]:
    answer = await admin.get("/organisation/export")
    assert answer.status_code == 200, answer.text
    assert answer.json()["left_out"] == []
    document: dict[str, Any] = answer.json()["document"]
    return document


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_exported_can_be_applied_here_and_elsewhere(
    request: pytest.FixtureRequest, plane: Stack, other_url: str, tmp_path: Path, seed: int
) -> None:
    made = await settled(plane, seed)
    await made.everything()
    document = await exported(made.admin)
    # As a file it is the same.
    file = written(document)
    assert read(file) == document
    planned = await made.post("/organisation/apply?plan=true", read(file))
    changing = [step for step in planned["steps"] if step["action"] != "unchanged"]
    assert changing == []
    (tmp_path / "other").mkdir()
    async with elsewhere(request, other_url, tmp_path / "other") as other:
        there = await settled(other, seed)
        done = await there.post("/organisation/apply", read(file))
        assert done["created"] > 60
        assert await exported(there.admin) == document
        again = await there.post("/organisation/apply?plan=true", read(file))
        assert (again["created"], again["updated"]) == (0, 0)
