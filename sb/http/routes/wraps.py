"""Routes of wraps for people: list without values, reveal once."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.clock import utc_now
from sb.http.bodies import Body
from sb.http.declare import Call, Reply, Session, route
from sb.http.guards import OriginMismatchError
from sb.http.limits import RateLimit
from sb.kms.envelope import decrypt, unwrap_key
from sb.ops import errors as refusals
from sb.ops import wraps
from sb.secret import Secret
from sb.threads import run_blocking


class WrapBody(Body):
    id: str
    key_name: str
    byte_length: int
    consumed: bool
    expires_at: datetime


class RevealBody(Body):
    """The one answer of this product that holds a value: base64, never stored, never cached."""

    wrap_id: str
    request_id: str
    key_name: str
    value: str
    byte_length: int
    algorithm: str


@route(
    "GET",
    "/requests/<id:request_id>/wraps",
    access=Session(),
    returns=list[WrapBody],
    errors=(refusals.RequestNotFoundError, refusals.NotTheRequesterError),
    summary="List the wraps of your own request, without values",
)
async def list_wraps(call: Call[Any]) -> Reply:
    found = await call.state.db.read(
        wraps.list_wraps, caller=call.person, request_id=call.ids["request_id"]
    )
    return Reply(
        [
            WrapBody(
                id=wrap.id,
                key_name=wrap.key_name,
                byte_length=wrap.byte_length,
                consumed=wrap.consumed,
                expires_at=wrap.expires_at,
            )
            for wrap in found
        ]
    )


@route(
    "GET",
    "/requests/<id:request_id>/wraps/<id:wrap_id>",
    access=Session(),
    returns=RevealBody,
    limit=RateLimit("wrap:retrieve", 20, key="user"),
    errors=(
        refusals.WrapNotFoundError,
        refusals.NotTheRequesterError,
        refusals.RequestNotRetrievableError,
        refusals.WrapConsumedError,
        refusals.WrapExpiredError,
        OriginMismatchError,
    ),
    spends=True,
    summary="Reveal a value once; afterwards the wrap is spent",
)
async def reveal_wrap(call: Call[Any]) -> Reply:
    state = call.state
    _require_intent(call.headers)
    # 1. Unwrap the data key with no transaction open: a KMS outage does not burn the wrap.
    wrap = await state.db.read(
        wraps.find_for_requester,
        caller=call.person,
        request_id=call.ids["request_id"],
        wrap_id=call.ids["wrap_id"],
        now=utc_now(),
    )
    data_key = await run_blocking(
        lambda: unwrap_key(state.kms, wrap.sealed), limiter=state.kms_limiter
    )
    with data_key:
        # 2. Spend it: of any number of concurrent calls exactly one passes this line.
        await state.db.run(wraps.spend_by_requester, caller=call.person, wrap=wrap, now=utc_now())
        # 3. Only the winner decrypts.
        value = decrypt(
            wrap.sealed,
            data_key,
            wrap_id=wrap.id,
            request_id=wrap.request_id,
            key_name=wrap.key_name,
        )
    with value:
        return Reply(_revealed(wrap, value), headers={"Cache-Control": "no-store"})


def _require_intent(headers: Mapping[str, str]) -> None:
    """Refuse what a browser fetches ahead, or for another site: it would spend what nobody sees."""
    ahead = {headers.get("purpose"), headers.get("sec-purpose"), headers.get("x-moz")}
    if any("prefetch" in (purpose or "") for purpose in ahead):
        raise OriginMismatchError("A value is not fetched ahead of its being wanted.")
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise OriginMismatchError


def _revealed(wrap: wraps.StoredWrap, value: Secret) -> RevealBody:
    return RevealBody(
        wrap_id=wrap.id,
        request_id=wrap.request_id,
        key_name=wrap.key_name,
        # The value leaves here, to its requester, over TLS.
        value=base64.b64encode(value.reveal()).decode(),
        byte_length=value.byte_length,
        algorithm=wrap.sealed.algorithm,
    )
