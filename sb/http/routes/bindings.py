"""Routes of the bindings through which projects reach secrets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.errors import InvalidInputError
from sb.http.bodies import Body, Query
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.refs import SecretRef
from sb.http.routes.requests import MAX_KEYS, IdText, KeyName, ProviderType
from sb.http.routes.secrets import BoundSecret, ClusterName
from sb.ops import bindings, secrets, tenancy_errors
from sb.ops import errors as refusals

Operation = Literal["read", "patch", "discover"]
Operations = Annotated[list[Operation], Field(min_length=1, max_length=3)]
Keys = Annotated[list[KeyName], Field(min_length=1, max_length=MAX_KEYS)]


class CreateBinding(Body):
    """A secret by `secret_id`, or by its provider, path and place; null keys let every key through.

    `created_by` is accepted for old clients and ignored: the session decides who binds.
    """

    secret_id: IdText | None = None
    provider_type: ProviderType | None = None
    secret_ref: SecretRef | None = None
    cluster_name: ClusterName | None = None
    provider_connection_id: IdText | None = None
    allowed_ops: Operations = Field(default=["read"])
    allowed_keys: Keys | None = None
    environment_id: IdText | None = None
    created_by: Any = Field(default=None, exclude=True)


class UpdateBinding(Body):
    """What is absent stays; null keys let every key through, a null environment every one."""

    allowed_ops: Operations = Field(default_factory=list)
    allowed_keys: Keys | None = None
    environment_id: IdText | None = None


class BindingDetail(Body):
    project_id: str
    secret_id: str
    allowed_keys: list[str] | None
    allowed_ops: list[str]
    environment_id: str | None
    created_at: datetime
    updated_at: datetime
    created_by: str | None
    secret: BoundSecret


class ListBindings(Page, Query):
    environment_id: IdText | None = None


CHANGE_ERRORS = (
    tenancy_errors.ProjectNotFoundError,
    refusals.OutOfScopeProjectError,
    tenancy_errors.ProjectArchivedError,
    refusals.EnvironmentNotInProjectError,
    tenancy_errors.SecretOutOfScopeError,
)


@route(
    "POST",
    "/projects/<id:project_id>/secrets",
    access=Session("secret.bind"),
    body=CreateBinding,
    returns=BindingDetail,
    status=201,
    creates=True,
    errors=(
        *CHANGE_ERRORS,
        tenancy_errors.SecretNotFoundError,
        tenancy_errors.BindingExistsError,
        refusals.ConnectionNotFoundError,
        refusals.ConnectionDisabledError,
        refusals.ProviderConnectionRequiredError,
    ),
    summary="Bind a secret to a project, by its id or by where it is",
)
async def create_binding(call: Call[CreateBinding]) -> Reply:
    body = call.body
    secret = _secret_of(body)
    limits = bindings.Limits(
        allowed_ops=body.allowed_ops,
        allowed_keys=body.allowed_keys,
        environment_id=body.environment_id,
    )

    def op(tx: Transaction) -> BindingDetail:
        row = bindings.create(
            tx,
            caller=call.person,
            project_id=call.ids["project_id"],
            secret=secret,
            limits=limits,
            now=utc_now(),
        )
        return _binding(row)

    return await run_creating(call, op)


def _secret_of(body: CreateBinding) -> str | secrets.Place:
    place = {"provider_type", "secret_ref", "cluster_name", "provider_connection_id"}
    named = {name for name in place if getattr(body, name) is not None}
    if body.secret_id is not None:
        if named:
            _refuse(sorted(named), "not together with secret_id")
        return body.secret_id
    if body.provider_type is None or body.secret_ref is None:
        _refuse(sorted({"provider_type", "secret_ref"} - named), "needed without secret_id")
    assert body.provider_type is not None
    assert body.secret_ref is not None
    return secrets.Place(
        provider_type=body.provider_type,
        secret_ref=body.secret_ref,
        cluster_name=body.cluster_name,
        provider_connection_id=body.provider_connection_id,
    )


def _refuse(names: list[str], reason: str) -> None:
    raise InvalidInputError(fields=[{"field": name, "reason": reason} for name in names])


@route(
    "GET",
    "/projects/<id:project_id>/secrets",
    access=Session(),
    query=ListBindings,
    returns=list[BindingDetail],
    errors=(tenancy_errors.ProjectNotFoundError,),
    summary="List the bindings of a project, newest first",
)
async def list_bindings(call: Call[Any]) -> Reply:
    query: ListBindings = call.query
    rows = await call.state.db.read(
        bindings.list_bindings,
        caller=call.person,
        project_id=call.ids["project_id"],
        environment_id=query.environment_id,
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1]["created_at"], rows[-1]["secret_id"]) if rows else None
    return Reply([_binding(row) for row in rows], headers=next_link(call, query, rows, last))


@route(
    "GET",
    "/projects/<id:project_id>/secrets/<id:secret_id>",
    access=Session(),
    returns=BindingDetail,
    errors=(tenancy_errors.ProjectNotFoundError, tenancy_errors.BindingNotFoundError),
    summary="Show the binding of a secret to a project",
)
async def show_binding(call: Call[Any]) -> Reply:
    row = await call.state.db.read(
        bindings.show,
        caller=call.person,
        project_id=call.ids["project_id"],
        secret_id=call.ids["secret_id"],
    )
    return Reply(_binding(row))


@route(
    "PUT",
    "/projects/<id:project_id>/secrets/<id:secret_id>",
    access=Session("secret.bind"),
    body=UpdateBinding,
    returns=BindingDetail,
    errors=(*CHANGE_ERRORS, tenancy_errors.BindingNotFoundError),
    summary="Change what a binding lets through; what is absent stays",
)
async def update_binding(call: Call[UpdateBinding]) -> Reply:
    row = await call.state.db.run(
        bindings.update,
        caller=call.person,
        project_id=call.ids["project_id"],
        secret_id=call.ids["secret_id"],
        changes=call.body.model_dump(exclude_unset=True),
        now=utc_now(),
    )
    return Reply(_binding(row))


@route(
    "DELETE",
    "/projects/<id:project_id>/secrets/<id:secret_id>",
    access=Session("secret.bind"),
    status=204,
    errors=(
        tenancy_errors.ProjectNotFoundError,
        tenancy_errors.BindingNotFoundError,
        refusals.OutOfScopeProjectError,
    ),
    summary="End a binding; requests that rest on it go no further",
)
async def delete_binding(call: Call[Any]) -> Reply:
    await call.state.db.run(
        bindings.delete,
        caller=call.person,
        project_id=call.ids["project_id"],
        secret_id=call.ids["secret_id"],
        now=utc_now(),
    )
    return Reply(None)


def _binding(row: Mapping[str, Any]) -> BindingDetail:
    names = set(BindingDetail.model_fields) - {"secret"}
    secret = {name: row[name] for name in set(BoundSecret.model_fields) - {"id"}}
    return BindingDetail(
        **{name: row[name] for name in names},
        secret=BoundSecret(id=row["secret_id"], **secret),
    )
