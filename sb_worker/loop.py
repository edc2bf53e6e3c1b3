"""The one loop behind every sweep: stagger, lock, run under a deadline, meter, back off."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from sb.clock import monotonic
from sb.coord import Coordinator, CoordUnavailableError, Lock
from sb_worker.metrics import WorkerMetrics

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 60.0
FIRST_RUN_WITHIN_SECONDS: Final = 30.0
JITTER: Final = 0.1
RETRY_DELAYS_SECONDS: Final = (1.0, 2.0)
RELEASE_WITHIN_SECONDS: Final = 2.0

#: What a sweep did in one batch: counts by effect, and whether there is more to take at once.
Batch = Callable[[], Awaitable["Swept"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    counts: Mapping[str, int]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A named sweep with its cadence; the name is its lock's and its metrics' label."""

    name: str
    interval_seconds: float
    batch: Batch

    @property
    def deadline_seconds(self) -> float:
        return min(max(30.0, 2 * self.interval_seconds), 600.0)


async def run_forever(
    task: Task,
    *,
    coord: Coordinator,
    metrics: WorkerMetrics,
    stop: trio.Event,
    grace_seconds: float,
) -> None:
    """Run the sweep on its cadence until `stop`; a failing run never ends the loop.

    A run under way at the stop has the grace to end and is cancelled then; its lock is let go.
    """
    run = partial(run_once, task, coord=coord, metrics=metrics)
    delay = random.uniform(0, min(task.interval_seconds, FIRST_RUN_WITHIN_SECONDS))  # noqa: S311
    while not await _stops_within(stop, delay):
        await _with_grace(run, stop, grace_seconds)
        delay = task.interval_seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311


async def _stops_within(stop: trio.Event, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        await stop.wait()
    return stop.is_set()


async def _with_grace(
    run: Callable[[], Awaitable[object]], stop: trio.Event, grace_seconds: float
) -> None:
    async with trio.open_nursery() as nursery:

        async def bound() -> None:
            await stop.wait()
            await trio.sleep(grace_seconds)
            nursery.cancel_scope.cancel()

        nursery.start_soon(bound)
        await run()
        nursery.cancel_scope.cancel()


async def run_once(task: Task, *, coord: Coordinator, metrics: WorkerMetrics) -> str:
    """Run the sweep once if no other replica does, and return the outcome that was counted."""
    outcome = await _locked_run(task, coord=coord, metrics=metrics)
    metrics.runs.labels(task=task.name, outcome=outcome).inc()
    if outcome == "skipped_lock":
        metrics.lock_skipped.labels(task=task.name).inc()
    metrics.last_tick[task.name] = monotonic()
    return outcome


async def _locked_run(task: Task, *, coord: Coordinator, metrics: WorkerMetrics) -> str:
    try:
        lock = await coord.acquire(f"worker:sweeper:{task.name}", ttl_seconds=LEASE_SECONDS)
    except CoordUnavailableError:
        log.warning("sweep skipped: no lock store", extra={"fields": {"task": task.name}})
        return "failure"
    if lock is None:
        return "skipped_lock"
    try:
        return await _renewed_run(task, lock, coord=coord, metrics=metrics)
    finally:
        # Shielded, so that a stopping worker does not leave the lock to lie for its whole lease.
        with trio.move_on_after(RELEASE_WITHIN_SECONDS, shield=True):
            await _release(coord, lock)


async def _release(coord: Coordinator, lock: Lock) -> None:
    try:
        await coord.release(lock)
    except CoordUnavailableError:
        log.warning("lock not released", extra={"fields": {"lock": lock.name}})


async def _renewed_run(
    task: Task, lock: Lock, *, coord: Coordinator, metrics: WorkerMetrics
) -> str:
    ended = "timeout"

    async def keep_lock() -> None:
        nonlocal ended
        renewed_at = monotonic()
        while True:
            await trio.sleep(LEASE_SECONDS / 3)
            try:
                if not await coord.renew(lock, ttl_seconds=LEASE_SECONDS):
                    break
                renewed_at = monotonic()
            except CoordUnavailableError:
                # Past two thirds of the lease another replica may soon hold the lock.
                if monotonic() - renewed_at >= LEASE_SECONDS * 2 / 3:
                    break
        ended = "lost lock"
        nursery.cancel_scope.cancel()

    started = monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_lock)
        with trio.move_on_after(task.deadline_seconds):
            ended = await _attempts(task, metrics=metrics)
        nursery.cancel_scope.cancel()
    metrics.run_duration.labels(task=task.name).observe(monotonic() - started)
    if ended == "success":
        metrics.last_success.labels(task=task.name).set_to_current_time()
        return "success"
    if ended != "failure":
        log.warning("sweep cut short", extra={"fields": {"task": task.name, "reason": ended}})
    return "failure"


async def _attempts(task: Task, *, metrics: WorkerMetrics) -> str:
    for delay in (*RETRY_DELAYS_SECONDS, None):
        try:
            await _drain(task, metrics=metrics)
        except Exception as problem:
            if delay is not None:
                await trio.sleep(delay)
                continue
            log.exception(
                "sweep failed",
                extra={"fields": {"task": task.name, "error": type(problem).__name__}},
            )
            return "failure"
        else:
            return "success"
    return "failure"


async def _drain(task: Task, *, metrics: WorkerMetrics) -> None:
    """Run batches until one comes back short; only what changed something is logged."""
    while True:
        swept = await task.batch()
        changed = {effect: count for effect, count in swept.counts.items() if count}
        for effect, count in changed.items():
            metrics.rows.labels(task=task.name, effect=effect).inc(count)
        if changed:
            log.info("swept", extra={"fields": {"task": task.name, **changed}})
        if not swept.more:
            return
