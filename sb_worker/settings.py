"""Everything `sb worker` reads from its environment."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from sb.settings import Address, Duration, ProcessSettings


class WorkerSettings(ProcessSettings):
    """Cadence and thresholds of the sweeps, and where the probes listen."""

    sb_worker_local_addr: Address | None = "127.0.0.1:8091"
    sb_worker_shutdown_grace: Duration = timedelta(seconds=15)
    sb_worker_sweep_batch_size: int = Field(default=500, ge=1, le=10_000)
    sb_worker_wraps_expired_interval: Duration = timedelta(minutes=1)
    sb_worker_requests_expired_interval: Duration = timedelta(minutes=1)
    sb_worker_jobs_recovery_interval: Duration = timedelta(seconds=30)
    sb_worker_agents_stale_interval: Duration = timedelta(minutes=1)
    sb_worker_agents_stale_after: Duration = timedelta(minutes=5)
    sb_worker_idempotency_expired_interval: Duration = timedelta(minutes=5)
    sb_worker_sessions_purge_interval: Duration = timedelta(hours=1)
    sb_worker_enrollment_tokens_interval: Duration = timedelta(minutes=5)
