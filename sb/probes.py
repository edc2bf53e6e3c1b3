"""A small HTTP listener for `/healthz`, `/readyz` and `/metrics` of processes that serve no API."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import h11
import trio
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

log = logging.getLogger(__name__)

#: True is fine; False, or a reason out of REASONS, is not.
Check = Callable[[], bool | str]
#: What a process says of itself whatever its checks say: None, "booting" or "draining".
Phase = Callable[[], str | None]

REASONS: Final = frozenset({"timeout", "unreachable", "auth_failed", "schema_outdated", "error"})
REQUEST_SECONDS: Final = 5.0
MAX_BYTES: Final = 16 * 1024
JSON: Final = "application/json"


class CannotListenError(OSError):
    """An address cannot be listened on; the message names it and what sets it."""


@contextmanager
def listening_on(address: str, setting: str) -> Iterator[None]:
    """Let what the system says about the address while the block opens it be a sentence."""
    try:
        yield
    except* OSError as group:
        problem: BaseException = group
        while isinstance(problem, BaseExceptionGroup):
            problem = problem.exceptions[0]
        reason = getattr(problem, "strerror", None) or type(problem).__name__
        msg = f"cannot listen on {address} ({reason}): name another address with {setting}"
        raise CannotListenError(msg) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    status: int
    kind: str
    body: bytes


def _no_phase() -> str | None:
    return None


async def serve_probes(
    address: str,
    checks: Mapping[str, Check],
    registry: CollectorRegistry,
    *,
    setting: str,
    phase: Phase = _no_phase,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer probes on the address until cancelled; started with the port.

    Raises CannotListenError, which names the setting of the address, where it cannot listen.
    """
    host, _, port = address.rpartition(":")

    def respond(path: str) -> _Answer:
        return _respond(path, checks, registry, phase)

    async def handle(stream: trio.SocketStream) -> None:
        try:
            with trio.move_on_after(REQUEST_SECONDS):
                await _serve(stream, respond)
        except (h11.ProtocolError, trio.BrokenResourceError):
            return  # Whoever asks for probes may ask badly or leave early.
        except Exception:
            # One bad question must not take the process down with the listener's nursery.
            log.exception("probe failed")
        finally:
            await trio.aclose_forcefully(stream)

    with listening_on(address, setting):
        listeners = await trio.open_tcp_listeners(int(port), host=host.strip("[]") or None)
    bound: int = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, handle, listeners)
        task_status.started(bound)


async def _serve(stream: trio.SocketStream, respond: Callable[[str], _Answer]) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_BYTES)
    request = await _request(stream, connection)
    if request is None:
        return
    if request.method in (b"GET", b"HEAD"):
        answer = respond(request.target.decode("ascii", "replace").partition("?")[0])
    else:
        answer = _error(405, "method_not_allowed")
    headers = [
        ("content-type", answer.kind),
        ("content-length", str(len(answer.body))),
        ("connection", "close"),
    ]
    reply = connection.send(h11.Response(status_code=answer.status, headers=headers)) or b""
    if request.method != b"HEAD":
        reply += connection.send(h11.Data(data=answer.body)) or b""
    reply += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(reply)
    await stream.send_eof()


async def _request(stream: trio.SocketStream, connection: h11.Connection) -> h11.Request | None:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(4096))
        elif isinstance(event, h11.Request):
            return event
        else:
            return None


def _respond(
    path: str, checks: Mapping[str, Check], registry: CollectorRegistry, phase: Phase
) -> _Answer:
    match path:
        case "/healthz":
            return _Answer(status=200, kind=JSON, body=b'{"status": "ok"}')
        case "/readyz":
            return _ready(checks, phase())
        case "/metrics":
            return _Answer(status=200, kind=CONTENT_TYPE_LATEST, body=generate_latest(registry))
        case _:
            return _error(404, "not_found")


def _ready(checks: Mapping[str, Check], phase: str | None) -> _Answer:
    results = {name: _outcome(check()) for name, check in checks.items()}
    failures = {name: reason for name, reason in results.items() if reason != "ok"}
    status = phase or ("not_ready" if failures else "ready")
    body = {"status": status, "checks": results, "failures": failures}
    return _Answer(
        status=200 if status == "ready" else 503, kind=JSON, body=json.dumps(body).encode()
    )


def _outcome(found: bool | str) -> str:
    if found is True:
        return "ok"
    # A closed set, so that no driver text is ever published here.
    return found if isinstance(found, str) and found in REASONS else "error"


def _error(status: int, code: str) -> _Answer:
    return _Answer(status=status, kind=JSON, body=json.dumps({"error": code}).encode())
