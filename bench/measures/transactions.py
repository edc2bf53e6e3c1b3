"""What one transaction costs on one connection: a read of one row and a guarded write of none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sb.clock import utc_now
from sb.db.engine import Database, Transaction
from sb.ids import new_id

from bench.plane import Plane
from bench.stats import metric

WARM_UP = 100


async def transactions(plane: Plane) -> dict[str, Any]:
    """Return the time of a transaction and the processor time this side spends on it."""
    db = Database.open(plane.database_url, pool_size=2)
    try:
        kinds: dict[str, Callable[[], object]] = {
            "read": lambda: db.read_sync(_read),
            "write": lambda: db.run_sync(_write),
        }
        return {name: _measure(plane, call) for name, call in kinds.items()}
    finally:
        db.close()


def _measure(plane: Plane, call: Callable[[], object]) -> dict[str, Any]:
    for _ in range(WARM_UP):
        call()
    took, used = [], []
    for _ in range(plane.plan.repeats):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        for _ in range(plane.plan.transactions):
            call()
        took.append((time.perf_counter() - begun) / plane.plan.transactions * 1e6)
        used.append((time.process_time() - begun_cpu) / plane.plan.transactions * 1e6)
    return {"time": metric(took, "us"), "cpu": metric(used, "us")}


def _read(tx: Transaction) -> object:
    return tx.one("user_find", id=new_id())


def _write(tx: Transaction) -> object:
    now = utc_now()
    return tx.count("wrap_expire_at", request_id=new_id(), expires_at=now, now=now)
