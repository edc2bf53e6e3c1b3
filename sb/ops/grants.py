"""Grants: which roles a person holds, at which scopes, with teams expanded to their subtrees."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.auth.access import Grant
from sb.db.engine import Transaction
from sb.ids import new_id


def load(tx: Transaction, *, user_id: str, now: datetime) -> tuple[Grant, ...]:
    """Return every grant of the person that is in force now; one query, whatever the team tree."""
    teams: dict[str, set[str]] = {}
    rows: dict[str, Mapping[str, Any]] = {}
    for row in tx.many("grant_list_for_user", user_id=user_id, now=now):
        rows[row["id"]] = row
        if row["team_id"] is not None:
            teams.setdefault(row["id"], set()).add(row["team_id"])
    return tuple(
        Grant(
            role_id=row["role_id"],
            role_name=row["role_name"],
            permissions=frozenset(row["permissions"]),
            scope=row["scope"],
            team_ids=frozenset(teams.get(grant_id, ())),
        )
        for grant_id, row in rows.items()
    )


def give(
    tx: Transaction,
    *,
    user_id: str,
    role_id: str,
    scope: Mapping[str, str],
    granted_by: str,
    now: datetime,
    expires_at: datetime | None = None,
    reason: str | None = None,
) -> str:
    """Give the person the role at the scope and return the grant's id."""
    grant_id = new_id()
    tx.count(
        "grant_insert",
        id=grant_id,
        user_id=user_id,
        role_id=role_id,
        scope=dict(scope),
        granted_by=granted_by,
        expires_at=expires_at,
        reason=reason,
        now=now,
    )
    return grant_id
