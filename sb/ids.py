"""Identifiers: distinct string types and the one function that makes new ones."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from typing import NewType

UserId = NewType("UserId", str)
SessionId = NewType("SessionId", str)
RoleId = NewType("RoleId", str)
GrantId = NewType("GrantId", str)
TeamId = NewType("TeamId", str)
ProjectId = NewType("ProjectId", str)
WorkflowId = NewType("WorkflowId", str)
RequestId = NewType("RequestId", str)
JobId = NewType("JobId", str)
WrapId = NewType("WrapId", str)
AgentId = NewType("AgentId", str)
ConnectionId = NewType("ConnectionId", str)

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


_lock = threading.Lock()
_latest = 0


def new_id() -> str:
    """Return a fresh UUIDv7 (RFC 9562 §6.2, method 3): the ids of one process sort by age.

    60 bits of time, milliseconds and 4096ths of them, and 62 random ones.
    """
    global _latest
    nanoseconds = time.time_ns()
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    with _lock:
        # Within one tick, or when the clock steps back, the next tick is taken.
        _latest = ticks = max(milliseconds << 12 | (rest << 12) // 1_000_000, _latest + 1)
    random_bits = int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1
    value = (ticks >> 12) << 80 | 0x7 << 76 | (ticks & 0xFFF) << 64 | 0b10 << 62 | random_bits
    return str(uuid.UUID(int=value))


def is_id(text: str) -> bool:
    """Tell whether the text is a UUID in canonical form: lower-case, hyphenated."""
    return _CANONICAL.fullmatch(text) is not None
