"""How long loops wait: regular beats with jitter, and backing off from what fails."""

from __future__ import annotations

import random

import trio

JITTER = 0.1


class Backoff:
    """Waits that double up to a limit, each shortened at random so that agents do not march."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._next = first_seconds

    async def wait(self) -> None:
        """Return after this round's wait; the next one is longer."""
        seconds = self._next * random.uniform(0.5, 1.0)  # noqa: S311 # no secret depends on it
        self._next = min(self._next * 2, self._longest)
        await trio.sleep(seconds)

    def reset(self) -> None:
        """Begin again with the first wait."""
        self._next = self._first


def jittered(seconds: float) -> float:
    """Return the seconds, up to a tenth more or less."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 # no secret depends on it
