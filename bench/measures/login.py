"""Signing in, and whether anything else is served while passwords are guessed in a flood."""

from __future__ import annotations

import time
from typing import Any

import trio

from bench.client import Client, UnexpectedAnswerError
from bench.load import Load, wrk
from bench.plane import Plane
from bench.seed import PASSWORD
from bench.stats import Goal, latency, metric

LOOK_SECONDS = 0.01


async def login(plane: Plane) -> dict[str, Any]:
    """Return sign-in times of one person alone, and probe times during a flood."""
    alone = [await _sign_in(plane) for _ in range(plane.plan.repeats)]
    floods, probes = [], []
    for _ in range(plane.plan.repeats):
        flood, seen = await _flood(plane)
        floods.append(flood.rate)
        probes.append(seen)
    return {
        "alone": latency(alone),
        "healthz_in_flood": latency(probes, p99=Goal(100)),
        "flood": metric(floods, "guesses/s"),
        "flood_connections": plane.plan.flood_connections,
    }


async def _sign_in(plane: Plane) -> list[float]:
    client, times = Client(plane.port), []
    body = {"email": "admin-0@example.com", "password": PASSWORD}
    for _ in range(plane.plan.logins):
        begun = time.perf_counter()
        await client.expect(200, "POST", "/api/v1/auth/login", body)
        times.append(time.perf_counter() - begun)
    await client.aclose()
    return times


async def _flood(plane: Plane) -> tuple[Load, list[float]]:
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_probe, plane.port, times)
        found = await wrk(
            "logins.lua",
            plane.port,
            connections=plane.plan.flood_connections,
            seconds=plane.plan.flood_seconds,
        )
        nursery.cancel_scope.cancel()
    if set(found.statuses) != {"401"}:
        msg = f"the flood did not reach the hashing: {found.statuses}"
        raise UnexpectedAnswerError(msg)
    return found, times


async def _probe(port: int, times: list[float]) -> None:
    client = Client(port)
    await trio.sleep(0.2)  # The flood takes a moment to stand.
    while True:
        begun = time.perf_counter()
        await client.expect(200, "GET", "/healthz")
        times.append(time.perf_counter() - begun)
        await trio.sleep(LOOK_SECONDS)
