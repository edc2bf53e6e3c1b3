"""Whether a request may go on as things are now: what it rests on, and the right of who asked.

Asked again at every step that leads to a value: ground and rights are taken back while it waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sb.auth.access import GLOBAL, Grant, Resource, allowed
from sb.db.engine import Transaction
from sb.errors import Denial, SbError
from sb.ops import grants, secret_kinds, targets
from sb.ops.errors import RequesterLostRightError
from sb.ops.tenancy_errors import BindingRevokedError, ProductionSecretError


def require(
    tx: Transaction,
    *,
    request_id: str,
    action: str,
    now: datetime,
    keys: Sequence[str] | None = None,
    ready: bool = True,
    held: Iterable[Grant] | None = None,
) -> None:
    """Refuse, with its audit row, to go on with a request that has lost its ground or its right."""
    refusal = find_withdrawal(tx, request_id=request_id, now=now, keys=keys, ready=ready, held=held)
    if refusal is not None:
        refusal.audit = Denial(
            action, f"request:{request_id}", correlation_id=request_id, error_kind=refusal.code
        )
        raise refusal


def find_withdrawal(
    tx: Transaction,
    *,
    request_id: str,
    now: datetime,
    keys: Sequence[str] | None = None,
    ready: bool = True,
    held: Iterable[Grant] | None = None,
) -> SbError | None:
    """Return why a request may not go on as things are now, or None.

    `keys` are those in question, all of the request's without them; `ready` also asks whether its
    connection could do the work; `held` are the requester's grants where this call has them.
    """
    row = tx.one("binding_standing", request_id=request_id)
    if row is None:
        return BindingRevokedError()
    lost = targets.find_lost_ground(tx, row, keys=keys, ready=ready)
    if lost is None and not _could_still_ask(tx, row, held=held, now=now):
        return RequesterLostRightError()
    if lost is None and _became_production(tx, row):
        return ProductionSecretError()
    return lost


def _became_production(tx: Transaction, row: Mapping[str, Any]) -> bool:
    """Tell whether the secret is production's by now, and the rules chose for what is not."""
    return row["snap_environment_kind"] != secret_kinds.PROD and secret_kinds.is_production(
        tx,
        provider_type=row["target_provider_type"],
        secret_ref=row["target_secret_ref"],
        config=row["target_provider_config"],
        connection_id=row["provider_connection_id"],
        cluster_name=row["cluster_name"],
    )


def _could_still_ask(
    tx: Transaction, row: Mapping[str, Any], *, held: Iterable[Grant] | None, now: datetime
) -> bool:
    if row["disabled"]:
        return False
    if held is None:
        held = grants.load(tx, user_id=row["requester_id"], now=now)
    return allowed(held, "secret.request", resource_of(row))


def resource_of(row: Mapping[str, Any]) -> Resource:
    """Return what permissions are checked against; without a project only unscoped grants fit."""
    if row["project_id"] is None:
        return GLOBAL
    return Resource(
        team_id=row["team_id"],
        project_id=row["project_id"],
        environment_id=row["environment_id"],
        secret_ref=row["target_secret_ref"],
        provider=row["target_provider_type"],
        cluster=row["cluster_name"],
    )
