"""Administration of accounts: making them, switching them off and on, giving them new passwords.

It belongs to whoever holds `user_role.edit` unscoped; anybody who holds it at some scope may look
up whom to give a role.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sb.auth.access import GLOBAL, Grant, Resource, allowed, lacking
from sb.db.engine import Transaction
from sb.errors import Denial
from sb.ops import administrators, audit, grants, scopes, users
from sb.ops.callers import Actor, Caller, System
from sb.ops.errors import UserNotFoundError
from sb.ops.governance_errors import EscalationError, InvalidScopeError, OwnAccountError
from sb.ops.users import User

#: Who acts where nobody is signed in: a person with the database in hand.
RECOVERY = System(part="recovery")


def administers(caller: Caller) -> bool:
    """Tell whether the caller sees all of an account, and not only whose it is."""
    return allowed(caller.grants, "user_role.edit", GLOBAL)


def register(
    tx: Transaction,
    *,
    by: Caller,
    email: str,
    password_hash: str,
    display_name: str,
    must_change_password: bool,
    now: datetime,
) -> User:
    """Create an account without any grant and return it; an address is used once."""
    user_id = users.create(
        tx,
        email=email,
        password_hash=password_hash,
        display_name=display_name,
        must_change_password=must_change_password,
        now=now,
    )
    _record(
        tx,
        by=by,
        action="user.create",
        user_id=user_id,
        metadata={
            "email": users.normal_email(email),
            "display_name": display_name,
            "must_change_password": must_change_password,
        },
        now=now,
    )
    return users.find(tx, user_id=user_id)


def update(
    tx: Transaction,
    *,
    by: Caller,
    user_id: str,
    email: str | None,
    display_name: str | None,
    now: datetime,
) -> User:
    """Change what is given and return the account; the same again leaves no second row."""
    # 1. Held, so that what the audit row says was there before is what was there.
    found = users.hold(tx, user_id=user_id)
    before = {"email": found.email, "display_name": found.display_name}
    after = {
        "email": found.email if email is None else users.normal_email(email),
        "display_name": found.display_name if display_name is None else display_name,
    }
    changed = [name for name in before if before[name] != after[name]]
    if not changed:
        return found
    # 2. Whoever names the address of an account may come to own it.
    if "email" in changed and user_id != by.user_id:
        _refuse_takeover(tx, by=by, user_id=user_id, action="user.update", now=now)
    # 3. The change, then its trail.
    tx.count("user_update", id=user_id, **after, now=now)
    _record(
        tx,
        by=by,
        action="user.update",
        user_id=user_id,
        metadata={
            "before": {name: before[name] for name in changed},
            "after": {name: after[name] for name in changed},
        },
        now=now,
    )
    return users.find(tx, user_id=user_id)


def disable(tx: Transaction, *, by: Caller, user_id: str, now: datetime) -> User:
    """Leave the account without sessions or sign-in; again, it changes and records nothing."""
    # 1. Two administrators who disable each other take turns.
    administrators.hold(tx)
    found = users.hold(tx, user_id=user_id)
    if user_id == by.user_id:
        raise OwnAccountError(audit=_denial("user.disable", user_id, "own_account"))
    # 2. Off, and out of every session.
    changed = tx.count("user_set_disabled", id=user_id, disabled=True, now=now)
    ended = tx.count("session_revoke_all", user_id=user_id, now=now)
    if changed == 0 and ended == 0:
        return found
    _record(
        tx,
        by=by,
        action="user.disable",
        user_id=user_id,
        metadata={"sessions_ended": ended},
        now=now,
    )
    # 3. Where the account was one who administers, somebody must be left who can undo it.
    _require_administrator(tx, user_id=user_id, now=now)
    return users.find(tx, user_id=user_id)


def enable(tx: Transaction, *, by: Caller, user_id: str, now: datetime) -> User:
    """Let the account sign in again, without any session from before; again, nothing happens."""
    found = users.hold(tx, user_id=user_id)
    if tx.count("user_set_disabled", id=user_id, disabled=False, now=now) == 0:
        return found
    # An account switched off in the database by hand may have kept some.
    ended = tx.count("session_revoke_all", user_id=user_id, now=now)
    _record(
        tx,
        by=by,
        action="user.enable",
        user_id=user_id,
        metadata={"sessions_ended": ended},
        now=now,
    )
    return users.find(tx, user_id=user_id)


def unlock(tx: Transaction, *, by: Caller, user_id: str, now: datetime) -> User:
    """Forget the account's failed sign-ins and its lock; without any, nothing happens."""
    found = users.hold(tx, user_id=user_id)
    if tx.count("user_clear_failures", id=user_id) == 0:
        return found
    locked_until = found.locked_until.isoformat() if found.locked_until else None
    _record(
        tx,
        by=by,
        action="user.unlock",
        user_id=user_id,
        metadata={"failed_login_count": found.failed_login_count, "locked_until": locked_until},
        now=now,
    )
    return users.find(tx, user_id=user_id)


def reset_password(
    tx: Transaction, *, by: Caller, user_id: str, new_hash: str, now: datetime
) -> User:
    """Leave the account with a password to be changed, unlocked and without any session."""
    # 1. Two administrators who do this to each other take turns. Held: a sign-in with the old
    #    password comes before all of this or is refused after it.
    administrators.hold(tx)
    found = users.hold(tx, user_id=user_id)
    if user_id == by.user_id:
        raise OwnAccountError(audit=_denial("user.password.reset", user_id, "own_account"))
    # 2. Whoever sets a password can sign in with it.
    _refuse_takeover(tx, by=by, user_id=user_id, action="user.password.reset", now=now)
    # 3. The password, the sessions, the trail.
    ended = _set_temporary(tx, user_id=user_id, new_hash=new_hash, now=now)
    _record(
        tx,
        by=by,
        action="user.password.reset",
        user_id=user_id,
        metadata={"sessions_ended": ended, "unlocked": found.locked_until is not None},
        now=now,
    )
    # 4. Whoever has a password to change administers nothing until then, and may never come.
    if not found.must_change_password and not found.disabled:
        _require_administrator(tx, user_id=user_id, now=now)
    return users.find(tx, user_id=user_id)


def recover(tx: Transaction, *, email: str, new_hash: str, now: datetime) -> User:
    """Let the account of this address in again with a password to be changed; asks nobody.

    For whoever holds the database and could write there anyway: this leaves a row in the trail.
    """
    administrators.hold(tx)
    row = tx.one("user_find_by_email", email=users.normal_email(email))
    if row is None:
        raise UserNotFoundError
    user_id = row["id"]
    found = users.hold(tx, user_id=user_id)
    tx.count("user_set_disabled", id=user_id, disabled=False, now=now)
    ended = _set_temporary(tx, user_id=user_id, new_hash=new_hash, now=now)
    _record(
        tx,
        by=RECOVERY,
        action="user.recover",
        user_id=user_id,
        metadata={
            "sessions_ended": ended,
            "unlocked": found.locked_until is not None,
            "enabled": found.disabled,
        },
        now=now,
    )
    return users.find(tx, user_id=user_id)


def _set_temporary(tx: Transaction, *, user_id: str, new_hash: str, now: datetime) -> int:
    """Leave the account with a password to be changed and return how many sessions that ended."""
    tx.count(
        "user_reset_password",
        id=user_id,
        password_hash=new_hash,
        must_change_password=True,
        now=now,
    )
    return tx.count("session_revoke_all", user_id=user_id, now=now)


def _require_administrator(tx: Transaction, *, user_id: str, now: datetime) -> None:
    """Refuse what was done to an account if it administered, and nobody who does is left."""
    held = {
        key
        for grant in grants.load(tx, user_id=user_id, now=now)
        if not grant.scope
        for key in grant.permissions
    }
    if administrators.touches(held):
        administrators.require_one(tx)


def _refuse_takeover(
    tx: Transaction, *, by: Caller, user_id: str, action: str, now: datetime
) -> None:
    """Refuse a caller who could come to hold more by acting as that person."""
    if administrators.is_root(by):
        return
    for grant in grants.load(tx, user_id=user_id, now=now):
        covered = _covered(tx, grant)
        if lacking(by.grants, grant.permissions, covered, until=grant.expires_at):
            raise EscalationError(
                "This person holds more than you do: an administrator has to do this.",
                audit=_denial(action, user_id, "permission_escalation"),
            )


def _covered(tx: Transaction, grant: Grant) -> Resource:
    try:
        return scopes.resolve(tx, scope=grant.scope)
    except InvalidScopeError:  # It names something that is gone; only an unscoped grant is as much.
        return GLOBAL


def _denial(action: str, user_id: str, error_kind: str) -> Denial:
    return Denial(action, f"user:{user_id}", error_kind=error_kind)


def _record(
    tx: Transaction,
    *,
    by: Actor,
    action: str,
    user_id: str,
    metadata: Mapping[str, Any],
    now: datetime,
) -> None:
    audit.record(tx, by=by, action=action, resource=f"user:{user_id}", metadata=metadata, now=now)
