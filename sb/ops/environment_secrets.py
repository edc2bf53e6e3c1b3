"""What an environment has of secrets: through bindings to it, and to every one of its project."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.ops import bindings, environments, secrets
from sb.ops.callers import Caller
from sb.ops.tenancy_errors import EnvironmentNotFoundError


def list_bindings(
    tx: Transaction,
    *,
    caller: Caller,
    project_id: str,
    environment_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` bindings that serve it, of secrets the caller may list, newest first.

    Refused as not found: an environment the caller may not read, or of another project.
    """
    found = environments.show(tx, caller=caller, environment_id=environment_id)
    if found["project_id"] != project_id:
        raise EnvironmentNotFoundError
    return bindings.list_bindings(
        tx,
        caller=caller,
        project_id=project_id,
        served_id=environment_id,
        permissions=secrets.LISTED_BY,
        before=before,
        limit=limit,
    )
