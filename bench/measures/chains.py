"""The main job under load: how soon a value waits after approval, and how many jobs a second."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio
from sb.cli.demo import WAIT_SECONDS
from sb.cli.dev import SAMPLE

from bench.client import Client, UnexpectedAnswerError
from bench.plane import Plane
from bench.stats import Goal, latency, metric

PATIENCE_SECONDS = 30.0
#: The pause between two looks of a client that does not wait.
LOOK_SECONDS = 0.05
BODY = {**SAMPLE, "target_keys": ["DB_PASSWORD"]}

Pair = tuple[Client, Client]
Step = Callable[[Pair], Awaitable[float]]


async def approval_to_wrap(plane: Plane) -> dict[str, Any]:
    """Return the time from the approving response to the response that lists the wrap."""
    plan, clients, job = plane.plan, plane.pairs_of_clients(), _Job()
    alone, crowded = [], []
    for _ in range(plan.repeats):
        alone.append(await _repeat(plane, clients, job.wait, plan.approvals_at_1, 1))
        count = plan.approvals_at_20
        crowded.append(await _repeat(plane, clients, job.wait, count, plan.in_flight))
    return {
        "at_1": latency(alone, Goal(40), Goal(200)),
        f"at_{plan.in_flight}": latency(crowded),
    }


async def chains_per_second(plane: Plane) -> dict[str, Any]:
    """Return how many whole chains are done a second, and how long one takes.

    Once with clients that wait for the end as the product's own do, once with clients that look
    again and again, as those do which know no better.
    """
    return {
        "waiting": await _chains(plane, _Job(), Goal(25, more=True)),
        "looking": await _chains(plane, _Job(look_seconds=LOOK_SECONDS), None),
        "clients": plane.plan.in_flight,
    }


async def _chains(plane: Plane, job: _Job, goal: Goal | None) -> dict[str, Any]:
    plan, clients = plane.plan, plane.pairs_of_clients()
    rates, times = [], []
    for _ in range(plan.repeats):
        begun = time.perf_counter()
        times.append(await _repeat(plane, clients, job.whole, plan.chains, plan.in_flight))
        rates.append(plan.chains / (time.perf_counter() - begun))
    return {
        "rate": metric(rates, "chains/s", goal),
        "chain": latency(times),
        **job.looked(times),
    }


async def _repeat(
    plane: Plane, clients: list[Pair], step: Step, count: int, in_flight: int
) -> list[float]:
    """Return what `count` steps measured, with that many under way at any time."""
    measured: list[float] = []
    left = iter(range(count))
    # One pair does one step at a time; whoever is free longest goes next.
    free_in, free_out = trio.open_memory_channel[Pair](len(clients))
    for _ in clients:
        free_in.send_nowait(clients[plane.next_pair()])

    async def work() -> None:
        for _ in left:
            pair = await free_out.receive()
            measured.append(await step(pair))
            free_in.send_nowait(pair)

    async with trio.open_nursery() as nursery:
        for _ in range(min(in_flight, len(clients))):
            nursery.start_soon(work)
    return measured


@dataclass
class _Job:
    """The main job, step by step; without a pause between looks the server says when it is done."""

    look_seconds: float | None = None
    looks: int = 0

    def looked(self, runs: list[list[float]]) -> dict[str, float | None]:
        """Return the pause, and how many looks one value took."""
        return {
            "look_every_ms": self.look_seconds and self.look_seconds * 1000,
            "looks_per_value": round(self.looks / sum(len(run) for run in runs), 1),
        }

    async def wait(self, pair: Pair) -> float:
        """Return the seconds from the approving response to the listed wrap."""
        request_id = await self._approved(pair)
        begun = time.perf_counter()
        await self._listed(pair[0], request_id)
        return time.perf_counter() - begun

    async def whole(self, pair: Pair) -> float:
        """Return the seconds from asking to the value."""
        begun = time.perf_counter()
        request_id = await self._approved(pair)
        for wrap in await self._listed(pair[0], request_id):
            await pair[0].expect(200, "GET", f"/api/v1/requests/{request_id}/wraps/{wrap['id']}")
        return time.perf_counter() - begun

    async def _approved(self, pair: Pair) -> str:
        developer, approver = pair
        answer = await developer.expect(201, "POST", "/api/v1/requests/read", BODY)
        request_id = str(answer.json()["id"])
        await approver.expect(200, "POST", f"/api/v1/requests/{request_id}/approve", {})
        return request_id

    async def _listed(self, client: Client, request_id: str) -> list[Any]:
        with trio.move_on_after(PATIENCE_SECONDS):
            while True:
                self.looks += 1
                if self.look_seconds is None:
                    path = f"/api/v1/requests/{request_id}?wait={WAIT_SECONDS}"
                    await client.expect(200, "GET", path)
                answer = await client.expect(200, "GET", f"/api/v1/requests/{request_id}/wraps")
                if found := answer.json():
                    return list(found)
                await trio.sleep(self.look_seconds or 0)
        msg = f"no wrap of {request_id} within {PATIENCE_SECONDS:g} s"
        raise UnexpectedAnswerError(msg)
