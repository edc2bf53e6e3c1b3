"""The worker's daemon inside the test's event loop: its metrics, its failures and how it stops."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
import trio
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from sb.clock import monotonic, utc_now
from sb.coord.memory import MemoryCoordinator
from sb.db.engine import Database, Transaction
from sb_worker import daemon
from sb_worker.loop import LEASE_SECONDS, Task
from sb_worker.metrics import WorkerMetrics
from tests import servers
from tests.conftest import TEMPLATE
from tests.ops import rows
from tests.servers import free_port
from tests.stack import until
from tests.worker.due import DUE, interval_of, settings

OFTEN = {interval_of(name): "100ms" for name in DUE}
RUNS = "worker_scheduler_runs_total"
DURATION = "worker_scheduler_run_duration_seconds"
HELD = "idempotency-expired"


@dataclass
class Worker:
    """A running daemon with a view of its metrics."""

    port: int
    registry: CollectorRegistry
    coord: MemoryCoordinator
    stop: trio.Event
    ended: trio.Event

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await http.get(f"http://127.0.0.1:{self.port}{path}")

    def runs(self, outcome: str, task: str = HELD) -> float:
        found = self.registry.get_sample_value(RUNS, {"task": task, "outcome": outcome})
        assert found is not None, "every series is there from the start"
        return found

    async def all_count(self, outcome: str) -> None:
        """Return once every sweep has ended like this again."""
        before = {task: self.runs(outcome, task) for task in DUE}

        async def look() -> bool:
            return all(self.runs(outcome, task) > count for task, count in before.items())

        await until(look)


@asynccontextmanager
async def running(db: Database, **more: str) -> AsyncIterator[Worker]:
    """Run a worker over this database for as long as the context lasts, or until it stops."""
    port = free_port()
    found = settings(SB_WORKER_LOCAL_ADDR=f"127.0.0.1:{port}", **OFTEN, **more)
    worker = Worker(
        port=port,
        registry=CollectorRegistry(),
        coord=MemoryCoordinator(),
        stop=trio.Event(),
        ended=trio.Event(),
    )

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await daemon.run(
            found,
            db=db,
            coord=worker.coord,
            stop=worker.stop,
            registry=worker.registry,
            task_status=task_status,
        )
        worker.ended.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield worker
        worker.stop.set()


@dataclass(frozen=True)
class Cluster:
    """One database of a shared server, which can be closed to clients and hold their rows up."""

    server: servers.PostgresServer
    name: str

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def go_away(self) -> None:
        self.server.execute(f"ALTER DATABASE {self.name} WITH ALLOW_CONNECTIONS false")
        self.server.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'"
        )

    def come_back(self) -> None:
        self.server.execute(f"ALTER DATABASE {self.name} WITH ALLOW_CONNECTIONS true")


@pytest.fixture
def cluster(postgres_server: servers.PostgresServer) -> Iterator[Cluster]:
    found = Cluster(server=postgres_server, name=f"w_{secrets.token_hex(6)}")
    postgres_server.execute(f"CREATE DATABASE {found.name} TEMPLATE {TEMPLATE}")
    yield found
    postgres_server.execute(f"DROP DATABASE {found.name} WITH (FORCE)")


@pytest.fixture
def unmigrated_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new.db'}"


@pytest.fixture
def unmigrated(unmigrated_url: str) -> Iterator[Database]:
    """A database nobody has brought a schema to; what differs between databases is elsewhere."""
    db = Database.open(unmigrated_url)
    yield db
    db.close()


async def test_metrics_have_exactly_the_names_and_labels_of_the_manual(db: Database) -> None:
    async with running(db) as worker:
        await worker.all_count("success")
        answer = await worker.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = {family.name: family for family in text_string_to_metric_families(answer.text)}

    # The library adds when each series began, in series of their own.
    names = [n for n in found if n.startswith("worker_") and not n.endswith("_created")]
    ours = {name: found[name].type for name in names}
    assert ours == {
        "worker_scheduler_runs": "counter",  # Prometheus reads it with `_total` at its end.
        "worker_scheduler_run_duration_seconds": "histogram",
        "worker_scheduler_lock_skipped": "counter",
        "worker_scheduler_last_success_timestamp_seconds": "gauge",
        "worker_sweep_rows": "counter",
    }
    labelled = [(s.name, s.labels) for name in ours for s in found[name].samples]
    labels = {name: {frozenset(x) for n, x in labelled if n == name} for name, _ in labelled}
    assert labels == {
        "worker_scheduler_runs_total": {frozenset({"task", "outcome"})},
        "worker_scheduler_run_duration_seconds_bucket": {frozenset({"task", "le"})},
        "worker_scheduler_run_duration_seconds_count": {frozenset({"task"})},
        "worker_scheduler_run_duration_seconds_sum": {frozenset({"task"})},
        "worker_scheduler_lock_skipped_total": {frozenset({"task"})},
        "worker_scheduler_last_success_timestamp_seconds": {frozenset({"task"})},
    }, "rows appear with the first one that is swept"
    outcomes = {(x["task"], x["outcome"]) for name, x in labelled if name == RUNS}
    assert outcomes == {(t, o) for t in DUE for o in ("success", "failure", "skipped_lock")}
    bounds = {x["le"] for name, x in labelled if name == f"{DURATION}_bucket"}
    expected = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, float("inf")}
    assert {float(bound) for bound in bounds} == expected


async def test_metrics_count_what_a_sweep_changed(db: Database) -> None:
    await db.run(keep_overdue, count=3)
    async with running(db) as worker:
        await worker.all_count("success")
        labels = {"task": HELD, "effect": "deleted"}
        assert worker.registry.get_sample_value("worker_sweep_rows_total", labels) == 3


def keep_overdue(tx: Transaction, *, count: int) -> None:
    for n in range(count):
        rows.insert(
            tx,
            "idempotency_keys",
            actor="user:someone",
            key=f"key-{n}",
            route="POST /requests",
            body_sha256=b"0" * 32,
            created_at=utc_now(),
            expires_at=utc_now(),
        )


async def test_a_sweep_without_its_database_fails_and_recovers_by_itself(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    db = Database.open(cluster.url)
    try:
        async with running(db) as worker:
            await worker.all_count("success")
            assert not any(worker.runs("failure", task) for task in DUE)

            await trio.to_thread.run_sync(cluster.go_away)
            await worker.all_count("failure")
            # Once for each run, however often it was tried, and by the error's kind.
            failed = [r.__dict__["fields"] for r in caplog.records if r.message == "sweep failed"]
            assert {(f["task"], f["error"]) for f in failed} == {
                (task, "DatabaseUnavailableError") for task in DUE
            }
            assert len(failed) == sum(worker.runs("failure", task) for task in DUE)
            assert (await worker.get("/healthz")).status_code == 200

            await trio.to_thread.run_sync(cluster.come_back)
            await worker.all_count("success")
    finally:
        db.close()


async def test_a_run_that_outlasts_the_grace_is_cut_and_lets_its_lock_go(cluster: Cluster) -> None:
    db = Database.open(cluster.url, lock_timeout_ms=400)
    try:
        with psycopg.connect(cluster.url, autocommit=True) as watcher:

            async def waits() -> bool:
                return bool(
                    watcher.execute(
                        "SELECT 1 FROM pg_stat_activity WHERE datname = %s "
                        "AND wait_event_type = 'Lock'",
                        (cluster.name,),
                    ).fetchall()
                )

            with psycopg.connect(cluster.url) as holder:
                holder.execute("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE")
                async with running(db, SB_WORKER_SHUTDOWN_GRACE="200ms") as worker:
                    # Tried for four seconds: a wait of 0.4, then 1, 0.4, 2 and 0.4.
                    await until(waits)
                    asked = monotonic()
                    worker.stop.set()
                    await worker.ended.wait()
                assert monotonic() - asked < 2
        assert worker.runs("failure") == worker.runs("success") == 0, "a cut run has no outcome"
        for task in DUE:
            lock = await worker.coord.acquire(f"worker:sweeper:{task}", ttl_seconds=1)
            assert lock is not None, task
    finally:
        db.close()


async def test_a_stop_while_booting_ends_the_worker_at_once(unmigrated: Database) -> None:
    async with running(unmigrated) as worker:
        answer = await worker.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "booting")
        assert answer.json()["failures"]["schema"] == "schema_outdated"
        # Nothing is known of the installation yet, and nothing has run.
        assert "jobs_oldest_queued_seconds" not in (await worker.get("/metrics")).text
        worker.stop.set()
        with trio.fail_after(5):
            await worker.ended.wait()
    assert not any(worker.runs("success", task) for task in DUE)


async def test_a_schema_that_arrives_makes_the_worker_ready(
    unmigrated: Database, unmigrated_url: str
) -> None:
    async with running(unmigrated) as worker:
        assert (await worker.get("/readyz")).status_code == 503
        somebody_else = Database.open(unmigrated_url)
        await trio.to_thread.run_sync(somebody_else.migrate_sync)
        somebody_else.close()

        async def ready() -> bool:
            return (await worker.get("/readyz")).status_code == 200

        await until(ready)
        body = (await worker.get("/readyz")).json()
        checks = dict.fromkeys(("sqlite", "memory", "schema", "scheduler"), "ok")
        assert body == {"status": "ready", "checks": checks, "failures": {}}
        await worker.all_count("success")

        async def gauges() -> bool:
            return "jobs_oldest_queued_seconds 0.0" in (await worker.get("/metrics")).text

        await until(gauges)


async def test_a_worker_that_cannot_listen_ends_without_a_sweep(unmigrated: Database) -> None:
    """Somebody else would answer the probes in its name."""
    registry = CollectorRegistry()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    try:
        with pytest.raises(ExceptionGroup) as caught:
            await daemon.run(
                settings(SB_WORKER_LOCAL_ADDR=f"127.0.0.1:{port}", **OFTEN),
                db=unmigrated,
                coord=MemoryCoordinator(),
                stop=trio.Event(),
                registry=registry,
            )
        assert caught.group_contains(OSError, match="[Aa]ddress already in use")
    finally:
        for listener in listeners:
            await listener.aclose()


@pytest.mark.parametrize(("late", "fine"), [(-1.0, True), (1.0, False)])
def test_a_sweep_is_late_after_three_intervals_and_a_lease(late: float, fine: bool) -> None:
    metrics = WorkerMetrics(CollectorRegistry())
    tasks = [
        Task(name=name, interval_seconds=seconds, batch=trio.sleep_forever)
        for name, seconds in (("often", 1.0), ("rare", 600.0))
    ]
    scheduler: Callable[[], bool | str] = daemon._checks(tasks, trio.Event(), metrics)["scheduler"]
    assert scheduler() is True, "nothing has ended yet: a sweep may take its time"
    metrics.last_tick["rare"] = monotonic() - 600
    metrics.last_tick["often"] = monotonic() - 3 - LEASE_SECONDS - late
    assert scheduler() is fine
