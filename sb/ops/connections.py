"""Provider connections: which provider, where, for which agents. Never a credential."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import audit
from sb.ops.callers import Actor
from sb.ops.errors import ConnectionNotFoundError
from sb.ops.targets import check_config


def create(
    tx: Transaction,
    *,
    by: Actor,
    name: str,
    provider_type: str,
    auth_method: str,
    scope: Mapping[str, str],
    cluster_name: str | None,
    description: str | None,
    now: datetime,
) -> Mapping[str, Any]:
    """Create an active connection and return it; a name is used once."""
    connection_id = new_id()
    tx.count(
        "connection_insert",
        id=connection_id,
        name=name,
        type=provider_type,
        auth_method=auth_method,
        scope=check_config(provider_type, scope),
        cluster_name=cluster_name,
        description=description,
        now=now,
    )
    audit.record(
        tx,
        by=by,
        action="provider_connection.create",
        resource=f"provider_connection:{connection_id}",
        metadata={"name": name, "type": provider_type, "cluster_name": cluster_name},
        now=now,
    )
    return find(tx, connection_id=connection_id)


def find(tx: Transaction, *, connection_id: str) -> Mapping[str, Any]:
    """Return the connection, or refuse as not found."""
    row = tx.one("connection_find", id=connection_id)
    if row is None:
        raise ConnectionNotFoundError
    return row


def list_connections(
    tx: Transaction, *, before: tuple[datetime, str] | None, limit: int
) -> list[Mapping[str, Any]]:
    """Return up to `limit` connections older than `before`, newest first."""
    return tx.many(
        "connection_list",
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )
