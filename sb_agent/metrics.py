"""The agent's metrics, on the registry of its process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
JOB_TYPES = frozenset({"read", "patch"})


class AgentMetrics:
    """Jobs by type and outcome, how many run, and when a heartbeat last got through."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._jobs = Counter(
            "agent_jobs", "Finished jobs.", ["job_type", "outcome"], registry=registry
        )
        self._duration = Histogram(
            "agent_job_duration_seconds",
            "How long jobs take.",
            ["job_type", "outcome"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge("agent_jobs_in_flight", "Jobs being done now.", registry=registry)
        self.claim_failures = Counter(
            "agent_claim_failures", "Claims the control plane did not answer.", registry=registry
        )
        self.last_heartbeat = Gauge(
            "agent_last_heartbeat_timestamp_seconds",
            "When a heartbeat was last accepted.",
            registry=registry,
        )

    def finished(self, job_type: str, outcome: str, seconds: float) -> None:
        """Count a job; types nobody knows share a label, so that names from afar make no series."""
        known = job_type if job_type in JOB_TYPES else "other"
        self._jobs.labels(job_type=known, outcome=outcome).inc()
        self._duration.labels(job_type=known, outcome=outcome).observe(seconds)
