"""A control plane for the agent's tests: real HTTP, every answer in the test's hands.

It speaks `sb.wire` and checks what the real one checks of an agent: credential, lease, sealing.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import h11
import trio

from sb.sealing import (
    WRAP_TO_AGENT,
    WRAP_TO_CONTROL_PLANE,
    KeyPair,
    SealedBox,
    agent_to_control_plane_aad,
    generate_keypair,
    open_sealed,
    seal,
)
from sb.secret import Secret
from sb.wire import CompleteRequest, EnrollRequest, HeartbeatRequest, PublicKeyRequest, WrapPost

TOKEN = "enrolment-token"
SECRET = "agent-secret"
CONNECTION = "9c1d7a52-6d5c-4f0e-8f6a-0d7b1c2e3f40"
STATUS = {"enroll": 201, "public_key": 204, "complete": 204, "post_wrap": 201}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request of the agent."""

    route: str
    headers: dict[str, str]
    body: Any
    #: The job's or the wrap's id, where the path has one.
    id: str = ""
    wait_seconds: float = 0
    at: float = field(default_factory=trio.current_time)


@dataclass(frozen=True)
class Refuse:
    """An answer that is no success."""

    status: int
    code: str
    headers: dict[str, str] = field(default_factory=dict)


Answer = Any
Hook = Callable[[Call], Awaitable[Answer]]


class PlaneDouble:
    """One enrolled or not yet enrolled agent's control plane."""

    def __init__(self) -> None:
        self.url = ""
        self.agent_id = str(uuid4())
        self.keys: list[KeyPair] = [generate_keypair()]
        self.agent_key = b""
        self.tokens = {TOKEN}
        self.calls: list[Call] = []
        self.posted: dict[str, bytes] = {}
        self.completed: dict[str, CompleteRequest] = {}
        self.heartbeat_seconds = 30
        #: Asked first; what it returns, unless None, is the answer.
        self.hooks: dict[str, Hook] = {}
        self._queue: list[dict[str, Any]] = []
        self._leases: dict[str, str] = {}
        self._wraps: dict[str, tuple[str, str, bytes]] = {}
        self._changed = trio.Event()

    def read_job(self, ref: str = "app/db", keys: list[str] | None = None, **extra: Any) -> str:
        """Queue a read and return its id."""
        return self._put("read", {"target_secret_ref": ref, "target_keys": keys or []}, extra)

    def patch_job(
        self, values: Mapping[str, str | bytes], ref: str = "app/db", **extra: Any
    ) -> str:
        """Queue a patch and return its id."""
        request_id, wraps = str(uuid4()), []
        for name, value in values.items():
            wrap_id, raw = str(uuid4()), value if isinstance(value, bytes) else value.encode()
            self._wraps[wrap_id] = (request_id, name, raw)
            wraps.append({"wrap_id": wrap_id, "key_name": name})
        payload = {"target_secret_ref": ref, "request_id": request_id, "wraps": wraps}
        return self._put("patch", payload, extra)

    def _put(self, job_type: str, payload: dict[str, Any], extra: dict[str, Any]) -> str:
        job_id, lease = str(uuid4()), f"lease-{uuid4()}"
        payload = {
            "request_id": str(uuid4()),
            "target_provider_type": "file",
            "provider_connection_id": CONNECTION,
            **payload,
            **extra.pop("payload", {}),
        }
        self._leases[job_id] = lease
        self._queue.append(
            {
                "id": job_id,
                "job_type": job_type,
                "payload": payload,
                "correlation_id": payload["request_id"],
                "claim_expires_at": datetime.now(UTC).isoformat(),
                "lease_seconds": 30,
                "lease_token": lease,
                "attempt": 1,
                "max_attempts": 3,
                **extra,
            }
        )
        self._pulse()
        return job_id

    def refuse(self, route: str, status: int, code: str, times: int | None = None) -> None:
        """Refuse a route, this often or until further notice."""
        left = [times]

        async def hook(call: Call) -> Answer:
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    return None
            return Refuse(status, code)

        self.hooks[route] = hook

    def heard_of(self, route: str) -> list[Call]:
        """Return the calls of a route so far."""
        return [call for call in self.calls if call.route == route]

    async def heard(self, route: str, count: int = 1) -> list[Call]:
        """Return a route's calls once there are this many."""
        await self.until(lambda: len(self.heard_of(route)) >= count)
        return self.heard_of(route)

    async def done(self, job_id: str) -> CompleteRequest:
        """Return how a job ended."""
        await self.until(lambda: job_id in self.completed)
        return self.completed[job_id]

    async def until(self, check: Callable[[], bool]) -> None:
        """Return once the check holds; it is asked after every call."""
        with trio.fail_after(10):
            while not check():
                await self._changed.wait()

    def _pulse(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def answer(self, call: Call) -> Answer:
        """Answer a call: what the test wants first, then what a control plane does."""
        self.calls.append(call)
        self._pulse()
        if call.route in self.hooks:
            found = await self.hooks[call.route](call)
            if found is not None:
                return found
        if call.route != "enroll" and call.headers.get("x-agent-secret") != SECRET:
            return Refuse(401, "agent_rejected")
        found = await getattr(self, f"_{call.route}")(call)
        self._pulse()
        return found

    async def _enroll(self, call: Call) -> Answer:
        request = EnrollRequest.model_validate(call.body)
        if request.enrollment_token not in self.tokens:
            return Refuse(401, "enrollment_token_invalid")
        self.tokens.remove(request.enrollment_token)
        return {
            "agent_id": self.agent_id,
            "provider_connection_id": CONNECTION,
            "agent_token": SECRET,
            "heartbeat_interval_seconds": 30,
            "job_poll_interval_seconds": 5,
            "control_plane_public_key": _base64(self.keys[0].public),
        }

    async def _public_key(self, call: Call) -> Answer:
        request = PublicKeyRequest.model_validate(call.body)
        self.agent_key = base64.b64decode(request.public_key, validate=True)
        return {}

    async def _control_plane_key(self, call: Call) -> Answer:
        first, *previous = [_base64(pair.public) for pair in self.keys]
        return {"public_key": first, "previous": previous}

    async def _heartbeat(self, call: Call) -> Answer:
        HeartbeatRequest.model_validate(call.body)
        return {
            "status": "ok",
            "server_time": datetime.now(UTC).isoformat(),
            "next_heartbeat_seconds": self.heartbeat_seconds,
        }

    async def _claim(self, call: Call) -> Answer:
        with trio.move_on_after(call.wait_seconds):
            while not self._queue:
                await self._changed.wait()
        return self._queue.pop(0) if self._queue else None

    async def _renew(self, call: Call) -> Answer:
        if self._leases.get(call.id) != call.body["lease_token"]:
            return Refuse(409, "lease_lost")
        return {"claim_expires_at": datetime.now(UTC).isoformat()}

    async def _complete(self, call: Call) -> Answer:
        request = CompleteRequest.model_validate(call.body)
        if self._leases.get(call.id) != request.lease_token:
            return Refuse(409, "lease_lost")
        self.completed[call.id] = request
        return {}

    def lose_lease(self, job_id: str) -> None:
        """Give the job to somebody else."""
        self._leases[job_id] = "of another agent"

    async def _fetch_wrap(self, call: Call) -> Answer:
        if call.headers.get("x-lease-token") not in self._leases.values():
            return Refuse(409, "lease_lost")
        return self.delivery(call.id)

    def delivery(self, wrap_id: str, key: bytes | None = None) -> dict[str, Any]:
        """Return a value on its way, sealed to the agent's or to another key."""
        request_id, name, value = self._wraps[wrap_id]
        box = seal(Secret(value), key or self.agent_key, info=WRAP_TO_AGENT)
        return {
            "wrap_id": wrap_id,
            "request_id": request_id,
            "key_name": name,
            "byte_length": len(value),
            "algorithm": "AES-256-GCM",
            "sealed": box.to_json(),
        }

    async def _post_wrap(self, call: Call) -> Answer:
        post = WrapPost.model_validate(call.body)
        if call.headers.get("x-lease-token") not in self._leases.values():
            return Refuse(409, "lease_lost")
        assert post.value is None
        assert post.sealed is not None
        value = open_sealed(
            SealedBox.from_json(post.sealed.model_dump()),
            self.keys[-1].private,
            info=WRAP_TO_CONTROL_PLANE,
            aad=agent_to_control_plane_aad(
                request_id=post.request_id, key_name=post.key_name, agent_id=self.agent_id
            ),
        )
        self.posted[post.key_name] = value.reveal()
        return {
            "wrap_id": str(uuid4()),
            "request_id": post.request_id,
            "key_name": post.key_name,
            "byte_length": value.byte_length,
            "expires_at": datetime.now(UTC).isoformat(),
        }


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _route(method: str, path: str, agent_id: str) -> tuple[str, str]:
    parts = path.removeprefix("/api/v1/agents/").split("/")
    if parts == ["enroll"]:
        return "enroll", ""
    assert parts[0] == agent_id, path
    match (method, *parts[1:]):
        case ("PUT", "public-key") | ("GET", "control-plane-key") | ("POST", "heartbeat"):
            return parts[1].replace("-", "_"), ""
        case ("POST", "jobs", "claim"):
            return "claim", ""
        case ("POST", "jobs", job_id, ("renew" | "complete") as verb):
            return verb, job_id
        case ("GET", "wraps", wrap_id):
            return "fetch_wrap", wrap_id
        case ("POST", "wraps"):
            return "post_wrap", ""
    raise AssertionError(f"{method} {path}")


@asynccontextmanager
async def serving(
    plane: PlaneDouble, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[PlaneDouble]:
    """Answer at `plane.url` for as long as the context lasts."""

    async def handle(stream: trio.abc.Stream) -> None:
        try:
            await _converse(plane, stream)
        except (trio.BrokenResourceError, h11.RemoteProtocolError, ssl.SSLError):
            return
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners: Any = await trio.open_tcp_listeners(port, host="127.0.0.1")
        bound = listeners[0].socket.getsockname()[1]
        if tls is not None:
            listeners = [trio.SSLListener(each, tls, https_compatible=True) for each in listeners]
        plane.url = f"{'https' if tls else 'http'}://127.0.0.1:{bound}"
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        yield plane
        nursery.cancel_scope.cancel()


async def _converse(plane: PlaneDouble, stream: trio.abc.Stream) -> None:
    connection = h11.Connection(h11.SERVER)
    while True:
        request, raw = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                raw += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return
        assert request is not None
        url = urlsplit(request.target.decode())
        route, id_ = _route(request.method.decode(), url.path, plane.agent_id)
        call = Call(
            route=route,
            id=id_,
            headers={name.decode(): value.decode() for name, value in request.headers},
            body=json.loads(raw) if raw else None,
            wait_seconds=float(parse_qs(url.query).get("wait", ["0"])[0]),
        )
        await _reply(connection, stream, route, await plane.answer(call))
        connection.start_next_cycle()


async def _reply(
    connection: h11.Connection, stream: trio.abc.Stream, route: str, answer: Answer
) -> None:
    headers = {"content-type": "application/json"}
    if isinstance(answer, Refuse):
        status, body = answer.status, json.dumps({"error": answer.code}).encode()
        headers |= answer.headers
    else:
        status = 204 if answer is None else STATUS.get(route, 200)
        body = b"" if status == 204 else json.dumps(answer).encode()
    headers["content-length"] = str(len(body))
    response = h11.Response(status_code=status, headers=list(headers.items()))
    data = connection.send(response) or b""
    data += connection.send(h11.Data(data=body)) or b""
    data += connection.send(h11.EndOfMessage()) or b""
    await stream.send_all(data)
