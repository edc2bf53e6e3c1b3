"""Wraps: sealed values with an end, spent once, by the requester or by the agent that wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sb.auth.access import allowed
from sb.db.engine import Transaction
from sb.errors import Denial, PermissionDeniedError, SbError
from sb.kms.envelope import ERASED, SealedWrap
from sb.ops import audit, jobs, requests, standing
from sb.ops.callers import Actor, AgentCaller, Caller
from sb.ops.errors import (
    KeyNotRequestedError,
    NotTheRequesterError,
    ReadRequestsOnlyError,
    RequestNotApprovedError,
    RequestNotRetrievableError,
    TooManyKeysError,
    WrapConsumedError,
    WrapExpiredError,
    WrapNotFoundError,
)

CREATE = "wrap.create"
RETRIEVE = "wrap.retrieve"
#: As many keys as a request may name; a secret with more has to be asked for in parts.
MAX_WRAPS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class WrapState:
    """A wrap without its value."""

    id: str
    request_id: str
    key_name: str
    byte_length: int
    consumed: bool
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWrap:
    """A wrap with its ciphertext; it is read before the transaction that spends it."""

    id: str
    request_id: str
    key_name: str
    sealed: SealedWrap


def store_submitted(
    tx: Transaction,
    *,
    by: Caller,
    request_id: str,
    environment_id: str | None,
    wrap_id: str,
    key_name: str,
    sealed: SealedWrap,
    expires_at: datetime,
    now: datetime,
) -> None:
    """Store one value of a submitted patch with its audit row."""
    tx.count(
        "wrap_insert",
        id=wrap_id,
        request_id=request_id,
        environment_id=environment_id,
        key_name=key_name,
        expires_at=expires_at,
        now=now,
        **_columns(sealed),
    )
    _record_create(
        tx,
        by=by,
        wrap_id=wrap_id,
        request_id=request_id,
        key_name=key_name,
        sealed=sealed,
        expires_at=expires_at,
        now=now,
    )


def store_from_agent(
    tx: Transaction,
    *,
    agent: AgentCaller,
    lease_token_hash: bytes,
    request_id: str,
    wrap_id: str,
    key_name: str,
    sealed: SealedWrap,
    now: datetime,
) -> WrapState:
    """Store a value the agent read, under its live lease; a key posted again replaces it unseen.

    A key the requester has revealed keeps its spent wrap: the call succeeds, nothing changes.
    """
    # 1. The agent must hold the job; the request must be an approved read that names the key.
    jobs.require_lease(
        tx,
        agent=agent,
        request_id=request_id,
        lease_token_hash=lease_token_hash,
        action=CREATE,
        now=now,
    )
    request = tx.one("request_find", id=request_id)
    if request is None or request["type"] != "read":
        raise ReadRequestsOnlyError
    if request["status"] != "approved":
        raise RequestNotApprovedError
    _require_key(tx, request=request, key_name=key_name, now=now)
    if tx.scalar("wrap_count_others", request_id=request_id, key_name=key_name) >= MAX_WRAPS:
        raise TooManyKeysError(limit=MAX_WRAPS)
    # 2. One wrap for one key.
    expires_at = now + timedelta(seconds=request["snap_wrap_ttl_approved_seconds"])
    stored = tx.count(
        "wrap_put",
        id=wrap_id,
        request_id=request_id,
        environment_id=request["environment_id"],
        key_name=key_name,
        expires_at=expires_at,
        now=now,
        **_columns(sealed),
    )
    if stored:
        _record_create(
            tx,
            by=agent,
            wrap_id=wrap_id,
            request_id=request_id,
            key_name=key_name,
            sealed=sealed,
            expires_at=expires_at,
            now=now,
        )
    row = tx.one("wrap_find_by_key", request_id=request_id, key_name=key_name)
    if row is None:
        raise WrapNotFoundError
    return _state({**row, "created_at": now})


def _require_key(
    tx: Transaction, *, request: Mapping[str, Any], key_name: str, now: datetime
) -> None:
    """Refuse a key nobody asked for, or one that may not be read any more."""
    keys = request["target_keys"]
    if keys and key_name not in keys:
        raise KeyNotRequestedError(
            audit=requests.denied(CREATE, request["id"], "key_not_requested")
        )
    standing.require(tx, request_id=request["id"], keys=[key_name], action=CREATE, now=now)


def list_wraps(tx: Transaction, *, caller: Caller, request_id: str) -> list[WrapState]:
    """Return the request's wraps, without values, to its requester only."""
    row = requests.find_visible(tx, caller=caller, request_id=request_id)
    if row["requester_id"] != caller.user_id:
        raise NotTheRequesterError(audit=requests.denied("wrap.list", request_id, "not_requester"))
    rows = tx.many("wrap_list", request_id=request_id)
    return [_state({**wrap, "request_id": request_id}) for wrap in rows]


def find_for_requester(
    tx: Transaction, *, caller: Caller, request_id: str, wrap_id: str, now: datetime
) -> StoredWrap:
    """Return a wrap the caller may reveal now; spending it comes after its key is unwrapped."""
    request = requests.find_visible(tx, caller=caller, request_id=request_id)
    if request["requester_id"] != caller.user_id:
        raise NotTheRequesterError(audit=requests.denied(RETRIEVE, request_id, "not_requester"))
    if request["type"] != "read":
        raise WrapNotFoundError
    if not allowed(caller.grants, "secret.request", standing.resource_of(request)):
        # Approved to somebody who has lost the right to ask since.
        raise PermissionDeniedError(
            permission="secret.request",
            audit=requests.denied(RETRIEVE, request_id, "permission_withdrawn"),
        )
    wrap = tx.one("wrap_find", id=wrap_id)
    if wrap is None or wrap["request_id"] != request_id:
        # Another request's is looked for as long as one that never was.
        raise _purged(tx, request_id=request_id, wrap_id=wrap_id)
    if request["status"] not in requests.RETRIEVABLE_IN:
        raise RequestNotRetrievableError(status_now=request["status"])
    _require_unspent(wrap, now=now)
    # The value is here already: whether its connection could work today does not matter.
    standing.require(
        tx,
        request_id=request_id,
        keys=[wrap["key_name"]],
        action=RETRIEVE,
        ready=False,
        held=caller.grants,
        now=now,
    )
    return _stored(wrap)


def _purged(tx: Transaction, *, request_id: str, wrap_id: str) -> SbError:
    """Return what to say of a wrap without a row: the trail remembers those that were swept."""
    wrap = {"id": wrap_id, "request_id": request_id}
    story = tx.many("audit_wrap_story", request_id=request_id, resource=f"wrap:{wrap_id}")
    match {row["action"] for row in story}:
        case done if RETRIEVE in done:
            return WrapConsumedError(audit=_retrieve_denied(wrap, "already_consumed"))
        case done if CREATE in done:
            return WrapExpiredError(audit=_retrieve_denied(wrap, "expired"))
        case _:
            return WrapNotFoundError()


def spend_by_requester(tx: Transaction, *, caller: Caller, wrap: StoredWrap, now: datetime) -> None:
    """Spend the wrap for the requester; of any number of concurrent calls exactly one succeeds."""
    # 1. The guarded update decides: it matches only a live, unspent wrap.
    spent = tx.count(
        "wrap_consume_by_user", id=wrap.id, user_id=caller.user_id, erased=ERASED, now=now
    )
    if spent == 0:
        row = tx.one("wrap_find", id=wrap.id)
        if row is None:
            raise _purged(tx, request_id=wrap.request_id, wrap_id=wrap.id)
        _require_unspent(row, now=now)
        raise WrapConsumedError
    # 2. Who saw which value, when.
    audit.record(
        tx,
        by=caller,
        action=RETRIEVE,
        resource=f"wrap:{wrap.id}",
        correlation_id=wrap.request_id,
        metadata={"request_id": wrap.request_id, "key_name": wrap.key_name},
        now=now,
    )


def find_for_agent(
    tx: Transaction,
    *,
    agent: AgentCaller,
    lease_token_hash: bytes,
    wrap_id: str,
    now: datetime,
) -> StoredWrap:
    """Return a patch value to the agent that holds its job, with the audit row of the hand-over.

    The same live lease may fetch again; the wrap is spent when the job succeeds.
    """
    wrap = tx.one("wrap_find", id=wrap_id)
    # A wrap that is not there is under nobody's lease, as another agent's is not under this one's.
    jobs.require_lease(
        tx,
        agent=agent,
        request_id=wrap["request_id"] if wrap is not None else wrap_id,
        lease_token_hash=lease_token_hash,
        action=RETRIEVE,
        resource=f"wrap:{wrap_id}",
        now=now,
    )
    if wrap is None:
        raise WrapNotFoundError
    request = tx.one("request_find", id=wrap["request_id"])
    if request is None or request["type"] != "patch":
        raise WrapNotFoundError
    if request["status"] != "approved":
        raise RequestNotApprovedError
    _require_unspent(wrap, now=now)
    standing.require(
        tx, request_id=wrap["request_id"], keys=[wrap["key_name"]], action=RETRIEVE, now=now
    )
    audit.record(
        tx,
        by=agent,
        action=RETRIEVE,
        resource=f"wrap:{wrap_id}",
        correlation_id=wrap["request_id"],
        metadata={"request_id": wrap["request_id"], "key_name": wrap["key_name"]},
        now=now,
    )
    return _stored(wrap)


def _require_unspent(wrap: Mapping[str, Any], *, now: datetime) -> None:
    if wrap["consumed_at"] is not None:
        raise WrapConsumedError(audit=_retrieve_denied(wrap, "already_consumed"))
    if wrap["expires_at"] <= now:
        raise WrapExpiredError(audit=_retrieve_denied(wrap, "expired"))


def _retrieve_denied(wrap: Mapping[str, Any], error_kind: str) -> Denial:
    return Denial(
        RETRIEVE,
        f"wrap:{wrap['id']}",
        correlation_id=wrap["request_id"],
        error_kind=error_kind,
    )


def _stored(row: Mapping[str, Any]) -> StoredWrap:
    return StoredWrap(
        id=row["id"],
        request_id=row["request_id"],
        key_name=row["key_name"],
        sealed=SealedWrap(
            encrypted_value=row["encrypted_value"],
            nonce=row["nonce"],
            data_key_ciphertext=row["data_key_ciphertext"],
            kms_key_id=row["kms_key_id"],
            algorithm=row["algorithm"],
            content_hmac=row["content_hmac"],
            byte_length=row["byte_length"],
        ),
    )


def _state(row: Mapping[str, Any]) -> WrapState:
    return WrapState(
        id=row["id"],
        request_id=row["request_id"],
        key_name=row["key_name"],
        byte_length=row["byte_length"],
        consumed=row["consumed_at"] is not None,
        expires_at=row["expires_at"],
        created_at=row["created_at"],
    )


def _columns(sealed: SealedWrap) -> dict[str, Any]:
    return {
        "encrypted_value": sealed.encrypted_value,
        "nonce": sealed.nonce,
        "data_key_ciphertext": sealed.data_key_ciphertext,
        "kms_key_id": sealed.kms_key_id,
        "algorithm": sealed.algorithm,
        "content_hmac": sealed.content_hmac,
        "byte_length": sealed.byte_length,
    }


def _record_create(
    tx: Transaction,
    *,
    by: Actor,
    wrap_id: str,
    request_id: str,
    key_name: str,
    sealed: SealedWrap,
    expires_at: datetime,
    now: datetime,
) -> None:
    audit.record(
        tx,
        by=by,
        action=CREATE,
        resource=f"wrap:{wrap_id}",
        correlation_id=request_id,
        metadata={
            "key_name": key_name,
            "byte_length": sealed.byte_length,
            "content_hmac": sealed.content_hmac.hex(),
            "kms_key_id": sealed.kms_key_id,
            "ttl_seconds": int((expires_at - now).total_seconds()),
        },
        now=now,
    )
