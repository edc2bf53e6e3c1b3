"""Probes and metrics: alive, ready with every check named, and what Prometheus scrapes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from quart import Response, jsonify, request
from quart_trio import QuartTrio

from sb.clock import monotonic
from sb.db.engine import Database
from sb.db.errors import SchemaError
from sb.errors import CoordUnavailableError, DatabaseUnavailableError, SbError
from sb.http.observe import name_route
from sb.http.state import AppState
from sb.threads import run_blocking

log = logging.getLogger(__name__)

ENDPOINTS = frozenset({"healthz", "readyz", "metrics"})
BUDGET_SECONDS = 2.0
CACHED_SECONDS = 1.0

Check = Callable[[], Awaitable[None]]


def register(app: QuartTrio, state: AppState) -> None:
    """Serve `/healthz`, `/readyz` and `/metrics`."""
    readiness = Readiness(checks_of(state), draining=state.draining, spawn=app.add_background_task)
    for name in state.db.pool_status():
        gauge = state.metrics.db_connections.labels(state=name)
        gauge.set_function(partial(_pooled, state.db, name))

    async def healthz() -> Response:
        name_route(request.scope, "/healthz")
        return jsonify({"status": "ok"})

    async def readyz() -> Response:
        name_route(request.scope, "/readyz")
        body, status = await readiness.answer()
        response = jsonify(body)
        response.status_code = status
        return response

    async def metrics() -> Response:
        name_route(request.scope, "/metrics")
        return Response(generate_latest(state.registry), content_type=CONTENT_TYPE_LATEST)

    app.add_url_rule("/healthz", "healthz", healthz)
    app.add_url_rule("/readyz", "readyz", readyz)
    if state.serve_metrics:
        app.add_url_rule("/metrics", "metrics", metrics)


def _pooled(db: Database, name: str) -> int:
    return db.pool_status()[name]


def checks_of(state: AppState) -> dict[str, Check]:
    """Return the checks of this process by the names operators see."""
    store = "redis" if type(state.coord).__name__ == "RedisCoordinator" else "memory"
    return {
        state.db.dialect: state.db.ping,
        store: state.coord.ping,
        "schema": lambda: check_schema(state.db),
        **state.checks,
    }


async def check_schema(db: Database) -> None:
    """Return when the schema is the one this code expects; raise SchemaError when it is not."""
    found = await run_blocking(db.schema_version_sync, limiter=_SCHEMA_LIMITER)
    if found != db.expected_version:
        msg = f"the schema is at {found}, this code expects {db.expected_version}"
        raise SchemaError(msg)


_SCHEMA_LIMITER = trio.CapacityLimiter(1)


class Readiness:
    """The answer of `/readyz`: all checks at once, within a budget, kept for a moment.

    A round runs apart from the request that asked for it: a check stuck in a thread cannot be
    cancelled, so the answer leaves without it. Nobody starts a round while one is under way.
    """

    def __init__(
        self,
        checks: dict[str, Check],
        *,
        draining: trio.Event,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
    ) -> None:
        self._checks = checks
        self._draining = draining
        self._spawn = spawn
        self._latest: dict[str, str] = {}
        self._finished_at: float | None = None
        self._under_way: trio.Event | None = None

    async def answer(self) -> tuple[dict[str, Any], int]:
        """Return the body and the status: 200 when all checks hold, else 503 naming the others."""
        if not self._draining.is_set():
            await self._refresh()
        results = dict(self._latest)
        failures = {name: reason for name, reason in results.items() if reason != "ok"}
        status = "not_ready" if failures else "ready"
        if self._draining.is_set():
            status = "draining"
        body = {"status": status, "checks": results, "failures": failures}
        return body, 200 if status == "ready" else 503

    async def _refresh(self) -> None:
        if self._finished_at is not None and monotonic() - self._finished_at < CACHED_SECONDS:
            return
        if self._under_way is None:
            self._under_way = trio.Event()
            self._latest = dict.fromkeys(self._checks, "timeout")
            self._finished_at = None
            self._spawn(self._round)
        with trio.move_on_after(BUDGET_SECONDS):
            await self._under_way.wait()

    async def _round(self) -> None:
        under_way, results = self._under_way, self._latest
        assert under_way is not None
        try:
            async with trio.open_nursery() as nursery:
                for name, check in self._checks.items():
                    nursery.start_soon(_run, name, check, results)
        finally:
            self._under_way = None
            self._finished_at = monotonic()
            under_way.set()


async def _run(name: str, check: Check, results: dict[str, str]) -> None:
    try:
        await check()
    except SchemaError:
        results[name] = "schema_outdated"
    except (DatabaseUnavailableError, CoordUnavailableError):
        results[name] = "unreachable"
    except SbError:
        results[name] = "error"
    except Exception:
        log.exception("readiness check failed", extra={"fields": {"check": name}})
        results[name] = "error"
    else:
        results[name] = "ok"
