"""One process for one SQLite file: an exclusive lock held for as long as the file is open."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from sb.db.errors import DatabaseLockedError


def hold(database: Path) -> IO[str]:
    """Return the held lock of this database file; closing it lets go.

    Raises DatabaseLockedError when another process holds it.
    """
    database = database.resolve()
    path = database.with_name(database.name + ".lock")
    handle = path.open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        handle.close()
        msg = (
            f"{database} is open in another process. SQLite serves one process at a time: stop the "
            "other one, or use Postgres (DATABASE_URL) to run several."
        )
        raise DatabaseLockedError(msg) from problem
    return handle
