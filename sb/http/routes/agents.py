"""Routes of agents for administrators: list, show, mint, revoke."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from pydantic import Field

from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.routes.connections import Revoke, ShortText
from sb.http.routes.requests import IdText, ProviderType
from sb.ops import agents
from sb.ops import errors as refusals


class AgentScope(Body):
    cluster: ShortText | None = None
    provider: ProviderType | None = None


class Mint(Body):
    name: ShortText
    scope: AgentScope = AgentScope()
    public_key: Annotated[Text, Field(max_length=100)] | None = None
    public_key_algorithm: Literal["x25519"] = "x25519"


class MintBody(Body):
    id: str
    name: str
    agent_secret: str


class AgentBody(Body):
    id: str
    name: str
    status: str
    provider_connection_id: str | None
    provider_connection_name: str | None
    provider_type: str | None
    cluster_name: str | None
    region: str | None
    agent_version: str | None
    last_status: str | None
    capabilities: list[str]
    last_seen_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class ListAgents(Page, Query):
    provider_connection_id: IdText | None = None
    status: Literal["active", "enrolled", "stale", "error", "disabled", "revoked"] | None = None
    cluster_name: ShortText | None = None
    provider_type: ProviderType | None = None


class AgentItems(Body):
    items: list[AgentBody]


def public_key_bytes(text: str) -> bytes:
    """Return the 32 bytes of a base64 X25519 public key, or refuse it as invalid."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise refusals.InvalidPublicKeyError(field="public_key") from problem
    try:
        # Points of low order give every partner the same known secret; the library refuses them.
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError as problem:
        raise refusals.InvalidPublicKeyError(field="public_key") from problem
    return key


@route(
    "POST",
    "/agents",
    access=Session("agent.mint", scope="global"),
    body=Mint,
    returns=MintBody,
    status=201,
    creates=True,
    errors=(refusals.DirectMintDisabledError, refusals.AgentNameTakenError),
    summary="Mint an agent without enrolment; off by default",
)
async def mint_agent(call: Call[Mint]) -> Reply:
    if not call.state.allow_direct_mint:
        raise refusals.DirectMintDisabledError
    body, secret = call.body, new_token()
    key = public_key_bytes(body.public_key) if body.public_key else None

    def op(tx: Transaction) -> MintBody:
        agent_id = agents.mint(
            tx,
            by=call.person,
            name=body.name,
            secret_hash=token_hash(secret),
            scope=body.scope.model_dump(exclude_none=True),
            public_key=key,
            now=utc_now(),
        )
        return MintBody(id=agent_id, name=body.name, agent_secret=secret)

    return await run_creating(call, op, secret_response=True)


@route(
    "GET",
    "/agents",
    access=Session("agent.list", scope="global"),
    query=ListAgents,
    returns=list[AgentBody],
    summary="List agents, newest first",
)
async def list_agents(call: Call[Any]) -> Reply:
    rows, headers = await _page(call, call.query)
    return Reply([_agent(row) for row in rows], headers=headers)


@route(
    "GET",
    "/admin/agents",
    access=Session("agent.list", scope="global"),
    query=ListAgents,
    returns=AgentItems,
    summary="List agents, newest first, under `items`",
)
async def list_agent_items(call: Call[Any]) -> Reply:
    rows, headers = await _page(call, call.query)
    return Reply(AgentItems(items=[_agent(row) for row in rows]), headers=headers)


async def _page(
    call: Call[Any], query: ListAgents
) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    rows = await call.state.db.read(
        agents.list_agents,
        provider_connection_id=query.provider_connection_id,
        status=query.status,
        cluster_name=query.cluster_name,
        provider_type=query.provider_type,
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1]["created_at"], rows[-1]["id"]) if rows else None
    return rows, next_link(call, query, rows, last)


@route(
    "GET",
    "/admin/agents/<id:agent_id>",
    access=Session("agent.list", scope="global"),
    returns=AgentBody,
    errors=(refusals.AgentNotFoundError,),
    summary="Show an agent",
)
async def show_agent(call: Call[Any]) -> Reply:
    row = await call.state.db.read(agents.find, agent_id=call.ids["agent_id"])
    return Reply(_agent(row))


async def _revoke(call: Call[Revoke]) -> Reply:
    await call.state.db.run(
        agents.revoke,
        by=call.person,
        agent_id=call.ids["agent_id"],
        reason=call.body.reason,
        now=utc_now(),
    )
    return Reply(None)


for _path in ("/agents/<id:agent_id>/revoke", "/admin/agents/<id:agent_id>/revoke"):
    route(
        "POST",
        _path,
        access=Session("agent.revoke", scope="global"),
        body=Revoke,
        body_optional=True,
        status=204,
        errors=(refusals.AgentNotFoundError,),
        summary="End an agent's credential for good",
    )(_revoke)


def _agent(row: Mapping[str, Any]) -> AgentBody:
    return AgentBody(**{name: row[name] for name in AgentBody.model_fields})
