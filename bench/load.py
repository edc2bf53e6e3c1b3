"""`wrk` with a script: load from outside Python, so that the client is not the bottleneck."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

SCRIPTS = Path(__file__).parent / "wrk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run of wrk saw."""

    rate: float
    p50_ms: float
    p99_ms: float
    socket_errors: int
    statuses: dict[str, int]


async def wrk(
    script: str, port: int, *, connections: int, seconds: int, environ: dict[str, str] | None = None
) -> Load:
    """Return what one thread of wrk saw after running the script this long."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s"]
    command += ["-s", str(SCRIPTS / script), f"http://127.0.0.1:{port}"]
    report = {"BENCH_REPORT": str(SCRIPTS / "report.lua")}
    run = partial(
        trio.run_process,
        command,
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        env={**os.environ, **report, **(environ or {})},
    )
    done = await run()
    line = next(x for x in done.stdout.decode().splitlines() if x.startswith("JSON "))
    found = json.loads(line.removeprefix("JSON "))
    return Load(
        rate=found["requests"] / found["seconds"],
        p50_ms=found["p50_ms"],
        p99_ms=found["p99_ms"],
        socket_errors=found["socket_errors"],
        statuses=found["statuses"],
    )
