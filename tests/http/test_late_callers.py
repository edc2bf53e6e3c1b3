"""Calls that wait between the look at their caller and their work: what is true then decides.

Nothing here is slow by chance: each call waits for what the test holds, until its look is old.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
import trio

from sb.clock import monotonic
from sb.db.engine import Transaction
from sb.http.looks import LOOK_SECONDS
from tests.http.hostile import change, dump, refused
from tests.ops import rows
from tests.stack import Person, Stack, until

READ = {
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
    "target_keys": ["PASSWORD"],
    "justification": "ticket 1",
}
ENDED = "UPDATE user_roles SET expires_at = granted_at WHERE user_id = '{}'"
DISABLED = "UPDATE local_users SET disabled = true WHERE id = '{}'"
SIGNED_OUT = "UPDATE sessions SET revoked_at = created_at WHERE user_id = '{}'"
#: Somebody changes what the caller holds, and leaves what the call is about.
LESS = (
    "UPDATE user_roles SET expires_at = (SELECT max(expires_at) FROM sessions) WHERE user_id = '{}'"
)
ENDLESS = "UPDATE user_roles SET expires_at = NULL WHERE user_id = '{}'"
UNTOUCHED = "UPDATE local_users SET display_name = 'n' WHERE id = '{}'"


async def old_look() -> None:
    """Return when whoever was looked at before this call has to be looked up again."""
    began = monotonic()

    async def passed() -> bool:
        return monotonic() - began > LOOK_SECONDS

    await until(passed)


class Held:
    """A transaction that holds a row, or on SQLite everything, until the test lets it go."""

    def __init__(self, row_id: str, statement: str, lock: str) -> None:
        self.row_id, self.statement, self.lock = row_id, statement, lock
        self.inside, self.leave = threading.Event(), threading.Event()

    def __call__(self, tx: Transaction) -> None:
        tx.one(self.lock, id=self.row_id)
        self.inside.set()
        assert self.leave.wait(20)
        assert rows.run(tx, self.statement)


@asynccontextmanager
async def holding(
    plane: Stack, row_id: str, statement: str, lock: str = "request_lock"
) -> AsyncIterator[Held]:
    held = Held(row_id, statement, lock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plane.db.run, held)
        try:
            await trio.to_thread.run_sync(held.inside.wait, 20)
            yield held
        finally:
            held.leave.set()


async def waits_for_it(plane: Stack, url: str) -> None:
    """Return when a transaction waits for the one that is held."""

    async def waiting() -> bool:
        if url.startswith("sqlite"):
            return plane.state.db._writers.statistics().tasks_waiting > 0
        with psycopg.connect(url) as connection:
            found = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
        return found is not None and found[0] > 0

    await until(waiting)


VOTES = [
    pytest.param("approve", ENDED, (404, "request_not_found"), id="approve-grant"),
    pytest.param("approve", DISABLED, (401, "authentication_required"), id="approve-account"),
    pytest.param("reject", ENDED, (404, "request_not_found"), id="reject-grant"),
    pytest.param("reject", SIGNED_OUT, (401, "authentication_required"), id="reject-session"),
    pytest.param("approve", UNTOUCHED, (200, ""), id="approve-as-before"),
    pytest.param("approve", LESS, (200, ""), id="approve-with-other-grants"),
]


@pytest.mark.parametrize(("verb", "statement", "expected"), VOTES)
async def test_a_vote_that_waits_is_decided_by_what_is_true_then(
    plane: Stack, database_url: str, verb: str, statement: str, expected: tuple[int, str]
) -> None:
    await plane.connection()
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    request_id = (await dev.post("/requests/read", READ)).json()["id"]
    answers: list[httpx.Response] = []

    async def vote() -> None:
        body = {"reason": "no"} if verb == "reject" else {}
        answers.append(await approver.post(f"/requests/{request_id}/{verb}", body))

    with trio.fail_after(20):
        async with (
            trio.open_nursery() as nursery,
            holding(plane, request_id, statement.format(approver.id)),
        ):
            nursery.start_soon(vote)
            await waits_for_it(plane, database_url)
            await old_look()
    (answer,) = answers
    error = "" if answer.status_code == 200 else answer.json()["error"]
    assert (answer.status_code, error) == expected
    found = (await dev.get(f"/requests/{request_id}")).json()
    assert (found["status"], len(found["approvals"])) == (
        ("approved", 1) if expected[0] == 200 else ("pending", 0)
    )


@pytest.mark.parametrize("key", [None, "once"])
async def test_a_create_that_waits_is_decided_by_what_is_true_then(
    plane: Stack, database_url: str, key: str | None
) -> None:
    await plane.connection()
    admin, other = await plane.person("admin", "admin"), await plane.person("other", "admin")
    project_id = (await admin.post("/projects", {"name": "p"})).json()["id"]
    body = {"provider_type": "file", "secret_ref": "app/db"}
    headers = {"Idempotency-Key": key} if key else {}
    answers: list[httpx.Response] = []

    async def bind() -> None:
        path = f"/projects/{project_id}/secrets"
        answers.append(await other.post(path, body, headers=headers))

    with trio.fail_after(20):
        async with (
            trio.open_nursery() as nursery,
            holding(plane, project_id, ENDED.format(other.id), "project_lock"),
        ):
            nursery.start_soon(bind)
            await waits_for_it(plane, database_url)
            await old_look()
    refused(answers[0], 403, "permission_denied")
    assert (await admin.get(f"/projects/{project_id}/secrets")).json() == []


@asynccontextmanager
async def full(limiter: trio.CapacityLimiter) -> AsyncIterator[None]:
    """Take every place there is until the block ends."""
    places = [object() for _ in range(int(limiter.total_tokens))]
    for place in places:
        await limiter.acquire_on_behalf_of(place)
    try:
        yield
    finally:
        for place in places:
            limiter.release_on_behalf_of(place)


async def waits_for(limiter: trio.CapacityLimiter, number: int = 1) -> None:
    async def waiting() -> bool:
        return limiter.statistics().tasks_waiting == number

    await until(waiting)


@pytest.mark.parametrize("statement", [DISABLED, SIGNED_OUT])
async def test_a_value_is_not_revealed_to_who_was_put_out_while_its_key_was_unwrapped(
    plane: Stack, database_url: str, statement: str
) -> None:
    await plane.agent(await plane.connection())
    dev, approver = await plane.person("dev", "developer"), await plane.person("a", "approver")
    request_id = (await dev.post("/requests/read", READ)).json()["id"]
    await approver.post(f"/requests/{request_id}/approve")
    assert (await dev.get(f"/requests/{request_id}?wait=20")).json()["status"] == "executed"
    (wrap,) = (await dev.get(f"/requests/{request_id}/wraps")).json()
    answers: list[httpx.Response] = []

    async def reveal() -> None:
        answers.append(await dev.get(f"/requests/{request_id}/wraps/{wrap['id']}"))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, full(plane.state.kms_limiter):
            nursery.start_soon(reveal)
            await waits_for(plane.state.kms_limiter)
            change(database_url, statement.format(dev.id))
            await old_look()
    refused(answers[0], 401, "authentication_required")
    unspent = "SELECT id FROM secret_wraps WHERE consumed_at IS NULL"
    assert len(plane.db.run_sync(rows.find, unspent)) == 1


async def test_a_password_is_not_reset_by_who_lost_the_right_while_it_was_hashed(
    plane: Stack, database_url: str
) -> None:
    admin, other = await plane.person("admin", "admin"), await plane.person("other", "admin")
    before = dump(database_url)["local_users"]
    hashing = plane.state.hasher._limiter
    answers: list[httpx.Response] = []

    async def reset() -> None:
        answers.append(await admin.post(f"/users/{other.id}/password-reset"))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, full(hashing):
            nursery.start_soon(reset)
            await waits_for(hashing)
            change(database_url, ENDED.format(admin.id))
            await old_look()
    refused(answers[0], 403, "permission_denied")
    assert dump(database_url)["local_users"] == before
    (denial,) = await denials(other)
    assert (denial["actor"], denial["action"]) == (f"user:{admin.id}", "access.denied")


async def denials(person: Person) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        await person.get("/audit-events", params={"status": "denied"})
    ).json()
    return found


async def test_a_caller_who_changes_again_and_again_is_asked_to_try_again(
    plane: Stack, database_url: str
) -> None:
    admin, other = await plane.person("admin", "admin"), await plane.person("other", "admin")
    hashing = plane.state.hasher._limiter
    answers: list[httpx.Response] = []

    async def reset() -> None:
        answers.append(await admin.post(f"/users/{other.id}/password-reset"))

    later = trio.Event()

    async def queue() -> None:
        """Take the places behind the first hash, so that the second one waits as well."""
        async with full(hashing):
            await later.wait()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            async with full(hashing):
                nursery.start_soon(reset)
                await waits_for(hashing)
                nursery.start_soon(queue)
                await waits_for(hashing, 2)
                change(database_url, LESS.format(admin.id))
                await old_look()
            await waits_for(hashing)
            change(database_url, ENDLESS.format(admin.id))
            await old_look()
            later.set()
    refused(answers[0], 409, "caller_changed")
    assert (await other.get("/users/me")).status_code == 200
