"""`Idempotency-Key` on every route that creates: a repeated call gets the first call's answer."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.errors import SbError
from sb.http.declare import Call, Reply
from sb.kms import KeyManagement
from sb.ops import idempotency
from sb.threads import run_blocking

IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class InvalidIdempotencyKeyError(SbError):
    code = "invalid_idempotency_key"
    status = 400
    message = "Idempotency-Key takes 1 to 128 characters of letters, digits and . _ : -"


async def run_creating(
    call: Call[Any],
    create: Callable[[Transaction], BaseModel],
    *,
    actor: str | None = None,
    secret_response: bool = False,
) -> Reply:
    """Answer what `create` made, once per key and body; creation and key commit together.

    Keys belong to the person who calls or, where nobody is signed in, to `actor`. A response that
    holds a one-time secret is never stored: repeating it is refused.
    """
    key = call.headers.get("idempotency-key")
    if key is None:
        return Reply(await call.state.db.run(create))
    if IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise InvalidIdempotencyKeyError
    body_digest = await run_blocking(
        lambda: _digest(call.state.kms, call.raw_body), limiter=call.state.kms_limiter
    )
    answer = await call.state.db.run(
        idempotency.once,
        key=idempotency.Key(
            actor=actor or call.person.actor,
            key=key,
            route=f"{call.route.method} {call.path}",
            body_sha256=body_digest,
        ),
        create=lambda tx: create(tx).model_dump(mode="json"),
        status=call.route.status,
        keep_body=not secret_response,
        now=utc_now(),
    )
    return Reply(answer.body, headers={"Idempotency-Replayed": "true"} if answer.replayed else {})


def _digest(kms: KeyManagement, body: bytes) -> bytes:
    """Return what tells two bodies apart; keyed, because a bare hash of a body that carries a
    short value would let a reader of the table guess it. After a rotation a repeat is refused."""
    with kms.fingerprint_key() as key:
        # The key goes into the HMAC.
        return hmac.digest(key.reveal(), b"idempotency\0" + body, hashlib.sha256)
