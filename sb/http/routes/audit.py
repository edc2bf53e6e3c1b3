"""Routes of the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, Field

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.pages import Page, next_link
from sb.http.routes.requests import IdText
from sb.ops import audit

Exact = Annotated[Text, Field(min_length=1, max_length=300)]


class AuditEventBody(Body):
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


class ListAuditEvents(Page, Query):
    most: ClassVar[int] = 1000

    actor: Exact | None = None
    action: Exact | None = None
    resource: Exact | None = None
    status: Literal["success", "denied", "failure"] | None = None
    correlation_id: IdText | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    limit: int = Field(default=100, ge=0, le=1_000_000)


@route(
    "GET",
    "/audit-events",
    access=Session("audit.read", scope="global"),
    query=ListAuditEvents,
    returns=list[AuditEventBody],
    summary="Query the audit trail, newest first",
)
async def list_audit_events(call: Call[Any]) -> Reply:
    query: ListAuditEvents = call.query
    limit = query.limit or 100
    filters = audit.Filters(
        actor=query.actor,
        action=query.action,
        resource=query.resource,
        status=query.status,
        correlation_id=query.correlation_id,
        since=query.since,
        until=query.until,
    )
    now = utc_now()

    def read(tx: Transaction) -> tuple[list[audit.AuditEvent], bool]:
        events = audit.list_events(tx, filters=filters, before=query.before, limit=limit)
        return events, audit.is_reading_recorded(tx, by=call.person, filters=filters, now=now)

    found, is_recorded = await call.state.db.read(read)
    if not is_recorded:
        # Before anything is shown: whoever cannot be put on record reads nothing.
        await call.state.db.run(audit.record_reading, by=call.person, filters=filters, now=now)
    last = (found[-1].occurred_at, found[-1].id) if found else None
    names = AuditEventBody.model_fields
    bodies = [AuditEventBody(**{name: getattr(event, name) for name in names}) for event in found]
    return Reply(bodies, headers=next_link(call, query, found, last, limit=limit))
