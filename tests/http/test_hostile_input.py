"""Every route that takes a body meets bodies nobody should send: a 4xx, and nothing happens."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest

from tests.http.hostile import (
    MISSING,
    PLANTED,
    ROUTES,
    assert_unseen,
    callers,
    nothing_changes,
    path_of,
    refused,
    unlimited,
)
from tests.stack import Stack

P = PLANTED.encode()
JSON = {"content-type": "application/json"}
WITH_BODY = [route for route in ROUTES if route.body is not None]

#: Name: bytes, and the code of the refusal.
BODIES: dict[str, tuple[bytes, str]] = {
    "truncated": (b'{"a": "' + P, "invalid_json"),
    "two documents": (b'{} {"a": "%b"}' % P, "invalid_json"),
    "single quotes": (b"{'a': '%b'}" % P, "invalid_json"),
    "comment": (b'{} // "%b"' % P, "invalid_json"),
    "whitespace": (b" \n", "invalid_json"),
    "array": (b'["%b"]' % P, "invalid_request"),
    "text": (b'"%b"' % P, "invalid_request"),
    "number": (b"12", "invalid_request"),
    "null": (b"null", "invalid_request"),
    "not a number": (b'{"a": NaN, "b": "%b"}' % P, "invalid_json"),
    "minus infinity": (b'{"a": -Infinity}', "invalid_json"),
    "infinite by size": (b'{"a": 1e400, "b": "%b"}' % P, "invalid_json"),
    "too many digits": (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json"),
    "key twice": (b'{"a": "%b", "a": "%b"}' % (P, P), "invalid_json"),
    "inner key twice": (b'{"a": {"b": 1, "b": 1}}', "invalid_json"),
    "escaped key twice": (b'{"a": 1, "\\u0061": "%b"}' % P, "invalid_json"),
    "not UTF-8": (b'{"a": "%b\xff"}' % P, "invalid_json"),
    "overlong UTF-8": (b'{"a": "%b\xc0\xaf"}' % P, "invalid_json"),
    "surrogate in UTF-8": (b'{"a": "%b\xed\xa0\x80"}' % P, "invalid_json"),
    "UTF-16": (json.dumps({"a": PLANTED}).encode("utf-16"), "invalid_json"),
    "byte order mark": (b'\xef\xbb\xbf{"a": "%b"}' % P, "invalid_json"),
    "raw NUL": (b'{"a": "%b\x00"}' % P, "invalid_json"),
    "escaped NUL": (b'{"a": "%b\\u0000"}' % P, "invalid_request"),
    "escaped NUL in a key": (b'{"a\\u0000": "%b"}' % P, "invalid_request"),
    "lone surrogate": (b'{"a": "%b\\ud800"}' % P, "invalid_request"),
    "lone surrogate in a key": (b'{"\\udfff": "%b"}' % P, "invalid_request"),
    "deep": (b'{"a":' * 40 + b'"%b"' % P + b"}" * 40, "invalid_json"),
    "very deep": (b'{"a":' + b"[" * 200_000, "invalid_json"),
    "unknown field": (b'{"no_such_field": "%b"}' % P, "invalid_request"),
    "prototype": (b'{"__proto__": {"role": "%b"}}' % P, "invalid_request"),
    "gzip": (gzip.compress(b'{"a": "%b"}' % P), "invalid_json"),
}


async def test_no_route_takes_a_hostile_body(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with callers(plane) as who, nothing_changes(database_url):
        caplog.clear()
        for route in WITH_BODY:
            path, http = path_of(route, agent_id=who.agent.id), who.of(route)
            for content, code in BODIES.values():
                answer = await http.request(route.method, path, content=content, headers=JSON)
                refused(answer, 400, code)
    assert_unseen(PLANTED, caplog, database_url)


async def test_no_route_takes_a_body_of_another_type(plane: Stack, database_url: str) -> None:
    content = b'{"a": "%b"}' % P
    types = ("text/plain", "text/json", "multipart/form-data; boundary=x", "application/jsonp")
    async with callers(plane) as who, nothing_changes(database_url):
        for route in WITH_BODY:
            path, http = path_of(route, agent_id=who.agent.id), who.of(route)
            for media_type in types:
                headers = {"content-type": media_type}
                answer = await http.request(route.method, path, content=content, headers=headers)
                refused(answer, 415, "unsupported_media_type")
            refused(await http.request(route.method, path, content=content), 415, *UNTYPED)


UNTYPED = ("unsupported_media_type",)


async def test_two_mebibytes_are_refused_whole_and_in_chunks(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.dumps({"justification": PLANTED * (2 * 1024 * 1024 // len(PLANTED))}).encode()

    async def pieces() -> Any:
        for start in range(0, len(content), 65_536):
            yield content[start : start + 65_536]

    async with callers(plane) as who, nothing_changes(database_url):
        for route in WITH_BODY:
            path, http = path_of(route, agent_id=who.agent.id), who.of(route)
            whole = await http.request(route.method, path, content=content, headers=JSON)
            refused(whole, 413, "body_too_large")
            chunked = await http.request(route.method, path, content=pieces(), headers=JSON)
            refused(chunked, 413, "body_too_large")
    assert_unseen(PLANTED, caplog, database_url)


READ: dict[str, Any] = {"target_provider_type": "file", "target_secret_ref": "app/db"}
READ["justification"] = "ticket 1"
CONNECTION: dict[str, Any] = {"name": "c-1", "type": "file"}
PATCH: dict[str, Any] = {**READ, "key_values": {"A": PLANTED}}

#: Fields of bodies that are otherwise right: route, body, the field the refusal names.
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("/requests/read", {**READ, "target_provider_type": PLANTED}, "target_provider_type"),
    ("/requests/read", {**READ, "target_provider_type": 1}, "target_provider_type"),
    ("/requests/read", {**READ, "target_provider_type": None}, "target_provider_type"),
    ("/requests/read", {**READ, "target_secret_ref": ""}, "target_secret_ref"),
    ("/requests/read", {**READ, "target_secret_ref": PLANTED * 100}, "target_secret_ref"),
    ("/requests/read", {**READ, "target_secret_ref": [PLANTED]}, "target_secret_ref"),
    ("/requests/read", {**READ, "target_keys": PLANTED}, "target_keys"),
    ("/requests/read", {**READ, "target_keys": {PLANTED: 1}}, "target_keys"),
    ("/requests/read", {**READ, "target_keys": [1]}, "target_keys.0"),
    ("/requests/read", {**READ, "target_keys": [""]}, "target_keys.0"),
    ("/requests/read", {**READ, "target_keys": ["k"] * 300}, "target_keys"),
    ("/requests/read", {**READ, "project_id": PLANTED}, "project_id"),
    ("/requests/read", {**READ, "project_id": -1}, "project_id"),
    ("/requests/read", {**READ, "project_id": MISSING + "\n"}, "project_id"),
    ("/requests/read", {**READ, "provider_connection_id": "../.."}, "provider_connection_id"),
    ("/requests/read", {**READ, "environment": False}, "environment"),
    ("/requests/read", {**READ, "justification": 1.5}, "justification"),
    ("/requests/read", {**READ, "justification": PLANTED * 400}, "justification"),
    ("/requests/read", {**READ, "target_provider_config": PLANTED}, "target_provider_config"),
    ("/requests", {**READ, "key_values": {}}, "key_values"),
    ("/requests", {**READ, "key_values": [PLANTED]}, "key_values"),
    ("/requests", {**READ, "key_values": {"A": None}}, "key_values.A"),
    ("/requests", {**READ, "key_values": {"A": 12}}, "key_values.A"),
    ("/requests", {**READ, "key_values": {"A": ""}}, "key_values.A"),
    ("/requests", {**READ, "key_values": {"A": {"B": PLANTED}}}, "key_values.A"),
    ("/requests", {**PATCH, "key_values": {str(n): PLANTED for n in range(257)}}, "key_values"),
    ("/requests", READ, "key_values"),
    ("/provider-connections", {**CONNECTION, "name": "../x"}, "name"),
    ("/provider-connections", {**CONNECTION, "name": "a\n"}, "name"),
    ("/provider-connections", {**CONNECTION, "type": PLANTED}, "type"),
    ("/provider-connections", {**CONNECTION, "scope": [PLANTED]}, "scope"),
    ("/users/me/password", {"current_password": PLANTED}, "new_password"),
    ("/users/me/password", {"current_password": 1, "new_password": PLANTED}, "current_password"),
    ("/agents", {"name": PLANTED, "scope": {"provider": PLANTED}}, "scope.provider"),
    (
        f"/provider-connections/{MISSING}/agent-enrollment-token",
        {"expires_in_seconds": 10**30},
        "expires_in_seconds",
    ),
    (
        f"/provider-connections/{MISSING}/agent-enrollment-token",
        {"expires_in_seconds": "60"},
        "expires_in_seconds",
    ),
    (
        f"/provider-connections/{MISSING}/agent-enrollment-token",
        {"expires_in_seconds": True},
        "expires_in_seconds",
    ),
    (f"/requests/{MISSING}/approve", {"comment": ""}, "comment"),
    (f"/requests/{MISSING}/reject", {"reason": [PLANTED]}, "reason"),
    (f"/requests/{MISSING}/reject", {}, "reason"),
]


async def test_wrong_types_are_refused_by_field_and_never_by_value(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    unlimited(plane)
    admin = await plane.person("admin", "admin")
    await plane.connection()
    async with nothing_changes(database_url):
        for path, body, field in WRONG:
            found = refused(await admin.post(path, body), 400, "invalid_request")
            assert any(entry["field"].startswith(field) for entry in found["fields"]), found
    assert_unseen(PLANTED, caplog, database_url)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"password": PLANTED}, "credential_in_config"),
    ({"Token": PLANTED}, "credential_in_config"),
    ({"no-such-routing-key": PLANTED}, "unknown_config_key"),
    ({"kvMount": 10**4000}, "unknown_config_key"),
    ({"kvMount": [[PLANTED]]}, "unknown_config_key"),
    ({"kvMount": ""}, "unknown_config_key"),
]


async def test_provider_config_holds_routing_texts_only(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    admin = await plane.person("admin", "admin")
    await plane.connection("vault")
    body = {**READ, "target_provider_type": "vault"}
    async with nothing_changes(database_url):
        for config, code in CONFIGS:
            answer = await admin.post("/requests/read", {**body, "target_provider_config": config})
            refused(answer, 400, code)
            connection = {"name": "c-1", "type": "vault", "scope": config}
            refused(await admin.post("/provider-connections", connection), 400, code)
    assert_unseen(PLANTED, caplog, database_url)


async def test_a_value_too_large_is_refused(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    async with nothing_changes(database_url):
        values = {"A": PLANTED + "é" * 33_000}
        answer = await dev.post("/requests", {**READ, "key_values": values})
        refused(answer, 400, "value_too_large")
    assert_unseen(PLANTED, caplog, database_url)


async def test_an_identity_in_a_body_changes_nothing(plane: Stack) -> None:
    await plane.connection()
    dev = await plane.person("dev", "developer")
    for identity in (MISSING, 7, {"a": 1}, None):
        made = await dev.post("/requests/read", {**READ, "requester_id": identity})
        assert made.status_code == 201, made.text
        assert made.json()["requester_id"] == dev.id


async def test_a_failed_login_leaves_no_trace_of_what_was_typed(
    plane: Stack, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with httpx.AsyncClient(base_url=plane.url) as http:
        for body in (
            {"email": f"{PLANTED}@example.com", "password": PLANTED},
            {"email": PLANTED},
            {"email": "", "password": PLANTED},
            {},
        ):
            refused(await http.post("/api/v1/auth/login", json=body), 401, "invalid_credentials")
    assert_unseen(PLANTED, caplog, database_url)
