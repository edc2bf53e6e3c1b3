"""The agent's side of the wire: HTTPS to the control plane and nothing else."""

from __future__ import annotations

import re
import ssl
from typing import Any, TypeVar

import httpx
import trio
from pydantic import BaseModel, ValidationError

from sb.secret import Secret
from sb.wire import (
    ClaimedJob,
    CompleteRequest,
    ControlPlaneKey,
    EnrollRequest,
    EnrollResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    PublicKeyRequest,
    RenewRequest,
    RenewResponse,
    WrapDelivery,
    WrapPost,
    WrapPosted,
)
from sb_agent.settings import AGENT_VERSION, AgentSettings

M = TypeVar("M", bound=BaseModel)

#: The whole of a call, answer included. A waiting claim gets its wait on top.
CALL_SECONDS = 10.0
#: Refusals that say nothing about the call itself: the same call may pass later.
_PASSING = frozenset({408, 425, 429})


class ControlPlaneError(Exception):
    """The control plane refused a call; carries its stable code, never a body."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class ControlPlaneAwayError(ControlPlaneError):
    """The control plane cannot be reached or is not able to answer now; trying again may help."""


class CredentialRejectedError(ControlPlaneError):
    """The agent's own credential is dead: it was revoked, or is not this agent's."""


def open_http(settings: AgentSettings) -> httpx.AsyncClient:
    """Return the HTTP client: TLS 1.2 or newer; a private CA, where set, is the only anchor."""
    secure = settings.cp_endpoint.startswith("https://")
    if not secure and not settings.insecure_transport:
        msg = "http:// carries credentials in clear and is refused without insecure_transport"
        raise ValueError(msg)
    return httpx.AsyncClient(
        base_url=f"{settings.cp_endpoint}/api/v1",
        verify=_trust(settings) if secure else False,
        timeout=CALL_SECONDS,
        limits=httpx.Limits(max_connections=16, keepalive_expiry=60),
        headers={"User-Agent": f"secrets-bridge-agent/{AGENT_VERSION}"},
        # HTTPS_PROXY and NO_PROXY count; a proxy would see everything of plain http.
        trust_env=secure,
    )


def _trust(settings: AgentSettings) -> ssl.SSLContext:
    if settings.cp_ca_file is None:
        context = ssl.create_default_context()
    else:
        # Made bare, so that the system's authorities are not trusted beside the private one.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=settings.cp_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def enroll(
    http: httpx.AsyncClient, settings: AgentSettings, request: EnrollRequest
) -> EnrollResponse:
    """Spend an enrolment token and return the new agent's identity."""
    response = await _send(http, settings, "POST", "/agents/enroll", body=request)
    return _parsed(EnrollResponse, response)


class ControlPlane:
    """Calls as one authenticated agent."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        settings: AgentSettings,
        *,
        agent_id: str,
        agent_secret: Secret,
    ) -> None:
        self._http = http
        self._settings = settings
        self.agent_id = agent_id
        self._secret = agent_secret

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        lease_token: Secret | None = None,
        seconds: float = CALL_SECONDS,
    ) -> httpx.Response:
        # The credential and the lease go into headers of a TLS connection.
        headers = {"X-Agent-Secret": self._secret.reveal().decode()}
        if lease_token is not None:
            headers["X-Lease-Token"] = lease_token.reveal().decode()
        return await _send(
            self._http,
            self._settings,
            method,
            f"/agents/{self.agent_id}{path}",
            body=body,
            headers=headers,
            seconds=seconds,
        )

    async def register_key(self, request: PublicKeyRequest) -> None:
        """Register the agent's public key; from then on values travel sealed to it."""
        await self._call("PUT", "/public-key", body=request)

    async def control_plane_key(self) -> ControlPlaneKey:
        """Return the key the agent should seal to."""
        return _parsed(ControlPlaneKey, await self._call("GET", "/control-plane-key"))

    async def heartbeat(self, request: HeartbeatRequest) -> HeartbeatResponse:
        """Say that the agent is alive."""
        response = await self._call("POST", "/heartbeat", body=request)
        return _parsed(HeartbeatResponse, response)

    async def claim(self, *, wait_seconds: int) -> ClaimedJob | None:
        """Return a leased job, waiting for one on the server's side; None when there is none."""
        response = await self._call(
            "POST", f"/jobs/claim?wait={wait_seconds}", seconds=wait_seconds + CALL_SECONDS
        )
        return None if response.status_code == 204 else _parsed(ClaimedJob, response)

    async def renew(self, job_id: str, lease_token: Secret) -> RenewResponse:
        """Move the end of the lease."""
        # The lease goes into the body of a TLS connection.
        request = RenewRequest(lease_token=lease_token.reveal().decode())
        response = await self._call("POST", f"/jobs/{job_id}/renew", body=request)
        return _parsed(RenewResponse, response)

    async def complete(self, job_id: str, request: CompleteRequest) -> None:
        """Report a job's outcome; saying it again under the same lease is harmless."""
        await self._call("POST", f"/jobs/{job_id}/complete", body=request)

    async def fetch_wrap(self, wrap_id: str, lease_token: Secret) -> WrapDelivery:
        """Return a value to write, sealed."""
        response = await self._call("GET", f"/wraps/{wrap_id}", lease_token=lease_token)
        return _parsed(WrapDelivery, response)

    async def post_wrap(self, request: WrapPost, lease_token: Secret) -> WrapPosted:
        """Hand over a value that was read, sealed."""
        response = await self._call("POST", "/wraps", body=request, lease_token=lease_token)
        return _parsed(WrapPosted, response)


async def _send(
    http: httpx.AsyncClient,
    settings: AgentSettings,
    method: str,
    path: str,
    *,
    body: BaseModel | None = None,
    headers: dict[str, str] | None = None,
    seconds: float = CALL_SECONDS,
) -> httpx.Response:
    extensions: dict[str, Any] = {}
    if settings.cp_tls_server_name:
        extensions["sni_hostname"] = settings.cp_tls_server_name
    given, content = {**(headers or {})}, None
    if body is not None:
        content = body.model_dump_json(exclude_none=True)
        given["Content-Type"] = "application/json"
    try:
        # The client's own timeouts begin anew with every byte; this one does not.
        with trio.fail_after(seconds):
            response = await http.request(
                method, path, content=content, headers=given, timeout=seconds, extensions=extensions
            )
    except (httpx.HTTPError, trio.TooSlowError) as problem:
        # The kind of failure only: a URL or a proxy's address may hold credentials.
        raise ControlPlaneAwayError(0, type(problem).__name__) from problem
    if response.is_success:
        return response
    raise _refusal(response)


def _refusal(response: httpx.Response) -> ControlPlaneError:
    code = _code(response)
    # A redirect is not followed: the credential goes to the configured address only.
    if response.status_code < 400 or response.status_code >= 500:
        return ControlPlaneAwayError(response.status_code, code)
    if response.status_code in _PASSING:
        return ControlPlaneAwayError(response.status_code, code)
    if response.status_code == 401:
        return CredentialRejectedError(401, code)
    return ControlPlaneError(response.status_code, code)


def _code(response: httpx.Response) -> str:
    try:
        code = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return "unreadable"
    # Whoever answers: only what has the form of a code is repeated in logs and reports.
    return code if isinstance(code, str) and re.fullmatch(r"[a-z0-9_]{1,64}", code) else "unnamed"


def _parsed(model: type[M], response: httpx.Response) -> M:
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        # Without the chain: a validation error repeats what it was given.
        raise ControlPlaneAwayError(response.status_code, "unreadable_answer") from None
