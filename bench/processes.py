"""Processes of the product: started with an environment, waited for, measured, stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

READY_SECONDS = 30.0
STOP_SECONDS = 20.0
MEGABYTE = 1024 * 1024


class NotReadyError(Exception):
    """A process ended or kept silent instead of becoming ready; says which, with its last lines."""


class Process:
    """One `sb` command under measurement."""

    def __init__(self, name: str, args: list[str], environ: Mapping[str, str], root: Path) -> None:
        self.name = name
        self._log = root / f"{name}.log"
        keep = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self.started_at = time.perf_counter()
        with self._log.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "sb.cli.main", *args],
                env={**keep, **environ},
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._seen = psutil.Process(self.popen.pid)

    def wait_ready(self, port: int, path: str = "/readyz") -> None:
        """Return once the probe answers 200."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.popen.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise self._not_ready()

    def read_line(self) -> bytes:
        """Return the process's next line of output."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise self._not_ready()
        return line

    def _not_ready(self) -> NotReadyError:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return NotReadyError(f"sb {self.name} is not ready:\n{tail}")

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, in user and in kernel."""
        used = self._seen.cpu_times()
        return float(used.user + used.system)

    def rss_megabytes(self) -> float:
        """Return the resident memory."""
        return float(self._seen.memory_info().rss) / MEGABYTE

    def stop(self) -> None:
        """End the process, gently first."""
        self.popen.terminate()
        try:
            self.popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()


@contextmanager
def running(
    name: str, args: list[str], environ: Mapping[str, str], root: Path
) -> Iterator[Process]:
    """Run the command for as long as the context lasts."""
    process = Process(name, args, environ, root)
    try:
        yield process
    finally:
        process.stop()


def tree_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its living children."""
    parent = psutil.Process(pid)
    total = 0.0
    for process in (parent, *parent.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system
    return total
