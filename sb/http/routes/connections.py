"""Routes of provider connections and of the enrolment tokens issued for them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Label, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.routes.requests import ProviderType
from sb.ops import connections, enrollments
from sb.ops import errors as refusals

Name = Annotated[Text, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,119}$")]
ShortText = Annotated[Label, Field(min_length=1, max_length=255)]


class CreateConnection(Body):
    name: Name
    type: ProviderType
    auth_method: ShortText = "default"
    scope: dict[str, Any] = Field(default_factory=dict, max_length=16)
    cluster_name: ShortText | None = None
    description: Annotated[Text, Field(max_length=1000)] | None = None


class ConnectionBody(Body):
    id: str
    name: str
    type: str
    auth_method: str
    scope: dict[str, Any]
    status: str
    cluster_name: str | None
    description: str | None
    created_at: datetime
    updated_at: datetime


class ListConnections(Page, Query):
    """A page of connections."""


class IssueToken(Body):
    name: ShortText | None = None
    expires_in_seconds: Annotated[int, Field(ge=-(2**31), le=2**31)] | None = None
    expected_cluster_name: ShortText | None = None
    expected_provider_type: ShortText | None = None


class InstallHint(Body):
    helm: str
    cli: str


class TokenBody(Body):
    enrollment_token: str
    expires_at: datetime
    provider_connection_id: str
    install_hint: InstallHint


class Revoke(Body):
    reason: Annotated[Text, Field(max_length=1000)] | None = None


@route(
    "POST",
    "/provider-connections",
    access=Session("integration.edit", scope="global"),
    body=CreateConnection,
    returns=ConnectionBody,
    status=201,
    creates=True,
    errors=(refusals.ConnectionNameTakenError, refusals.CredentialInConfigError),
    summary="Create a provider connection; it never holds a credential",
)
async def create_connection(call: Call[CreateConnection]) -> Reply:
    body = call.body

    def op(tx: Transaction) -> ConnectionBody:
        row = connections.create(
            tx,
            by=call.person,
            name=body.name,
            provider_type=body.type,
            auth_method=body.auth_method,
            scope=body.scope,
            cluster_name=body.cluster_name,
            description=body.description,
            now=utc_now(),
        )
        return _connection(row)

    return await run_creating(call, op)


@route(
    "GET",
    "/provider-connections",
    access=Session("integration.edit", scope="global"),
    query=ListConnections,
    returns=list[ConnectionBody],
    summary="List provider connections, newest first",
)
async def list_connections(call: Call[Any]) -> Reply:
    query: ListConnections = call.query
    rows = await call.state.db.read(
        connections.list_connections, before=query.before, limit=query.limit
    )
    last = (rows[-1]["created_at"], rows[-1]["id"]) if rows else None
    return Reply([_connection(row) for row in rows], headers=next_link(call, query, rows, last))


@route(
    "GET",
    "/provider-connections/<id:connection_id>",
    access=Session("integration.edit", scope="global"),
    returns=ConnectionBody,
    errors=(refusals.ConnectionNotFoundError,),
    summary="Show a provider connection",
)
async def show_connection(call: Call[Any]) -> Reply:
    row = await call.state.db.read(connections.find, connection_id=call.ids["connection_id"])
    return Reply(_connection(row))


@route(
    "POST",
    "/provider-connections/<id:connection_id>/agent-enrollment-token",
    access=Session("agent.mint", scope="global"),
    body=IssueToken,
    body_optional=True,
    returns=TokenBody,
    status=201,
    creates=True,
    errors=(refusals.ConnectionNotFoundError, refusals.ConnectionDisabledError),
    summary="Issue a token that enrols one agent; it is shown once",
)
async def issue_token(call: Call[IssueToken]) -> Reply:
    token, connection_id, body = new_token(), call.ids["connection_id"], call.body

    def op(tx: Transaction) -> TokenBody:
        expires_at = enrollments.issue(
            tx,
            by=call.person,
            connection_id=connection_id,
            token_hash=token_hash(token),
            name=body.name,
            expires_in_seconds=body.expires_in_seconds,
            expected_cluster_name=body.expected_cluster_name,
            expected_provider_type=body.expected_provider_type,
            now=utc_now(),
        )
        return TokenBody(
            enrollment_token=token,
            expires_at=expires_at,
            provider_connection_id=connection_id,
            install_hint=_hint(token),
        )

    return await run_creating(call, op, secret_response=True)


@route(
    "POST",
    "/agent-enrollment-tokens/<id:token_id>/revoke",
    access=Session("agent.mint", scope="global"),
    body=Revoke,
    body_optional=True,
    status=204,
    errors=(refusals.EnrollmentTokenNotFoundError,),
    summary="Revoke an enrolment token that was not used yet",
)
async def revoke_token(call: Call[Revoke]) -> Reply:
    await call.state.db.run(
        enrollments.revoke,
        by=call.person,
        token_id=call.ids["token_id"],
        reason=call.body.reason,
        now=utc_now(),
    )
    return Reply(None)


def _connection(row: Mapping[str, Any]) -> ConnectionBody:
    return ConnectionBody(**{name: row[name] for name in ConnectionBody.model_fields})


def _hint(token: str) -> InstallHint:
    return InstallHint(
        helm=(
            "helm install secrets-bridge-agent --set cp.endpoint=<control-plane-url> "
            f"--set enrollment.token={token}"
        ),
        cli=f"SB_CP_ENDPOINT=<control-plane-url> SB_ENROLLMENT_TOKEN={token} sb agent",
    )
