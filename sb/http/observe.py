"""Around every request: its id, one access log line, metrics by route template, safe headers."""

from __future__ import annotations

import ipaddress
import logging
import re
import uuid
from collections.abc import Iterable
from typing import Any

from sb.clock import monotonic
from sb.http.state import AppState
from sb.log import request_id_var

access_log = logging.getLogger("sb.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)


class Observed:
    """An ASGI application that observes the one it wraps."""

    def __init__(self, app: Any, state: AppState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})  # nothing here speaks it: 403
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        scope["sb.request_id"] = request_id
        scope["sb.client_ip"] = client_ip(scope, self._state)
        token = request_id_var.set(request_id)
        seen = {"status": 499, "bytes": 0}
        started = monotonic()

        async def observed_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                message["headers"] = _with_ours(message["headers"], request_id)
            elif message["type"] == "http.response.body":
                seen["bytes"] += len(message.get("body", b""))
            await send(message)

        self._state.metrics.in_flight.inc()
        try:
            await self._app(scope, receive, observed_send)
        finally:
            self._state.metrics.in_flight.dec()
            self._note(scope, seen, monotonic() - started)
            request_id_var.reset(token)

    def _note(self, scope: Any, seen: dict[str, int], seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = scope.get("sb.route", "unmatched")
        metrics = self._state.metrics
        metrics.requests.labels(
            method=method, route=route, status_class=f"{seen['status'] // 100}xx"
        ).inc()
        metrics.duration.labels(method=method, route=route).observe(seconds)
        level = logging.DEBUG if scope["path"] in _PROBES else logging.INFO
        if not access_log.isEnabledFor(level):
            return
        fields = {
            "request_id": scope["sb.request_id"],
            "method": method,
            # The template, or the path cut short: never the query string.
            "route": route,
            "path": scope["path"][:200],
            "status": seen["status"],
            "bytes": seen["bytes"],
            "duration_ms": round(seconds * 1000, 2),
            "remote_ip": scope["sb.client_ip"],
            "actor": scope.get("sb.actor", "anonymous"),
        }
        access_log.log(level, "request", extra={"fields": fields})


_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})


def name_route(scope: Any, route: str) -> None:
    """Leave the template that log lines and metrics will name."""
    scope["sb.route"] = route


def _with_ours(
    headers: Iterable[tuple[bytes, bytes]], request_id: str
) -> list[tuple[bytes, bytes]]:
    found = [*headers, (b"x-request-id", request_id.encode()), *_HEADERS]
    if not any(name.lower() == b"cache-control" for name, _ in found):
        # Probes, documents and pages too: a proxy in between must not answer for us.
        found.append((b"cache-control", b"no-store"))
    return found


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id":
            text = value.decode("latin-1").strip()
            if _REQUEST_ID.fullmatch(text):
                return text
    return uuid.uuid4().hex


def client_ip(scope: Any, state: AppState) -> str:
    """Return the caller's address; `X-Forwarded-For` counts only as far as proxies are trusted."""
    client = scope.get("client")
    address = client[0] if client else "unknown"
    if not state.trusted_proxies:
        return str(address)
    forwarded = [
        part.strip()
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
        for part in value.decode("latin-1").split(",")
    ]
    for hop in reversed(forwarded):
        if not _trusted(address, state):
            break
        address = hop
    return str(address)[:64]


def _trusted(address: str, state: AppState) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in state.trusted_proxies)
