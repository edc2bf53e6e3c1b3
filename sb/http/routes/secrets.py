"""Routes of the catalogue of secrets: where each is and of which kind, never what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from sb.clock import utc_now
from sb.http.bodies import Body, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.pages import Page, next_link
from sb.http.refs import SecretRef
from sb.http.routes.grants import Reason
from sb.http.routes.requests import IdText, ProviderType
from sb.ops import secret_kinds, secrets, tenancy_errors

#: At most so many of its labels find a secret.
MAX_LABELS = 16
LabelFilter = Annotated[Text, Field(max_length=512, pattern=":")]
ClusterName = Annotated[Text, Field(min_length=1, max_length=255)]


class BoundSecret(Body):
    id: str
    cluster_name: str
    provider_type: str
    secret_ref: str
    provider_connection_id: str | None
    kind: Literal["non_prod", "prod"]
    status: str
    labels: dict[str, Any]


class ChangeSecret(Body):
    """As which kind the rules see the secret, wherever it is bound, and why that changes."""

    kind: Literal["non_prod", "prod"]
    reason: Reason


class SecretDetail(BoundSecret):
    first_seen_at: datetime
    last_seen_at: datetime


class ListSecrets(Page, Query):
    cluster_name: ClusterName | None = None
    provider: ProviderType | None = None
    status: Literal["present", "missing"] | None = None
    ref_prefix: SecretRef | None = None
    project_id: IdText | None = None
    #: `name:value` each, all of which the secret has; what has no colon is refused, for a filter
    #: that is passed over shows more than was asked for.
    label: list[LabelFilter] = Field(default_factory=list, max_length=MAX_LABELS)


@route(
    "GET",
    "/secrets",
    access=Session("secret.list"),
    query=ListSecrets,
    returns=list[SecretDetail],
    summary="List the secrets in your scope, newest first; never a value",
)
async def list_secrets(call: Call[Any]) -> Reply:
    query: ListSecrets = call.query
    rows = await call.state.db.read(
        secrets.list_secrets,
        caller=call.person,
        filters=secrets.Filters(
            cluster_name=query.cluster_name,
            provider_type=query.provider,
            status=query.status,
            ref_prefix=query.ref_prefix,
            project_id=query.project_id,
            labels=tuple(_label(text) for text in query.label),
        ),
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1]["first_seen_at"], rows[-1]["id"]) if rows else None
    return Reply([_secret(row) for row in rows], headers=next_link(call, query, rows, last))


@route(
    "GET",
    "/secrets/<id:secret_id>",
    access=Session("secret.list"),
    returns=SecretDetail,
    errors=(tenancy_errors.SecretNotFoundError,),
    summary="Show what is known of a secret; never its value",
)
async def show_secret(call: Call[Any]) -> Reply:
    row = await call.state.db.read(
        secrets.show, caller=call.person, secret_id=call.ids["secret_id"]
    )
    return Reply(_secret(row))


@route(
    "PUT",
    "/secrets/<id:secret_id>",
    access=Session("policy.edit", scope="global"),
    body=ChangeSecret,
    returns=SecretDetail,
    errors=(tenancy_errors.SecretNotFoundError, tenancy_errors.SecretInProductionError),
    summary="Say of which kind a secret is, for the rules and wherever it is bound",
)
async def change_secret(call: Call[ChangeSecret]) -> Reply:
    row = await call.state.db.run(
        secret_kinds.change,
        caller=call.person,
        secret_id=call.ids["secret_id"],
        kind=call.body.kind,
        reason=call.body.reason,
        now=utc_now(),
    )
    return Reply(_secret(row))


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name, value


def _secret(row: Mapping[str, Any]) -> SecretDetail:
    return SecretDetail(**{name: row[name] for name in SecretDetail.model_fields})
