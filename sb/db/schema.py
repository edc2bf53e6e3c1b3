"""Waiting for a schema that somebody else brings up to date."""

from __future__ import annotations

import logging

import trio

from sb.db.engine import Database
from sb.db.errors import SchemaError
from sb.errors import SbError
from sb.threads import run_blocking

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 1.0


async def schema_arrived(db: Database, stop: trio.Event) -> bool:
    """Return True once somebody has migrated the database to this code's version, False on stop.

    Raises SchemaError when the database is newer than the code: waiting would not change that.
    """
    told, limiter = False, trio.CapacityLimiter(1)
    while not stop.is_set():
        try:
            found = await run_blocking(db.schema_version_sync, limiter=limiter)
        except SbError as problem:
            log.warning("database not ready", extra={"fields": {"reason": problem.code}})
        else:
            if found == db.expected_version:
                return True
            if found > db.expected_version:
                msg = (
                    f"the database is at migration {found}, newer than this release's "
                    f"{db.expected_version}: run the newer release"
                )
                raise SchemaError(msg)
            if not told:
                fields = {"found": found, "expected": db.expected_version, "do": "sb migrate"}
                log.warning("waiting for the schema", extra={"fields": fields})
                told = True
        with trio.move_on_after(LOOK_EVERY_SECONDS):
            await stop.wait()
    return False
