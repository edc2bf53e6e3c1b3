"""Sign-in and sessions: one kind of session, opaque, revocable, with idle and absolute ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import audit, grants, users
from sb.ops.callers import Actor, Anonymous, Caller, System
from sb.ops.errors import InvalidCredentialsError, UserNotFoundError
from sb.ops.governance_errors import SessionNotFoundError

#: How old the recorded idle end may get before a request moves it again: one write a minute.
TOUCH_EVERY = timedelta(minutes=1)


#: How long an ended session's row is kept, for whoever looks into what it did.
KEPT_FOR = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRules:
    """How long sessions live and when an account locks."""

    absolute: timedelta = timedelta(hours=8)
    idle: timedelta = timedelta(minutes=30)
    lock_threshold: int = 5
    lock_for: timedelta = timedelta(minutes=15)
    #: How long a password that must be changed opens anything.
    temporary_password: timedelta = timedelta(hours=72)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a sign-in attempt is judged by."""

    id: str
    email: str
    display_name: str
    password_hash: str
    disabled: bool
    locked_until: datetime | None
    must_change_password: bool
    #: When somebody last changed the account; no sign-in, right or wrong, moves it.
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """A session that still opens something; what opens it is shown to nobody."""

    id: str
    created_at: datetime
    expires_at: datetime
    idle_expires_at: datetime
    ip: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    session_id: str
    expires_at: datetime


def find_account(tx: Transaction, *, email: str) -> Account | None:
    """Return the account with this address, whatever its case, or None."""
    row = tx.one("user_find_by_email", email=users.normal_email(email))
    return None if row is None else _account(row)


def _account(row: Mapping[str, Any]) -> Account:
    return Account(
        id=row["id"],
        email=row["email"],
        display_name=row["display_name"],
        password_hash=row["password_hash"],
        disabled=row["disabled"],
        locked_until=row["locked_until"],
        must_change_password=row["must_change_password"],
        updated_at=row["updated_at"],
    )


def refusal(
    account: Account | None, *, now: datetime, rules: SessionRules | None = None
) -> str | None:
    """Return the `error_kind` that refuses this account whatever the password, or None."""
    if account is None:
        return "user_not_found"
    if account.disabled:
        return "user_disabled"
    if account.locked_until is not None and account.locked_until > now:
        return "account_locked"
    # Whoever handed it out knows it: it is for the first sign-in, not for ever.
    ends_after = (rules or SessionRules()).temporary_password
    if account.must_change_password and account.updated_at + ends_after <= now:
        return "temporary_password_expired"
    return None


def open_session(
    tx: Transaction,
    *,
    account: Account,
    new_password_hash: str | None,
    token_hash: bytes,
    rules: SessionRules,
    ip: str | None,
    user_agent: str | None,
    by: Anonymous,
    now: datetime,
) -> Opened:
    """Open a session for a proven password; refuses when the account has changed meanwhile."""
    # 1. The password was checked outside the transaction: the account must still be the same, and
    #    stay so, or a session would survive the reset or the disabling that ends all of them.
    row = tx.one("user_hold", id=account.id)
    current = None if row is None else _account(row)
    if (
        current is None
        or (current.email, current.password_hash) != (account.email, account.password_hash)
        or refusal(current, now=now, rules=rules)
    ):
        raise InvalidCredentialsError
    # 2. Forget failures; keep the hash at today's cost.
    tx.count("user_clear_failures", id=account.id)
    if new_password_hash is not None:
        tx.count(
            "user_rehash_password",
            id=account.id,
            password_hash=new_password_hash,
            expected_hash=account.password_hash,
        )
    # 3. The session, then its trail.
    session_id = new_id()
    expires_at = now + rules.absolute
    idle_expires_at = min(now + rules.idle, expires_at)
    tx.count(
        "session_insert",
        id=session_id,
        user_id=account.id,
        token_hash=token_hash,
        expires_at=expires_at,
        idle_expires_at=idle_expires_at,
        ip=ip,
        user_agent=user_agent[:300] if user_agent else None,
        now=now,
    )
    caller = Caller(
        user_id=account.id,
        session_id=session_id,
        email=account.email,
        display_name=account.display_name,
        grants=(),
        http_request_id=by.http_request_id,
    )
    audit.record(
        tx,
        by=caller,
        action="auth.login",
        resource=f"user:{account.id}",
        metadata={"email": account.email},
        now=now,
    )
    audit.record(
        tx,
        by=caller,
        action="session.create",
        resource=f"session:{session_id}",
        metadata={
            "session_id": session_id,
            "expires_at": expires_at.isoformat(),
            "idle_expires_at": idle_expires_at.isoformat(),
            "ip": ip,
            "user_agent": user_agent[:300] if user_agent else None,
        },
        now=now,
    )
    return Opened(session_id=session_id, expires_at=expires_at)


def record_failed_login(
    tx: Transaction,
    *,
    account: Account | None,
    error_kind: str,
    email_length: int,
    rules: SessionRules,
    by: Anonymous,
    now: datetime,
) -> None:
    """Count a refused sign-in, lock the account at the threshold, and write the trail of both."""
    metadata: dict[str, object] = {"error_kind": error_kind, "email_length": email_length}
    resource = "auth:login"
    if account is not None and error_kind == "account_locked":
        resource = f"user:{account.id}"
        metadata = {"error_kind": error_kind, "locked_until": _iso(account.locked_until)}
    if account is not None and error_kind == "wrong_password":
        resource = f"user:{account.id}"
        row = tx.one("user_count_failure", id=account.id, now=now)
        # Locked by another attempt between our look and now: that attempt wrote the lock's row.
        count = row["failed_login_count"] if row else None
        metadata = {"error_kind": error_kind, "failed_login_count": count}
        if count is not None and count >= rules.lock_threshold:
            _lock(tx, account=account, count=count, rules=rules, by=by, now=now)
    audit.record(
        tx,
        by=by,
        action="auth.login",
        resource=resource,
        status="denied",
        metadata=metadata,
        now=now,
    )


def _lock(
    tx: Transaction,
    *,
    account: Account,
    count: int,
    rules: SessionRules,
    by: Anonymous,
    now: datetime,
) -> None:
    locked_until = now + rules.lock_for
    tx.count("user_lock", id=account.id, locked_until=locked_until)
    audit.record(
        tx,
        by=by,
        action="auth.lockout.applied",
        resource=f"user:{account.id}",
        status="denied",
        metadata={
            "failed_login_count": count,
            "locked_until": _iso(locked_until),
            "threshold": rules.lock_threshold,
            "duration_seconds": int(rules.lock_for.total_seconds()),
        },
        now=now,
    )


def authenticate(
    tx: Transaction, *, token_hash: bytes, now: datetime, rules: SessionRules | None = None
) -> Caller | None:
    """Return the person behind a live session with their grants, or None. Reads only."""
    row = tx.one("session_find_live", token_hash=token_hash, now=now)
    if row is None:
        return None
    fresh_idle_end = now + (rules or SessionRules()).idle
    return Caller(
        user_id=row["user_id"],
        session_id=row["session_id"],
        email=row["email"],
        display_name=row["display_name"],
        grants=grants.load(tx, user_id=row["user_id"], now=now),
        must_change_password=row["must_change_password"],
        touch_due=fresh_idle_end - row["idle_expires_at"] > TOUCH_EVERY
        and row["idle_expires_at"] < row["expires_at"],
    )


def refresh(tx: Transaction, *, caller: Caller, now: datetime) -> Caller | None:
    """Return a caller who waited, with the grants they hold now; None where the session ended."""
    if not tx.scalar("session_is_live", id=caller.session_id, now=now):
        return None
    return dataclasses.replace(caller, grants=grants.load(tx, user_id=caller.user_id, now=now))


def touch(tx: Transaction, *, session_id: str, rules: SessionRules, now: datetime) -> None:
    """Slide the session's idle end forward, never past its absolute end."""
    tx.count("session_touch", id=session_id, idle_expires_at=now + rules.idle)


def revoke(tx: Transaction, *, caller: Caller, now: datetime) -> None:
    """End the caller's session; ending it again does nothing and leaves no second row."""
    if tx.count("session_revoke", id=caller.session_id, now=now) == 0:
        return
    audit.record(
        tx,
        by=caller,
        action="session.revoke",
        resource=f"session:{caller.session_id}",
        metadata={"session_id": caller.session_id},
        now=now,
    )


def list_live(
    tx: Transaction,
    *,
    user_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
    now: datetime,
) -> list[LiveSession]:
    """Return up to `limit` live sessions of the person older than `before`, newest first."""
    if tx.one("user_find", id=user_id) is None:
        raise UserNotFoundError
    rows = tx.many(
        "session_list",
        user_id=user_id,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
        now=now,
    )
    return [LiveSession(**row) for row in rows]


def end_one(tx: Transaction, *, by: Actor, user_id: str, session_id: str, now: datetime) -> None:
    """End this live session of the person; one that has ended, or is another's, is not found."""
    if tx.count("session_revoke_of", id=session_id, user_id=user_id, now=now) == 0:
        raise SessionNotFoundError
    audit.record(
        tx,
        by=by,
        action="session.revoke",
        resource=f"session:{session_id}",
        metadata={"session_id": session_id, "user_id": user_id},
        now=now,
    )


def end_all(tx: Transaction, *, by: Actor, user_id: str, now: datetime) -> int:
    """End every session of the person and return how many; without any it leaves no row."""
    # Held first, so that no sign-in slips in between and no two of these wait for each other.
    if tx.one("user_hold", id=user_id) is None:
        raise UserNotFoundError
    ended = tx.count("session_revoke_all", user_id=user_id, now=now)
    _record_ended(tx, by=by, user_id=user_id, ended=ended, now=now)
    return ended


def end_others(tx: Transaction, *, caller: Caller, now: datetime) -> int:
    """End the caller's sessions but this one and return how many; without any it leaves no row."""
    tx.one("user_hold", id=caller.user_id)
    ended = tx.count(
        "session_revoke_others", user_id=caller.user_id, keep_id=caller.session_id, now=now
    )
    _record_ended(tx, by=caller, user_id=caller.user_id, ended=ended, now=now)
    return ended


def purge(tx: Transaction, *, now: datetime, limit: int) -> int:
    """Delete up to `limit` sessions long past their end; one audit row tells how many."""
    deleted = tx.count("session_purge", ended_before=now - KEPT_FOR, limit=limit)
    if deleted:
        audit.record(
            tx,
            by=System(part="worker"),
            action="session.purge",
            resource="session:ended",
            metadata={"deleted": deleted},
            now=now,
        )
    return deleted


def _record_ended(tx: Transaction, *, by: Actor, user_id: str, ended: int, now: datetime) -> None:
    if ended == 0:
        return
    audit.record(
        tx,
        by=by,
        action="session.revoke_all",
        resource=f"user:{user_id}",
        metadata={"count": ended},
        now=now,
    )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
