"""Routes of the permission catalogue and of roles."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, field_validator

from sb.auth.permissions import CATALOGUE
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.errors import PermissionDeniedError
from sb.http.bodies import Body, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.routes.teams import Name
from sb.ops import governance_errors as refusals
from sb.ops import roles

#: Printable, as names of teams and environments are: a look-alike is as good as a lie in a grant.
RoleName = Name
Description = Annotated[Text, Field(max_length=1000)]
PermissionKey = Annotated[Text, Field(pattern=r"^[a-z][a-z_.]{0,63}$")]
PermissionKeys = Annotated[list[PermissionKey], Field(max_length=100)]
EDIT_ERRORS = (
    refusals.RoleNotFoundError,
    refusals.UnknownPermissionError,
    refusals.EscalationError,
    refusals.LastAdminError,
)


class PermissionBody(Body):
    key: str
    group: str
    description: str


class RoleBody(Body):
    id: str
    name: str
    description: str
    permissions: list[str]
    is_system: bool
    created_at: datetime
    updated_at: datetime


class CreateRole(Body):
    name: RoleName
    description: Description = ""
    permissions: PermissionKeys


class UpdateRole(Body):
    """What is left out stays as it is."""

    name: RoleName | None = None
    description: Description | None = None
    permissions: PermissionKeys | None = None

    @field_validator("name", "description", "permissions", mode="before")
    @classmethod
    def _not_null(cls, value: object) -> object:
        # Left out and null are two things: only the first keeps what is there.
        if value is None:
            msg = "leave it out to keep what is there"
            raise ValueError(msg)
        return value


class ReplacePermissions(Body):
    permissions: PermissionKeys


class ListRoles(Page, Query):
    """A page of roles."""


@route(
    "GET",
    "/permissions",
    access=Session(),
    returns=list[PermissionBody],
    summary="List every permission there is, by group",
)
async def list_permissions(_call: Call[Any]) -> Reply:
    found = [
        PermissionBody(key=known.key, group=known.group, description=known.description)
        for known in CATALOGUE
    ]
    return Reply(found, headers={"Cache-Control": "private, max-age=300"})


@route(
    "POST",
    "/roles",
    access=Session("role.edit", scope="global"),
    body=CreateRole,
    returns=RoleBody,
    status=201,
    creates=True,
    errors=(refusals.RoleNameTakenError, refusals.UnknownPermissionError),
    summary="Create a role; nobody holds it yet",
)
async def create_role(call: Call[CreateRole]) -> Reply:
    body = call.body

    def op(tx: Transaction) -> RoleBody:
        row = roles.create(
            tx,
            caller=call.person,
            name=body.name,
            description=body.description,
            permissions=body.permissions,
            now=utc_now(),
        )
        return _role(row)

    return await run_creating(call, op)


@route(
    "GET",
    "/roles",
    access=Session(),
    query=ListRoles,
    returns=list[RoleBody],
    summary="List the roles you may give or hold, newest first",
)
async def list_roles(call: Call[Any]) -> Reply:
    query: ListRoles = call.query
    rows = await call.state.db.read(
        roles.list_roles,
        caller=call.person,
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1]["created_at"], rows[-1]["id"]) if rows else None
    return Reply([_role(row) for row in rows], headers=next_link(call, query, rows, last))


@route(
    "GET",
    "/roles/<id:role_id>",
    access=Session(),
    returns=RoleBody,
    errors=(refusals.RoleNotFoundError,),
    summary="Show a role",
)
async def show_role(call: Call[Any]) -> Reply:
    row = await call.state.db.read(roles.find, caller=call.person, role_id=call.ids["role_id"])
    return Reply(_role(row))


@route(
    "PUT",
    "/roles/<id:role_id>",
    access=Session("role.edit", scope="global"),
    body=UpdateRole,
    returns=RoleBody,
    errors=(*EDIT_ERRORS, refusals.RoleNameTakenError, refusals.SystemRoleNameError),
    summary="Change a role's name, description or permissions; what is left out stays",
)
async def update_role(call: Call[UpdateRole]) -> Reply:
    row = await _change(call, call.body.model_dump(exclude_unset=True))
    return Reply(_role(row))


@route(
    "PUT",
    "/roles/<id:role_id>/permissions",
    access=Session("role.edit", scope="global"),
    body=ReplacePermissions,
    status=204,
    errors=EDIT_ERRORS,
    summary="Replace a role's permissions",
)
async def replace_permissions(call: Call[ReplacePermissions]) -> Reply:
    await _change(call, {"permissions": call.body.permissions})
    return Reply(None)


async def _change(call: Call[Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    return await call.state.db.run(
        roles.update,
        caller=call.person,
        role_id=call.ids["role_id"],
        changes=changes,
        now=utc_now(),
    )


@route(
    "DELETE",
    "/roles/<id:role_id>",
    access=Session("role.edit", scope="global"),
    status=204,
    errors=(
        PermissionDeniedError,
        refusals.RoleNotFoundError,
        refusals.RoleInUseError,
        refusals.SystemRowError,
    ),
    summary="Delete a role that no grant, workflow or open request names",
)
async def delete_role(call: Call[Any]) -> Reply:
    await call.state.db.run(
        roles.delete, caller=call.person, role_id=call.ids["role_id"], now=utc_now()
    )
    return Reply(None)


def _role(row: Mapping[str, Any]) -> RoleBody:
    return RoleBody(**{name: row[name] for name in RoleBody.model_fields})
