"""Routes of environments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Query
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.routes.requests import IdText
from sb.http.routes.teams import Description, Name
from sb.ops import environments, tenancy_errors
from sb.ops.errors import OutOfScopeProjectError

Kind = Literal["non_prod", "prod"]
RiskLevel = Annotated[int, Field(ge=0, le=4)]


class CreateEnvironment(Body):
    """Without a kind, the type `prod` makes production and any other does not."""

    project_id: IdText
    name: Name
    type: Literal["dev", "staging", "uat", "prod", "other"] = "other"
    kind: Kind | None = None
    risk_level: RiskLevel = 1
    description: Description | None = None


class UpdateEnvironment(Body):
    """What is absent stays; nothing else of an environment ever changes."""

    risk_level: RiskLevel = Field(default_factory=int)
    description: Description | None = None


class EnvironmentDetail(Body):
    id: str
    project_id: str
    name: str
    type: str
    kind: str
    risk_level: int
    description: str | None
    created_at: datetime
    updated_at: datetime


class ListEnvironments(Page, Query):
    kind: Kind | None = None
    project_id: IdText | None = None


class ListOfProject(Page, Query):
    """A page of one project's environments."""


CHANGE_ERRORS = (tenancy_errors.EnvironmentNotFoundError, OutOfScopeProjectError)


@route(
    "POST",
    "/environments",
    access=Session("environment.edit"),
    body=CreateEnvironment,
    returns=EnvironmentDetail,
    status=201,
    creates=True,
    errors=(
        tenancy_errors.ProjectNotFoundError,
        OutOfScopeProjectError,
        tenancy_errors.ProjectArchivedError,
        tenancy_errors.EnvironmentNameTakenError,
        tenancy_errors.EnvironmentKindProtectedError,
    ),
    summary="Create an environment in a project",
)
async def create_environment(call: Call[CreateEnvironment]) -> Reply:
    body = call.body

    def op(tx: Transaction) -> EnvironmentDetail:
        row = environments.create(
            tx,
            caller=call.person,
            project_id=body.project_id,
            name=body.name,
            environment_type=body.type,
            kind=body.kind,
            risk_level=body.risk_level,
            description=body.description,
            now=utc_now(),
        )
        return _environment(row)

    return await run_creating(call, op)


@route(
    "GET",
    "/environments",
    access=Session(),
    query=ListEnvironments,
    returns=list[EnvironmentDetail],
    summary="List the environments you may read, newest first",
)
async def list_environments(call: Call[Any]) -> Reply:
    query: ListEnvironments = call.query
    rows = await call.state.db.read(
        environments.list_environments,
        caller=call.person,
        project_id=query.project_id,
        kind=query.kind,
        before=query.before,
        limit=query.limit,
    )
    return _page(call, query, rows)


@route(
    "GET",
    "/projects/<id:project_id>/environments",
    access=Session(),
    query=ListOfProject,
    returns=list[EnvironmentDetail],
    errors=(tenancy_errors.ProjectNotFoundError,),
    summary="List the environments of a project, newest first",
)
async def list_of_project(call: Call[Any]) -> Reply:
    query: ListOfProject = call.query
    rows = await call.state.db.read(
        environments.list_of_project,
        caller=call.person,
        project_id=call.ids["project_id"],
        before=query.before,
        limit=query.limit,
    )
    return _page(call, query, rows)


@route(
    "GET",
    "/environments/<id:environment_id>",
    access=Session(),
    returns=EnvironmentDetail,
    errors=(tenancy_errors.EnvironmentNotFoundError,),
    summary="Show an environment",
)
async def show_environment(call: Call[Any]) -> Reply:
    row = await call.state.db.read(
        environments.show, caller=call.person, environment_id=call.ids["environment_id"]
    )
    return Reply(_environment(row))


@route(
    "PUT",
    "/environments/<id:environment_id>",
    access=Session("environment.edit"),
    body=UpdateEnvironment,
    returns=EnvironmentDetail,
    errors=CHANGE_ERRORS,
    summary="Change the risk level or the description of an environment; what is absent stays",
)
async def update_environment(call: Call[UpdateEnvironment]) -> Reply:
    row = await call.state.db.run(
        environments.update,
        caller=call.person,
        environment_id=call.ids["environment_id"],
        changes=call.body.model_dump(exclude_unset=True),
        now=utc_now(),
    )
    return Reply(_environment(row))


@route(
    "DELETE",
    "/environments/<id:environment_id>",
    access=Session("environment.edit"),
    status=204,
    errors=(*CHANGE_ERRORS, tenancy_errors.EnvironmentInUseError),
    summary="Delete an environment that no binding and no open request names",
)
async def delete_environment(call: Call[Any]) -> Reply:
    await call.state.db.run(
        environments.delete,
        caller=call.person,
        environment_id=call.ids["environment_id"],
        now=utc_now(),
    )
    return Reply(None)


def _page(call: Call[Any], query: Page, rows: list[Mapping[str, Any]]) -> Reply:
    last = (rows[-1]["created_at"], rows[-1]["id"]) if rows else None
    return Reply([_environment(row) for row in rows], headers=next_link(call, query, rows, last))


def _environment(row: Mapping[str, Any]) -> EnvironmentDetail:
    return EnvironmentDetail(**{name: row[name] for name in EnvironmentDetail.model_fields})
