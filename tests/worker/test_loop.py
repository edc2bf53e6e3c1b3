"""The loop behind every sweep: one runner at a time, deadlines, retries, meters and a calm stop."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from sb.coord.memory import MemoryCoordinator
from sb.errors import CoordUnavailableError
from sb_worker import loop
from sb_worker.loop import Swept, Task
from sb_worker.metrics import WorkerMetrics


class Bench:
    """A loop's surroundings, with a clock that jumps over every wait."""

    def __init__(self) -> None:
        self.coord = MemoryCoordinator(now=trio.current_time)
        self.registry = CollectorRegistry()
        self.metrics = WorkerMetrics(self.registry)
        self.calls = 0

    def task(self, batch: Callable[[], Awaitable[Swept]], interval: float = 10) -> Task:
        async def counted() -> Swept:
            self.calls += 1
            return await batch()

        task = Task(name="sweep", interval_seconds=interval, batch=counted)
        self.metrics.announce(task.name)
        return task

    async def once(self, task: Task, coord: Any = None) -> str:
        return await loop.run_once(task, coord=coord or self.coord, metrics=self.metrics)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {"task": "sweep", **labels})

    def runs(self, outcome: str) -> float | None:
        return self.value("worker_scheduler_runs_total", outcome=outcome)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def nothing() -> Swept:
    await trio.lowlevel.checkpoint()
    return Swept(counts={"deleted": 0}, more=False)


async def test_a_run_counts_its_outcome_and_its_time(
    autojump_clock: MockClock, bench: Bench
) -> None:
    assert await bench.once(bench.task(nothing)) == "success"
    assert (bench.runs("success"), bench.runs("failure"), bench.runs("skipped_lock")) == (1, 0, 0)
    assert bench.value("worker_scheduler_run_duration_seconds_count") == 1
    assert bench.value("worker_scheduler_last_success_timestamp_seconds") or 0 > 0


async def test_batches_go_on_until_one_comes_back_short(
    autojump_clock: MockClock, bench: Bench
) -> None:
    left = [5, 5, 2]

    async def batch() -> Swept:
        deleted = left.pop(0)
        return Swept(counts={"deleted": deleted}, more=deleted == 5)

    await bench.once(bench.task(batch))

    assert left == []
    assert bench.value("worker_sweep_rows_total", effect="deleted") == 12


async def test_a_second_replica_skips_while_the_first_runs(
    autojump_clock: MockClock, bench: Bench
) -> None:
    async def slow() -> Swept:
        await trio.sleep(5)
        return Swept(counts={}, more=False)

    task = bench.task(slow)
    outcomes: list[str] = []

    async def replica() -> None:
        outcomes.append(await bench.once(task))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(replica)
        nursery.start_soon(replica)

    assert sorted(outcomes) == ["skipped_lock", "success"]
    assert bench.value("worker_scheduler_lock_skipped_total") == 1
    assert bench.value("worker_scheduler_run_duration_seconds_count") == 1
    assert await bench.once(task) == "success", "the lock was let go"


async def test_a_failing_run_is_tried_three_times_and_then_counted(
    autojump_clock: MockClock, bench: Bench
) -> None:
    async def broken() -> Swept:
        raise RuntimeError

    assert await bench.once(bench.task(broken)) == "failure"
    assert (bench.calls, bench.runs("failure")) == (3, 1)


async def test_a_passing_failure_ends_in_success(autojump_clock: MockClock, bench: Bench) -> None:
    async def flaky() -> Swept:
        if bench.calls < 3:
            raise RuntimeError
        return Swept(counts={}, more=False)

    assert await bench.once(bench.task(flaky)) == "success"


async def test_a_run_past_its_deadline_is_cut_and_fails(
    autojump_clock: MockClock, bench: Bench
) -> None:
    started = trio.current_time()
    assert await bench.once(bench.task(trio.sleep_forever)) == "failure"
    assert trio.current_time() - started == pytest.approx(30, abs=1)
    assert await bench.once(bench.task(nothing)) == "success", "the lock was let go"


async def test_a_lost_lock_cuts_the_run(autojump_clock: MockClock, bench: Bench) -> None:
    class Forgetful(MemoryCoordinator):
        async def renew(self, lock: Any, *, ttl_seconds: float) -> bool:
            return False

    started = trio.current_time()
    outcome = await bench.once(bench.task(trio.sleep_forever, 600), Forgetful(trio.current_time))
    assert outcome == "failure"
    assert trio.current_time() - started < loop.LEASE_SECONDS


async def test_a_lock_that_cannot_be_renewed_for_long_cuts_the_run(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "monotonic", trio.current_time)

    class Away(MemoryCoordinator):
        async def renew(self, lock: Any, *, ttl_seconds: float) -> bool:
            raise CoordUnavailableError

    started = trio.current_time()
    outcome = await bench.once(bench.task(trio.sleep_forever, 600), Away(trio.current_time))
    assert outcome == "failure"
    assert trio.current_time() - started <= loop.LEASE_SECONDS


async def test_no_lock_store_means_no_run(autojump_clock: MockClock, bench: Bench) -> None:
    class Away(MemoryCoordinator):
        async def acquire(self, name: str, *, ttl_seconds: float) -> Any:
            raise CoordUnavailableError

    assert await bench.once(bench.task(nothing), Away()) == "failure"
    assert bench.calls == 0


async def test_the_first_run_is_staggered_and_the_rest_keep_their_cadence(
    autojump_clock: MockClock, bench: Bench
) -> None:
    begun: list[float] = []

    async def batch() -> Swept:
        begun.append(trio.current_time())
        return Swept(counts={}, more=False)

    task, stop, start = bench.task(batch, interval=100), trio.Event(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forever(bench, task, stop))
        await trio.sleep(1000)
        stop.set()

    assert begun[0] - start <= 30
    gaps = [after - before for before, after in itertools.pairwise(begun)]
    assert all(90 <= gap <= 110 for gap in gaps)
    assert len(gaps) >= 8


async def test_a_failing_run_never_ends_the_loop(autojump_clock: MockClock, bench: Bench) -> None:
    async def broken() -> Swept:
        raise RuntimeError

    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forever(bench, bench.task(broken), stop))
        await trio.sleep(100)
        stop.set()
    assert (bench.runs("failure") or 0) >= 5


@pytest.mark.parametrize(("work", "finished"), [(4.0, True), (60.0, False)])
async def test_a_stop_lets_the_run_end_within_the_grace(
    autojump_clock: MockClock, bench: Bench, work: float, finished: bool
) -> None:
    ended, begun, stop = trio.Event(), trio.Event(), trio.Event()

    async def batch() -> Swept:
        begun.set()
        await trio.sleep(work)
        ended.set()
        return Swept(counts={}, more=False)

    task = bench.task(batch, interval=300)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(forever(bench, task, stop))
        await begun.wait()
        asked = trio.current_time()
        stop.set()
    assert ended.is_set() is finished
    assert trio.current_time() - asked == pytest.approx(min(work, 10), abs=1)
    lock = await bench.coord.acquire("worker:sweeper:sweep", ttl_seconds=1)
    assert lock is not None, "a stopped worker leaves no lock behind"


def forever(bench: Bench, task: Task, stop: trio.Event) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        await loop.run_forever(
            task, coord=bench.coord, metrics=bench.metrics, stop=stop, grace_seconds=10
        )

    return run
