"""People: their accounts, what they see of themselves, and their own password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.auth.access import Grant
from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import audit, projects
from sb.ops.callers import Caller
from sb.ops.errors import UserNotFoundError, WrongPasswordError


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An account as its administrators see it; never its password's hash."""

    id: str
    email: str
    display_name: str
    disabled: bool
    failed_login_count: int
    locked_until: datetime | None
    must_change_password: bool
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    id: str
    name: str
    kind: str
    risk_level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    id: str
    name: str
    status: str
    environments: list[Environment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The signed-in person as they see themselves."""

    permissions: list[str]
    grants: list[Grant]
    teams: list[Mapping[str, Any]]
    projects: list[Project]


def normal_email(email: str) -> str:
    """Return the one form in which an address is stored and looked up."""
    return email.strip().lower()


def create(
    tx: Transaction,
    *,
    email: str,
    password_hash: str,
    display_name: str,
    now: datetime,
    must_change_password: bool = False,
) -> str:
    """Create an account and return its id; the address is stored lower-case."""
    user_id = new_id()
    tx.count(
        "user_insert",
        id=user_id,
        email=normal_email(email),
        password_hash=password_hash,
        display_name=display_name,
        disabled=False,
        must_change_password=must_change_password,
        now=now,
    )
    return user_id


def find(tx: Transaction, *, user_id: str) -> User:
    """Return the account, or refuse as not found."""
    row = tx.one("user_find", id=user_id)
    if row is None:
        raise UserNotFoundError
    return _user(row)


def list_users(
    tx: Transaction,
    *,
    email: str | None,
    disabled: bool | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[User]:
    """Return up to `limit` accounts whose address begins with `email`, newest first."""
    rows = tx.many(
        "user_list",
        email=None if email is None else normal_email(email),
        disabled=disabled,
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit,
    )
    return [User(**row) for row in rows]


def hold(tx: Transaction, *, user_id: str) -> User:
    """Return the account and keep others from changing it until the transaction ends."""
    row = tx.one("user_hold", id=user_id)
    if row is None:
        raise UserNotFoundError
    return _user(row)


def _user(row: Mapping[str, Any]) -> User:
    return User(**{name: value for name, value in row.items() if name != "password_hash"})


def profile(tx: Transaction, *, caller: Caller) -> Profile:
    """Return the caller's grants in force, what they carry, direct teams, readable projects."""
    return Profile(
        permissions=sorted({key for grant in caller.grants for key in grant.permissions}),
        grants=sorted(caller.grants, key=lambda found: (found.role_name, repr(found.scope))),
        teams=tx.many("user_teams", user_id=caller.user_id),
        projects=readable_projects(tx, caller=caller),
    )


def readable_projects(tx: Transaction, *, caller: Caller) -> list[Project]:
    """Return the projects the caller may read, by name, with the environments in scope."""
    found: dict[str, Project] = {}
    rows = tx.many("project_list_with_environments", **projects.reach(caller))
    for row in rows:
        project = found.setdefault(
            row["id"],
            Project(id=row["id"], name=row["name"], status=row["status"], environments=[]),
        )
        if row["environment_id"] is not None:
            project.environments.append(
                Environment(
                    id=row["environment_id"],
                    name=row["environment_name"],
                    kind=row["environment_kind"],
                    risk_level=row["risk_level"],
                )
            )
    return list(found.values())


def password_hash(tx: Transaction, *, user_id: str) -> str:
    """Return the stored hash of the person's password."""
    row = tx.one("user_find", id=user_id)
    if row is None:
        raise UserNotFoundError
    return str(row["password_hash"])


def change_password(
    tx: Transaction, *, caller: Caller, expected_hash: str, new_hash: str, now: datetime
) -> None:
    """Replace the password that was checked and end the person's other sessions."""
    changed = tx.count(
        "user_set_password",
        id=caller.user_id,
        password_hash=new_hash,
        expected_hash=expected_hash,
        must_change_password=False,
        now=now,
    )
    if changed == 0:  # Changed by another session since it was checked.
        raise WrongPasswordError
    ended = tx.count(
        "session_revoke_others", user_id=caller.user_id, keep_id=caller.session_id, now=now
    )
    audit.record(
        tx,
        by=caller,
        action="user.password.change",
        resource=f"user:{caller.user_id}",
        metadata={"sessions_ended": ended},
        now=now,
    )
