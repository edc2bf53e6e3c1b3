"""The `sb` command as people start it: a process of its own, with an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

SB = (sys.executable, "-m", "sb.cli.main")
START_SECONDS = 30.0
#: Generous: a process that stops in order needs well under one second.
STOP_SECONDS = 5.0


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment that holds nothing of the one the tests run in."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **more}


def sb(
    *arguments: str, home: Path, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; it has no terminal and nothing to read."""
    return subprocess.run(
        [*SB, *arguments],
        env=environment(home, **(environ or {})),
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        start_new_session=True,
    )


def until(look: Callable[[], T], *, seconds: float = 20.0) -> T:
    """Return the first truthy answer."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


@dataclass
class Process:
    """A running command: what it says goes to a pipe, what it logs to a file."""

    popen: subprocess.Popen[str]
    log: Path
    #: Read from the pipe and not asked for yet.
    _said: str = ""

    def line(self, seconds: float = START_SECONDS) -> str:
        """Return the next line of standard output."""
        assert self.popen.stdout is not None
        while "\n" not in self._said:
            assert select.select([self.popen.stdout], [], [], seconds)[0], "says nothing"
            piece = os.read(self.popen.stdout.fileno(), 65536).decode()
            assert piece, f"ended: {self.errors()}"
            self._said += piece
        found, newline, self._said = self._said.partition("\n")
        return found + newline

    def errors(self) -> str:
        """Return what went to standard error so far."""
        return self.log.read_text()

    def records(self) -> list[dict[str, Any]]:
        """Return the log; every complete line of it is JSON."""
        return [json.loads(line) for line in self.errors().split("\n")[:-1]]

    def signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Wait for the process to end and return its status and what else it had to say."""
        rest, _ = self.popen.communicate(timeout=STOP_SECONDS)
        return self.popen.returncode, self._said + rest


@contextlib.contextmanager
def started(*arguments: str, home: Path, **more: str) -> Iterator[Process]:
    """Run the command for as long as the context lasts, or until it ends by itself."""
    log = home / f"{arguments[0]}-{time.monotonic_ns()}.log"
    with log.open("w") as errors:
        popen = subprocess.Popen(
            [*SB, *arguments],
            env=environment(home, **more),
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield Process(popen, log)
    finally:
        popen.kill()
        popen.wait()
        if popen.stdout is not None:
            popen.stdout.close()


@dataclass
class Dev:
    """A running `sb dev --json` and what it announced."""

    process: Process
    data: Path
    home: Path
    announced: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.announced["url"])

    @property
    def passwords(self) -> dict[str, str]:
        """Passwords of the sample users by their role."""
        return {user["roles"][0]: user["password"] for user in self.announced["users"]}

    def person(self, role: str) -> httpx.Client:
        """Return a signed-in client of the sample user with this role."""
        return sign_in(self.url, f"{role}@example.com", self.passwords[role])


def sign_in(url: str, email: str, password: str) -> httpx.Client:
    """Return a client with a session of its own."""
    body = {"email": email, "password": password}
    answer = httpx.post(f"{url}/api/v1/auth/login", json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    headers = {"Authorization": f"Bearer {answer.json()['token']}"}
    return httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=10)


def has_status(http: httpx.Client, request_id: str, status: str) -> dict[str, Any]:
    """Return the request once it has the status; nothing but `approved` may come before."""

    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = http.get(f"/requests/{request_id}").json()
        assert found["status"] in ("approved", status), found
        return found if found["status"] == status else None

    found = until(look)
    assert found is not None
    return found


@contextlib.contextmanager
def dev(home: Path, data: Path, port: int, **more: str) -> Iterator[Dev]:
    """Run dev mode; it has said that it is ready."""
    settings: Mapping[str, str] = {"LOG_LEVEL": "debug", "SB_RATE_LOGIN": "100000", **more}
    arguments = ("dev", "--json", "--port", str(port), "--data-dir", str(data))
    with started(*arguments, home=home, **settings) as process:
        yield Dev(process, data, home, json.loads(process.line()))
