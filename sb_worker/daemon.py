"""The worker process: probes, then every sweep's loop in one nursery."""

from __future__ import annotations

from functools import partial

import trio
from prometheus_client import CollectorRegistry

from sb.clock import monotonic
from sb.coord import Coordinator
from sb.db.engine import Database
from sb.db.schema import schema_arrived
from sb.probes import Check, serve_probes
from sb_worker import fleet
from sb_worker.dependencies import Dependencies
from sb_worker.loop import LEASE_SECONDS, Task, run_forever
from sb_worker.metrics import FleetMetrics, WorkerMetrics
from sb_worker.settings import WorkerSettings
from sb_worker.sweeps import SWEEPS


async def run(
    settings: WorkerSettings,
    *,
    db: Database,
    coord: Coordinator,
    stop: trio.Event,
    registry: CollectorRegistry,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Sweep until `stop` is set; a run under way then has the grace to end."""
    metrics = WorkerMetrics(registry)
    tasks = [sweep(db, settings) for sweep in SWEEPS]
    for task in tasks:
        metrics.announce(task.name)
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        if settings.sb_worker_local_addr:
            phase = partial(_phase, ready, stop)
            probes = partial(serve_probes, setting="SB_WORKER_LOCAL_ADDR", phase=phase)
            dependencies = Dependencies(db, coord)
            nursery.start_soon(dependencies.watch)
            checks = {**dependencies.checks, **_checks(tasks, ready, metrics)}
            await nursery.start(probes, settings.sb_worker_local_addr, checks, registry)
        task_status.started()
        if await schema_arrived(db, stop):
            ready.set()
            nursery.start_soon(fleet.observe, db, FleetMetrics(registry))
            await _sweep(tasks, coord, metrics, stop, settings)
        nursery.cancel_scope.cancel()


async def _sweep(
    tasks: list[Task],
    coord: Coordinator,
    metrics: WorkerMetrics,
    stop: trio.Event,
    settings: WorkerSettings,
) -> None:
    loop = partial(
        run_forever,
        coord=coord,
        metrics=metrics,
        stop=stop,
        grace_seconds=settings.sb_worker_shutdown_grace.total_seconds(),
    )
    async with trio.open_nursery() as sweeping:
        for task in tasks:
            sweeping.start_soon(loop, task)


def _phase(ready: trio.Event, stop: trio.Event) -> str | None:
    if stop.is_set():
        return "draining"
    return None if ready.is_set() else "booting"


def _checks(tasks: list[Task], ready: trio.Event, metrics: WorkerMetrics) -> dict[str, Check]:
    return {
        "schema": lambda: ready.is_set() or "schema_outdated",
        "scheduler": lambda: _on_time(tasks, metrics),
    }


def _on_time(tasks: list[Task], metrics: WorkerMetrics) -> bool:
    """Tell whether no task that has begun is later than three intervals and a lease."""
    now = monotonic()
    return all(
        now - metrics.last_tick.get(task.name, now) <= 3 * task.interval_seconds + LEASE_SECONDS
        for task in tasks
    )
