"""People: the account behind a session, and their password."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.auth.access import visibility
from sb.db.engine import Transaction
from sb.ids import new_id
from sb.ops import audit
from sb.ops.callers import Actor, Caller
from sb.ops.errors import UserNotFoundError, WrongPasswordError

READABLE_BY = ("secret.list", "secret.request")


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
    teams: list[Mapping[str, Any]]
    projects: list[Project]


def create(
    tx: Transaction,
    *,
    email: str,
    password_hash: str,
    display_name: str,
    now: datetime,
) -> str:
    """Create an account and return its id; the address is stored lower-case."""
    user_id = new_id()
    tx.count(
        "user_insert",
        id=user_id,
        email=email.strip().lower(),
        password_hash=password_hash,
        display_name=display_name,
        disabled=False,
        must_change_password=False,
        now=now,
    )
    return user_id


def profile(tx: Transaction, *, caller: Caller) -> Profile:
    """Return the caller's permissions over all grants, direct teams and readable projects."""
    permissions = sorted({key for grant in caller.grants for key in grant.permissions})
    teams = tx.many("user_teams", user_id=caller.user_id)
    return Profile(permissions=permissions, teams=teams, projects=_projects(tx, caller=caller))


def _projects(tx: Transaction, *, caller: Caller) -> list[Project]:
    seen = visibility(caller.grants, READABLE_BY)
    projects: dict[str, Project] = {}
    rows = tx.many("project_list_with_environments", everything=seen.everything, scopes=seen.scopes)
    for row in rows:
        project = projects.setdefault(
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
    return list(projects.values())


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
    _record_change(tx, by=caller, user_id=caller.user_id, ended=ended, now=now)


def _record_change(tx: Transaction, *, by: Actor, user_id: str, ended: int, now: datetime) -> None:
    audit.record(
        tx,
        by=by,
        action="user.password.change",
        resource=f"user:{user_id}",
        metadata={"sessions_ended": ended},
        now=now,
    )
