"""A Postgres database whose powers change over days, by the product's own operations.

Days are counted from the clock's now: `at(-10)` is ten days ago.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sb.clock import utc_now
from sb.db.engine import Database, Transaction
from sb.ids import new_id
from sb.ops import (
    bindings,
    bootstrap,
    environments,
    grants,
    policy_rules,
    projects,
    roles,
    secrets,
    teams,
    users,
)
from sb.ops.callers import Caller
from tests.cli.audit_files import Rows, rows
from tests.ops import rows as table

MICROSECOND = timedelta(microseconds=1)
#: Before everything else that happens.
BEGINNING = -400.0


@dataclass
class Governed:
    url: str
    db: Database
    now: datetime = field(default_factory=utc_now)
    people: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.people["root"] = self.run(
            bootstrap.create_first_admin,
            email="root@example.com",
            password_hash="a hash nothing matches",
            now=self.at(BEGINNING),
        )

    def at(self, days: float) -> datetime:
        return self.now + timedelta(days=days)

    def run(self, op: Any, **values: Any) -> Any:
        return self.db.run_sync(op, **values)

    def ask(self, stem: str, **variables: str) -> Rows:
        """Return what psql answers."""
        return rows(self.url, stem, **variables)

    def write(self, statement: str, **values: Any) -> None:
        """Do by hand what no operation does."""
        self.db.run_sync(table.run, statement, **values)

    def person(self, name: str, days: float = BEGINNING) -> str:
        if name not in self.people:
            self.people[name] = self.run(
                users.create,
                email=f"{name}@example.com",
                password_hash="a hash nothing matches",
                display_name=name,
                now=self.at(days),
            )
        return self.people[name]

    def caller(self, name: str = "root", days: float = 0) -> Caller:
        """Return the person with the grants that are there now and had not ended then."""
        user_id = self.person(name)

        def load(tx: Transaction) -> Caller:
            return Caller(
                user_id=user_id,
                session_id=new_id(),
                email=users.find(tx, user_id=user_id).email,
                display_name=name,
                grants=grants.load(tx, user_id=user_id, now=self.at(days)),
                http_request_id="req-1",
            )

        caller: Caller = self.run(load)
        return caller

    def role_id(self, name: str) -> str:
        row = self.run(lambda tx: tx.one("role_find_by_name", name=name))
        return str(row["id"])

    def role(self, name: str, *permissions: str, days: float = BEGINNING) -> str:
        row = self.run(
            roles.create,
            caller=self.caller(days=days),
            name=name,
            description="",
            permissions=permissions,
            now=self.at(days),
        )
        return str(row["id"])

    def edit_role(self, role_id: str, days: float, **changes: Any) -> None:
        self.run(
            roles.update,
            caller=self.caller(days=days),
            role_id=role_id,
            changes=changes,
            now=self.at(days),
        )

    def grant(
        self,
        name: str,
        role: str,
        days: float,
        ends: float | None = None,
        reason: str | None = None,
        scope: Mapping[str, str] | None = None,
    ) -> str:
        row = self.run(
            grants.create,
            caller=self.caller(days=days),
            user_id=self.person(name),
            role_id=self.role_id(role),
            scope=scope or {},
            expires_at=None if ends is None else self.at(ends),
            reason=reason,
            now=self.at(days),
        )
        return str(row["id"])

    def edit_grant(self, grant_id: str, days: float, **changes: Any) -> None:
        self.run(
            grants.update,
            caller=self.caller(days=days),
            grant_id=grant_id,
            changes=changes,
            now=self.at(days),
        )

    def revoke(
        self, grant_id: str, days: float, by: str = "root", reason: str | None = None
    ) -> None:
        self.run(
            grants.revoke,
            caller=self.caller(by, days),
            grant_id=grant_id,
            now=self.at(days),
            reason=reason,
        )

    def team(self, name: str, parent: str | None = None) -> str:
        row = self.run(
            teams.create,
            caller=self.caller(),
            name=name,
            parent_team_id=parent,
            description=None,
            status="active",
            now=self.at(BEGINNING),
        )
        return str(row["id"])

    def project(self, name: str, team_id: str | None = None) -> str:
        row = self.run(
            projects.create,
            caller=self.caller(),
            name=name,
            team_id=team_id,
            status="active",
            now=self.at(BEGINNING),
        )
        return str(row["id"])

    def environment(self, project_id: str, name: str = "dev") -> str:
        row = self.run(
            environments.create,
            caller=self.caller(),
            project_id=project_id,
            name=name,
            environment_type="dev",
            kind=None,
            risk_level=1,
            description=None,
            now=self.at(BEGINNING),
        )
        return str(row["id"])

    def delete_environment(self, environment_id: str, days: float) -> None:
        self.run(
            environments.delete,
            caller=self.caller(),
            environment_id=environment_id,
            now=self.at(days),
        )

    def bind(self, project_id: str, ref: str = "app/db", **limits: Any) -> str:
        """Bind a secret to the project and return the secret's id."""
        connection = limits.pop("connection", None)
        row = self.run(
            bindings.create,
            caller=self.caller(),
            project_id=project_id,
            secret=secrets.Place(
                provider_type="file", secret_ref=ref, provider_connection_id=connection
            ),
            limits=bindings.Limits(**limits),
            now=self.at(BEGINNING),
        )
        return str(row["secret_id"])

    def rule(self, name: str, days: float, **values: Any) -> str:
        row = self.run(
            policy_rules.create,
            by=self.caller(days=days),
            rule=policy_rules.NewRule(name=name, **values),
            now=self.at(days),
        )
        return str(row["id"])

    def edit_rule(self, rule_id: str, days: float, by: str = "root", **changes: Any) -> None:
        self.run(
            policy_rules.update,
            by=self.caller(by, days),
            rule_id=rule_id,
            changes=changes,
            now=self.at(days),
        )


def shown(found: Rows, *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in columns) for row in found]
