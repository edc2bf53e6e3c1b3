"""Routes of projects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Query
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.routes.requests import IdText
from sb.http.routes.teams import Name, SetStatus, Status
from sb.ops import projects, tenancy_errors
from sb.ops.errors import OutOfScopeProjectError
from sb.ops.governance_errors import EscalationError, OutOfScopeTeamError, TeamNotFoundError


class CreateProject(Body):
    name: Name
    team_id: IdText | None = None
    status: Status = "active"


class UpdateProject(Body):
    """What is absent stays."""

    name: Name = Field(default_factory=str)


class SetTeam(Body):
    """The team the project will stand under; null for none."""

    team_id: IdText | None


class ProjectDetail(Body):
    id: str
    name: str
    team_id: str | None
    status: str
    created_at: datetime
    updated_at: datetime


class ListProjects(Page, Query):
    status: Status | None = None
    team_id: IdText | None = None


CHANGE_ERRORS = (tenancy_errors.ProjectNotFoundError, OutOfScopeProjectError)
TEAM_ERRORS = (TeamNotFoundError, OutOfScopeTeamError, tenancy_errors.TeamArchivedError)


@route(
    "POST",
    "/projects",
    access=Session("project.edit"),
    body=CreateProject,
    returns=ProjectDetail,
    status=201,
    creates=True,
    errors=(*TEAM_ERRORS, OutOfScopeProjectError, tenancy_errors.ProjectNameTakenError),
    summary="Create a project under a team, or under none",
)
async def create_project(call: Call[CreateProject]) -> Reply:
    body = call.body

    def op(tx: Transaction) -> ProjectDetail:
        row = projects.create(
            tx,
            caller=call.person,
            name=body.name,
            team_id=body.team_id,
            status=body.status,
            now=utc_now(),
        )
        return _project(row)

    return await run_creating(call, op)


@route(
    "GET",
    "/projects",
    access=Session(),
    query=ListProjects,
    returns=list[ProjectDetail],
    summary="List the projects you may read, newest first",
)
async def list_projects(call: Call[Any]) -> Reply:
    query: ListProjects = call.query
    rows = await call.state.db.read(
        projects.list_projects,
        caller=call.person,
        status=query.status,
        team_id=query.team_id,
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1]["created_at"], rows[-1]["id"]) if rows else None
    return Reply([_project(row) for row in rows], headers=next_link(call, query, rows, last))


@route(
    "GET",
    "/projects/<id:project_id>",
    access=Session(),
    returns=ProjectDetail,
    errors=(tenancy_errors.ProjectNotFoundError,),
    summary="Show a project",
)
async def show_project(call: Call[Any]) -> Reply:
    row = await call.state.db.read(
        projects.show, caller=call.person, project_id=call.ids["project_id"]
    )
    return Reply(_project(row))


@route(
    "PUT",
    "/projects/<id:project_id>",
    access=Session("project.edit"),
    body=UpdateProject,
    returns=ProjectDetail,
    errors=(*CHANGE_ERRORS, tenancy_errors.ProjectNameTakenError),
    summary="Rename a project",
)
async def update_project(call: Call[UpdateProject]) -> Reply:
    row = await call.state.db.run(
        projects.rename,
        caller=call.person,
        project_id=call.ids["project_id"],
        name=call.body.name or None,
        now=utc_now(),
    )
    return Reply(_project(row))


@route(
    "PUT",
    "/projects/<id:project_id>/status",
    access=Session("project.edit"),
    body=SetStatus,
    status=204,
    errors=CHANGE_ERRORS,
    summary="Archive or restore a project; an archived one takes no requests and no bindings",
)
async def set_project_status(call: Call[SetStatus]) -> Reply:
    await call.state.db.run(
        projects.set_status,
        caller=call.person,
        project_id=call.ids["project_id"],
        status=call.body.status,
        now=utc_now(),
    )
    return Reply(None)


@route(
    "PUT",
    "/projects/<id:project_id>/team",
    access=Session("project.edit"),
    body=SetTeam,
    status=204,
    errors=(*CHANGE_ERRORS, *TEAM_ERRORS, EscalationError),
    summary="Put a project under another team, or under none",
)
async def set_project_team(call: Call[SetTeam]) -> Reply:
    await call.state.db.run(
        projects.set_team,
        caller=call.person,
        project_id=call.ids["project_id"],
        team_id=call.body.team_id,
        now=utc_now(),
    )
    return Reply(None)


def _project(row: Mapping[str, Any]) -> ProjectDetail:
    return ProjectDetail(**{name: row[name] for name in ProjectDetail.model_fields})
