"""The HTTP server on real sockets: endings, drains, headers, log lines, metrics and proxies."""

from __future__ import annotations

import ipaddress
import json
import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import hypercorn.trio
import pytest
import trio

from sb import serve
from sb.errors import InternalError, NotFoundError, PermissionDeniedError
from sb.http import app as app_module
from sb.http import endings
from sb.http.errors import meaning_of
from sb.log import JsonFormatter
from sb.settings import ApiSettings
from tests import stack
from tests.http.conftest import PLANTED, Raw, Served, Serving
from tests.http.hostile import refused
from tests.stack import Stack, until

GET = b"GET /api/v1%b HTTP/1.1\r\nHost: x\r\n\r\n"
SAFE = {"x-content-type-options": "nosniff", "x-frame-options": "DENY"}


async def test_an_abandoned_long_poll_is_cancelled(serving: Serving) -> None:
    async with serving() as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        await stream.send_all(GET % b"/toys/wait")
        await served.seen.waiting.wait()
        await stream.aclose()
        with trio.fail_after(5):
            await served.seen.cancelled.wait()


async def test_readiness_turns_before_the_door_closes(sqlite_url: str, tmp_path: Path) -> None:
    async with (
        stack.running(sqlite_url, None, tmp_path, API_SHUTDOWN_DELAY="1s") as plane,
        httpx.AsyncClient(base_url=plane.url) as http,
    ):
        agent = await plane.enroll(await plane.connection())
        assert (await http.get("/readyz")).json()["status"] == "ready"
        answers: list[int] = []

        async def poll() -> None:
            answers.append((await agent.post("/jobs/claim?wait=20")).status_code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            plane.stop.set()
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            assert (await http.get("/healthz")).status_code == 200
            assert answers == []
        assert answers == [204], "the long poll was let go, not cut"
        with pytest.raises(httpx.ConnectError):
            await until(partial(_refused, plane.url))


async def _refused(url: str) -> bool:
    async with httpx.AsyncClient(base_url=url) as fresh:
        await fresh.get("/healthz")
    return False


async def test_an_abandoned_claim_takes_no_job(plane: Stack) -> None:
    agent = await plane.enroll(await plane.connection())
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    body = {"target_provider_type": "file", "target_secret_ref": "app/db", "justification": "1"}
    request_id = (await dev.post("/requests/read", body)).json()["id"]
    secret = agent.enrolled["agent_token"].encode()
    path = f"/api/v1/agents/{agent.id}/jobs/claim?wait=20".encode()
    stream = await trio.open_tcp_stream("127.0.0.1", httpx.URL(plane.url).port or 0)
    await stream.send_all(
        b"POST %b HTTP/1.1\r\nHost: x\r\nX-Agent-Secret: %b\r\nContent-Length: 0\r\n\r\n"
        % (path, secret)
    )

    async def polling() -> bool:
        return agent.id in plane.state.polls

    async def gone() -> bool:
        return agent.id not in plane.state.polls

    await until(polling)
    await stream.aclose()
    await until(gone)

    await approver.post(f"/requests/{request_id}/approve")
    claimed = await agent.post("/jobs/claim")
    assert (claimed.status_code, claimed.json()["attempt"]) == (200, 1)


async def test_stop_drains_work_under_way_and_refuses_new(serving: Serving) -> None:
    answers: list[httpx.Response] = []
    async with serving() as served, trio.open_nursery() as nursery:

        async def work() -> None:
            answers.append(await served.client.get("/toys/slow"))

        async def refuses() -> bool:
            try:
                await (await trio.open_tcp_stream("127.0.0.1", served.port)).aclose()
            except OSError:
                return True
            return False

        nursery.start_soon(work)
        await served.seen.waiting.wait()
        served.stop.set()
        await until(refuses, seconds=3)
        assert not served.finished.is_set()
        served.seen.go_on.set()
        with trio.fail_after(4):
            await served.finished.wait()
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"done": True})]


async def test_stop_ends_waiting_long_polls_at_once(serving: Serving) -> None:
    answers: list[httpx.Response] = []
    async with serving() as served, trio.open_nursery() as nursery:

        async def poll() -> None:
            answers.append(await served.client.get("/toys/wait"))

        nursery.start_soon(poll)
        await served.seen.waiting.wait()
        served.stop.set()
        with trio.fail_after(3):
            await served.finished.wait()
    assert [answer.status_code for answer in answers] == [204]
    assert not served.seen.cancelled.is_set()


async def test_stop_ends_a_waiting_claim_at_once(plane: Stack) -> None:
    agent = await plane.enroll(await plane.connection())
    answers: list[httpx.Response] = []

    async def poll() -> None:
        answers.append(await agent.post("/jobs/claim?wait=25"))

    async def polling() -> bool:
        return agent.id in plane.state.polls

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poll)
            await until(polling)
            plane.stop.set()
    assert [answer.status_code for answer in answers] == [204]


async def test_stop_gives_up_on_stuck_work_after_the_grace(
    serving: Serving, settings: ApiSettings
) -> None:
    # The settings are frozen; this test has them to itself.
    object.__setattr__(settings, "api_shutdown_grace", settings.api_shutdown_grace / 10)
    async with serving() as served, trio.open_nursery() as nursery:

        async def work() -> None:
            with pytest.raises(httpx.TransportError):
                await served.client.get("/toys/slow")

        nursery.start_soon(work)
        await served.seen.waiting.wait()
        served.stop.set()
        with trio.fail_after(4):
            await served.finished.wait()


async def test_a_group_of_errors_answers_with_their_meaning(serving: Serving) -> None:
    async with serving() as served:
        refused(await served.client.get("/toys/group"), 404, "not_found")


def test_the_gravest_error_of_a_group_speaks() -> None:
    inner = ExceptionGroup("inner", [NotFoundError(), PermissionDeniedError()])
    assert meaning_of(inner).code == "not_found"
    assert meaning_of(ExceptionGroup("outer", [inner, ValueError(PLANTED)])).status == 500
    assert isinstance(meaning_of(ExceptionGroup("x", [KeyError(PLANTED)])), InternalError)


async def test_an_unexpected_error_says_nothing_of_itself(
    serving: Serving, claimed_errors: Callable[[], list[logging.LogRecord]]
) -> None:
    async with serving() as served:
        answer = await served.client.get("/toys/boom", headers={"x-request-id": "boom-1"})
        body = refused(answer, 500, "internal_error")
        assert set(body) == {"error", "message", "request_id"}
        for word in (PLANTED, "RuntimeError", "Traceback", "conftest"):
            assert word not in answer.text
        (record,) = claimed_errors()
        line = JsonFormatter("test").format(record)
        assert PLANTED not in line
        found = json.loads(line)
        assert (found["request_id"], found["error_type"]) == ("boom-1", "RuntimeError")
        assert found["route"] == "GET /toys/boom"

        async def counted() -> bool:
            return 'route="/api/v1/toys/boom",status_class="5xx"} 1.0' in await metrics(served)

        assert await until(counted)


async def metrics(served: Served) -> str:
    return (await served.client.get(f"{served.url}/metrics")).text


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("abc-1:2.3_4", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("a b", False),
        ("<script>", False),
        ('a"b', False),
        ("", False),
    ],
)
async def test_a_request_id_is_kept_only_when_it_is_harmless(
    serving: Serving, caplog: pytest.LogCaptureFixture, sent: str, kept: bool
) -> None:
    async with serving() as served:
        answer = await served.client.get("/toys/denied", headers={"x-request-id": sent})
        request_id = answer.headers["x-request-id"]
        assert (request_id == sent) is kept
        assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", request_id)
        assert answer.json()["request_id"] == request_id
        (row,) = await served.audit_rows("toy.denied")
        assert row.http_request_id == request_id
    assert request_id in [line["request_id"] for line in access_lines(caplog)]


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    records = [record for record in caplog.records if record.name == "sb.access"]
    return [json.loads(JsonFormatter("test").format(record)) for record in records]


@pytest.mark.usefixtures("claimed_errors")
async def test_every_answer_carries_the_safe_headers(serving: Serving) -> None:
    paths = ["/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/nowhere"]
    paths += [f"/api/v1/toys/{name}" for name in ("literal", "boom", "group", "secret", "x")]
    async with serving() as served:
        for path in paths:
            for method in ("GET", "HEAD", "POST"):
                answer = await served.client.request(method, served.url + path)
                where = (method, path, answer.status_code)
                assert {name: answer.headers.get(name) for name in SAFE} == SAFE, where
                assert answer.headers["cache-control"] == "no-store", where
                assert answer.headers["referrer-policy"] == "no-referrer", where
                assert "server" not in answer.headers, where
                assert len(answer.headers.get_list("x-request-id")) == 1, where
        policy = (await served.client.get(f"{served.url}/docs")).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")


async def test_an_access_line_names_the_template_and_never_the_query(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as served:
        token = await served.sign_in()
        toy = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
        headers = {"authorization": f"Bearer {token}", "x-request-id": "line-1"}
        await served.client.get(f"/toys/{toy}?q={PLANTED}", headers=headers)

        async def logged() -> Any:  # The line is written after the answer has left.
            return [line for line in access_lines(caplog) if line["request_id"] == "line-1"]

        (line,) = await until(logged)
        assert re.fullmatch(r"user:[0-9a-f-]{36}", line.pop("actor"))
        assert line.pop("duration_ms") >= 0
        assert line.pop("bytes") > 0
        names = ("method", "route", "path", "status", "remote_ip")
        assert {name: line[name] for name in names} == {
            "method": "GET",
            "route": "/api/v1/toys/<id:toy_id>",
            "path": f"/api/v1/toys/{toy}",
            "status": 200,
            "remote_ip": "127.0.0.1",
        }
        for found in access_lines(caplog):
            assert PLANTED not in json.dumps(found)
            assert token not in json.dumps(found)


@pytest.mark.usefixtures("claimed_errors")
async def test_metric_labels_are_templates_and_status_classes(serving: Serving) -> None:
    toy = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"
    calls = [
        ("GET", "/openapi.json", "/openapi.json", "2xx"),
        ("GET", "/docs", "/docs", "2xx"),
        ("GET", "/healthz", "/healthz", "2xx"),
        ("HEAD", "/readyz", "/readyz", "2xx"),
        ("GET", f"/api/v1/toys/{toy}", "/api/v1/toys/<id:toy_id>", "4xx"),
        ("GET", "/api/v1/toys/not-an-id", "/api/v1/toys/<id:toy_id>", "4xx"),
        ("POST", "/api/v1/toys/echo", "/api/v1/toys/echo", "4xx"),
        ("GET", "/api/v1/toys/boom", "/api/v1/toys/boom", "5xx"),
        ("GET", f"/{PLANTED}", "unmatched", "4xx"),
        ("BREW", "/healthz", "unmatched", "4xx"),
    ]
    async with serving() as served:
        for method, path, _, _ in calls:
            await served.client.request(method, served.url + path)

        async def counted() -> bool:  # A count follows the answer it is about.
            return 'method="other"' in await metrics(served)

        await until(counted)
        text = await metrics(served)
        for method, _, route, status in calls:
            labels = f'method="{method if method != "BREW" else "other"}",route="{route}"'
            assert f'http_requests_total{{{labels},status_class="{status}"}}' in text, labels
            assert f"http_request_duration_seconds_count{{{labels}}}" in text, labels
        assert toy not in text
        assert PLANTED not in text
        assert "not-an-id" not in text
        assert "http_in_flight 1.0" in text  # the scrape itself


async def test_an_abandoned_request_counts_as_a_4xx(serving: Serving) -> None:
    async with serving() as served:
        stream = await trio.open_tcp_stream("127.0.0.1", served.port)
        await stream.send_all(GET % b"/toys/wait")
        await served.seen.waiting.wait()
        await stream.aclose()

        async def counted() -> bool:
            return 'route="/api/v1/toys/wait",status_class="4xx"} 1.0' in await metrics(served)

        await until(counted, seconds=5)
        assert "http_in_flight 1.0" in await metrics(served)


async def test_a_half_sent_head_is_hung_up_on(settings: ApiSettings) -> None:
    config = serve._config("127.0.0.1:0", settings)
    assert 0 < config.keep_alive_timeout <= 60
    config.keep_alive_timeout = 0.2

    async def never(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        serving = partial(hypercorn.trio.serve, never, config, shutdown_trigger=stop.wait)
        urls: list[str] = await nursery.start(serving)
        async with await trio.open_tcp_stream("127.0.0.1", httpx.URL(urls[0]).port or 0) as stream:
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            with trio.fail_after(5):
                assert await stream.receive_some() == b""
        stop.set()


async def test_a_body_that_trickles_is_timed_out(
    serving: Serving, send_raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(endings, "MAX_DRAINED_SECONDS", 0.2)
    head = b"POST /api/v1/toys/echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    async with serving() as served:
        for length in (
            b"Content-Length: 100\r\n\r\n{",
            b"Transfer-Encoding: chunked\r\n\r\n1\r\n{",
        ):
            answer = await send_raw(served.port, head + length, until=lambda got: b"}" in got)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b'"error":"request_timeout"' in answer


LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.mark.parametrize(
    ("trusted", "forwarded", "seen"),
    [
        ((), "203.0.113.9", "127.0.0.1"),
        (LOOPBACK, None, "127.0.0.1"),
        (LOOPBACK, "203.0.113.9", "203.0.113.9"),
        (LOOPBACK, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (LOOPBACK, "198.51.100.1, 203.0.113.9, 127.0.0.2", "203.0.113.9"),
        (LOOPBACK, "127.0.0.2", "127.0.0.2"),
        (LOOPBACK, "2001:db8::1", "2001:db8::1"),
        ((ipaddress.ip_network("10.0.0.0/8"),), "203.0.113.9", "127.0.0.1"),
    ],
)
async def test_a_forwarded_address_counts_only_from_a_trusted_proxy(
    serving: Serving, trusted: Any, forwarded: str | None, seen: str
) -> None:
    headers = {"x-forwarded-for": forwarded} if forwarded is not None else {}
    async with serving(trusted_proxies=trusted) as served:
        answer = await served.client.get("/toys/limited", headers=headers)
        assert answer.json() == {"ip": seen}
