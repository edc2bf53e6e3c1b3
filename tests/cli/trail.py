"""A Postgres database with a story: what people and agents did over HTTP, and what was left."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg

from sb.clock import utc_now
from sb.db.engine import Database, Transaction
from sb.ids import new_id
from sb.ops import agents, enrollments, expiry, idempotency, sessions
from tests import stack
from tests.stack import Person, Stack

BODY = {
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
    "justification": "ticket 1",
}


@dataclass
class Trail:
    """Where the story is kept, and who and what is in it by name."""

    url: str
    ids: dict[str, str] = field(default_factory=dict)

    def execute(self, statement: str, *parameters: Any) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode(), parameters)


async def tell(trail: Trail, redis_url: str, root: Path) -> None:
    """Leave the story in the database."""
    async with stack.running(trail.url, redis_url, root) as plane:
        dev = await plane.person("dev", "developer")
        approver = await plane.person("approver", "approver")
        trail.ids["dev"], trail.ids["approver"] = dev.id, approver.id
        await _sign_in_badly(plane, trail)
        await _grant(plane, trail)
        connection = await plane.connection(name="with-agent")
        trail.ids["agent"] = await plane.agent(connection)
        await _read_once(trail, dev, approver, connection)
        await _patch(trail, dev, approver, connection)
        await _wait(plane, trail, dev, approver, connection)
        await _fall_silent(plane, trail, connection)
        await _decide_alone(plane, trail, connection)


async def _sign_in_badly(plane: Stack, trail: Trail) -> None:
    gone = await plane.person("gone", "approver")
    trail.execute("UPDATE local_users SET disabled = true WHERE id = %s", gone.id)
    async with httpx.AsyncClient(base_url=plane.url) as http:
        for name, body in (
            ("unknown", {"email": "nobody@example.com", "password": "x"}),
            ("wrong", {"email": "DEV@example.com", "password": "x"}),
            ("wrong-again", {"email": "dev@example.com", "password": "y"}),
            ("disabled", {"email": "gone@example.com", "password": stack.PASSWORD}),
            ("missing", {"email": "dev@example.com"}),
        ):
            headers = {"X-Request-Id": f"sign-in-{name}"}
            answer = await http.post("/api/v1/auth/login", json=body, headers=headers)
            assert answer.status_code in (400, 401), answer.text


async def _grant(plane: Stack, trail: Trail) -> None:
    trail.ids["team"], trail.ids["project"] = new_id(), new_id()
    trail.execute(
        "INSERT INTO teams (id, name, status, created_at, updated_at)"
        " VALUES (%s, 'Billing', 'active', now(), now())",
        trail.ids["team"],
    )
    trail.execute(
        "INSERT INTO projects (id, name, status, created_at, updated_at)"
        " VALUES (%s, 'Ledger', 'active', now(), now())",
        trail.ids["project"],
    )
    await plane.person("lead", "approver", {"team_id": trail.ids["team"]})
    await plane.person("owner", "approver", {"project_id": trail.ids["project"]})


async def _submit(person: Person, connection: str, ref: str = "app/db", **more: Any) -> str:
    body = {**BODY, "target_secret_ref": ref, "provider_connection_id": connection, **more}
    path = "/requests" if "key_values" in more else "/requests/read"
    answer = await person.post(path, body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def _approve(person: Person, request_id: str) -> None:
    answer = await person.post(f"/requests/{request_id}/approve", {"comment": "fine"})
    assert answer.status_code == 200, answer.text


async def _executed(person: Person, request_id: str) -> None:
    async def look() -> bool:
        found = (await person.get(f"/requests/{request_id}")).json()
        assert found["status"] in ("approved", "executed"), found
        return bool(found["status"] == "executed")

    await stack.until(look)


async def _read_once(trail: Trail, dev: Person, approver: Person, connection: str) -> None:
    request_id = await _submit(dev, connection, target_keys=["PASSWORD"])
    trail.ids["read"] = request_id
    await _approve(approver, request_id)
    await _executed(dev, request_id)
    (wrap,) = (await dev.get(f"/requests/{request_id}/wraps")).json()
    path = f"/requests/{request_id}/wraps/{wrap['id']}"
    assert (await approver.get(path)).status_code == 403
    assert (await dev.get(path)).status_code == 200
    assert (await dev.get(path)).status_code == 410


async def _patch(trail: Trail, dev: Person, approver: Person, connection: str) -> None:
    trail.ids["patch"] = await _submit(dev, connection, key_values={"PASSWORD": "planted-new"})
    await _approve(approver, trail.ids["patch"])
    await _executed(dev, trail.ids["patch"])


async def _wait(plane: Stack, trail: Trail, dev: Person, approver: Person, connection: str) -> None:
    """One request waits for people, one for an agent, one has expired, one should have."""
    nobody_works = await plane.connection(name="without-agent")
    for name in ("expired", "overdue", "pending"):
        trail.ids[name] = await _submit(dev, connection, f"app/{name}", target_keys=["A"])
    trail.ids["queued"] = await _submit(dev, nobody_works, "app/queued", target_keys=["A"])
    await _approve(approver, trail.ids["queued"])
    for name in ("expired", "overdue"):
        trail.execute(
            "UPDATE access_requests SET created_at = now() - interval '15 days',"
            " expires_at = now() - interval '1 day' WHERE id = %s",
            trail.ids[name],
        )
        if name == "expired":
            await plane.db.run(expiry.expire_requests, now=utc_now(), limit=10)


async def _fall_silent(plane: Stack, trail: Trail, connection: str) -> None:
    """Of three more agents one is stale, one should be, and one was only ever enrolled."""
    for name in ("stale", "silent", "quiet"):
        raw = await plane.enroll(connection, name)
        trail.ids[name] = raw.id
        if name == "quiet":
            continue
        beat = {"status": "active", "agent_version": "1.2.3"}
        assert (await raw.post("/heartbeat", beat)).status_code == 200
        trail.execute(
            "UPDATE agents SET last_seen_at = now() - interval '1 hour' WHERE id = %s", raw.id
        )
        if name == "stale":
            silent_for = timedelta(minutes=5)
            await plane.db.run(agents.mark_stale, now=utc_now(), silent_for=silent_for, limit=9)


async def _decide_alone(plane: Stack, trail: Trail, connection: str) -> None:
    """A workflow lets people decide for themselves, then one asks nobody."""
    admin = await plane.person("admin", "admin")
    trail.execute("UPDATE workflow_definitions SET allow_self_approval = true")
    trail.ids["own"] = await _submit(admin, connection, target_keys=["USER"])
    await _approve(admin, trail.ids["own"])
    await _executed(admin, trail.ids["own"])
    trail.execute(
        "UPDATE workflow_definitions SET allow_self_approval = false, auto_approve = true,"
        " min_approvers = 0"
    )
    trail.ids["auto"] = await _submit(admin, connection, target_keys=["USER"])
    await _executed(admin, trail.ids["auto"])


async def sweep(url: str) -> None:
    """Do what the worker's sweeps do."""
    db = Database.open(url)
    try:
        await db.run(_sweep)
    finally:
        db.close()


def _sweep(tx: Transaction) -> None:
    now = utc_now()
    expiry.expire_requests(tx, now=now, limit=100)
    expiry.purge_wraps(tx, now=now, limit=100)
    agents.mark_stale(tx, now=now, silent_for=timedelta(minutes=5), limit=100)
    idempotency.purge(tx, now=now, limit=100)
    sessions.purge(tx, now=now, limit=100)
    enrollments.purge(tx, now=now, limit=100)


def new_name() -> str:
    return f"t_{secrets.token_hex(6)}"
