"""Numbers of several runs as one: medians, percentiles, and whether the goal was met."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit the median must keep: at most, or at least with `more`."""

    limit: float
    more: bool = False

    def met(self, value: float) -> bool:
        return value >= self.limit if self.more else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.more else '<='} {self.limit:g}"


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that this share of all samples does not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def metric(runs: Sequence[float], unit: str, goal: Goal | None = None) -> dict[str, Any]:
    """Return the median of the runs beside each of them, its goal and whether it is met."""
    value = statistics.median(runs)
    return {
        "value": round(value, 2),
        "unit": unit,
        "goal": str(goal) if goal else None,
        "met": goal.met(value) if goal else None,
        "runs": [round(run, 2) for run in runs],
    }


def latency(
    runs: Sequence[Sequence[float]], p50: Goal | None = None, p99: Goal | None = None
) -> dict[str, Any]:
    """Return p50 and p99 in milliseconds of runs whose samples are seconds."""
    return {
        "p50": metric([percentile(run, 0.5) * 1000 for run in runs], "ms", p50),
        "p99": metric([percentile(run, 0.99) * 1000 for run in runs], "ms", p99),
        "samples_per_run": min(len(run) for run in runs),
    }
