"""A running control plane: separate processes, or `sb dev` on a database filled beforehand."""

from __future__ import annotations

import base64
import itertools
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import trio
from sb.cli.dev import SAMPLES
from sb_agent.providers.file import FileProvider
from tests.servers import RedisServer, free_port
from tests.servers import redis as redis_server

from bench import processes, servers
from bench.client import Client
from bench.plan import Plan
from bench.processes import Process
from bench.seed import PASSWORD, ROLES, Seeded, email, seed

#: The limits that would otherwise be measured instead of the work behind them.
UNLIMITED = {"SB_RATE_LOGIN": "1000000", "SB_RATE_WRAP_RETRIEVE": "1000000"}


@dataclass(kw_only=True)
class Plane:
    """One control plane and everything a measure needs to drive it."""

    port: int
    database_url: str
    seeded: Seeded
    plan: Plan
    product: list[Process]
    #: Processor time of the servers beside the product, by name.
    servers: dict[str, Callable[[], float]] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    _turn: Iterator[int] = field(init=False)

    def __post_init__(self) -> None:
        self._turn = itertools.cycle(range(self.seeded.pairs))

    async def sign_in(self) -> None:
        """Leave a session token for the administrator and for each pair's people."""
        client = Client(self.port)
        for address in self.seeded.users:
            body = {"email": address, "password": PASSWORD}
            answer = await client.expect(200, "POST", "/api/v1/auth/login", body)
            self.tokens[address] = answer.json()["token"]
        await client.aclose()

    def client(self, role: str, number: int = 0) -> Client:
        """Return a new connection of the role's person with this number."""
        return Client(self.port, self.tokens[email(role, number)])

    def next_pair(self) -> int:
        """Return whose turn it is: people have limits of their own, so everybody does a share."""
        return next(self._turn)

    def pairs_of_clients(self) -> list[tuple[Client, Client]]:
        """Return a developer's and an approver's connection of every pair."""
        return [
            (self.client(ROLES[0], number), self.client(ROLES[1], number))
            for number in range(self.seeded.pairs)
        ]


Planes = Callable[[Plan, int], AbstractContextManager[Plane]]


@contextmanager
def on_sqlite(plan: Plan, audit_rows: int) -> Iterator[Plane]:
    """Run `sb dev` on a filled SQLite file."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-bench-")))
        url, port = f"sqlite:///{root / 'secrets-bridge.db'}", free_port()
        found = seed(url, pairs=plan.pairs, agent_count=plan.agents, audit_rows=audit_rows)
        args = ["dev", "--json", "--port", str(port), "--data-dir", str(root)]
        dev = stack.enter_context(processes.running("dev", args, UNLIMITED, root))
        dev.read_line()
        plane = Plane(port=port, database_url=url, seeded=found, plan=plan, product=[dev])
        trio.run(plane.sign_in)
        yield plane


@contextmanager
def on_postgres(plan: Plan, audit_rows: int) -> Iterator[Plane]:
    """Run API, worker and agent as processes of their own on Postgres and Redis."""
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sb-bench-")))
        postgres = stack.enter_context(servers.postgres())
        redis = stack.enter_context(redis_server())
        url = postgres.url("postgres")
        found = seed(url, pairs=plan.pairs, agent_count=plan.agents, audit_rows=audit_rows)
        common = {"DATABASE_URL": url, "REDIS_URL": redis.url, "SB_ENV": "dev"}
        api_port, worker_port, agent_port = free_port(), free_port(), free_port()
        environments = {
            "api": ({**common, **_api(api_port)}, api_port),
            "worker": ({**common, "SB_WORKER_LOCAL_ADDR": f"127.0.0.1:{worker_port}"}, worker_port),
            "agent": (_agent(root, api_port, agent_port, found.enrollment_token), agent_port),
        }
        product = []
        for name, (environ, port) in environments.items():
            product.append(stack.enter_context(processes.running(name, [name], environ, root)))
            product[-1].wait_ready(port)
        plane = Plane(port=api_port, database_url=url, seeded=found, plan=plan, product=product)
        plane.servers["postgres"] = lambda: processes.tree_cpu_seconds(postgres.pid)
        plane.servers["redis"] = lambda: _redis_cpu_seconds(redis)
        trio.run(plane.sign_in)
        yield plane


def _api(port: int) -> dict[str, str]:
    master_key = base64.b64encode(secrets.token_bytes(32)).decode()
    return {
        "API_ADDR": f"127.0.0.1:{port}",
        "API_SHUTDOWN_DELAY": "0s",
        "API_SHUTDOWN_GRACE": "2s",
        "SB_WRAP_MASTER_KEYS": master_key,
        **UNLIMITED,
    }


def _agent(root: Path, api_port: int, port: int, token: str) -> dict[str, str]:
    store = root / "store.enc"
    FileProvider(store, Path(f"{store}.key")).seed(SAMPLES)
    return {
        "SB_CP_ENDPOINT": f"http://127.0.0.1:{api_port}",
        "SB_INSECURE_TRANSPORT": "true",
        "SB_IDENTITY_FILE": str(root / "identity.json"),
        "SB_AGENT_PRIVATE_KEY_FILE": str(root / "agent.key"),
        "SB_ENROLLMENT_TOKEN": token,
        "SB_AGENT_NAME": "bench-agent",
        "SB_PROVIDER_TYPE": "file",
        "SB_FILE_STORE_PATH": str(store),
        "SB_LOCAL_ADDR": f"127.0.0.1:{port}",
        "SB_SHUTDOWN_GRACE": "2s",
        "SB_HEARTBEAT_INTERVAL": "30s",
        "SB_CLAIM_INTERVAL": "5s",
    }


def _redis_cpu_seconds(server: RedisServer) -> float:
    for connection in psutil.net_connections("tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == server.port
        if listens and connection.pid is not None:
            return processes.tree_cpu_seconds(connection.pid)
    return 0.0
