"""The main job, played over HTTP: request, approval, one reveal, a patch, and the audit trail."""

from __future__ import annotations

import base64
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

WAIT_SECONDS = 20


class DemoError(Exception):
    """A step did not answer what it should; says which step."""


def is_running(url: str) -> bool:
    """Tell whether a server already answers there."""
    try:
        return bool(httpx.get(f"{url}/healthz", timeout=1).json() == {"status": "ok"})
    except (httpx.HTTPError, ValueError):
        return False


async def play(
    url: str, users: Sequence[tuple[str, str, str, str]], sample: Mapping[str, Any]
) -> int:
    """Play the main job and return 0, or 1 after saying which step was wrong."""
    by_role = {role: (email, password) for email, password, _, role in users}
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=WAIT_SECONDS + 10) as http:
        try:
            await _play(http, by_role, sample)
        except (DemoError, httpx.HTTPError) as problem:
            sys.stderr.write(f"the demo failed: {problem}\n")
            return 1
    sys.stdout.write("\nEverything answered as it should.\n")
    return 0


async def _play(
    http: httpx.AsyncClient, by_role: Mapping[str, tuple[str, str]], sample: Mapping[str, Any]
) -> None:
    developer = await _sign_in(http, *by_role["developer"])
    approver = await _sign_in(http, *by_role["approver"])
    read_id = await _read_once(http, developer, approver, sample)
    patch_id = await _patch_and_read_back(http, developer, approver, sample)
    for request_id in (read_id, patch_id):
        await _print_chain(http, approver, request_id)


async def _sign_in(http: httpx.AsyncClient, email: str, password: str) -> dict[str, str]:
    body = {"email": email, "password": password}
    answer = await _expect(http.post("/auth/login", json=body), 200, f"sign in as {email}")
    return {"Authorization": f"Bearer {answer['token']}"}


async def _read_once(
    http: httpx.AsyncClient,
    developer: dict[str, str],
    approver: dict[str, str],
    sample: Mapping[str, Any],
) -> str:
    request_id = await _submit(http, developer, "/requests/read", sample)
    refused = http.post(f"/requests/{request_id}/approve", headers=developer)
    await _expect(refused, 403, "approving one's own request is refused")
    await _approve(http, approver, request_id)
    values = await _reveal_all(http, developer, request_id)
    for name, value in sorted(values.items()):
        _say(f"     {name} = {value}")
    wrap = (await _wraps(http, developer, request_id))[0]
    again = http.get(f"/requests/{request_id}/wraps/{wrap['id']}", headers=developer)
    await _expect(again, 410, "a second reveal of the same value is refused (410)")
    return request_id


async def _patch_and_read_back(
    http: httpx.AsyncClient,
    developer: dict[str, str],
    approver: dict[str, str],
    sample: Mapping[str, Any],
) -> str:
    name, value = "DEMO_PASSWORD", secrets.token_urlsafe(12)
    target = {key: found for key, found in sample.items() if key != "target_keys"}
    patch = {**target, "key_values": {name: value}}
    patch_id = await _submit(http, developer, "/requests", patch)
    await _approve(http, approver, patch_id)
    await _until_executed(http, developer, patch_id)
    read_id = await _submit(http, developer, "/requests/read", {**target, "target_keys": [name]})
    await _approve(http, approver, read_id)
    found = await _reveal_all(http, developer, read_id)
    if found != {name: value}:
        msg = "the new value read back is not the one that was written"
        raise DemoError(msg)
    _say("  ok  the new value reads back as it was written")
    return patch_id


async def _submit(
    http: httpx.AsyncClient, headers: dict[str, str], path: str, body: Mapping[str, Any]
) -> str:
    answer = await _expect(
        http.post(path, json=dict(body), headers=headers), 201, f"submit {path.rpartition('/')[2]}"
    )
    return str(answer["id"])


async def _approve(http: httpx.AsyncClient, headers: dict[str, str], request_id: str) -> None:
    call = http.post(f"/requests/{request_id}/approve", json={"comment": "demo"}, headers=headers)
    answer = await _expect(call, 200, "approve as somebody else")
    if answer["status"] != "approved":
        msg = f"after the approval the request is {answer['status']}"
        raise DemoError(msg)


async def _until_executed(
    http: httpx.AsyncClient, headers: dict[str, str], request_id: str
) -> None:
    path = f"/requests/{request_id}?wait={WAIT_SECONDS}"
    answer = (await http.get(path, headers=headers)).json()
    if answer.get("status") != "executed":
        msg = f"the agent did not finish: the request is {answer.get('status')}"
        raise DemoError(msg)
    _say("  ok  the agent did the job")


async def _wraps(
    http: httpx.AsyncClient, headers: dict[str, str], request_id: str
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        await http.get(f"/requests/{request_id}/wraps", headers=headers)
    ).json()
    return found


async def _reveal_all(
    http: httpx.AsyncClient, headers: dict[str, str], request_id: str
) -> dict[str, str]:
    await _until_executed(http, headers, request_id)
    values: dict[str, str] = {}
    for wrap in await _wraps(http, headers, request_id):
        call = http.get(f"/requests/{request_id}/wraps/{wrap['id']}", headers=headers)
        answer = await _expect(call, 200, f"reveal {wrap['key_name']} once")
        values[wrap["key_name"]] = base64.b64decode(answer["value"]).decode()
    return values


async def _print_chain(http: httpx.AsyncClient, headers: dict[str, str], request_id: str) -> None:
    call = http.get(f"/audit-events?correlation_id={request_id}", headers=headers)
    events = await _expect(call, 200, f"the audit chain of {request_id}")
    for event in reversed(events):
        at, who = event["occurred_at"][11:23], event["actor_display"]
        _say(f"      {at}  {event['action']:<20} {event['status']:<8} {who}")
    actions = {event["action"] for event in events}
    if not {"request.submit", "request.approve", "job.claim", "job.complete"} <= actions:
        msg = f"the audit chain of {request_id} is incomplete"
        raise DemoError(msg)


async def _expect(call: Any, status: int, step: str) -> Any:
    response: httpx.Response = await call
    if response.status_code != status:
        msg = f"{step}: expected {status}, got {response.status_code}"
        raise DemoError(msg)
    _say(f"  ok  {step}")
    return response.json() if response.content else None


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
