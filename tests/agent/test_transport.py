"""How the agent reaches its control plane: TLS, one trust anchor, no detours for the credential."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from sb.secret import Secret
from sb.wire import EnrollRequest, HeartbeatRequest
from sb_agent.client import (
    ControlPlane,
    ControlPlaneAwayError,
    ControlPlaneError,
    CredentialRejectedError,
    enroll,
    open_http,
)
from sb_agent.providers.file import FileProvider
from sb_agent.settings import AgentSettings
from tests.agent import plane_double
from tests.agent.agents import running, settings_for
from tests.agent.authority import Authority
from tests.agent.plane_double import SECRET, TOKEN, Call, PlaneDouble, Refuse
from tests.agent.planted import MARK


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def tls_plane(
    authority: Authority, *names: str, seen: list[Any] | None = None
) -> AsyncIterator[PlaneDouble]:
    context = authority.server_context(*names)
    context.sni_callback = lambda _tls, name, _context: (
        seen.append(name) if seen is not None else None
    )
    async with plane_double.serving(PlaneDouble(), tls=context) as plane:
        yield plane


async def try_to_enroll(settings: AgentSettings) -> Any:
    request = EnrollRequest(enrollment_token=TOKEN, agent_name="a")
    async with open_http(settings) as http:
        return await enroll(http, settings, request)


def secure(plane: PlaneDouble, root: Path, **extra: Any) -> AgentSettings:
    return settings_for(plane, root, insecure_transport=False, **extra)


async def test_agent_works_over_tls_with_a_private_authority(
    authority: Authority, tmp_path: Path
) -> None:
    store = FileProvider(tmp_path / "store.enc", tmp_path / "store.key")
    store.seed({"app/db": {"A": f"{MARK}-a"}})
    async with tls_plane(authority, "127.0.0.1") as plane:
        settings = secure(plane, tmp_path, cp_ca_file=authority.file)
        async with running(settings, store):
            assert (await plane.done(plane.read_job())).status == "succeeded"
    assert plane.posted == {"A": f"{MARK}-a".encode()}


async def test_certificate_of_another_authority_is_refused_and_no_token_is_sent(
    authority: Authority, tmp_path: Path
) -> None:
    async with tls_plane(Authority(tmp_path), "127.0.0.1") as plane:
        with pytest.raises(ControlPlaneAwayError) as caught:
            await try_to_enroll(secure(plane, tmp_path, cp_ca_file=authority.file))
    assert str(caught.value) == "0 ConnectError"
    assert plane.calls == []


async def test_private_authority_replaces_those_of_the_system(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Authority(tmp_path)
    # What the system trusts, as far as OpenSSL is concerned.
    monkeypatch.setenv("SSL_CERT_FILE", str(other.file))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with tls_plane(other, "127.0.0.1") as plane:
        with pytest.raises(ControlPlaneAwayError):
            await try_to_enroll(secure(plane, tmp_path, cp_ca_file=authority.file))
        assert plane.calls == []
        assert (await try_to_enroll(secure(plane, tmp_path))).agent_token == SECRET


async def test_certificate_for_another_name_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    async with tls_plane(authority, "bridge.example.com") as plane:
        with pytest.raises(ControlPlaneAwayError):
            await try_to_enroll(secure(plane, tmp_path, cp_ca_file=authority.file))
    assert plane.calls == []


async def test_server_name_override_is_asked_for_and_verified(
    authority: Authority, tmp_path: Path
) -> None:
    seen: list[Any] = []
    async with tls_plane(authority, "bridge.example.com", seen=seen) as plane:
        name = "bridge.example.com"
        settings = secure(plane, tmp_path, cp_ca_file=authority.file, cp_tls_server_name=name)
        assert (await try_to_enroll(settings)).agent_token == SECRET
        other = secure(plane, tmp_path, cp_ca_file=authority.file, cp_tls_server_name="other.com")
        with pytest.raises(ControlPlaneAwayError):
            await try_to_enroll(other)
    assert seen == ["bridge.example.com", "other.com"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_older_than_1_2_is_refused(authority: Authority, tmp_path: Path) -> None:
    context = authority.server_context("127.0.0.1")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with plane_double.serving(PlaneDouble(), tls=context) as plane:
        with pytest.raises(ControlPlaneAwayError):
            await try_to_enroll(secure(plane, tmp_path, cp_ca_file=authority.file))
    assert plane.calls == []


async def test_plain_http_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with plane_double.serving(PlaneDouble()) as plane:
        with pytest.raises(ValueError, match="insecure_transport"):
            await try_to_enroll(secure(plane, tmp_path))
        assert plane.calls == []
        assert (await try_to_enroll(settings_for(plane, tmp_path))).agent_token == SECRET


async def test_proxy_of_the_environment_sees_no_plain_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY")
    async with plane_double.serving(PlaneDouble()) as plane:
        assert (await try_to_enroll(settings_for(plane, tmp_path))).agent_token == SECRET


async def test_https_goes_through_the_proxy_of_the_environment(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []

    async def proxy(stream: trio.SocketStream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(1)
        asked.append(head.split(b"\r\n")[0])
        host, port = head.split()[1].decode().split(":")
        upstream = await trio.open_tcp_stream(host, int(port))
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with upstream, trio.open_nursery() as both:
            both.start_soon(_pump, stream, upstream, both.cancel_scope)
            both.start_soon(_pump, upstream, stream, both.cancel_scope)

    async with trio.open_nursery() as nursery, tls_plane(authority, "127.0.0.1") as plane:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, proxy, listeners)
        port = listeners[0].socket.getsockname()[1]
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY")
        settings = secure(plane, tmp_path, cp_ca_file=authority.file)
        assert (await try_to_enroll(settings)).agent_token == SECRET
        nursery.cancel_scope.cancel()
    assert asked == [f"CONNECT {plane.url.removeprefix('https://')} HTTP/1.1".encode()]


async def _pump(
    source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
) -> None:
    async for data in source:
        await target.send_all(data)
    scope.cancel()


@asynccontextmanager
async def connected(tmp_path: Path) -> AsyncIterator[tuple[PlaneDouble, ControlPlane]]:
    async with plane_double.serving(PlaneDouble()) as plane:
        settings = settings_for(plane, tmp_path)
        async with open_http(settings) as http:
            secret = Secret(SECRET.encode())
            yield (
                plane,
                ControlPlane(http, settings, agent_id=plane.agent_id, agent_secret=secret),
            )


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, CredentialRejectedError),
        (400, ControlPlaneError),
        (403, ControlPlaneError),
        (404, ControlPlaneError),
        (409, ControlPlaneError),
        (410, ControlPlaneError),
        (408, ControlPlaneAwayError),
        (425, ControlPlaneAwayError),
        (429, ControlPlaneAwayError),
        (500, ControlPlaneAwayError),
        (503, ControlPlaneAwayError),
        (307, ControlPlaneAwayError),
    ],
)
async def test_refusals_tell_final_from_passing(
    tmp_path: Path, status: int, kind: type[ControlPlaneError]
) -> None:
    async with connected(tmp_path) as (plane, client):
        plane.refuse("heartbeat", status, "some_code")
        with pytest.raises(ControlPlaneError) as caught:
            await client.heartbeat(HeartbeatRequest())
    assert type(caught.value) is kind
    assert (caught.value.status, caught.value.code) == (status, "some_code")


async def test_redirect_does_not_take_the_credential_elsewhere(tmp_path: Path) -> None:
    async with (
        plane_double.serving(PlaneDouble()) as elsewhere,
        connected(tmp_path) as (
            plane,
            client,
        ),
    ):

        async def redirect(call: Call) -> Refuse:
            path = f"/api/v1/agents/{elsewhere.agent_id}/heartbeat"
            return Refuse(307, "moved", {"location": f"{elsewhere.url}{path}"})

        plane.hooks["heartbeat"] = redirect
        with pytest.raises(ControlPlaneAwayError):
            await client.heartbeat(HeartbeatRequest())
        assert elsewhere.calls == []


@pytest.mark.parametrize("body", [f"<b>{MARK}</b>", {"error": MARK + "!"}, {"error": 5}, [], None])
async def test_text_of_a_strangers_answer_is_not_repeated(tmp_path: Path, body: Any) -> None:
    async with connected(tmp_path) as (plane, client):

        async def strange(call: Call) -> Any:
            return {"server_time": body, "next_heartbeat_seconds": MARK}

        plane.hooks["heartbeat"] = strange
        with pytest.raises(ControlPlaneAwayError) as caught:
            await client.heartbeat(HeartbeatRequest())
    assert str(caught.value) == "200 unreadable_answer"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
