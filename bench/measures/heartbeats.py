"""How many heartbeats one API process takes a second, each of another agent."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from bench.client import UnexpectedAnswerError
from bench.load import Load, wrk
from bench.plane import Plane
from bench.stats import Goal, metric


async def heartbeats_per_second(plane: Plane) -> dict[str, Any]:
    """Return the rate and its latency; every answer was a success."""
    plan = plane.plan
    share = len(plane.seeded.agents) // plan.repeats
    runs = [await _run(plane, number * share, share) for number in range(plan.repeats)]
    return {
        "rate": metric([run.rate for run in runs], "heartbeats/s", Goal(400, more=True)),
        "p50": metric([run.p50_ms for run in runs], "ms"),
        "p99": metric([run.p99_ms for run in runs], "ms"),
        "connections": plan.heartbeat_connections,
        "agents": len(plane.seeded.agents),
    }


async def _run(plane: Plane, start: int, count: int) -> Load:
    # Each run takes agents of its own, since six heartbeats a minute is what one agent may send.
    chosen = plane.seeded.agents[start : start + count]
    with tempfile.TemporaryDirectory() as root:
        listed = Path(root) / "agents"
        listed.write_text("".join(f"{agent_id} {secret}\n" for agent_id, secret in chosen))
        found = await wrk(
            "heartbeats.lua",
            plane.port,
            connections=plane.plan.heartbeat_connections,
            seconds=plane.plan.heartbeat_seconds,
            environ={"BENCH_AGENTS": str(listed)},
        )
    if set(found.statuses) != {"200"} or found.socket_errors:
        msg = f"heartbeats: {found.statuses}, {found.socket_errors} socket errors"
        raise UnexpectedAnswerError(msg)
    return found
