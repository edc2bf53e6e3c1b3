"""Routes of agents for values: fetch one to write, post one that was read."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from sb.auth.tokens import is_token, token_hash
from sb.clock import utc_now
from sb.errors import InvalidInputError
from sb.http.declare import Agent, Call, Reply, route
from sb.http.routes.requests import MAX_VALUE_BYTES
from sb.ids import is_id, new_id
from sb.kms.envelope import decrypt, seal_wrap, unwrap_key
from sb.ops import errors as refusals
from sb.ops import wraps
from sb.sealing import (
    WRAP_TO_AGENT,
    WRAP_TO_CONTROL_PLANE,
    SealedBox,
    SealingError,
    agent_to_control_plane_aad,
    open_sealed_with_any,
    seal,
)
from sb.secret import Secret
from sb.threads import run_blocking
from sb.wire import Sealed, WrapDelivery, WrapPost, WrapPosted


@route(
    "GET",
    "/agents/<id:agent_id>/wraps/<id:wrap_id>",
    access=Agent(),
    headers=("X-Lease-Token",),
    returns=WrapDelivery,
    errors=(
        refusals.WrapNotFoundError,
        refusals.LeaseLostError,
        refusals.WrapConsumedError,
        refusals.WrapExpiredError,
        refusals.RequestNotApprovedError,
    ),
    summary="Fetch a value to write, sealed, under the lease in X-Lease-Token",
)
async def fetch_wrap(call: Call[Any]) -> Reply:
    wrap = await call.state.db.run(
        wraps.find_for_agent,
        agent=call.agent,
        lease_token_hash=_lease_token_hash(call),
        wrap_id=call.ids["wrap_id"],
        now=utc_now(),
    )
    delivery = await run_blocking(lambda: _deliver(call, wrap), limiter=call.state.kms_limiter)
    return Reply(delivery)


def _deliver(call: Call[Any], wrap: wraps.StoredWrap) -> WrapDelivery:
    with unwrap_key(call.state.kms, wrap.sealed) as data_key:
        value = decrypt(
            wrap.sealed,
            data_key,
            wrap_id=wrap.id,
            request_id=wrap.request_id,
            key_name=wrap.key_name,
        )
    public_key = call.agent.public_key
    with value:
        sealed, clear = None, None
        if public_key is not None:
            box = seal(value, public_key, info=WRAP_TO_AGENT)
            sealed = Sealed.model_validate(box.to_json())
        else:
            # Only an agent that never registered a key: the value goes to it over TLS alone.
            clear = base64.b64encode(value.reveal()).decode()
        return WrapDelivery(
            wrap_id=wrap.id,
            request_id=wrap.request_id,
            key_name=wrap.key_name,
            byte_length=value.byte_length,
            algorithm=wrap.sealed.algorithm,
            sealed=sealed,
            value=clear,
        )


@route(
    "POST",
    "/agents/<id:agent_id>/wraps",
    access=Agent(),
    body=WrapPost,
    headers=("X-Lease-Token",),
    returns=WrapPosted,
    status=201,
    errors=(
        refusals.UnsealedValueError,
        refusals.SealInvalidError,
        refusals.ReadRequestsOnlyError,
        refusals.LeaseLostError,
        refusals.RequestNotApprovedError,
        refusals.KeyNotRequestedError,
        refusals.TooManyKeysError,
    ),
    summary="Post a value that was read, sealed, under the lease in X-Lease-Token",
)
async def post_wrap(call: Call[WrapPost]) -> Reply:
    body, state, wrap_id = call.body, call.state, new_id()
    request_id = body.request_id.lower()
    if not is_id(request_id):
        raise InvalidInputError(fields=[{"field": "request_id", "reason": "not a UUID"}])
    lease = _lease_token_hash(call)

    def reseal() -> Any:
        with _received(call, request_id) as value:
            return seal_wrap(
                state.kms,
                wrap_id=wrap_id,
                request_id=request_id,
                key_name=body.key_name,
                value=value,
            )

    sealed = await run_blocking(reseal, limiter=state.kms_limiter)
    wrap = await state.db.run(
        wraps.store_from_agent,
        agent=call.agent,
        lease_token_hash=lease,
        request_id=request_id,
        wrap_id=wrap_id,
        key_name=body.key_name,
        sealed=sealed,
        now=utc_now(),
    )
    return Reply(
        WrapPosted(
            wrap_id=wrap.id,
            request_id=wrap.request_id,
            key_name=wrap.key_name,
            byte_length=wrap.byte_length,
            expires_at=wrap.expires_at,
        )
    )


def _received(call: Call[WrapPost], request_id: str) -> Secret:
    """Return the posted value; once the agent has a key, only a sealed one is taken."""
    body = call.body
    if (body.sealed is None) == (body.value is None):
        raise InvalidInputError("Send exactly one of sealed and value.")
    if body.sealed is None:
        if call.agent.public_key is not None:
            raise refusals.UnsealedValueError
        value = _from_base64(body.value or "")
    else:
        value = _opened(call, body.sealed, request_id)
    if value.byte_length > MAX_VALUE_BYTES:
        raise refusals.ValueTooLargeError(limit_bytes=MAX_VALUE_BYTES)
    return value


def _opened(call: Call[WrapPost], sealed: Sealed, request_id: str) -> Secret:
    aad = agent_to_control_plane_aad(
        request_id=request_id, key_name=call.body.key_name, agent_id=call.agent.agent_id
    )
    try:
        box = SealedBox.from_json(sealed.model_dump())
        return open_sealed_with_any(
            box,
            [pair.private for pair in call.state.kms.control_plane_keys()],
            info=WRAP_TO_CONTROL_PLANE,
            aad=aad,
        )
    except SealingError as problem:
        raise refusals.SealInvalidError from problem


def _from_base64(text: str) -> Secret:
    try:
        return Secret(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidInputError(fields=[{"field": "value", "reason": "not base64"}]) from None


def _lease_token_hash(call: Call[Any]) -> bytes:
    token = call.headers.get("x-lease-token", "")
    if not is_token(token):
        raise refusals.LeaseLostError("Send the job's lease token in X-Lease-Token.")
    return token_hash(token)
