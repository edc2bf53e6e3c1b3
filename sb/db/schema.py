"""Waiting for a schema that somebody else brings up to date."""

from __future__ import annotations

import logging

import trio

from sb.db.engine import Database
from sb.errors import SbError
from sb.threads import run_blocking

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0


async def schema_arrived(db: Database, stop: trio.Event) -> bool:
    """Return True once somebody has migrated the database to this code's version, False on stop."""
    told, limiter = False, trio.CapacityLimiter(1)
    while not stop.is_set():
        try:
            found = await run_blocking(db.schema_version_sync, limiter=limiter)
        except SbError as problem:
            log.warning("database not ready", extra={"fields": {"reason": problem.code}})
        else:
            if found == db.expected_version:
                return True
            if not told:
                fields = {"found": found, "expected": db.expected_version}
                log.info("waiting for the schema", extra={"fields": fields})
                told = True
        with trio.move_on_after(LOOK_EVERY_SECONDS):
            await stop.wait()
    return False
