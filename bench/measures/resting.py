"""What it costs to have it: the start and the memory of `sb dev`, and processor time at rest."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import trio
from tests.servers import free_port

from bench import processes
from bench.plan import Plan
from bench.plane import Plane
from bench.stats import Goal, metric

SETTLE_SECONDS = 2.0


def dev_start(plan: Plan) -> dict[str, Any]:
    """Return how soon `sb dev` is ready on an empty directory and on a used one, and its memory."""
    first, again, memory = [], [], []
    for _ in range(plan.repeats):
        with tempfile.TemporaryDirectory(prefix="sb-bench-") as root:
            for times in (first, again):
                seconds, megabytes = _start(Path(root))
                times.append(seconds)
            memory.append(megabytes)
    return {
        "first_start": metric(first, "s", Goal(2)),
        "second_start": metric(again, "s", Goal(2)),
        "rss": metric(memory, "MB", Goal(160)),
    }


def _start(root: Path) -> tuple[float, float]:
    port = free_port()
    args = ["dev", "--json", "--port", str(port), "--data-dir", str(root / "data")]
    with processes.running("dev", args, {}, root) as dev:
        dev.read_line()
        dev.wait_ready(port)
        seconds = time.perf_counter() - dev.started_at
        return seconds, dev.rss_megabytes()


async def idle(plane: Plane) -> dict[str, Any]:
    """Return the share of one core that the product takes with one agent and nothing to do."""
    await trio.sleep(min(SETTLE_SECONDS, plane.plan.idle_seconds))
    runs = [await _idle_run(plane) for _ in range(plane.plan.repeats)]
    product = {process.name for process in plane.product}
    each = {name: metric([run[name] for run in runs], "% of a core") for name in runs[0]}
    totals = [sum(share for name, share in run.items() if name in product) for run in runs]
    return {
        "product": metric(totals, "% of a core", Goal(2)),
        "each": each,
        "rss": {process.name: metric([process.rss_megabytes()], "MB") for process in plane.product},
        "seconds_per_run": plane.plan.idle_seconds,
    }


async def _idle_run(plane: Plane) -> dict[str, float]:
    meters = {process.name: process.cpu_seconds for process in plane.product} | plane.servers
    before = {name: used() for name, used in meters.items()}
    begun = time.perf_counter()
    await trio.sleep(plane.plan.idle_seconds)
    took = time.perf_counter() - begun
    return {name: (used() - before[name]) / took * 100 for name, used in meters.items()}
