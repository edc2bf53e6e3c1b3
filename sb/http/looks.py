"""What a call knows of its caller, and for how long: who has waited since is looked up again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sb.clock import monotonic
from sb.db.engine import Transaction
from sb.errors import SbError
from sb.ops.callers import AgentCaller, Caller

Who = TypeVar("Who", Caller, AgentCaller)

#: How old a look may be when a transaction decides by it. Most calls end well within that time.
LOOK_SECONDS = 0.2


class CallerChangedError(SbError):
    code = "caller_changed"
    status = 409
    message = "What you may do changed again while this call waited. Nothing was done; try again."


@dataclass(slots=True, kw_only=True)
class Look(Generic[Who]):
    """The caller as they were found at a moment; watches the transactions of their call."""

    who: Who
    #: By the monotonic clock, in the transaction that looked.
    at: float
    #: Finds them again; None when they are not let in any more.
    again: Callable[[Transaction], Who | None]

    def __call__(self, tx: Transaction) -> None:
        """Refuse to go on as somebody who by now is another, or nobody."""
        now = monotonic()
        if now - self.at <= LOOK_SECONDS:
            return
        if self.again(tx) != self.who:
            raise CallerChangedError
        self.at = now
