"""Small operations on real tables, for tests about transactions rather than about tables."""

from __future__ import annotations

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.ids import new_id


def add_user(tx: Transaction, email: str, user_id: str | None = None) -> str:
    found = user_id or new_id()
    tx.count(
        "user_insert",
        id=found,
        email=email,
        password_hash="x",
        display_name="x",
        disabled=False,
        must_change_password=False,
        now=utc_now(),
    )
    return found


def lock_until_now(tx: Transaction, user_id: str) -> int:
    """Change the account, which locks its row until the transaction ends."""
    return tx.count("user_lock", id=user_id, locked_until=utc_now())


def is_there(tx: Transaction, email: str) -> bool:
    return tx.one("user_find_by_email", email=email) is not None


def add_event(tx: Transaction, status: str = "success") -> None:
    tx.count(
        "audit_insert",
        id=new_id(),
        actor="system:test",
        action="test.done",
        resource="test",
        status=status,
        correlation_id=new_id(),
        http_request_id=None,
        metadata={"n": 1},
        now=utc_now(),
    )
