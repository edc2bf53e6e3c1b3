"""A whole installation: two of each process on a Postgres and a Redis of their own, and people."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from sb.db.engine import Database
from sb_agent.providers.file import FileProvider
from tests import servers
from tests.processes import leaks
from tests.processes.process import Process
from tests.servers import free_port
from tests.stack import MASTER_KEY, PASSWORD, add_user

PAIRS = 6
READABLE = 150
WRITABLE = 50
GRACE_SECONDS = 10
DELAY_SECONDS = 1
ADMIN = ("admin@example.com", "the-first-administrator")
RECOVERY_SECONDS = 1
ADDRESSES = {"api": "API_ADDR", "worker": "SB_WORKER_LOCAL_ADDR", "agent": "SB_LOCAL_ADDR"}


@dataclass(frozen=True, kw_only=True)
class Person:
    """An account with a session."""

    id: str
    email: str
    token: str


@dataclass(kw_only=True)
class Fleet:
    """The processes by name, what they stand on, and who uses them."""

    root: Path
    postgres: servers.PostgresServer
    redis: servers.RedisServer
    database: str
    mark: str
    store: FileProvider
    processes: dict[str, Process] = field(default_factory=dict)
    connection_id: str = ""
    admin: Person = field(init=False)
    developers: list[Person] = field(default_factory=list)
    approvers: list[Person] = field(default_factory=list)
    #: Everything any process answered, but for the values that were revealed.
    answers: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Process:
        return self.processes[name]

    @property
    def apis(self) -> tuple[Process, Process]:
        return self["api-1"], self["api-2"]

    @property
    def workers(self) -> tuple[Process, Process]:
        return self["worker-1"], self["worker-2"]

    @property
    def agents(self) -> tuple[Process, Process]:
        return self["agent-1"], self["agent-2"]

    def rows(self, query: str, *params: object) -> list[dict[str, Any]]:
        """Return what a query finds in the database."""
        with psycopg.connect(self.database, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), params).fetchall()

    def change(self, statement: str, *params: object) -> None:
        """Do to the database what only time does."""
        with psycopg.connect(self.database) as connection:
            assert connection.execute(statement.encode(), params).rowcount > 0, statement

    def agent_id(self, process: Process) -> str:
        """Return the identity of an agent's process."""
        (row,) = self.rows("SELECT id::text AS id FROM agents WHERE name = %s", process.name)
        return str(row["id"])

    def wait_ready(self) -> None:
        """Return once every process is running and ready."""
        for process in self.processes.values():
            process.wait_ready()

    def end(self) -> None:
        """Leave no process running."""
        for process in self.processes.values():
            process.ask_to_end()
        for process in self.processes.values():
            process.end()

    def post(self, path: str, body: Any, token: str | None = None) -> Any:
        """Return what the first API answers to a call that must not fail."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self['api-1'].url}/api/v1{path}"
        answer = httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)
        assert answer.is_success, answer.text
        self.answers.append(answer.text)
        return answer.json()

    def sign_in(self, email: str, password: str = PASSWORD) -> Person:
        """Return the person with a new session."""
        found = self.post("/auth/login", {"email": email, "password": password})
        return Person(id=found["user"]["id"], email=email, token=found["token"])

    def enrolment_token(self, connection_id: str) -> str:
        """Return a token that lets one agent in."""
        path = f"/provider-connections/{connection_id}/agent-enrollment-token"
        return str(self.post(path, {}, self.admin.token)["enrollment_token"])

    def leaks(self) -> list[str]:
        """Return every place but the answers to reveals where a planted value shows up."""
        return leaks.hits(self.mark, self.places())

    def places(self) -> dict[str, bytes]:
        """Return whatever the installation keeps, says or has said, by where."""
        running = [process for process in self.processes.values() if process.is_running]
        return {
            **leaks.tables(self.database),
            **leaks.redis_contents(self.redis.url),
            **leaks.files(self.root),
            **leaks.files(self.postgres.root),
            **{f"metrics of {found.name}": found.metrics().encode() for found in running},
            "answers": "\n".join(self.answers).encode(),
        }


@contextmanager
def running() -> Iterator[Fleet]:
    """Run an installation for as long as the context lasts; every process ends with it."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-fleet-")))
        postgres = stack.enter_context(servers.postgres())
        redis = stack.enter_context(servers.redis())
        stack.callback(leaks.RedisTap(redis.port, root / "redis-monitor.log").close)
        mark = leaks.new_mark()
        fleet = Fleet(
            root=root,
            postgres=postgres,
            redis=redis,
            database=postgres.url("postgres"),
            mark=mark,
            store=_filled_store(root, mark),
        )
        stack.callback(fleet.end)
        migrate(fleet.database)
        _start_control_plane(fleet)
        _invite(fleet)
        _start_agents(fleet)
        fleet.wait_ready()
        yield fleet


def planted(fleet: Fleet, ref: str, key: str = "PASSWORD") -> str:
    """Return what the store holds at the moment."""
    return str(fleet.store.read(ref, {}).values[key])


def _filled_store(root: Path, mark: str) -> FileProvider:
    store = FileProvider(root / "store.enc", root / "store.enc.key")
    names = [f"read/{n}" for n in range(READABLE)] + [f"patch/{n}" for n in range(WRITABLE)]
    keys = ("PASSWORD", "OTHER")
    store.seed(
        {name: {key: leaks.new_value(mark, f"{name} {key}") for key in keys} for name in names}
    )
    return store


def migrate(database: str) -> None:
    """Bring the schema to this release."""
    command = [sys.executable, "-m", "sb.cli.main", "migrate"]
    subprocess.run(command, env={"DATABASE_URL": database}, check=True, capture_output=True)


def database_settings(database: str, redis: str) -> dict[str, str]:
    """Return what every process with a database reads."""
    return {
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        "SB_ENV": "dev",
        # Long enough for a test to hold a row and look around on a busy machine.
        "SB_DATABASE_LOCK_TIMEOUT": "6s",
        "SB_DATABASE_STATEMENT_TIMEOUT": "8s",
    }


def api_settings(database: str, redis: str) -> dict[str, str]:
    """Return what an API reads, but for its address."""
    return {
        **database_settings(database, redis),
        "SB_AUTO_MIGRATE": "false",
        "SB_WRAP_MASTER_KEYS": MASTER_KEY,
        "SB_BOOTSTRAP_ADMIN_EMAIL": ADMIN[0],
        "SB_BOOTSTRAP_ADMIN_PASSWORD": ADMIN[1],
        "API_SHUTDOWN_GRACE": f"{GRACE_SECONDS}s",
        "API_SHUTDOWN_DELAY": f"{DELAY_SECONDS}s",
        "SB_RATE_LOGIN": "100000",
        "SB_RATE_WRAP_RETRIEVE": "100000",
        "SB_RATE_HEARTBEAT": "100000",
    }


def _start_control_plane(fleet: Fleet) -> None:
    api = api_settings(fleet.database, fleet.redis.url)
    worker = database_settings(fleet.database, fleet.redis.url)
    sweeps = ("WRAPS_EXPIRED", "REQUESTS_EXPIRED", "JOBS_RECOVERY", "AGENTS_STALE")
    for sweep in (*sweeps, "IDEMPOTENCY_EXPIRED", "SESSIONS_PURGE", "ENROLLMENT_TOKENS"):
        worker[f"SB_WORKER_{sweep}_INTERVAL"] = f"{RECOVERY_SECONDS}s"
    for number in (1, 2):
        _start(fleet, f"worker-{number}", worker)
    # One after the other: that two first starts may coincide has a test of its own.
    _start(fleet, "api-1", api).wait_ready()
    _start(fleet, "api-2", api)


def _start(fleet: Fleet, name: str, environ: dict[str, str]) -> Process:
    command, port = name.partition("-")[0], free_port()
    environ = {**environ, ADDRESSES[command]: f"127.0.0.1:{port}"}
    process = Process(name, command, environ, port, fleet.root)
    fleet.processes[name] = process
    process.start()
    return process


def _invite(fleet: Fleet) -> None:
    fleet.admin = fleet.sign_in(*ADMIN)
    db = Database.open(fleet.database)
    try:
        for role in ("developer", "approver"):
            emails = [f"{role}-{number}@example.com" for number in range(PAIRS)]
            for email in emails:
                db.run_sync(partial(add_user, email=email, role=role))
            getattr(fleet, f"{role}s").extend(map(fleet.sign_in, emails))
    finally:
        db.close()


def _start_agents(fleet: Fleet) -> None:
    body = {"name": "the-store", "type": "file"}
    fleet.connection_id = fleet.post("/provider-connections", body, fleet.admin.token)["id"]
    for number, api in enumerate(fleet.apis, start=1):
        name = f"agent-{number}"
        environ = {
            "SB_CP_ENDPOINT": api.url,
            "SB_INSECURE_TRANSPORT": "true",
            "SB_AGENT_NAME": name,
            "SB_ENROLLMENT_TOKEN": fleet.enrolment_token(fleet.connection_id),
            "SB_IDENTITY_FILE": str(fleet.root / name / "identity.json"),
            "SB_AGENT_PRIVATE_KEY_FILE": str(fleet.root / name / "private.key"),
            "SB_PROVIDER_TYPE": "file",
            "SB_FILE_STORE_PATH": str(fleet.root / "store.enc"),
            "SB_SHUTDOWN_GRACE": f"{GRACE_SECONDS}s",
        }
        _start(fleet, name, environ)
