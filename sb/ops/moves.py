"""Moving teams and projects makes nobody stronger: not whoever moves them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sb.auth.access import Grant, Resource, lacking
from sb.db.engine import Transaction
from sb.errors import Denial
from sb.ops import grants, scopes
from sb.ops.callers import Caller
from sb.ops.governance_errors import EscalationError

#: What a scope may name below a team.
INNER: Final = ("project_id", "environment_id")


def require_no_gain(
    tx: Transaction,
    *,
    caller: Caller,
    moved: Resource,
    to_team_id: str | None,
    action: str,
    now: datetime,
) -> None:
    """Refuse to bring the team or project to where the caller holds more over it than before.

    Called with both places held, before anything is moved.
    """
    # Looked up here: the caller may have moved or made teams earlier in this transaction.
    held = grants.load(tx, user_id=caller.user_id, now=now)
    missing = sorted(_gained(tx, held, moved=moved, to_team_id=to_team_id))
    if missing:
        about = f"project:{moved.project_id}" if moved.project_id else f"team:{moved.team_id}"
        raise EscalationError(
            "In the new place you would hold permissions over this that you do not hold now.",
            permissions=missing,
            audit=Denial(action, about, error_kind=EscalationError.code, permissions=missing),
        )


def _gained(
    tx: Transaction, held: Iterable[Grant], *, moved: Resource, to_team_id: str | None
) -> frozenset[str]:
    """Return the permissions that come with grants for the new place and are not held here."""
    found = frozenset[str]()
    for grant in held:
        if to_team_id not in grant.team_ids:
            continue
        part = _part(tx, grant, moved=moved)
        if part is None:
            continue
        there = dataclasses.replace(part, team_id=to_team_id)
        # A scope with more to it may not cover this even there.
        if not lacking([grant], grant.permissions, there, until=grant.expires_at):
            found |= lacking(held, grant.permissions, part, until=grant.expires_at)
    return found


def _part(tx: Transaction, grant: Grant, *, moved: Resource) -> Resource | None:
    """Return as much of what is moved as the grant's scope is about beside its team."""
    scope = {key: value for key, value in grant.scope.items() if key != "team_id"}
    if not any(key in scope for key in INNER):
        return scopes.covered(scope, project_id=moved.project_id, team_id=moved.team_id)
    found = scopes.find(tx, scope=scope)
    part = found.resource
    if found.missing or found.split:
        return None
    if moved.project_id is not None:
        return part if part.project_id == moved.project_id else None
    return part if scopes.is_within(tx, part.team_id, moved.team_id) else None
