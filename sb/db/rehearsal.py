"""Doing something to see what would come of it: all of it happens, and none of it stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sb.db.engine import Database, Transaction

P = ParamSpec("P")
T = TypeVar("T")


class _RehearsedError(Exception):
    """Ends a rehearsal before it is committed; carries what the operation returned."""

    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result


async def rehearse(
    db: Database, op: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return what the operation returns, as `db.run` does, and leave nothing of what it did."""

    def rehearsal(tx: Transaction) -> T:
        raise _RehearsedError(op(tx, *args, **kwargs))

    try:
        return await db.run(rehearsal)
    except _RehearsedError as end:
        found: T = end.result
        return found
