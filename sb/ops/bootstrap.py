"""What every installation needs before its first request; each step does nothing when done."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sb.auth.permissions import SEED_ROLES
from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import audit, grants, settings, users
from sb.ops.callers import System
from sb.ops.errors import UserNotFoundError

BOOTSTRAP = System(part="bootstrap")


class Unused(StrEnum):
    """Why a setting that makes an administrator was given and changed nothing."""

    ACCOUNTS = "there are accounts already"
    ADMINISTERED = "somebody administers already"
    NO_ACCOUNT = "there is no such account, and somebody administers already"
    DISABLED = "that account is disabled: `sb recover` lets it in again"
    HELD = "that account holds admin already: `sb recover` lets it in again"


def seed(tx: Transaction, *, now: datetime) -> None:
    """Leave the seed roles, settings, the `standard` workflow and the match-all rule in place."""
    for role in SEED_ROLES:
        tx.count(
            "role_insert",
            id=new_id(),
            name=role.name,
            description=role.description,
            permissions=list(role.permissions),
            is_system=True,
            now=now,
        )
    settings.seed(tx, now=now)
    if tx.one("workflow_find_default") is None:
        _seed_workflow(tx, now=now)
    if tx.scalar("policy_any_system") is None:
        _seed_rule(tx, now=now)


def _seed_workflow(tx: Transaction, *, now: datetime) -> None:
    tx.count(
        "workflow_insert",
        id=new_id(),
        name="standard",
        description="One other person approves.",
        min_approvers=1,
        auto_approve=False,
        # Anybody who holds secret.approve over the request; a role here narrows it further.
        approver_role_id=None,
        wrap_ttl_created_seconds=7 * 86400,
        wrap_ttl_approved_seconds=3600,
        wrap_ttl_claimed_seconds=300,
        request_ttl_seconds=14 * 86400,
        fill_ttl_seconds=86400,
        require_justification=True,
        allow_self_approval=False,
        requires_security_approval=False,
        scoped_policy_authorable=False,
        notification_channels=[],
        is_default=True,
        enabled=True,
        is_system=True,
        now=now,
    )


def _seed_rule(tx: Transaction, *, now: datetime) -> None:
    workflow = tx.one("workflow_find_default")
    if workflow is None:  # An administrator switched the default off: there is nothing to match.
        return
    tx.count(
        "policy_insert",
        id=new_id(),
        name="match-all (system default)",
        selector={},
        workflow_id=workflow["id"],
        priority=0,
        enabled=True,
        is_system=True,
        direct_reveal_allowed=False,
        requires_mfa=False,
        reveal_ttl_seconds=60,
        project_id=None,
        team_id=None,
        now=now,
    )


def has_users(tx: Transaction) -> bool:
    """Tell whether anybody has an account."""
    return tx.scalar("user_any") is not None


def create_user(
    tx: Transaction,
    *,
    email: str,
    password_hash: str,
    display_name: str,
    role: str,
    action: str,
    now: datetime,
) -> str:
    """Create an account that holds the role globally, with its audit row, and return its id."""
    user_id = users.create(
        tx, email=email, password_hash=password_hash, display_name=display_name, now=now
    )
    found = tx.one("role_find_by_name", name=role)
    if found is None:
        msg = f"the seed role {role!r} is missing"
        raise RuntimeError(msg)
    grants.give(
        tx, user_id=user_id, role_id=found["id"], scope={}, granted_by=BOOTSTRAP.actor, now=now
    )
    audit.record(
        tx,
        by=BOOTSTRAP,
        action=action,
        resource=f"user:{user_id}",
        metadata={"email": email.strip().lower(), "role": role},
        now=now,
    )
    return user_id


def create_first_admin(
    tx: Transaction, *, email: str, password_hash: str, now: datetime
) -> str | None:
    """Create the first administrator where nobody has an account, and return the id, else None."""
    # Replicas start together: the second waits here and then finds the account.
    tx.one("role_lock", name="admin")
    if has_users(tx):
        return None
    return create_user(
        tx,
        email=email,
        password_hash=password_hash,
        display_name="Admin",
        role="admin",
        action="auth.bootstrap_admin",
        now=now,
    )


def adopt_admin(tx: Transaction, *, user_id: str, now: datetime) -> Unused | None:
    """Grant `admin` globally to this account if nobody administers; else return why it was not.

    Who is disabled or has a temporary password administers nothing, whatever they hold.
    """
    role = tx.one("role_lock", name="admin")
    account = tx.one("user_find", id=user_id)
    if role is None or tx.scalar("administrator_any") is not None:
        return Unused.NO_ACCOUNT if account is None else Unused.ADMINISTERED
    if account is None:
        msg = f"SB_BOOTSTRAP_ADMIN_USER_ID: there is no account {user_id}; nobody administers."
        raise UserNotFoundError(msg)
    if account["disabled"]:
        return Unused.DISABLED
    same: dict[str, Any] = {"user_id": user_id, "role_id": role["id"], "scope": {}}
    if tx.scalar("grant_find_same", **same, now=now) is not None:
        return Unused.HELD
    grants.give(tx, **same, granted_by=BOOTSTRAP.actor, now=now)
    audit.record(
        tx,
        by=BOOTSTRAP,
        action="auth.bootstrap_admin",
        resource=f"user:{user_id}",
        metadata={"role": "admin"},
        now=now,
    )
    return None
