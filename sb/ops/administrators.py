"""Who administers the installation, and that somebody always does.

An administrator can sign in with a password of their own and holds `role.edit` and `user_role.edit`
through unscoped grants that do not end by themselves. Whoever has to change a temporary password
first is none yet: they may never come.
"""

from __future__ import annotations

from collections.abc import Iterable

from sb.auth.access import GLOBAL, allowed
from sb.db.engine import Transaction
from sb.ops.callers import Caller
from sb.ops.governance_errors import LastAdminError

#: Whoever holds both everywhere could give anybody anything.
ROOT = ("role.edit", "user_role.edit")


def is_root(caller: Caller) -> bool:
    """Tell whether the caller holds what makes an administrator."""
    return all(allowed(caller.grants, permission, GLOBAL) for permission in ROOT)


def touches(permissions: Iterable[str]) -> bool:
    """Tell whether taking these permissions from somebody could leave no administrator."""
    return not set(ROOT).isdisjoint(permissions)


def hold(tx: Transaction) -> None:
    """Let nobody else change who administers until the transaction ends; call it first."""
    # Two people who strip each other at once take turns here; SQLite has one writer anyway.
    tx.one("role_lock", name="admin")


def require_one(tx: Transaction) -> None:
    """Refuse the change made so far in this transaction if it leaves no administrator."""
    if tx.scalar("administrator_any") is None:
        raise LastAdminError
