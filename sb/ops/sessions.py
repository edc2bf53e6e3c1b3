"""Sign-in and sessions: one kind of session, opaque, revocable, with idle and absolute ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import audit, grants
from sb.ops.callers import Anonymous, Caller
from sb.ops.errors import InvalidCredentialsError

#: How old the recorded idle end may get before a request moves it again: one write a minute.
TOUCH_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRules:
    """How long sessions live and when an account locks."""

    absolute: timedelta = timedelta(hours=8)
    idle: timedelta = timedelta(minutes=30)
    lock_threshold: int = 5
    lock_for: timedelta = timedelta(minutes=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a sign-in attempt is judged by."""

    id: str
    email: str
    display_name: str
    password_hash: str
    disabled: bool
    locked_until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    session_id: str
    expires_at: datetime


def find_account(tx: Transaction, *, email: str) -> Account | None:
    """Return the account with this address, whatever its case, or None."""
    row = tx.one("user_find_by_email", email=email.strip().lower())
    if row is None:
        return None
    return Account(
        id=row["id"],
        email=row["email"],
        display_name=row["display_name"],
        password_hash=row["password_hash"],
        disabled=row["disabled"],
        locked_until=row["locked_until"],
    )


def refusal(account: Account | None, *, now: datetime) -> str | None:
    """Return the `error_kind` that refuses this account whatever the password, or None."""
    if account is None:
        return "user_not_found"
    if account.disabled:
        return "user_disabled"
    if account.locked_until is not None and account.locked_until > now:
        return "account_locked"
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
    # 1. The password was checked outside the transaction: the account must still be the same.
    current = find_account(tx, email=account.email)
    if (
        current is None
        or current.password_hash != account.password_hash
        or refusal(current, now=now)
    ):
        raise InvalidCredentialsError
    # 2. Forget failures; keep the hash at today's cost.
    tx.count("user_clear_failures", id=account.id, now=now)
    if new_password_hash is not None:
        tx.count(
            "user_rehash_password",
            id=account.id,
            password_hash=new_password_hash,
            expected_hash=account.password_hash,
            now=now,
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
    tx.count("user_lock", id=account.id, locked_until=locked_until, now=now)
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


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
