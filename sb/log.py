"""JSON lines on standard error: time, level, msg, service and fields. Values never get this far;
what looks like a credential anyway is struck out as the last line of defence."""

from __future__ import annotations

import json
import logging
import socket
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from sb.sanitize import redact_credentials

request_id_var: ContextVar[str | None] = ContextVar("request_id", default=None)

REDACTED = "[REDACTED]"
_DENIED_FIELDS = frozenset(
    {
        "password",
        "secret",
        "token",
        "value",
        "plaintext",
        "authorization",
        "cookie",
        "key_values",
    }
)
_DENIED_ENDINGS = ("_password", "_secret", "_token", "_plaintext", "_cookie", "_private_key")
_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR", "NOTSET": "DEBUG"}
_THRESHOLDS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
#: Their request lines would repeat paths and hosts at every call.
_QUIET = (
    "hypercorn.access",
    "hypercorn.error",
    "httpx",
    "httpcore",
    "urllib3",
    "hvac",
    "quart.app",
)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; fields of a record never replace what names the line."""

    def __init__(self, service: str, replica: str | None = None) -> None:
        super().__init__()
        self._service = service
        self._replica = replica or socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        named: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _LEVELS.get(record.levelname, record.levelname),
            "msg": redact_credentials(record.getMessage()),
            "service": self._service,
            "replica": self._replica,
        }
        if (request_id := request_id_var.get()) is not None:
            named["request_id"] = request_id
        if record.exc_info and record.exc_info[1] is not None:
            named["error_type"] = _kinds(record.exc_info[1])
            named["traceback"] = _where(record.exc_info[2])
        fields = clean(getattr(record, "fields", {}))
        entry = {**named, **{name: fields[name] for name in fields if name not in named}}
        # ASCII only: a lone surrogate in somebody's input must not make the stream refuse the line.
        return json.dumps(entry, default=_shown)


def clean(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with denied names and credential-shaped texts struck out."""
    return {
        str(name): REDACTED if _denied(str(name)) else _clean_value(value)
        for name, value in fields.items()
    }


def _denied(name: str) -> bool:
    return name.lower() in _DENIED_FIELDS or name.lower().endswith(_DENIED_ENDINGS)


def _clean_value(value: Any) -> Any:
    match value:
        case str():
            return redact_credentials(value)
        case Mapping():
            return clean(value)
        case list() | tuple() | set() | frozenset():
            return [_clean_value(item) for item in value]
        case bytes() | bytearray():
            return REDACTED  # Bytes are keys, tokens or values; none belongs into a log.
        case _:
            return value


def _shown(value: object) -> str:
    # repr, because the types that carry secrets redact there and refuse str.
    return redact_credentials(repr(value))


def _kinds(error: BaseException) -> str:
    """Return the error's class, for a group those of its leaves: a nursery wraps everything."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(sorted({_kinds(inner) for inner in error.exceptions}))
    return type(error).__name__


def _where(trace: TracebackType | None) -> list[str]:
    # Places only: the text of an exception may repeat what a driver or a library was given.
    return [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)
    ]


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send every log record of this process to the stream as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_THRESHOLDS.get(level.lower(), logging.INFO))
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
