"""How much of everything there is right now, for gauges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sb.db.engine import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Jobs by type and status, agents by status, open requests by type and status, live wraps."""

    jobs: Mapping[tuple[str, str], int]
    oldest_queued_seconds: float
    agents: Mapping[str, int]
    requests: Mapping[tuple[str, str], int]
    wraps: int


def counts(tx: Transaction, *, now: datetime) -> Counts:
    """Return the counts; all of them come from indexes over what is unfinished."""
    jobs = tx.many("job_depth")
    queued = [row["oldest_at"] for row in jobs if row["status"] == "queued"]
    wraps = tx.one("wrap_count_live", now=now)
    assert wraps is not None
    return Counts(
        jobs={(row["job_type"], row["status"]): row["depth"] for row in jobs},
        oldest_queued_seconds=(now - min(queued)).total_seconds() if queued else 0.0,
        agents={row["status"]: row["agents"] for row in tx.many("agent_count_by_status")},
        requests={
            (row["type"], row["status"]): row["requests"] for row in tx.many("request_count_open")
        },
        wraps=wraps["wraps"],
    )
