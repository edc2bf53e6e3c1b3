"""Paths, queries, methods and headers nobody should send: a 4xx of ours, and nothing happens."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx
import pytest

from tests.http.conftest import Raw
from tests.http.hostile import (
    MISSING,
    PLANTED,
    ROUTES,
    callers,
    nothing_changes,
    path_of,
    refused,
)
from tests.stack import Stack

#: What stands where an id belongs, percent-encoded.
IDS = (
    "0",
    "-1",
    "9" * 400,
    "null",
    "me",
    "%F0%9F%92%A3",
    "..%2F..%2Fetc%2Fpasswd",
    "%2e%2e",
    "%00",
    MISSING + "%00",
    MISSING + "%0A",
    "%ED%A0%80",
    "%FF",
    "{" + MISSING + "}",
    MISSING.replace("-", ""),
    MISSING + "'--",
    "%EF%BC%91" * 36,
    PLANTED,
)
WITH_IDS = [route for route in ROUTES if "<id:" in route.path]
LITERAL = {path_of(route) for route in ROUTES if "<" not in route.path}


async def test_no_route_takes_an_absurd_id(plane: Stack, database_url: str) -> None:
    async with callers(plane) as who, nothing_changes(database_url):
        for route in WITH_IDS:
            for text in IDS:
                path = path_of(route, agent_id=text, any_id=text)
                if path in LITERAL:
                    continue  # /users/<id> with `me` in it is another route
                answer = await who.of(route).request(route.method, path)
                # A slash or dots inside an id make another path, which may not exist.
                status = answer.status_code
                assert status in (400, 404, 405), (route.name, text, answer.text)
                refused(answer, status, "invalid_id", "not_found", "method_not_allowed")


async def test_ids_that_do_not_exist_are_not_found(plane: Stack, database_url: str) -> None:
    async with callers(plane) as who, nothing_changes(database_url):
        for route in WITH_IDS:
            if route.method == "GET":
                path = path_of(route, agent_id=who.agent.id)
                answer = await who.of(route).get(path)
                if answer.status_code not in (200, 204, 409):
                    refused(answer, 404, answer.json()["error"])
                    assert answer.json()["error"].endswith("not_found")


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


#: Queries of every list: what follows the question mark, and the code of the refusal.
QUERIES: list[tuple[str, str]] = [
    ("limit=-1", "invalid_request"),
    ("limit=ten", "invalid_request"),
    ("limit=1.5", "invalid_request"),
    ("limit=1e3", "invalid_request"),
    ("limit=" + "9" * 5000, "invalid_request"),
    ("limit=%D9%A1x", "invalid_request"),
    ("limit=NaN", "invalid_request"),
    ("limit=", "invalid_request"),
    ("limit=1&limit=2", "invalid_request"),
    ("cursor=" + PLANTED, "invalid_cursor"),
    ("cursor=%00", "invalid_request"),
    ("cursor=%F0%9F%92%A3", "invalid_cursor"),
    ("cursor=" + "A" * 300, "invalid_request"),
    ("cursor=" + cursor("2026-01-01T00:00:00+00:00|x"), "invalid_cursor"),
    ("cursor=" + cursor(f"2026-01-01T00:00:00|{MISSING}"), "invalid_cursor"),
    ("cursor=" + cursor(f"0001-01-01T00:00:00+23:59|{MISSING}"), "invalid_cursor"),
    ("cursor=" + cursor(f"9999-12-31T23:59:59-23:59|{MISSING}"), "invalid_cursor"),
    ("cursor=" + cursor(f"2026-01-01T00:00:00+00:00|{MISSING}'; --"), "invalid_cursor"),
]
TIMES = (
    "yesterday",
    "2026-01-01T00:00:00",
    "0001-01-01T00:00:00%2B23:59",
    "9999-12-31T23:59:59-23:59",
    "1e400",
    "%00",
    "2026-02-30T00:00:00Z",
)


async def test_no_list_takes_an_absurd_query(plane: Stack, database_url: str) -> None:
    async with callers(plane) as who, nothing_changes(database_url):
        for route in ROUTES:
            fields = route.query.model_fields if route.query is not None else {}
            queries = list(QUERIES) if "cursor" in fields else []
            queries += [
                (f"{name}={time}", "invalid_request")
                for name in ("since", "until")
                if name in fields
                for time in TIMES
            ]
            queries += [
                (f"{name}={text}", "invalid_request")
                for name in fields
                for text in ("%00", "a%00b")
                if name != "cursor"
            ]
            for query, code in queries:
                answer = await who.of(route).get(f"{path_of(route)}?{query}")
                if route.method == "GET":
                    refused(answer, 400, code)


@pytest.mark.parametrize("query", ["since=0001-01-01T00:00:00Z", "until=9999-12-31T23:59:59Z"])
async def test_the_ends_of_the_calendar_are_times_too(plane: Stack, query: str) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection()
    for path in ("/requests", "/audit-events"):
        assert (await admin.get(f"{path}?{query}")).status_code == 200
    extremes = (f"0001-01-01T00:00:00+00:00|{MISSING}", f"9999-12-31T23:59:59+00:00|{MISSING}")
    for moment in extremes:
        assert (await admin.get(f"/audit-events?cursor={cursor(moment)}")).status_code == 200


async def test_surrogates_and_bad_utf8_in_a_query_find_nothing(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    for text in ("%ED%A0%80", "%FF", "%F0%9F%92%A3", "%C0%AF"):
        answer = await admin.get(f"/audit-events?action={text}")
        assert answer.status_code in (200, 400), answer.text
        assert answer.status_code == 400 or answer.json() == []


async def test_an_identity_in_a_query_changes_nothing(plane: Stack) -> None:
    await plane.connection()
    admin = await plane.person("admin", "admin")
    dev = await plane.person("dev", "developer")
    me = (await dev.get(f"/users/me?user_id={admin.id}&requester_id={admin.id}")).json()
    assert me["id"] == dev.id


ABSENT = ("/", "/api", "/api/v1", "/api/v1/", "/api/v2/users/me", "/api/v1//users/me")
OTHERS = ("/api/v1/users/me/", "/api/v1/%75ser/me/..", "/admin", "/.git/config", "/static/x.js")


async def test_unknown_paths_are_not_found_for_every_method(serving: Any) -> None:
    async with serving() as served:
        for path in (*ABSENT, *OTHERS, f"/{PLANTED}", "/" + "x" * 8000, "/%00", "/%ED%A0%80"):
            for method in ("GET", "POST", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"):
                answer = await served.client.request(method, httpx.URL(served.url + path))
                if method == "HEAD":
                    assert (answer.status_code, answer.content) == (404, b"")
                else:
                    refused(answer, 404, "not_found")


async def test_wrong_methods_say_which_are_allowed(plane: Stack, database_url: str) -> None:
    allowed: dict[str, set[str]] = {}
    for route in ROUTES:
        key = re.sub(r"<id:\w+>", "<id>", route.path)
        allowed.setdefault(key, set()).add(route.method)
    async with callers(plane) as who, nothing_changes(database_url):
        for route in ROUTES:
            methods = allowed[re.sub(r"<id:\w+>", "<id>", route.path)]
            for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} - methods:
                path = path_of(route)
                answer = await who.admin.http.request(method, path)
                if not route.path.endswith(">") and answer.status_code == 400:
                    refused(answer, 400, "invalid_id")  # /agents/enroll is also /agents/<id>
                    continue
                refused(answer, 405, "method_not_allowed")
                found = set(answer.headers["allow"].split(", "))
                # /requests/read is also /requests/<id>, so more may be allowed than one rule says.
                assert methods <= found, (route.name, found)
                assert method not in found


async def test_head_is_get_without_a_body(plane: Stack) -> None:
    admin = await plane.person("admin", "admin")
    for path in ("/users/me", "/requests", "/agents"):
        got, head = await admin.get(path), await admin.http.head(f"/api/v1{path}")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"]
        assert head.headers["cache-control"] == "no-store"
    async with httpx.AsyncClient(base_url=plane.url) as stranger:
        answer = await stranger.head("/api/v1/users/me")
        assert (answer.status_code, answer.content) == (401, b"")


#: Bytes that are no HTTP/1.1 request, or one of a transfer coding nobody speaks (501).
BROKEN = (
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Bad: a\x00b\r\n\r\n",
    b"GET /heal\x00thz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Bad : a\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"POST /api/v1/toys/echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /api/v1/toys/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /api/v1/toys/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


async def test_broken_http_gets_a_4xx_and_the_server_lives(serving: Any, send_raw: Raw) -> None:
    async with serving() as served:
        for data in BROKEN:
            answer = await send_raw(served.port, data)
            assert re.match(rb"HTTP/1\.1 (4\d\d|501) ", answer), (data[:80], answer[:200])
            assert b"Traceback" not in answer
        assert (await served.client.get(f"{served.url}/healthz")).status_code == 200
