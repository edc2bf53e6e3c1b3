"""Reading a long audit trail: one request's story, the newest page, and a page far back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sb.db.engine import Database, Transaction
from sb.ops import audit

from bench.client import Client
from bench.plane import Plane
from bench.stats import Goal, latency

PATH = "/api/v1/audit-events"
PAGE_ROWS = 100
LARGEST_PAGE = 1000
GOAL = Goal(15)

Chooser = Callable[[], str]


async def audit_queries(plane: Plane) -> dict[str, Any]:
    """Return the times of each query over HTTP, and of its statement alone."""
    plan, client = plane.plan, plane.client("admin")
    link = await _link_to_page(client, plan.audit_page)
    chosen = random.Random(11)
    queries: dict[str, Chooser] = {
        "correlation": lambda: f"{PATH}?correlation_id={chosen.choice(_chains(plane))}",
        "newest_page": lambda: PATH,
        f"page_{plan.audit_page}": lambda: link,
    }
    found: dict[str, Any] = {"rows": plan.audit_rows, "rows_per_page": PAGE_ROWS}
    runs: dict[str, list[list[float]]] = {name: [] for name in queries}
    for _ in range(plan.repeats):
        for name, choose in queries.items():
            runs[name].append(await _times(client, choose, plan.audit_samples))
    statements = _statements(plane, await _last_key(client, link))
    for name, measured in runs.items():
        found[name] = {"http": latency(measured, p99=GOAL), "sql": statements[name]}
    return found


def _chains(plane: Plane) -> list[str]:
    return plane.seeded.correlation_ids


async def _times(client: Client, choose: Chooser, samples: int) -> list[float]:
    times = []
    for _ in range(samples):
        path = choose()
        begun = time.perf_counter()
        await client.expect(200, "GET", path)
        times.append(time.perf_counter() - begun)
    return times


async def _link_to_page(client: Client, page: int) -> str:
    """Return the path of a page, reached by the links of the pages before it."""
    left, link = (page - 1) * PAGE_ROWS, PATH
    while left:
        rows = min(left, LARGEST_PAGE)
        joint = "&" if "?" in link else "?"
        answer = await client.expect(200, "GET", f"{link}{joint}limit={rows}")
        left -= len(answer.json())
        link = answer.headers["link"].partition(">")[0].removeprefix("<")
        path, _, query = link.partition("?")
        kept = [part for part in query.split("&") if not part.startswith("limit=")]
        link = f"{path}?{'&'.join(kept)}"
    return link


async def _last_key(client: Client, link: str) -> tuple[datetime, str]:
    """Return the key of the first row of the page, which pages the same depth."""
    row = (await client.expect(200, "GET", link)).json()[0]
    return datetime.fromisoformat(row["occurred_at"]), row["id"]


def _statements(plane: Plane, before: tuple[datetime, str]) -> dict[str, Any]:
    """Return the times of the list statement alone, on a connection of its own."""
    chosen, plan = random.Random(13), plane.plan
    db = Database.open(plane.database_url, pool_size=2)
    try:
        wanted: dict[str, Callable[[], dict[str, Any]]] = {
            "correlation": lambda: {"correlation_id": chosen.choice(_chains(plane))},
            "newest_page": dict,
            f"page_{plan.audit_page}": lambda: {"before_at": before[0], "before_id": before[1]},
        }
        runs, samples = range(plan.repeats), range(plan.audit_samples)
        return {
            name: latency([[db.read_sync(_statement, make()) for _ in samples] for _ in runs])
            for name, make in wanted.items()
        }
    finally:
        db.close()


def _statement(tx: Transaction, given: dict[str, Any]) -> float:
    filters = dict.fromkeys(audit.Filters.__dataclass_fields__)
    params = {**filters, "before_at": None, "before_id": None, "limit": PAGE_ROWS, **given}
    begun = time.perf_counter()
    tx.many("audit_list", **params)
    return time.perf_counter() - begun
