"""Throw-away servers for benchmarks: those of the tests, but as durable as in production."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import servers

SETTINGS = {"shared_buffers": "256MB", "max_connections": "100"}


class DurablePostgres(servers.PostgresServer):
    """A cluster that waits for its disk at every commit, as production does."""

    def start(self) -> None:
        options = f"-p {self.port} -k {self.root} -c listen_addresses=127.0.0.1"
        for name, value in SETTINGS.items():
            options += f" -c {name}={value}"
        log = self.root / "log"
        self._run("pg_ctl", "-D", self.data, "-l", log, "-o", options, "-w", "start")

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])


@contextlib.contextmanager
def postgres() -> Iterator[DurablePostgres]:
    """Run a cluster for as long as the context lasts."""
    root = Path(tempfile.mkdtemp(prefix="sb-bench-pg-"))
    server = DurablePostgres(root)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)
