"""Routes of grants: who holds which role, where, until when, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.routes.requests import IdText
from sb.ops import errors, grant_lists, grants
from sb.ops import governance_errors as refusals


def _moment(value: object) -> object:
    # Strict models take no text for a time, and JSON has no other form of one.
    if not isinstance(value, str) or RFC_3339.fullmatch(value) is None:
        msg = "must be a time in RFC 3339 with its offset"
        raise ValueError(msg)
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        msg = "must be a time that there is"
        raise ValueError(msg) from None


RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)
#: A time in a body; kept in UTC.
Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
Reason = Annotated[Text, Field(min_length=1, max_length=1000)]
GRANT_ERRORS = (
    refusals.GrantNotFoundError,
    refusals.GrantEndedError,
    refusals.EscalationError,
    refusals.LastAdminError,
)


class CreateGrant(Body):
    """Who granted it is the session's person; a scope of `{}` is everything and must be written."""

    user_id: IdText
    role_id: IdText
    scope: dict[str, Any] = Field(max_length=16)
    expires_at: Moment | None = None
    reason: Reason | None = None


class UpdateGrant(Body):
    """What is left out stays; an `expires_at` of null is a grant without an end."""

    expires_at: Moment | None = None
    reason: Reason | None = None


class UserRoleBody(Body):
    id: str
    user_id: str
    user_email: str
    role_id: str
    role_name: str
    scope: dict[str, Any]
    granted_by: str
    granted_at: datetime
    expires_at: datetime | None
    reason: str | None
    active: bool


class RevokeGrant(Query):
    reason: Reason | None = None


class ListUserGrants(Page, Query):
    active: bool | None = None


class ListGrants(ListUserGrants):
    user_id: IdText | None = None
    role_id: IdText | None = None
    team_id: IdText | None = None


@route(
    "POST",
    "/user-roles",
    access=Session("user_role.edit"),
    body=CreateGrant,
    returns=UserRoleBody,
    status=201,
    creates=True,
    errors=(
        refusals.InvalidScopeError,
        refusals.RoleNotFoundError,
        errors.UserNotFoundError,
        refusals.GranteeDisabledError,
        refusals.EscalationError,
        refusals.GrantExistsError,
        refusals.TooManyGrantsError,
    ),
    summary="Give a person a role at a scope, for ever or until a time",
)
async def create_grant(call: Call[CreateGrant]) -> Reply:
    body = call.body

    def op(tx: Transaction) -> UserRoleBody:
        now = utc_now()
        row = grants.create(
            tx,
            caller=call.person,
            user_id=body.user_id,
            role_id=body.role_id,
            scope=body.scope,
            expires_at=body.expires_at,
            reason=body.reason,
            now=now,
        )
        return _grant(row, now=now)

    return await run_creating(call, op)


@route(
    "GET",
    "/user-roles",
    access=Session("user_role.edit"),
    query=ListGrants,
    returns=list[UserRoleBody],
    summary="List the grants in your scope, newest first, ended ones included",
)
async def list_grants(call: Call[Any]) -> Reply:
    query: ListGrants = call.query
    filters = grant_lists.Filters(
        user_id=query.user_id, role_id=query.role_id, team_id=query.team_id, active=query.active
    )
    now = utc_now()
    rows = await call.state.db.read(
        grant_lists.list_grants,
        caller=call.person,
        filters=filters,
        before=query.before,
        limit=query.limit,
        now=now,
    )
    return _page(call, query, rows, now=now)


@route(
    "GET",
    "/user-roles/<id:grant_id>",
    access=Session(),
    returns=UserRoleBody,
    errors=(refusals.GrantNotFoundError,),
    summary="Show a grant of yours or in your scope",
)
async def show_grant(call: Call[Any]) -> Reply:
    row = await call.state.db.read(
        grant_lists.find, caller=call.person, grant_id=call.ids["grant_id"]
    )
    return Reply(_grant(row, now=utc_now()))


@route(
    "GET",
    "/users/<id:user_id>/roles",
    access=Session(),
    query=ListUserGrants,
    returns=list[UserRoleBody],
    errors=(errors.UserNotFoundError,),
    summary="List a person's grants, newest first: your own, or those in your scope",
)
async def list_user_grants(call: Call[Any]) -> Reply:
    query: ListUserGrants = call.query
    now = utc_now()
    rows = await call.state.db.read(
        grant_lists.list_of_user,
        caller=call.person,
        user_id=call.ids["user_id"],
        active=query.active,
        before=query.before,
        limit=query.limit,
        now=now,
    )
    return _page(call, query, rows, now=now)


@route(
    "PUT",
    "/user-roles/<id:grant_id>",
    access=Session("user_role.edit"),
    body=UpdateGrant,
    returns=UserRoleBody,
    errors=GRANT_ERRORS,
    summary="Change a grant's end or reason; what is left out stays",
)
async def update_grant(call: Call[UpdateGrant]) -> Reply:
    now = utc_now()
    row = await call.state.db.run(
        grants.update,
        caller=call.person,
        grant_id=call.ids["grant_id"],
        changes=call.body.model_dump(exclude_unset=True),
        now=now,
    )
    return Reply(_grant(row, now=now))


@route(
    "DELETE",
    "/user-roles/<id:grant_id>",
    access=Session("user_role.edit"),
    query=RevokeGrant,
    status=204,
    errors=(refusals.GrantNotFoundError, refusals.LastAdminError),
    summary="Take a grant back",
)
async def revoke_grant(call: Call[Any]) -> Reply:
    await call.state.db.run(
        grants.revoke,
        caller=call.person,
        grant_id=call.ids["grant_id"],
        reason=call.query.reason,
        now=utc_now(),
    )
    return Reply(None)


def _page(call: Call[Any], query: Page, rows: list[Mapping[str, Any]], *, now: datetime) -> Reply:
    last = (rows[-1]["granted_at"], rows[-1]["id"]) if rows else None
    found = [_grant(row, now=now) for row in rows]
    return Reply(found, headers=next_link(call, query, rows, last))


def _grant(row: Mapping[str, Any], *, now: datetime) -> UserRoleBody:
    active = row["expires_at"] is None or row["expires_at"] > now
    values = {name: row[name] for name in UserRoleBody.model_fields if name != "active"}
    return UserRoleBody(**values, active=active)
