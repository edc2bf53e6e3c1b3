"""Upkeep of the provider's credential while there is no work that would renew it."""

from __future__ import annotations

import logging

import trio

from sb_agent.jobs import Workbench
from sb_agent.pace import jittered
from sb_agent.providers import ProviderError

log = logging.getLogger(__name__)

#: Shorter than half of any sensible lifetime of a token.
UPKEEP_SECONDS = 15.0


async def upkeep(bench: Workbench) -> None:
    """Keep the provider's credential alive until cancelled; trouble is told once, then awaited."""
    failing: str | None = None
    while True:
        try:
            await bench.call(bench.provider.keep_alive)
            failing = None
        except ProviderError as problem:
            if problem.code != failing:
                log.warning("provider not ready", extra={"fields": {"reason": problem.code}})
            failing = problem.code
        await trio.sleep(jittered(UPKEEP_SECONDS))
