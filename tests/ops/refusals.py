"""Refusals looked at closely: nothing changed, and which audit row is asked for. Races, too."""

from __future__ import annotations

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from sb.db.engine import Transaction
from sb.errors import SbError
from tests.ops import rows
from tests.ops.world import World

#: The tables that tell the story of a request; a refusal leaves every one of them alone.
TABLES = (
    "access_requests",
    "approvals",
    "sync_jobs",
    "secret_wraps",
    "agents",
    "agent_enrollment_tokens",
    "audit_events",
)
#: Action, resource and kind of the denial that the edge writes after the rollback.
Asked = tuple[str, str, str]


def everything(world: World) -> Mapping[str, Any]:
    """Return every row of the tables above, from one transaction."""

    def look(tx: Transaction) -> Mapping[str, Any]:
        return {table: rows.find(tx, f"SELECT * FROM {table} ORDER BY id") for table in TABLES}

    return world.db.run_sync(look)


def refused(
    world: World,
    error: type[SbError],
    op: Callable[..., Any],
    *args: Any,
    asks: Asked | None,
    about: str | None = None,
    **kwargs: Any,
) -> SbError:
    """Return the refusal of the call, which must change nothing and ask for exactly this row.

    `about` is the request whose id the row must carry as its correlation id.
    """
    before = everything(world)
    caught = outcome(op, *args, **kwargs)
    assert type(caught) is error, caught
    assert everything(world) == before
    assert asked(caught) == asks
    if asks is not None:
        assert caught.audit is not None
        assert caught.audit.status == "denied"
        if about is not None:
            assert caught.audit.correlation_id == about
    return caught


def asked(error: SbError) -> Asked | None:
    """Return what the denial says: action, resource, and the kind or reason."""
    denial = error.audit
    if denial is None:
        return None
    kind = denial.metadata.get("reason") or denial.metadata["error_kind"]
    return denial.action, denial.resource, kind


def outcome(op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what the call returns, or the refusal it raises."""
    try:
        return op(*args, **kwargs)
    except SbError as error:
        _let_go(error)
        return error


def _let_go(error: BaseException | None) -> None:
    """Drop what the traceback holds, down to its first cause."""
    # A cursor kept alive there keeps its closed SQLite connection half open, which then removes
    # the log files of whatever database lies at its path when the collector gets to it.
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Return the outcomes of calls let go at the same moment, each in a thread of its own."""
    gate = threading.Barrier(len(calls))

    def one(call: Callable[[], Any]) -> Any:
        gate.wait(30)
        return outcome(call)

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def behind(world: World, first: Callable[[Transaction], Any], second: Callable[[], Any]) -> Any:
    """Return the outcome of a call made while the first one's transaction is open and done.

    The first commits as soon as the second waits for it, or has ended without waiting.
    """
    with ThreadPoolExecutor(1) as pool:

        def op(tx: Transaction) -> Future[Any]:
            first(tx)
            late = pool.submit(outcome, second)
            # SQLite lets the second one in when the first has ended, and not before.
            while tx.dialect == "postgres" and not late.done():
                waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted"
                if rows.find(tx, waiting)[0]["n"]:
                    break
            return late

        found: Any = world.db.run_sync(op).result(30)
        return found


def kinds(outcomes: Sequence[Any]) -> Counter[str]:
    """Return how many calls succeeded and how many were refused, by code."""
    return Counter(o.code if isinstance(o, SbError) else "ok" for o in outcomes)
