"""A real server on a real socket: declared toy routes over a SQLite database, Hypercorn on Trio."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry
from pydantic import AwareDatetime, Field

from sb.auth.passwords import PasswordHasher
from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.coord.memory import MemoryCoordinator
from sb.db.engine import Database, Transaction
from sb.errors import CoordUnavailableError, Denial, NotFoundError, PermissionDeniedError
from sb.http.app import create_app
from sb.http.bodies import Body, Query, Text
from sb.http.declare import REGISTRY, Agent, Call, Public, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.limits import RateLimit
from sb.http.pages import Page, next_link
from sb.http.routes import load_all
from sb.http.state import AppState
from sb.ids import new_id
from sb.kms.local import LocalKeyRing
from sb.metrics import HttpMetrics
from sb.ops import agents, audit, bootstrap, sessions
from sb.ops.callers import Anonymous, System
from sb.secret import Secret
from sb.serve import serve
from sb.settings import ApiSettings, load

PLANTED = "planted-value-7f3a"
MASTER_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


class NewToy(Body):
    name: Text = Field(max_length=50)
    count: int = Field(default=1, ge=0, le=100)
    tags: list[Text] = Field(default_factory=list, max_length=5)
    owner: Text | None = None


class Toy(Body):
    id: str
    name: str


class ToySearch(Query):
    name: str | None = None
    since: AwareDatetime | None = None


class ToyPage(Page):
    kind: str | None = None


@dataclasses.dataclass
class Observed:
    """What the toy routes saw, for the tests to wait for."""

    waiting: trio.Event = dataclasses.field(default_factory=trio.Event)
    cancelled: trio.Event = dataclasses.field(default_factory=trio.Event)
    go_on: trio.Event = dataclasses.field(default_factory=trio.Event)


def _declare_toys(seen: Observed) -> None:  # noqa: C901 # one declaration after the other
    @route(
        "POST",
        "/toys",
        access=Session(),
        body=NewToy,
        returns=Toy,
        status=201,
        creates=True,
        summary="Make a toy",
    )
    async def make(call: Call[NewToy]) -> Reply:
        return await run_creating(call, lambda tx: _make(tx, call))

    @route(
        "POST",
        "/toys/secret",
        access=Session(),
        body=NewToy,
        returns=Toy,
        status=201,
        creates=True,
        summary="Make a toy with a one-time secret",
    )
    async def make_secret(call: Call[NewToy]) -> Reply:
        return await run_creating(call, lambda tx: _make(tx, call), secret_response=True)

    @route("POST", "/toys/echo", access=Public(), body=NewToy, returns=NewToy, summary="Echo")
    async def echo(call: Call[NewToy]) -> Reply:
        return Reply(call.body)

    @route("GET", "/toys/literal", access=Public(), summary="A literal path")
    async def literal(call: Call[Any]) -> Reply:
        return Reply({"literal": True})

    @route("GET", "/toys/search", access=Public(), query=ToySearch, summary="Search")
    async def search(call: Call[Any]) -> Reply:
        return Reply(call.query)

    @route("GET", "/toys", access=Public(), query=ToyPage, returns=list[Toy], summary="List")
    async def list_toys(call: Call[Any]) -> Reply:
        now, start = utc_now(), 0 if call.query.before is None else 10
        rows = [Toy(id=new_id(), name=f"toy {start + n}") for n in range(call.query.limit)]
        return Reply(rows, headers=next_link(call, call.query, rows, (now, rows[-1].id)))

    @route("GET", "/toys/<id:toy_id>", access=Session(), summary="Show")
    async def show(call: Call[Any]) -> Reply:
        return Reply({"id": call.ids["toy_id"], "email": call.person.email})

    @route("PUT", "/toys/<id:toy_id>", access=Session(), status=204, summary="Touch")
    async def touch(call: Call[Any]) -> Reply:
        return Reply(None)

    @route("GET", "/toys/audited", access=Session("audit.read", "global"), summary="Permission")
    async def audited(call: Call[Any]) -> Reply:
        return Reply({"ok": True})

    @route("GET", "/toys/boom", access=Public(), summary="Fail")
    async def boom(call: Call[Any]) -> Reply:
        raise RuntimeError(PLANTED)

    @route("GET", "/toys/group", access=Public(), summary="Fail in a nursery")
    async def group(call: Call[Any]) -> Reply:
        async def child() -> None:
            raise NotFoundError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child)
        return Reply(None)

    @route("GET", "/toys/denied", access=Public(), summary="Refuse with a trail")
    async def denied(call: Call[Any]) -> Reply:
        raise PermissionDeniedError(audit=Denial("toy.denied", "toy:1", why="test"))

    @route(
        "GET", "/toys/limited", access=Public(), limit=RateLimit("toy:open", 2), summary="Limited"
    )
    async def limited(call: Call[Any]) -> Reply:
        return Reply({"ip": call.client_ip})

    @route(
        "GET",
        "/toys/closed",
        access=Public(),
        limit=RateLimit("toy:closed", 2, on_failure="closed"),
        summary="Limited, closed",
    )
    async def closed(call: Call[Any]) -> Reply:
        return Reply(None, status=204)

    @route("GET", "/toys/wait", access=Public(), summary="Long poll")
    async def wait(call: Call[Any]) -> Reply:
        seen.waiting.set()
        try:
            await call.state.stopping.wait()
        except trio.Cancelled:
            seen.cancelled.set()
            raise
        return Reply(None, status=204)

    @route("GET", "/toys/slow", access=Public(), summary="Work that a drain waits for")
    async def slow(call: Call[Any]) -> Reply:
        seen.waiting.set()
        await seen.go_on.wait()
        return Reply({"done": True})

    @route("GET", "/agents/<id:agent_id>/toys", access=Agent(), summary="An agent's route")
    async def of_agent(call: Call[Any]) -> Reply:
        return Reply({"name": call.agent.name})


def _make(tx: Transaction, call: Call[NewToy]) -> Toy:
    toy = Toy(id=new_id(), name=call.body.name)
    audit.record(tx, by=call.person, action="toy.make", resource=f"toy:{toy.id}", now=utc_now())
    return toy


class DeadCoordinator(MemoryCoordinator):
    """A store that is away."""

    async def hit(self, bucket: str, key: str, *, limit: int, window_seconds: int) -> Any:
        raise CoordUnavailableError

    async def ping(self) -> None:
        raise CoordUnavailableError


@dataclasses.dataclass
class Served:
    """A running server: a client for it, what it is made of and how to stop it."""

    client: httpx.AsyncClient
    url: str
    state: AppState
    seen: Observed
    stop: trio.Event
    finished: trio.Event

    @property
    def port(self) -> int:
        return httpx.URL(self.url).port or 0

    async def audit_rows(self, action: str) -> list[audit.AuditEvent]:
        return await self.state.db.read(
            audit.list_events, filters=audit.Filters(action=action), before=None, limit=100
        )

    async def sign_in(self, email: str = "admin@example.com", role: str = "admin") -> str:
        """Return the token of a new session of a new account with this role."""
        token, now = new_token(), utc_now()
        db = self.state.db
        await db.run(
            bootstrap.create_user,
            email=email,
            password_hash="no password opens this",
            display_name=email,
            role=role,
            action="test.user",
            now=now,
        )
        account = await db.read(sessions.find_account, email=email)
        assert account is not None
        await db.run(
            sessions.open_session,
            account=account,
            new_password_hash=None,
            token_hash=token_hash(token),
            rules=self.state.session_rules,
            ip=None,
            user_agent=None,
            by=Anonymous(),
            now=now,
        )
        return token

    async def mint_agent(self) -> tuple[str, str]:
        """Return the id and the secret of a new agent."""
        secret = new_token()
        agent = await self.state.db.run(
            agents.mint,
            by=System(part="test"),
            name="agent",
            secret_hash=token_hash(secret),
            cluster_name="c1",
            now=utc_now(),
        )
        return getattr(agent, "id", agent), secret


Serving = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def claimed_errors(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """Let the test log at error level, and return what it logged so far."""
    return lambda: [found for found in caplog.records if found.levelno >= logging.ERROR]


@pytest.fixture(autouse=True)
def no_unclaimed_errors(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Capture every level, and fail a test that logs an error it did not ask for."""
    caplog.set_level(logging.DEBUG)
    yield
    if "claimed_errors" not in request.fixturenames:
        records = caplog.get_records("call")
        assert not [found.getMessage() for found in records if found.levelno >= logging.ERROR]


@pytest.fixture
def settings(tmp_path: Path) -> ApiSettings:
    return load(
        ApiSettings,
        {
            "DATABASE_URL": f"sqlite:///{tmp_path}/sb.db",
            "SB_WRAP_MASTER_KEYS": MASTER_KEY,
            "SB_ENV": "dev",
            "API_ADDR": "127.0.0.1:0",
            "API_SHUTDOWN_DELAY": "0s",
            "API_SHUTDOWN_GRACE": "5s",
        },
    )


@pytest.fixture
def database(settings: ApiSettings) -> Iterator[Database]:
    db = Database.open(settings.database_url.get_secret_value())
    db.migrate_sync()
    db.run_sync(bootstrap.seed, now=utc_now())
    yield db
    db.close()


@pytest.fixture
def serving(settings: ApiSettings, database: Database) -> Serving:
    """Return what opens a server; keyword arguments replace fields of its state."""

    @asynccontextmanager
    async def opened(**changes: Any) -> AsyncIterator[Served]:
        seen = Observed()
        registry = CollectorRegistry()
        state = AppState(
            db=database,
            coord=MemoryCoordinator(),
            kms=LocalKeyRing.parse(Secret(MASTER_KEY.encode())),
            hasher=PasswordHasher(),
            registry=registry,
            metrics=HttpMetrics(registry),
            draining=trio.Event(),
            stopping=trio.Event(),
            secure_cookies=False,
        )
        state = dataclasses.replace(state, **changes)
        stop, finished = trio.Event(), trio.Event()

        async def run(task_status: trio.TaskStatus[str]) -> None:
            await serve(
                app,
                settings.address,
                state=state,
                settings=settings,
                stop=stop,
                task_status=task_status,
            )
            finished.set()

        with _toys(seen):
            app = create_app(state)
        async with trio.open_nursery() as nursery:
            url = await nursery.start(run)
            async with httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=20) as client:
                yield Served(client, url, state, seen, stop, finished)
            stop.set()

    return opened


class _toys:  # noqa: N801 # used as a context only
    """Toy routes beside the real ones, for as long as an app is being made."""

    def __init__(self, seen: Observed) -> None:
        self._seen = seen

    def __enter__(self) -> None:
        load_all()
        self._before = len(REGISTRY)
        _declare_toys(self._seen)

    def __exit__(self, *_: object) -> None:
        del REGISTRY[self._before :]


async def raw(port: int, data: bytes, *, until: Callable[[bytes], bool] | None = None) -> bytes:
    """Send bytes over a socket of their own and return what comes back."""
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(data)
        with trio.fail_after(10):
            async for piece in stream:
                received += piece
                if until is not None and until(received):
                    break
    return received


Raw = Callable[..., Awaitable[bytes]]


@pytest.fixture
def send_raw() -> Raw:
    return raw
