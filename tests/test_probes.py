"""The probe listener of worker and agent, asked over real sockets."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry, Counter

from sb.probes import Check, serve_probes

Scenario = Callable[[int], Awaitable[None]]


async def with_probes(
    scenario: Scenario,
    checks: dict[str, Check] | None = None,
    registry: CollectorRegistry | None = None,
    phase: Callable[[], str | None] = lambda: None,
) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(
            serve_probes,
            "127.0.0.1:0",
            checks or {},
            registry or CollectorRegistry(),
            setting="SB_ADDR",
            phase=phase,
        )
        port: int = await nursery.start(serve)
        with trio.fail_after(20):
            await scenario(port)
        nursery.cancel_scope.cancel()


async def ask(port: int, path: str, method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.request(method, f"http://127.0.0.1:{port}{path}")


async def test_readyz_all_checks_fine_is_ready() -> None:
    async def scenario(port: int) -> None:
        answer = await ask(port, "/readyz?verbose=1")
        assert answer.status_code == 200
        assert answer.json() == {"status": "ready", "checks": {"a": "ok"}, "failures": {}}
        assert (await ask(port, "/healthz")).json() == {"status": "ok"}

    await with_probes(scenario, {"a": lambda: True})


async def test_readyz_failing_check_is_named_with_a_closed_reason() -> None:
    async def scenario(port: int) -> None:
        answer = await ask(port, "/readyz")
        assert answer.status_code == 503
        assert answer.json() == {
            "status": "not_ready",
            "checks": {"a": "ok", "b": "unreachable", "c": "error", "d": "error"},
            "failures": {"b": "unreachable", "c": "error", "d": "error"},
        }
        assert (await ask(port, "/healthz")).status_code == 200

    checks: dict[str, Check] = {
        "a": lambda: True,
        "b": lambda: "unreachable",
        "c": lambda: "host=db.internal user=admin",
        "d": lambda: False,
    }
    await with_probes(scenario, checks)


@pytest.mark.parametrize("phase", ["booting", "draining"])
async def test_readyz_in_a_phase_is_not_ready_though_checks_pass(phase: str) -> None:
    async def scenario(port: int) -> None:
        answer = await ask(port, "/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, phase)

    await with_probes(scenario, {"a": lambda: True}, phase=lambda: phase)


async def test_metrics_are_those_of_the_given_registry() -> None:
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()

    async def scenario(port: int) -> None:
        answer = await ask(port, "/metrics")
        assert "things_total 1.0" in answer.text
        assert answer.headers["content-type"].startswith("text/plain")

    await with_probes(scenario, registry=registry)


async def test_other_paths_and_methods_are_refused_and_head_has_no_body() -> None:
    async def scenario(port: int) -> None:
        assert (await ask(port, "/nothing")).status_code == 404
        assert (await ask(port, "/healthz", "POST")).status_code == 405
        head = await ask(port, "/healthz", "HEAD")
        assert (head.status_code, head.content) == (200, b"")

    await with_probes(scenario)


async def test_bad_bytes_early_leave_and_broken_check_leave_the_listener_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken() -> bool:
        msg = "planted"
        raise RuntimeError(msg)

    async def scenario(port: int) -> None:
        for sent in (b"\x00\xff nonsense\r\n\r\n", b"", b"GET /healthz HTTP", b"A" * 40_000):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                if sent:
                    await stream.send_all(sent)
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(port, "/readyz")
        assert (await ask(port, "/healthz")).status_code == 200

    await with_probes(scenario, {"broken": broken})
    assert [record.message for record in caplog.records] == ["probe failed"]
