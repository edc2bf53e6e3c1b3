"""One process of the product: started with an environment, watched, signalled, ended by its pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil

#: The machine may be busy with other things: a start takes two seconds when it is not.
READY_SECONDS = 120.0
STOP_SECONDS = 40.0
KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


class Process:
    """One `sb` command; its log file goes on over restarts."""

    def __init__(self, name: str, command: str, environ: Mapping[str, str], port: int, root: Path):
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self.log = root / f"{name}.log"
        self._command = command
        self._environ = environ
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._popen is not None
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Start it; it is ready some time later."""
        assert not self.is_running, self.name
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "sb.cli.main", self._command],
                env={**kept, **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of `/readyz`; 0 when nobody answers."""
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return 0, {}
        return answer.status_code, answer.json()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Return once `/readyz` answers 200."""
        deadline = time.monotonic() + seconds
        found: tuple[int, dict[str, Any]] = 0, {}
        while time.monotonic() < deadline:
            assert self.is_running, f"{self.name} ended:\n{self.tail()}"
            found = self.readiness()
            if found[0] == 200:
                assert self._listens(), f"somebody else answers for {self.name}:\n{self.tail()}"
                return
            time.sleep(0.05)
        raise TimeoutError(f"{self.name} is not ready: {found}\n{self.tail()}")

    def _listens(self) -> bool:
        sockets = psutil.Process(self.pid).net_connections("tcp")
        return any(
            found.status == psutil.CONN_LISTEN and found.laddr.port == self._port
            for found in sockets
        )

    def metrics(self) -> str:
        """Return what Prometheus would read."""
        return httpx.get(f"{self.url}/metrics", timeout=10, trust_env=False).text

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._popen is not None
        self._popen.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would, and return when it is gone."""
        assert self._popen is not None
        self._popen.kill()
        self._popen.wait(STOP_SECONDS)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Return the exit status, once there is one."""
        assert self._popen is not None
        return self._popen.wait(seconds)

    def ask_to_end(self) -> None:
        """Send what a supervisor sends, also to a process that was stopped in its tracks."""
        if self._popen is not None and self.is_running:
            self._popen.send_signal(signal.SIGCONT)
            self._popen.terminate()

    def end(self) -> None:
        """Leave no process behind, whatever state it is in."""
        self.ask_to_end()
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_SECONDS)
                return
            self.kill()

    def tail(self) -> str:
        """Return the last lines it logged."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
