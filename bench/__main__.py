"""`python -m bench`: run the measures and print one JSON document on standard output."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any

import psycopg
import trio

from bench import servers
from bench.measures import audit, chains, governance, heartbeats, login, resting, transactions
from bench.plan import FULL, QUICK, Plan
from bench.plane import Plane, on_postgres, on_sqlite

Measure = Callable[[Plane], Awaitable[dict[str, Any]]]

#: In the order in which they run: rest comes first, before anything has been used.
MEASURES: dict[str, Measure] = {
    "idle": resting.idle,
    "transactions": transactions.transactions,
    "approval_to_wrap": chains.approval_to_wrap,
    "chains": chains.chains_per_second,
    "heartbeats": heartbeats.heartbeats_per_second,
    "login": login.login,
}
AUDIT, DEV_START, GOVERNANCE = "audit", "dev_start", "governance"
NAMES = (DEV_START, *MEASURES, AUDIT, GOVERNANCE)


def main() -> int:
    """Print the document and return 0; a goal that is missed is a result, not a failure."""
    options = _options()
    plan = QUICK if options.quick else FULL
    begun = time.perf_counter()
    results = _run(plan, options.only, sqlite=options.sqlite)
    document = {
        "mode": "sqlite" if options.sqlite else "postgres+redis",
        "quick": options.quick,
        "machine": _machine(sqlite=options.sqlite),
        "sizes": asdict(plan),
        "seconds": round(time.perf_counter() - begun, 1),
        "missed": list(_missed(results)),
        "measures": results,
    }
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("--sqlite", action="store_true", help="measure `sb dev` on SQLite")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: proves that it runs")
    parser.add_argument(
        "--only", type=_names, default=list(NAMES), help=f"a comma list of {', '.join(NAMES)}"
    )
    return parser.parse_args()


def _names(text: str) -> list[str]:
    wanted = text.split(",")
    if unknown := set(wanted) - set(NAMES):
        msg = f"there is no measure {', '.join(sorted(unknown))}"
        raise argparse.ArgumentTypeError(msg)
    return wanted


def _run(plan: Plan, only: list[str], *, sqlite: bool) -> dict[str, Any]:
    planes = on_sqlite if sqlite else on_postgres
    results: dict[str, Any] = {}
    if DEV_START in only:
        _say(DEV_START)
        results[DEV_START] = resting.dev_start(plan)
    if wanted := [name for name in MEASURES if name in only]:
        _say("starting the product")
        with planes(plan, 0) as plane:
            for name in wanted:
                _say(name)
                results[name] = trio.run(MEASURES[name], plane)
    if AUDIT in only:
        _say(f"starting the product with {plan.audit_rows} audit rows")
        with planes(plan, plan.audit_rows) as plane:
            _say(AUDIT)
            results[AUDIT] = trio.run(audit.audit_queries, plane)
    if GOVERNANCE in only:
        results[GOVERNANCE] = _governance(plan, sqlite=sqlite)
    return results


def _governance(plan: Plan, *, sqlite: bool) -> dict[str, Any]:
    if sqlite:
        return {"skipped": "its goals are about Postgres, on which large organisations run"}
    _say("starting the product for a large organisation")
    with on_postgres(replace(plan, agents=0), 0) as plane:
        _say(GOVERNANCE)
        return trio.run(governance.governance, plane)


def _missed(found: dict[str, Any], path: str = "") -> Any:
    for name, value in found.items():
        if not isinstance(value, dict):
            continue
        if value.get("met") is False:
            yield f"{path}{name}: {value['value']} {value['unit']}, goal {value['goal']}"
        yield from _missed(value, f"{path}{name}.")


def _machine(*, sqlite: bool) -> dict[str, Any]:
    driver = f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__})"
    store = (
        {"sqlite": sqlite3.sqlite_version}
        if sqlite
        else {"postgres": {**servers.SETTINGS, "driver": driver}}
    )
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_megabytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **store,
    }


def _say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
