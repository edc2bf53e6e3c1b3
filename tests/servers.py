"""Throw-away PostgreSQL and Redis servers on free loopback ports, run as an unprivileged user."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

USER = "secrets_bridge"

#: Below the ports the system gives to clients, so that no connection takes one before its server
#: listens; a slice for each worker of a parallel run, entered anywhere, for runs side by side.
_PORTS = range(10_000, 32_000)
_SLICE = len(_PORTS) // 8
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_next_port = itertools.count(random.randrange(_SLICE))


def free_port() -> int:
    """Return a loopback port nobody listens on, and no other call in this run returned."""
    while True:
        port = _PORTS.start + _worker * _SLICE + next(_next_port) % _SLICE
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _as_nobody() -> dict[str, object]:
    # Postgres refuses to run as root.
    return {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}


def _own(path: Path) -> None:
    if os.getuid() == 0:
        shutil.chown(path, "nobody", "nogroup")
        for parent in list(path.parents)[:2]:
            if parent != Path("/tmp"):
                parent.chmod(0o755)


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if found:
        return found[-1]
    initdb = shutil.which("initdb")
    assert initdb, "PostgreSQL's server binaries are not installed"
    return Path(initdb).parent


class PostgresServer:
    """One cluster in a temporary directory; `restart` keeps its port and data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.data = root / "data"
        _own(root)
        self._run("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()

    def _run(self, tool: str, *args: object) -> None:
        subprocess.run(
            [_binaries() / tool, *map(str, args)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            **_as_nobody(),
        )

    def start(self) -> None:
        options = f"-p {self.port} -k {self.root} -c listen_addresses=127.0.0.1 -c fsync=off"
        options += " -c max_connections=200 -c shared_buffers=64MB -c full_page_writes=off"
        log = self.root / "log"
        self._run("pg_ctl", "-D", self.data, "-l", log, "-o", options, "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def restart(self) -> None:
        self.stop("fast")
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())


class RedisServer:
    """One Redis without persistence; it can be frozen, killed and started again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        _own(root)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.root)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_as_nobody()
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        msg = "redis-server does not answer"
        raise TimeoutError(msg)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Run a cluster for as long as the context lasts."""
    root = Path(tempfile.mkdtemp(prefix="sb-pg-"))
    server = PostgresServer(root)
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop()
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def redis() -> Iterator[RedisServer]:
    """Run a Redis for as long as the context lasts."""
    root = Path(tempfile.mkdtemp(prefix="sb-redis-"))
    server = RedisServer(root)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)
