"""The worker as a process: what its probes say, and what it does when things go away."""

from __future__ import annotations

import json
import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sb.db.engine import Database
from tests import servers
from tests.cli.running import sb, until
from tests.conftest import TEMPLATE
from tests.processes.process import Process
from tests.servers import free_port
from tests.worker.due import interval_of

TASKS = {
    "wraps-expired",
    "requests-expired",
    "jobs-recovery",
    "agents-stale",
    "idempotency-expired",
    "sessions-purge",
    "enrollment-tokens-expired",
}
CHECKS = ("postgres", "redis", "schema", "scheduler")
#: The sweep that a test keeps waiting, and those it does not.
HELD = "idempotency-expired"
FREE = TASKS - {HELD}
DURATION = "worker_scheduler_run_duration_seconds"
#: Longer than any test holds a table.
PATIENT = {
    "SB_DATABASE_LOCK_TIMEOUT": "60s",
    "SB_DATABASE_STATEMENT_TIMEOUT": "60s",
    "SB_WORKER_SHUTDOWN_GRACE": "60s",
}
PATIENCE_SECONDS = 60
ROWS = 13


@dataclass
class Installation:
    """A database of its own, a Redis, and workers with an eye for every sweep."""

    postgres: servers.PostgresServer
    redis: servers.RedisServer
    root: Path
    name: str = field(default_factory=lambda: f"w_{secrets.token_hex(6)}")
    workers: list[Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.postgres.url(self.name)

    def start(self, name: str, **more: str) -> Process:
        port = free_port()
        environ = {
            "DATABASE_URL": self.url,
            "REDIS_URL": self.redis.url,
            "REDIS_NAMESPACE": self.name,
            "SB_ENV": "dev",
            "SB_WORKER_LOCAL_ADDR": f"127.0.0.1:{port}",
            **{interval_of(task): "200ms" for task in TASKS},
            **more,
        }
        process = Process(name, "worker", environ, port, self.root)
        self.workers.append(process)
        process.start()
        return process

    def open_to_clients(self, yes: bool) -> None:
        """Let the database accept connections, or no more of them."""
        self.postgres.execute(f"ALTER DATABASE {self.name} WITH ALLOW_CONNECTIONS {yes}")

    def keep_overdue_keys(self) -> None:
        """Leave work for one of the sweeps."""
        with psycopg.connect(self.url) as connection:
            connection.execute(
                "INSERT INTO idempotency_keys (actor, key, route, body_sha256, created_at, "
                "expires_at) SELECT 'user:someone', n::text, 'POST /requests', '', now(), now() "
                f"FROM generate_series(1, {ROWS}) AS n"
            )

    def keys(self) -> int:
        with psycopg.connect(self.url) as connection:
            return len(connection.execute("SELECT 1 FROM idempotency_keys").fetchall())


@contextmanager
def installed(
    postgres: servers.PostgresServer, root: Path, template: str
) -> Iterator[Installation]:
    with ExitStack() as stack:
        redis = stack.enter_context(servers.redis())
        found = Installation(postgres=postgres, redis=redis, root=root)
        postgres.execute(f"CREATE DATABASE {found.name} TEMPLATE {template}")
        stack.callback(postgres.execute, f"DROP DATABASE {found.name} WITH (FORCE)")
        for end in (Process.end, Process.ask_to_end):  # Called in reverse: all are asked first.
            stack.callback(lambda end=end: [end(worker) for worker in found.workers])
        yield found


@pytest.fixture
def empty(postgres_server: servers.PostgresServer, tmp_path: Path) -> Iterator[Installation]:
    """An installation whose database has no schema yet."""
    with installed(postgres_server, tmp_path, "template0") as found:
        yield found


@pytest.fixture
def migrated(postgres_server: servers.PostgresServer, tmp_path: Path) -> Iterator[Installation]:
    """An installation whose schema is this release's."""
    with installed(postgres_server, tmp_path, TEMPLATE) as found:
        yield found


def said(status: str, **failing: str) -> dict[str, Any]:
    """Return the body of `/readyz` when these checks fail and all the others pass."""
    checks = {name: failing.get(name, "ok") for name in CHECKS}
    return {"status": status, "checks": checks, "failures": failing}


def says(worker: Process, status: str, **failing: str) -> None:
    """Return once `/readyz` says exactly this."""
    code = 200 if status == "ready" else 503
    expected, found = (code, said(status, **failing)), None

    def look() -> bool:
        nonlocal found
        assert worker.is_running, worker.tail()
        found = worker.readiness()
        return found == expected

    try:
        until(look, seconds=PATIENCE_SECONDS)
    except AssertionError:
        assert found == expected, worker.tail()
        raise


def values(worker: Process, name: str) -> dict[frozenset[str], float]:
    """Return the samples of this name by the values of their labels."""
    return {
        frozenset(sample.labels.values()): float(sample.value)
        for family in text_string_to_metric_families(worker.metrics())
        for sample in family.samples
        if sample.name == name
    }


def value(worker: Process, name: str, *labels: str) -> float:
    """Return the sample's value; nothing counts as zero."""
    return values(worker, name).get(frozenset(labels), 0)


def all_runs(worker: Process, outcome: str) -> dict[str, float]:
    """Return how many runs of each sweep ended like this."""
    found = values(worker, "worker_scheduler_runs_total")
    return {task: found[frozenset({task, outcome})] for task in TASKS}


def runs(worker: Process, outcome: str) -> float:
    return all_runs(worker, outcome)[HELD]


def skips(worker: Process) -> float:
    return value(worker, "worker_scheduler_lock_skipped_total", HELD)


def all_count(worker: Process, outcome: str) -> None:
    """Return once every sweep has ended like this."""
    until(lambda: all(all_runs(worker, outcome).values()), seconds=PATIENCE_SECONDS)


def swept(worker: Process) -> list[Any]:
    """Return how many keys each run said that it deleted."""
    lines = (json.loads(line) for line in worker.log.read_text().splitlines())
    return [line["deleted"] for line in lines if line["msg"] == "swept"]


def healthy(worker: Process) -> bool:
    answer = httpx.get(f"{worker.url}/healthz", timeout=5, trust_env=False)
    return (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_worker_waits_for_all_it_needs_and_tells_what_is_missing(empty: Installation) -> None:
    """From nothing there at all to ready, without a restart, and then to a calm end."""
    empty.redis.stop()
    empty.open_to_clients(False)
    worker = empty.start("worker")

    # 1. Neither database nor Redis: alive, and not a single sweep is tried.
    until(lambda: worker.readiness()[0], seconds=PATIENCE_SECONDS)
    gone = {"postgres": "unreachable", "redis": "unreachable"}
    says(worker, "booting", **gone, schema="schema_outdated")
    assert healthy(worker)
    assert set(values(worker, "worker_scheduler_runs_total").values()) == {0}

    # 2. A database without a schema: somebody else brings it, the worker never does.
    empty.open_to_clients(True)
    line = "waiting for the schema"
    until(lambda: line in worker.log.read_text(), seconds=PATIENCE_SECONDS)
    assert worker.readiness()[1]["status"] == "booting"
    assert worker.readiness()[1]["checks"]["schema"] == "schema_outdated"
    with psycopg.connect(empty.url) as connection:
        assert (
            connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").rowcount == 0
        )
    db = Database.open(empty.url)
    db.migrate_sync()
    db.close()

    # 3. Its schema: the sweeps begin, and without a place for locks each run is a failure.
    all_count(worker, "failure")
    status, body = worker.readiness()
    assert (status, body["status"]) == (503, "not_ready")
    assert body["checks"]["schema"] == "ok"
    assert body["failures"]["redis"] == "unreachable"
    assert not any(all_runs(worker, "success").values())

    # 4. Redis: ready by itself.
    empty.redis.start()
    all_count(worker, "success")
    says(worker, "ready")

    # 5. Asked to stop with nothing under way: it ends, and nothing was ever an error.
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert '"level": "ERROR"' not in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()


def test_two_workers_share_the_work_and_one_takes_over_from_the_other(
    migrated: Installation,
) -> None:
    """While one is at a sweep the other skips it, and counts that; each change is made once."""
    migrated.keep_overdue_keys()
    with psycopg.connect(migrated.url) as connection:
        connection.execute("LOCK TABLE idempotency_keys IN ACCESS EXCLUSIVE MODE")
        both = [migrated.start(f"worker-{number}", **PATIENT) for number in (1, 2)]
        for worker in both:
            worker.wait_ready()

        # 1. One waits for the table; the other loses the lock tick for tick, and says so.
        until(lambda: any(skips(worker) >= 2 for worker in both))
        holder, other = sorted(both, key=skips)
        assert skips(holder) == runs(holder, "skipped_lock") == 0
        for worker in both:
            assert runs(worker, "success") == runs(worker, "failure") == 0
        assert value(other, f"{DURATION}_count", HELD) == 0, "skipping takes no time"

        # 2. The other sweeps do not wait for this one.
        before = [all_runs(worker, "success") for worker in both]

        def go_on() -> bool:
            after = [all_runs(worker, "success") for worker in both]
            return all(
                sum(a[task] - b[task] for a, b in zip(after, before, strict=True)) for task in FREE
            )

        until(go_on)

        # 3. Asked to stop, the first is draining until its run has ended.
        holder.send(signal.SIGTERM)
        says(holder, "draining")
        assert healthy(holder)
        assert runs(other, "success") == 0

    assert holder.wait() == 0
    assert migrated.keys() == 0
    # 4. Its lock does not lie for a minute: the other one sweeps at its next tick.
    until(lambda: runs(other, "success") >= 1)
    assert skips(other) == runs(other, "skipped_lock") >= 2
    assert (swept(holder), swept(other)) == ([ROWS], [])
    migrated.keep_overdue_keys()
    rows = "worker_sweep_rows_total"
    until(lambda: value(other, rows, HELD, "deleted") == ROWS)
    assert "skip" not in other.log.read_text(), "losing the lock is no news"
    other.send(signal.SIGTERM)
    assert other.wait() == 0


def test_bad_settings_are_all_told_at_once_and_never_repeated(tmp_path: Path) -> None:
    wrong = {
        "DATABASE_URL": "postgresql://user:hunter2@db/secrets_bridge",
        "SB_WORKER_LOCAL_ADDR": "nowhere",
        "SB_WORKER_SHUTDOWN_GRACE": "0s",
        "SB_WORKER_SWEEP_BATCH_SIZE": "0",
        "SB_WORKER_AGENTS_STALE_AFTER": "-5m",
        "LOG_LEVEL": "loud",
        **{interval_of(task): "soon" for task in TASKS},
    }
    ended = sb("worker", home=tmp_path, environ=wrong)
    assert (ended.returncode, ended.stdout) == (1, "")
    named = {*wrong, "REDIS_URL"} - {"DATABASE_URL"}
    first, *problems = ended.stderr.splitlines()
    assert first == "the settings are not usable:"
    assert {re.match(r"  (\w+)", problem)[1] for problem in problems} == named
    assert len(problems) == len(named)
    for text in ("hunter2", "nowhere", "-5m", "soon", "Traceback"):
        assert text not in ended.stderr
