"""Routes of agents for themselves: enrol, keys, heartbeat."""

from __future__ import annotations

import base64
from typing import Any

from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.declare import Agent, Call, Public, Reply, route
from sb.http.idempotency import run_creating
from sb.http.limits import RateLimit
from sb.http.routes.agents import public_key_bytes
from sb.ops import agents, enrollments
from sb.ops import errors as refusals
from sb.wire import (
    ControlPlaneKey,
    EnrollRequest,
    EnrollResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    PublicKeyRequest,
)

HEARTBEAT_SECONDS = 30
JOB_POLL_SECONDS = 5


@route(
    "POST",
    "/agents/enroll",
    access=Public(),
    body=EnrollRequest,
    returns=EnrollResponse,
    status=201,
    creates=True,
    limit=RateLimit("agent:enroll", 10, key="ip"),
    errors=(
        refusals.EnrollmentTokenInvalidError,
        refusals.EnrollmentTokenRevokedError,
        refusals.EnrollmentTokenConsumedError,
        refusals.AgentNameTakenError,
        refusals.ProviderTypeMismatchError,
    ),
    summary="Turn a one-time enrolment token into an agent",
)
async def enroll(call: Call[EnrollRequest]) -> Reply:
    token = token_hash(call.body.enrollment_token) if call.body.enrollment_token else None
    enrollment, secret = _enrollment(call.body), new_token()
    control_plane_key = _control_plane_keys(call)[0]

    def op(tx: Transaction) -> EnrollResponse:
        agent = enrollments.redeem(
            tx,
            token_hash=token,
            secret_hash=token_hash(secret),
            enrollment=enrollment,
            http_request_id=call.request_id,
            now=utc_now(),
        )
        return EnrollResponse(
            agent_id=agent.agent_id,
            provider_connection_id=agent.provider_connection_id or "",
            agent_token=secret,
            heartbeat_interval_seconds=HEARTBEAT_SECONDS,
            job_poll_interval_seconds=JOB_POLL_SECONDS,
            control_plane_public_key=control_plane_key,
        )

    # Nobody is signed in: a key belongs to the token, and without a good one none is kept.
    actor = f"enrollment_token:{token.hex() if token else ''}"
    return await run_creating(call, op, actor=actor, secret_response=True)


def _enrollment(body: EnrollRequest) -> enrollments.Enrollment:
    return enrollments.Enrollment(
        agent_name=body.agent_name,
        provider_type=body.provider_type,
        cluster_name=body.cluster_name,
        region=body.region,
        agent_version=body.agent_version,
        capabilities=body.capabilities,
        public_key=public_key_bytes(body.public_key) if body.public_key else None,
    )


def _control_plane_keys(call: Call[Any]) -> list[str]:
    pairs = call.state.kms.control_plane_keys()
    return [base64.b64encode(pair.public).decode() for pair in pairs]


@route(
    "PUT",
    "/agents/<id:agent_id>/public-key",
    access=Agent(),
    body=PublicKeyRequest,
    status=204,
    errors=(refusals.InvalidPublicKeyError,),
    summary="Register the agent's X25519 key; values travel sealed to it from then on",
)
async def set_public_key(call: Call[PublicKeyRequest]) -> Reply:
    await call.state.db.run(
        agents.set_public_key,
        agent=call.agent,
        public_key=public_key_bytes(call.body.public_key),
        now=utc_now(),
    )
    return Reply(None)


@route(
    "GET",
    "/agents/<id:agent_id>/control-plane-key",
    access=Agent(),
    returns=ControlPlaneKey,
    summary="The key the agent seals values to",
)
async def show_control_plane_key(call: Call[Any]) -> Reply:
    newest, *previous = _control_plane_keys(call)
    return Reply(ControlPlaneKey(public_key=newest, previous=previous))


@route(
    "POST",
    "/agents/<id:agent_id>/heartbeat",
    access=Agent(),
    body=HeartbeatRequest,
    body_optional=True,
    returns=HeartbeatResponse,
    limit=RateLimit("agent:heartbeat", 6, key="agent", on_failure="open"),
    may_be_empty=True,
    summary="Say that the agent is alive; without a body the answer is an empty 204",
)
async def heartbeat(call: Call[HeartbeatRequest]) -> Reply:
    now = utc_now()
    await call.state.db.run(
        agents.heartbeat,
        agent=call.agent,
        last_status=call.body.status,
        agent_version=call.body.agent_version,
        capabilities=call.body.capabilities,
        now=now,
    )
    if not call.raw_body:
        return Reply(None, status=204)
    return Reply(HeartbeatResponse(server_time=now, next_heartbeat_seconds=HEARTBEAT_SECONDS))
