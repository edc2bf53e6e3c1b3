"""Routes of teams and their members."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.routes.requests import IdText
from sb.ops import teams, tenancy_errors
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import EscalationError, OutOfScopeTeamError, TeamNotFoundError


def _plain(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        msg = "must be printable and have no spaces around it"
        raise ValueError(msg)
    return text


Name = Annotated[Text, Field(min_length=1, max_length=120), AfterValidator(_plain)]
Description = Annotated[Text, Field(max_length=1000)]
Status = Literal["active", "archived"]


class CreateTeam(Body):
    name: Name
    parent_team_id: IdText | None = None
    description: Description | None = None
    status: Status = "active"


class UpdateTeam(Body):
    """What is absent stays; a null parent makes a root of the team."""

    name: Name = Field(default_factory=str)
    parent_team_id: IdText | None = None
    description: Description | None = None


class SetStatus(Body):
    status: Status


class TeamDetail(Body):
    id: str
    name: str
    parent_team_id: str | None
    status: str
    description: str | None
    created_at: datetime
    updated_at: datetime


class AddMember(Body):
    user_id: IdText


class MemberDetail(Body):
    team_id: str
    user_id: str
    user_display: str
    created_at: datetime
    created_by: str | None


class ListTeams(Page, Query):
    status: Status | None = None
    parent_team_id: IdText | None = None


class ListMembers(Page, Query):
    """A page of members."""


PLACE_ERRORS = (
    TeamNotFoundError,
    OutOfScopeTeamError,
    tenancy_errors.TeamArchivedError,
    tenancy_errors.TeamNameTakenError,
    tenancy_errors.TeamTooDeepError,
)


@route(
    "POST",
    "/teams",
    access=Session("team.edit"),
    body=CreateTeam,
    returns=TeamDetail,
    status=201,
    creates=True,
    errors=PLACE_ERRORS,
    summary="Create a team below another one, or a root",
)
async def create_team(call: Call[CreateTeam]) -> Reply:
    body = call.body

    def op(tx: Transaction) -> TeamDetail:
        row = teams.create(
            tx,
            caller=call.person,
            name=body.name,
            parent_team_id=body.parent_team_id,
            description=body.description,
            status=body.status,
            now=utc_now(),
        )
        return _team(row)

    return await run_creating(call, op)


@route(
    "GET",
    "/teams",
    access=Session(),
    query=ListTeams,
    returns=list[TeamDetail],
    summary="List the teams you belong to or have a grant over, newest first",
)
async def list_teams(call: Call[Any]) -> Reply:
    query: ListTeams = call.query
    rows = await call.state.db.read(
        teams.list_teams,
        caller=call.person,
        status=query.status,
        parent_team_id=query.parent_team_id,
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1]["created_at"], rows[-1]["id"]) if rows else None
    return Reply([_team(row) for row in rows], headers=next_link(call, query, rows, last))


@route(
    "GET",
    "/teams/<id:team_id>",
    access=Session(),
    returns=TeamDetail,
    errors=(TeamNotFoundError,),
    summary="Show a team",
)
async def show_team(call: Call[Any]) -> Reply:
    row = await call.state.db.read(teams.show, caller=call.person, team_id=call.ids["team_id"])
    return Reply(_team(row))


@route(
    "PUT",
    "/teams/<id:team_id>",
    access=Session("team.edit"),
    body=UpdateTeam,
    returns=TeamDetail,
    errors=(*PLACE_ERRORS, EscalationError, tenancy_errors.TeamCycleError),
    summary="Rename, describe or move a team; what is absent stays",
)
async def update_team(call: Call[UpdateTeam]) -> Reply:
    row = await call.state.db.run(
        teams.update,
        caller=call.person,
        team_id=call.ids["team_id"],
        changes=call.body.model_dump(exclude_unset=True),
        now=utc_now(),
    )
    return Reply(_team(row))


@route(
    "PUT",
    "/teams/<id:team_id>/status",
    access=Session("team.edit"),
    body=SetStatus,
    status=204,
    errors=(TeamNotFoundError, OutOfScopeTeamError),
    summary="Archive or restore a team",
)
async def set_team_status(call: Call[SetStatus]) -> Reply:
    await call.state.db.run(
        teams.set_status,
        caller=call.person,
        team_id=call.ids["team_id"],
        status=call.body.status,
        now=utc_now(),
    )
    return Reply(None)


@route(
    "DELETE",
    "/teams/<id:team_id>",
    access=Session("team.edit"),
    status=204,
    errors=(TeamNotFoundError, OutOfScopeTeamError, tenancy_errors.TeamInUseError),
    summary="Delete a team that nothing names any more",
)
async def delete_team(call: Call[Any]) -> Reply:
    await call.state.db.run(
        teams.delete, caller=call.person, team_id=call.ids["team_id"], now=utc_now()
    )
    return Reply(None)


@route(
    "POST",
    "/teams/<id:team_id>/members",
    access=Session("team.edit"),
    body=AddMember,
    returns=MemberDetail,
    status=201,
    creates=True,
    errors=(
        TeamNotFoundError,
        OutOfScopeTeamError,
        UserNotFoundError,
        tenancy_errors.AlreadyMemberError,
    ),
    summary="Make a person a member of a team; membership grants nothing",
)
async def add_member(call: Call[AddMember]) -> Reply:
    def op(tx: Transaction) -> MemberDetail:
        row = teams.add_member(
            tx,
            caller=call.person,
            team_id=call.ids["team_id"],
            user_id=call.body.user_id,
            now=utc_now(),
        )
        return _member(row)

    return await run_creating(call, op)


@route(
    "GET",
    "/teams/<id:team_id>/members",
    access=Session(),
    query=ListMembers,
    returns=list[MemberDetail],
    errors=(TeamNotFoundError,),
    summary="List the direct members of a team, newest first",
)
async def list_members(call: Call[Any]) -> Reply:
    query: ListMembers = call.query
    rows = await call.state.db.read(
        teams.list_members,
        caller=call.person,
        team_id=call.ids["team_id"],
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1]["created_at"], rows[-1]["user_id"]) if rows else None
    return Reply([_member(row) for row in rows], headers=next_link(call, query, rows, last))


@route(
    "DELETE",
    "/teams/<id:team_id>/members/<id:user_id>",
    access=Session("team.edit"),
    status=204,
    errors=(TeamNotFoundError, OutOfScopeTeamError, tenancy_errors.MemberNotFoundError),
    summary="End a membership",
)
async def remove_member(call: Call[Any]) -> Reply:
    await call.state.db.run(
        teams.remove_member,
        caller=call.person,
        team_id=call.ids["team_id"],
        user_id=call.ids["user_id"],
        now=utc_now(),
    )
    return Reply(None)


def _team(row: Mapping[str, Any]) -> TeamDetail:
    return TeamDetail(**{name: row[name] for name in TeamDetail.model_fields})


def _member(row: Mapping[str, Any]) -> MemberDetail:
    names = set(MemberDetail.model_fields) - {"user_display"}
    return MemberDetail(
        **{name: row[name] for name in names}, user_display=row["display_name"] or row["email"]
    )
