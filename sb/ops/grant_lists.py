"""Grants as they are shown: one's own, and those at the scopes where one gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.auth.access import holds_anywhere, visibility
from sb.db.engine import Transaction
from sb.ops import arrays
from sb.ops.callers import Caller
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import GrantNotFoundError
from sb.ops.grants import GIVEN_BY, covers


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    user_id: str | None = None
    role_id: str | None = None
    team_id: str | None = None
    active: bool | None = None


def find(tx: Transaction, *, caller: Caller, grant_id: str) -> Mapping[str, Any]:
    """Return the caller's own grant or one within their scope, or refuse as not found."""
    row = tx.one("grant_find", id=grant_id)
    if row is None or not (row["user_id"] == caller.user_id or covers(caller, row)):
        raise GrantNotFoundError
    return row


def list_grants(
    tx: Transaction,
    *,
    caller: Caller,
    filters: Filters,
    before: tuple[datetime, str] | None,
    limit: int,
    now: datetime,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` grants within the caller's scope, newest first, ended ones too."""
    return _list(tx, caller=caller, filters=filters, own=False, before=before, limit=limit, now=now)


def list_of_user(
    tx: Transaction,
    *,
    caller: Caller,
    user_id: str,
    active: bool | None,
    before: tuple[datetime, str] | None,
    limit: int,
    now: datetime,
) -> list[Mapping[str, Any]]:
    """Return up to `limit` of the person's grants: all of one's own, of others those in scope."""
    if user_id != caller.user_id:
        gives = holds_anywhere(caller.grants, GIVEN_BY)
        if not gives or tx.one("user_find", id=user_id) is None:
            raise UserNotFoundError
    filters = Filters(user_id=user_id, active=active)
    return _list(
        tx,
        caller=caller,
        filters=filters,
        own=user_id == caller.user_id,
        before=before,
        limit=limit,
        now=now,
    )


def _list(
    tx: Transaction,
    *,
    caller: Caller,
    filters: Filters,
    own: bool,
    before: tuple[datetime, str] | None,
    limit: int,
    now: datetime,
) -> list[Mapping[str, Any]]:
    seen = visibility(caller.grants, (GIVEN_BY,))
    everything = seen.everything or own
    return tx.many(
        "grant_list",
        everything=everything,
        **arrays.places([{}] if everything else seen.scopes),
        scopes=seen.scopes,
        user_id=filters.user_id,
        role_id=filters.role_id,
        team_id=filters.team_id,
        active=filters.active,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
        now=now,
    )
