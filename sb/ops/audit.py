"""The append-only audit trail: written in the transaction of the change, read by `audit.read`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sb.db.engine import Transaction
from sb.errors import Denial
from sb.ids import is_id, new_id
from sb.ops.callers import Actor

READ = "audit.read"
#: Readings by one person with the same filters within this time share one row, pages included.
READING_LASTS = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    id: str
    actor: str
    actor_display: str
    action: str
    resource: str
    status: str
    correlation_id: str
    http_request_id: str | None
    metadata: Mapping[str, Any]
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    actor: str | None = None
    action: str | None = None
    resource: str | None = None
    status: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def used(self) -> list[str]:
        """The names of the filters that are set, never what they are set to."""
        return sorted(each.name for each in fields(self) if getattr(self, each.name) is not None)


def record(
    tx: Transaction,
    *,
    by: Actor,
    action: str,
    resource: str,
    now: datetime,
    correlation_id: str | None = None,
    status: str = "success",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Append one event; it stands or falls with the transaction it is written in."""
    tx.count(
        "audit_insert",
        id=new_id(),
        actor=by.actor,
        action=action,
        resource=resource,
        status=status,
        correlation_id=correlation_id or new_id(),
        http_request_id=by.http_request_id,
        metadata=dict(metadata or {}),
        now=now,
    )


def record_denial(tx: Transaction, *, denial: Denial, by: Actor, now: datetime) -> None:
    """Append the event of a refusal, after the refused transaction has rolled back."""
    record(
        tx,
        by=by,
        action=denial.action,
        resource=denial.resource,
        status=denial.status,
        correlation_id=denial.correlation_id,
        metadata=denial.metadata,
        now=now,
    )


def list_events(
    tx: Transaction, *, filters: Filters, before: tuple[datetime, str] | None, limit: int
) -> list[AuditEvent]:
    """Return up to `limit` matching events older than `before`, newest first."""
    rows = tx.many(
        "audit_list",
        actor=filters.actor,
        action=filters.action,
        resource=filters.resource,
        status=filters.status,
        correlation_id=filters.correlation_id,
        since=filters.since,
        until=filters.until,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )
    names = display_names(tx, {row["actor"] for row in rows})
    return [AuditEvent(actor_display=names[row["actor"]], **row) for row in rows]


def is_reading_recorded(tx: Transaction, *, by: Actor, filters: Filters, now: datetime) -> bool:
    """Tell whether the trail says already that this person reads it with these filters."""
    rows = tx.many("audit_list_readings", actor=by.actor, since=now - READING_LASTS)
    return any(row["metadata"].get("filters") == filters.used for row in rows)


def record_reading(tx: Transaction, *, by: Actor, filters: Filters, now: datetime) -> None:
    """Leave the row that somebody reads the trail; a second call within five minutes adds none."""
    if is_reading_recorded(tx, by=by, filters=filters, now=now):
        return
    record(
        tx,
        by=by,
        action=READ,
        resource="audit_events",
        metadata={"filters": filters.used},
        now=now,
    )


def display_names(tx: Transaction, actors: set[str]) -> dict[str, str]:
    """Return what people call each actor, whatever became of the account behind it."""
    users = _ids_of("user:", actors)
    agents = _ids_of("agent:", actors)
    found: dict[str, str] = {}
    if users:
        for row in tx.many("audit_user_names", ids=users):
            found[f"user:{row['id']}"] = row["email"] or row["display_name"]
    if agents:
        for row in tx.many("audit_agent_names", ids=agents):
            found[f"agent:{row['id']}"] = f"Agent {row['name']}"
    return {actor: found.get(actor) or _fallback_name(actor) for actor in actors}


def _ids_of(prefix: str, actors: set[str]) -> list[str]:
    ids = (actor.removeprefix(prefix) for actor in actors if actor.startswith(prefix))
    return sorted(candidate for candidate in ids if is_id(candidate))


def _fallback_name(actor: str) -> str:
    kind, _, rest = actor.partition(":")
    match kind:
        case "user":
            return f"unknown user ({rest[:8]}…)"
        case "agent":
            return f"unknown agent ({rest[:8]}…)"
        case "system":
            return f"System ({rest})"
        case _:
            return actor
