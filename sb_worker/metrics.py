"""The worker's metrics; the first three names are the ones the troubleshooting page lists."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
OUTCOMES = ("success", "failure", "skipped_lock")


class WorkerMetrics:
    """The collectors of one worker, on the registry of its process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.runs = Counter(
            "worker_scheduler_runs",
            "Sweeper runs by outcome.",
            ["task", "outcome"],
            registry=registry,
        )
        self.run_duration = Histogram(
            "worker_scheduler_run_duration_seconds",
            "How long sweeper runs take.",
            ["task"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.lock_skipped = Counter(
            "worker_scheduler_lock_skipped",
            "Runs another replica did.",
            ["task"],
            registry=registry,
        )
        self.last_success = Gauge(
            "worker_scheduler_last_success_timestamp_seconds",
            "When each sweep last succeeded.",
            ["task"],
            registry=registry,
        )
        self.rows = Counter(
            "worker_sweep_rows",
            "Rows changed by sweeps.",
            ["task", "effect"],
            registry=registry,
        )
        #: When each task last ended a tick, whatever its outcome; readiness looks at it.
        self.last_tick: dict[str, float] = {}

    def announce(self, task: str) -> None:
        """Show the task's series from the start, at zero."""
        for outcome in OUTCOMES:
            self.runs.labels(task=task, outcome=outcome)
        self.lock_skipped.labels(task=task)
        self.run_duration.labels(task=task)


class FleetMetrics:
    """What is waiting, open and alive in the whole installation, as the database last told."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queue_depth = Gauge(
            "jobs_queue_depth",
            "Unfinished jobs by type and status.",
            ["job_type", "status"],
            registry=registry,
        )
        self.oldest_queued = Gauge(
            "jobs_oldest_queued_seconds",
            "How long the oldest job nobody works on has waited.",
            registry=registry,
        )
        self.agents = Gauge("agents", "Agents by status.", ["status"], registry=registry)
        self.requests_open = Gauge(
            "requests_open",
            "Requests that are not over, by type and status.",
            ["type", "status"],
            registry=registry,
        )
        self.wraps_live = Gauge("wraps_live", "Wraps that can still be opened.", registry=registry)
