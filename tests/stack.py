"""A running control plane for tests: real HTTP on a real port, real databases, real agents."""

from __future__ import annotations

import base64
import dataclasses
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio
from prometheus_client import CollectorRegistry

from sb import serve
from sb.auth.passwords import Parameters, PasswordHasher, hash_password
from sb.clock import utc_now
from sb.coord import Coordinator
from sb.db.engine import Database, Transaction
from sb.http.app import create_app
from sb.http.state import AppState
from sb.ids import new_id
from sb.ops import bootstrap, grants, users
from sb.secret import Secret
from sb.settings import ApiSettings, load
from sb_agent import daemon as agent_daemon
from sb_agent.providers import Provider
from sb_agent.providers.file import FileProvider
from sb_agent.settings import AgentSettings
from tests.servers import free_port

#: Cheap hashes: tests sign in hundreds of times.
CHEAP = Parameters(memory_kib=64, time_cost=1, parallelism=1)
PASSWORD = "a-password-for-tests"
PASSWORD_HASH = hash_password(Secret(PASSWORD.encode()), CHEAP)
MASTER_KEY = base64.b64encode(b"m" * 32).decode()


def add_user(
    tx: Transaction, *, email: str, role: str | None = None, scope: dict[str, str] | None = None
) -> str:
    """Create an account with one grant and return its id."""
    user_id = users.create(
        tx,
        email=email,
        password_hash=PASSWORD_HASH,
        display_name=email.split("@")[0],
        now=utc_now(),
    )
    if role is not None:
        found = tx.one("role_find_by_name", name=role)
        assert found is not None
        grants.give(
            tx,
            user_id=user_id,
            role_id=found["id"],
            scope=scope or {},
            granted_by="system:test",
            now=utc_now(),
        )
    return user_id


@dataclasses.dataclass
class Person:
    """A signed-in person's HTTP client."""

    id: str
    email: str
    http: httpx.AsyncClient

    async def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return await self.http.get(f"/api/v1{path}", **kwargs)

    async def post(self, path: str, json: Any = None, **kwargs: Any) -> httpx.Response:
        return await self.http.post(f"/api/v1{path}", json=json, **kwargs)


@dataclasses.dataclass
class Stack:
    """One API process's worth of control plane inside the test's own event loop."""

    url: str
    db: Database
    coord: Coordinator
    state: AppState
    nursery: trio.Nursery
    root: Path
    stop: trio.Event
    _people: dict[str, Person] = dataclasses.field(default_factory=dict)

    async def person(
        self, name: str, role: str | None = None, scope: dict[str, str] | None = None
    ) -> Person:
        """Return a signed-in person of this name, made at first use."""
        if name not in self._people:
            email = f"{name}@example.com"
            user_id = await self.db.run(add_user, email=email, role=role, scope=scope)
            http = httpx.AsyncClient(base_url=self.url, timeout=30)
            answer = await http.post(
                "/api/v1/auth/login", json={"email": email, "password": PASSWORD}
            )
            assert answer.status_code == 200, answer.text
            http.headers["Authorization"] = f"Bearer {answer.json()['token']}"
            http.cookies.clear()
            self._people[name] = Person(id=user_id, email=email, http=http)
        return self._people[name]

    async def connection(self, kind: str = "file", name: str | None = None) -> str:
        """Create a provider connection as an administrator and return its id."""
        admin = await self.person("admin", "admin")
        body = {"name": name or f"c-{secrets.token_hex(4)}", "type": kind}
        answer = await admin.post("/provider-connections", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def token(self, connection_id: str) -> str:
        """Issue an enrolment token as an administrator and return it."""
        admin = await self.person("admin", "admin")
        path = f"/provider-connections/{connection_id}/agent-enrollment-token"
        answer = await admin.post(path, {})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["enrollment_token"])

    async def enroll(self, connection_id: str, name: str | None = None, **extra: Any) -> RawAgent:
        """Enrol an agent that the test drives call by call."""
        http = httpx.AsyncClient(base_url=self.url, timeout=40)
        body = {"enrollment_token": await self.token(connection_id), **extra}
        body["agent_name"] = name or f"agent-{secrets.token_hex(4)}"
        answer = await http.post("/api/v1/agents/enroll", json=body)
        assert answer.status_code == 201, answer.text
        found = answer.json()
        http.headers["X-Agent-Secret"] = found["agent_token"]
        return RawAgent(id=found["agent_id"], http=http, enrolled=found)

    async def agent(self, connection_id: str, provider: Provider | None = None) -> str:
        """Start a real agent in this event loop and return its id."""
        settings = AgentSettings(
            cp_endpoint=self.url,
            insecure_transport=True,
            identity_file=self.root / f"identity-{new_id()}.json",
            enrollment_token=Secret((await self.token(connection_id)).encode()),
            agent_name=f"agent-{secrets.token_hex(4)}",
            provider_type="file",
            local_addr="",
            shutdown_grace_seconds=1.0,
        )
        store = provider or self.file_store()

        async def run(task_status: trio.TaskStatus[str]) -> None:
            await agent_daemon.run(
                settings,
                stop=trio.Event(),
                registry=CollectorRegistry(),
                provider=store,
                task_status=task_status,
            )

        return str(await self.nursery.start(run))

    def file_store(self) -> FileProvider:
        """Return the stack's sample store."""
        store = FileProvider(self.root / "store.enc", self.root / "store.key")
        store.seed({"app/db": {"USER": "u-value", "PASSWORD": "p-value"}})
        return store


@dataclasses.dataclass
class RawAgent:
    """An enrolled agent without a loop of its own."""

    id: str
    http: httpx.AsyncClient
    enrolled: dict[str, Any]

    async def post(self, path: str, json: Any = None, **kwargs: Any) -> httpx.Response:
        return await self.http.post(f"/api/v1/agents/{self.id}{path}", json=json, **kwargs)

    async def get(self, path: str, **kwargs: Any) -> httpx.Response:
        return await self.http.get(f"/api/v1/agents/{self.id}{path}", **kwargs)


def api_settings(database_url: str, redis_url: str | None, port: int, **extra: str) -> ApiSettings:
    """Return settings of a test API."""
    found = {
        "DATABASE_URL": database_url,
        "SB_ENV": "dev",
        "SB_WRAP_MASTER_KEY": MASTER_KEY,
        "API_ADDR": f"127.0.0.1:{port}",
        "API_SHUTDOWN_DELAY": "0s",
        "API_SHUTDOWN_GRACE": "1s",
        "SB_RATE_LOGIN": "100000",
        "SB_RATE_WRAP_RETRIEVE": "100000",
        **extra,
    }
    if redis_url is not None:
        found["REDIS_URL"] = redis_url
        found["REDIS_NAMESPACE"] = f"t{secrets.token_hex(6)}"
    return load(ApiSettings, found)


@asynccontextmanager
async def running(
    database_url: str, redis_url: str | None, root: Path, **extra: str
) -> AsyncIterator[Stack]:
    """Serve a control plane over this database for as long as the context lasts."""
    port = free_port()
    settings = api_settings(database_url, redis_url, port, **extra)
    async with (
        serve.open_database(settings) as db,
        serve.open_coordinator(settings) as coord,
        trio.open_nursery() as nursery,
    ):
        db.migrate_sync()
        state = dataclasses.replace(
            serve.build_state(settings, db=db, coord=coord, registry=CollectorRegistry()),
            hasher=PasswordHasher(CHEAP),
        )
        await db.run(bootstrap.seed, now=utc_now())
        stop = trio.Event()

        async def api(task_status: trio.TaskStatus[str]) -> None:
            await serve.serve(
                create_app(state),
                settings.address,
                state=state,
                settings=settings,
                stop=stop,
                task_status=task_status,
            )

        url = await nursery.start(api)
        stack = Stack(
            url=url, db=db, coord=coord, state=state, nursery=nursery, root=root, stop=stop
        )
        yield stack
        stop.set()
        nursery.cancel_scope.cancel()


async def until(check: Any, *, seconds: float = 20) -> Any:
    """Return the first truthy answer of an async check."""
    with trio.fail_after(seconds):
        while True:
            found = await check()
            if found:
                return found
            await trio.sleep(0.02)
