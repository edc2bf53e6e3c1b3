"""Every sweep of the worker: one file each, all registered here."""

from __future__ import annotations

from collections.abc import Callable

from sb.db.engine import Database
from sb_worker.loop import Swept, Task
from sb_worker.settings import WorkerSettings
from sb_worker.sweeps import (
    agents_stale,
    enrollment_tokens_expired,
    idempotency_expired,
    jobs_recovery,
    requests_expired,
    sessions_purge,
    wraps_expired,
)

Sweep = Callable[[Database, WorkerSettings], Task]

SWEEPS: tuple[Sweep, ...] = (
    wraps_expired.task,
    requests_expired.task,
    jobs_recovery.task,
    agents_stale.task,
    idempotency_expired.task,
    sessions_purge.task,
    enrollment_tokens_expired.task,
)

__all__ = ["SWEEPS", "Sweep", "Swept", "Task"]
