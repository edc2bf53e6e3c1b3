"""Idempotency keys: a repeated create answers what the first one answered.

The key is taken in the transaction of the creation, so there is no moment in which one exists
without the other: a crash leaves both or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sb.db.engine import Transaction
from sb.ops.errors import IdempotencyKeyReusedError, IdempotencyKeyUsedError

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    actor: str
    key: str
    route: str
    body_sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the caller gets; `replayed` when an earlier call made it."""

    body: Any
    replayed: bool


def once(
    tx: Transaction,
    *,
    key: Key,
    create: Callable[[Transaction], Any],
    status: int,
    keep_body: bool,
    now: datetime,
) -> Answer:
    """Return what `create` answered the first time this key was used with this body.

    A concurrent call with the same key waits for the first and replays it. An answer that holds a
    secret is not kept (`keep_body` false): its repetition is refused.
    """
    watch = tx.watch
    taken = tx.count(
        "idempotency_insert",
        actor=key.actor,
        key=key.key,
        route=key.route,
        body_sha256=key.body_sha256,
        expires_at=now + KEPT_FOR,
        now=now,
    )
    # The key is no change yet: what comes next may wait, and its caller is looked at till then.
    tx.watch = watch
    if taken == 0:
        return _replay(tx, key=key, now=now)
    body = create(tx)
    tx.count(
        "idempotency_finish",
        actor=key.actor,
        key=key.key,
        route=key.route,
        status=status,
        response={"body": body} if keep_body else None,
    )
    return Answer(body=body, replayed=False)


def _replay(tx: Transaction, *, key: Key, now: datetime) -> Answer:
    row = tx.one("idempotency_find", actor=key.actor, key=key.key, route=key.route, now=now)
    if row is None or row["body_sha256"] != key.body_sha256:
        raise IdempotencyKeyReusedError
    if row["response"] is None:
        raise IdempotencyKeyUsedError
    return Answer(body=row["response"]["body"], replayed=True)


def purge(tx: Transaction, *, now: datetime, limit: int) -> int:
    """Forget up to `limit` keys past their end and return how many."""
    return tx.count("idempotency_purge", now=now, limit=limit)
