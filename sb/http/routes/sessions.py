"""Routes of sessions: one's own, and everybody's for whoever administers accounts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sb.clock import utc_now
from sb.http.bodies import Body, Query
from sb.http.declare import Call, Cookie, Reply, Session, route
from sb.http.guards import COOKIE
from sb.http.pages import Page, next_link
from sb.ops import sessions
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import SessionNotFoundError

ADMINISTER = Session("user_role.edit", scope="global")


class SessionBody(Body):
    """A live session; `current` is the one this call was made with."""

    id: str
    created_at: datetime
    expires_at: datetime
    idle_expires_at: datetime
    ip: str | None
    user_agent: str | None
    current: bool


class EndedBody(Body):
    sessions_ended: int


class ListSessions(Page, Query):
    """A page of live sessions."""


@route(
    "GET",
    "/users/me/sessions",
    access=Session(),
    query=ListSessions,
    returns=list[SessionBody],
    summary="List your own live sessions, newest first",
)
async def list_own(call: Call[Any]) -> Reply:
    return await _list(call, user_id=call.person.user_id)


@route(
    "DELETE",
    "/users/me/sessions/<id:session_id>",
    access=Session(),
    status=204,
    errors=(SessionNotFoundError,),
    summary="End one of your own sessions",
)
async def end_own(call: Call[Any]) -> Reply:
    await _end(call, user_id=call.person.user_id)
    own = call.ids["session_id"] == call.person.session_id
    return Reply(None, cookies=[Cookie(name=COOKIE, value="", expires_at=None)] if own else [])


@route(
    "POST",
    "/users/me/sessions/revoke-others",
    access=Session(),
    returns=EndedBody,
    summary="End all of your sessions but this one",
)
async def end_others(call: Call[Any]) -> Reply:
    ended = await call.state.db.run(sessions.end_others, caller=call.person, now=utc_now())
    return Reply(EndedBody(sessions_ended=ended))


@route(
    "GET",
    "/users/<id:user_id>/sessions",
    access=ADMINISTER,
    query=ListSessions,
    returns=list[SessionBody],
    errors=(UserNotFoundError,),
    summary="List somebody's live sessions, newest first",
)
async def list_of_user(call: Call[Any]) -> Reply:
    return await _list(call, user_id=call.ids["user_id"])


@route(
    "DELETE",
    "/users/<id:user_id>/sessions/<id:session_id>",
    access=ADMINISTER,
    status=204,
    errors=(SessionNotFoundError,),
    summary="End one of somebody's sessions",
)
async def end_of_user(call: Call[Any]) -> Reply:
    await _end(call, user_id=call.ids["user_id"])
    return Reply(None)


@route(
    "POST",
    "/users/<id:user_id>/sessions/revoke-all",
    access=ADMINISTER,
    returns=EndedBody,
    errors=(UserNotFoundError,),
    summary="End all of somebody's sessions at once",
)
async def end_all_of_user(call: Call[Any]) -> Reply:
    ended = await call.state.db.run(
        sessions.end_all, by=call.person, user_id=call.ids["user_id"], now=utc_now()
    )
    return Reply(EndedBody(sessions_ended=ended))


async def _list(call: Call[Any], *, user_id: str) -> Reply:
    query: ListSessions = call.query
    found = await call.state.db.read(
        sessions.list_live,
        user_id=user_id,
        before=query.before,
        limit=query.limit,
        now=utc_now(),
    )
    last = (found[-1].created_at, found[-1].id) if found else None
    return Reply(
        [_session(one, current=call.person.session_id) for one in found],
        headers=next_link(call, query, found, last),
    )


async def _end(call: Call[Any], *, user_id: str) -> None:
    await call.state.db.run(
        sessions.end_one,
        by=call.person,
        user_id=user_id,
        session_id=call.ids["session_id"],
        now=utc_now(),
    )


def _session(found: sessions.LiveSession, *, current: str) -> SessionBody:
    return SessionBody(
        id=found.id,
        created_at=found.created_at,
        expires_at=found.expires_at,
        idle_expires_at=found.idle_expires_at,
        ip=found.ip,
        user_agent=found.user_agent,
        current=found.id == current,
    )
