"""A large organisation in the database, and the people whose calls are timed in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from sb.auth.tokens import new_token, token_hash
from sb.db.engine import Database, Transaction
from sb.ids import new_id
from sb.ops import grants, users

SQL = Path(__file__).parent / "sql"
#: What the secrets of one project are read with, by their number: see the SQL.
SECRETS_PER_PROJECT = 5
ENVIRONMENTS = ("dev", "staging", "prod")

#: A role and the scope at which it is held.
Given = tuple[str, dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many of each there are."""

    users: int = 5_000
    teams: int = 500
    projects: int = 2_000
    grants: int = 20_000
    rules: int = 5_000
    requests: int = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a session, to be asked for over HTTP or by the operations alone."""

    user_id: str
    token: str


def made_id(kind: str, number: int) -> str:
    """Return the id that the SQL gives to the thing of this kind with this number."""
    return f"{hashlib.md5(kind.encode()).hexdigest()[:8]}-0000-7000-8000-{number:012x}"


def team_of(sizes: Sizes, project: int) -> int:
    """Return the number of the project's team."""
    return 1 + project * 7919 % sizes.teams


def ref_of(sizes: Sizes, project: int, secret: int) -> str:
    """Return where the secret of the project is."""
    return f"team-{team_of(sizes, project)}/project-{project}/secret-{secret}"


def provider_of(project: int, secret: int) -> str:
    """Return the kind of the store the secret is in."""
    if project % 100 == 0:
        return "kubernetes"
    return "aws-sm" if secret == SECRETS_PER_PROJECT else "vault"


def fill(url: str, sizes: Sizes, *, now: datetime) -> None:
    """Leave an organisation of these sizes in the migrated database, and statistics about it."""
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        text = (SQL / "governance.sql").read_bytes()
        connection.execute(text, {**asdict(sizes), "now": now})
        connection.execute((SQL / "governance_vacuum.sql").read_bytes())


def people(db: Database, sizes: Sizes, *, authors: int, now: datetime) -> dict[str, Person]:
    """Leave those whose calls are timed in the database and return them by what they hold."""
    wanted = {**holders(sizes), **{f"author_{n}": list(_author()) for n in range(authors)}}
    return db.run_sync(_people, wanted, now)


def holders(sizes: Sizes) -> dict[str, list[Given]]:
    """Return what each kind of person holds; the names are those of the results."""
    leaf = sizes.teams - sizes.teams // 10
    # A project of this team, whatever the sizes: the numbers of both go round.
    own = next(n for n in range(1, sizes.projects + 1) if team_of(sizes, n) == leaf)
    project = {"project_id": made_id("project", 1)}
    return {
        "root_team": [("approver", {"team_id": made_id("team", 2)})],
        "leaf_team": [("approver", {"team_id": made_id("team", leaf)})],
        "project": [("approver", project)],
        "environment": [("approver", {"environment_id": made_id("environment", 4)})],
        "prefix": [("approver", {"secret_ref_prefix": f"team-{leaf}/project-{own}/"})],
        "wide_prefix": [("approver", {"secret_ref_prefix": "team-1"})],
        "provider": [("approver", {"provider": "kubernetes"})],
        "cluster": [("approver", {"cluster": "lab"})],
        "everywhere": [("approver", {})],
        "many_grants": list(_many(sizes)),
        "grant_giver": [("scale-role-3", {"team_id": made_id("team", leaf)})],
    }


def _many(sizes: Sizes) -> Iterator[Given]:
    """Yield a hundred grants of every kind of scope, none of them global."""
    for n in range(1, 101):
        number = n * sizes.projects // 101 + 1
        yield (
            "approver" if n % 2 else "developer",
            (
                {"team_id": made_id("team", 1 + number % sizes.teams)},
                {"project_id": made_id("project", number)},
                {"environment_id": made_id("environment", 3 * number + 1)},
                {"secret_ref_prefix": ref_of(sizes, number, 1)},
                {"project_id": made_id("project", number), "provider": "vault"},
            )[n % 5],
        )


def _author() -> Iterator[Given]:
    """Yield the grants of those who see rules and approvers: over all teams, root by root."""
    for team in (1, 2, 3):
        for role in ("policy_author", "approver", "developer"):
            yield role, {"team_id": made_id("team", team)}


def _people(tx: Transaction, wanted: dict[str, list[Given]], now: datetime) -> dict[str, Person]:
    found = {}
    for name, given in wanted.items():
        user_id = users.create(
            tx,
            email=f"{name}@scale.example",
            password_hash="no password fits",
            display_name=name,
            now=now,
        )
        for role, scope in given:
            row = tx.one("role_find_by_name", name=role)
            assert row is not None
            grants.give(
                tx, user_id=user_id, role_id=row["id"], scope=scope, granted_by="bench", now=now
            )
        found[name] = Person(user_id=user_id, token=_session(tx, user_id, now))
    return found


def _session(tx: Transaction, user_id: str, now: datetime) -> str:
    token = new_token()
    tx.count(
        "session_insert",
        id=new_id(),
        user_id=user_id,
        token_hash=token_hash(token),
        expires_at=now.replace(year=now.year + 1),
        idle_expires_at=now.replace(year=now.year + 1),
        ip=None,
        user_agent=None,
        now=now,
    )
    return token
