"""People at work: requests from the submit to the reveal, through both APIs, whatever fails."""

from __future__ import annotations

import base64
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

from sb.ids import new_id
from tests.http.hostile import refused
from tests.processes import leaks
from tests.processes.fleet import READABLE, Fleet, Person
from tests.stack import until

#: No single call may take longer: all that is waited for inside has a shorter limit.
CALL_SECONDS = 30.0
#: From the submit to the reveal, a fault and a busy machine included.
JOURNEY_SECONDS = 90.0
AGAIN_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is asked for, by whom, who approves, and which API is spoken to first."""

    ref: str
    developer: Person
    approver: Person
    first: int
    #: The value to write; None asks to read.
    new_value: str | None = None


@dataclass(kw_only=True)
class Done:
    """How it went."""

    work: Work
    request_id: str
    revealed: list[str] = field(default_factory=list)
    #: Calls to reveal that ended without an answer or with a 503: the wrap may be spent.
    unclear: int = 0
    wrap_id: str = ""


class Lost(Exception):  # noqa: N818 # an answer that did not come, not a mistake
    """No answer, or a 503 in the product's own form: the same call may be made again."""


class Crowd:
    """One HTTP client for everybody, and a record of what went wrong."""

    def __init__(self, fleet: Fleet, http: httpx.AsyncClient) -> None:
        self.fleet = fleet
        #: How often each stable code of a 503 was seen, and each kind of broken connection.
        self.failures: Counter[str] = Counter()
        self.slowest = 0.0
        self._http = http

    async def call(
        self, api: int, method: str, path: str, *, by: Person, **extra: Any
    ) -> httpx.Response:
        """Return the answer of one of the two APIs; raises Lost when there is none to go by."""
        headers = {"Authorization": f"Bearer {by.token}", **extra.pop("headers", {})}
        url = f"{self.fleet.apis[api % 2].url}/api/v1{path}"
        started = trio.current_time()
        try:
            answer = await self._http.request(method, url, headers=headers, **extra)
        except httpx.TransportError as problem:
            self.failures[type(problem).__name__] += 1
            raise Lost from problem
        finally:
            self.slowest = max(self.slowest, trio.current_time() - started)
        is_reveal = answer.status_code == 200 and "/wraps/" in path
        self.fleet.answers.append(str(answer.headers) + ("" if is_reveal else answer.text))
        if answer.status_code == 503:
            codes = ("database_unavailable", "database_busy", "coordination_unavailable")
            self.failures[refused(answer, 503, *codes)["error"]] += 1
            raise Lost
        return answer

    async def insist(self, first: int, method: str, path: str, **extra: Any) -> httpx.Response:
        """Return an answer from whichever API gives one, asking both in turn."""
        with trio.fail_after(JOURNEY_SECONDS):
            for api in itertools.count(first):
                try:
                    return await self.call(api, method, path, **extra)
                except Lost:
                    await trio.sleep(AGAIN_SECONDS)
        raise AssertionError("unreachable")

    def draft(self, work: Work) -> tuple[str, dict[str, Any]]:
        """Return where to submit the work, and what."""
        body: dict[str, Any] = {
            "target_provider_type": "file",
            "provider_connection_id": self.fleet.connection_id,
            "target_secret_ref": work.ref,
            "justification": f"ticket {work.ref}",
        }
        if work.new_value is None:
            return "/requests/read", {**body, "target_keys": ["PASSWORD"]}
        return "/requests", {**body, "key_values": {"PASSWORD": work.new_value}}

    async def submit(self, work: Work) -> str:
        """Return the id of the request, made once however often it takes to hear of it."""
        path, body = self.draft(work)
        headers = {"Idempotency-Key": new_id()}
        answer = await self.insist(
            work.first, "POST", path, by=work.developer, json=body, headers=headers
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def approve(self, work: Work, request_id: str) -> None:
        """Leave the request approved; an approval whose answer was lost counts."""
        failed_before = self.failures.total()
        answer = await self.insist(
            work.first + 1, "POST", f"/requests/{request_id}/approve", by=work.approver, json={}
        )
        if answer.status_code == 409 and self.failures.total() > failed_before:
            assert answer.json()["error"] in ("request_not_pending", "already_voted"), answer.text
            return
        assert answer.status_code == 200, answer.text

    async def executed(self, work: Work, request_id: str) -> None:
        """Return once the request is executed."""
        while True:
            answer = await self.insist(
                work.first, "GET", f"/requests/{request_id}", by=work.developer
            )
            assert answer.status_code == 200, answer.text
            found = answer.json()
            assert found["status"] in ("pending", "approved", "executed"), found
            if found["status"] == "executed":
                return
            await trio.sleep(AGAIN_SECONDS)

    async def listed(self, work: Work, request_id: str) -> Any:
        """Return the one wrap of the request, as its requester sees it."""
        path = f"/requests/{request_id}/wraps"
        answer = await self.insist(work.first, "GET", path, by=work.developer)
        assert answer.status_code == 200, answer.text
        (wrap,) = answer.json()
        assert wrap["key_name"] == "PASSWORD", wrap
        return wrap

    async def journey(self, work: Work) -> Done:
        """Take a request to its end; a value that was read is asked for on both APIs at once."""
        with trio.fail_after(JOURNEY_SECONDS):
            done = Done(work=work, request_id=await self.submit(work))
            await self.approve(work, done.request_id)
            await self.executed(work, done.request_id)
            if work.new_value is None:
                done.wrap_id = (await self.listed(work, done.request_id))["id"]
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.reveal, done, 0)
                    nursery.start_soon(self.reveal, done, 1)
        return done

    async def reveal(self, done: Done, api: int) -> None:
        """Ask one API for the value until it is had or gone."""
        path = f"/requests/{done.request_id}/wraps/{done.wrap_id}"
        with trio.fail_after(JOURNEY_SECONDS):
            while True:
                try:
                    answer = await self.call(api, "GET", path, by=done.work.developer)
                    break
                except Lost:
                    done.unclear += 1
                    await trio.sleep(AGAIN_SECONDS)
        if answer.status_code == 200:
            done.revealed.append(base64.b64decode(answer.json()["value"]).decode())
            return
        refused(answer, 410, "wrap_already_consumed")


@asynccontextmanager
async def crowd(fleet: Fleet) -> AsyncIterator[Crowd]:
    """Open the client for as long as the context lasts."""
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    async with httpx.AsyncClient(timeout=CALL_SECONDS, limits=limits, trust_env=False) as http:
        yield Crowd(fleet, http)


def works(fleet: Fleet, *, write_every: int = 0) -> Iterator[Work]:
    """Yield work without end: everybody in turn, each API in turn, each secret in turn."""
    for number in itertools.count():
        pair = number % len(fleet.developers)
        writes = write_every > 0 and number % write_every == 0
        new_value = leaks.new_value(fleet.mark, f"new {number}") if writes else None
        yield Work(
            ref=f"fault/{number}" if writes else f"read/{number % READABLE}",
            developer=fleet.developers[pair],
            approver=fleet.approvers[-1 - pair],
            first=number,
            new_value=new_value,
        )


@dataclass(kw_only=True)
class Load:
    """Work that goes on until it is told to end."""

    crowd: Crowd
    accepted: list[Done] = field(default_factory=list)
    stop: trio.Event = field(default_factory=trio.Event)

    async def one_more(self, count: int = 1) -> None:
        """Return once this many more journeys have ended."""
        wanted = len(self.accepted) + count

        async def enough() -> bool:
            return len(self.accepted) >= wanted

        await until(enough, seconds=JOURNEY_SECONDS)

    async def keep_busy(self, todo: Iterator[Work]) -> None:
        """Do one piece of work after the other; what was begun is brought to its end."""
        while not self.stop.is_set():
            self.accepted.append(await self.crowd.journey(next(todo)))


@asynccontextmanager
async def under_load(fleet: Fleet, *, busy: int = 4) -> AsyncIterator[Load]:
    """Keep so many people busy; at the end every accepted request has ended, as it should."""
    async with crowd(fleet) as people:
        load = Load(crowd=people)
        todo = works(fleet, write_every=3)
        async with trio.open_nursery() as nursery:
            for _ in range(busy):
                nursery.start_soon(load.keep_busy, todo)
            yield load
            load.stop.set()
        check(fleet, load)


def check(fleet: Fleet, load: Load) -> None:
    """Fail when a request did not end, a value was shown twice, or a write was lost."""
    assert load.accepted
    assert load.crowd.slowest < CALL_SECONDS
    for done in load.accepted:
        jobs = fleet.rows("SELECT status FROM sync_jobs WHERE request_id = %s", done.request_id)
        assert jobs == [{"status": "succeeded"}], (done, jobs)
        stored = str(fleet.store.read(done.work.ref, {}).values["PASSWORD"])
        if done.work.new_value is not None:
            assert stored == done.work.new_value, done.work.ref
        elif done.revealed or not done.unclear:
            # An answer may be lost together with the value in it; it is never shown again.
            assert done.revealed == [stored], (done.request_id, done.unclear)
