"""Names instead of ids: how a file of an organisation refers to what is in the database.

A team is named by its path from the root, an environment by its project's name and its own. In both
a slash within a name is written `~1` and a tilde `~0`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.errors import InvalidInputError
from sb.ops import connections, environments, policy_rules, projects, roles, teams, workflows
from sb.ops.callers import Caller
from sb.ops.users import normal_email

Row = Mapping[str, Any]
#: How many rows are asked for at a time.
PAGE = 500
#: What scopes and selectors of a file name, with the key the name's id is stored under.
BY_NAME: Mapping[str, str] = {
    "team": "team_id",
    "project": "project_id",
    "environment_path": "environment_id",
}


NOUNS = ("team", "project", "environment", "role", "workflow", "connection")


class GoneError(Exception):
    """An id names nothing any more; never leaves the export."""


def joined(names: Sequence[str]) -> str:
    """Return the path of these names."""
    return "/".join(name.replace("~", "~0").replace("/", "~1") for name in names)


def parted(path: str) -> list[str]:
    """Return the names of the path; the first may be empty only where the path is."""
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]


def above(path: str) -> str | None:
    """Return the path of the parent, or None for a root."""
    parent, slash, _ = path.rpartition("/")
    return parent if slash else None


def everything(fetch: Callable[..., list[Row]], at: str, id_: str) -> Iterator[Row]:
    """Yield every row of a list that is read in pages, newest first."""
    before: tuple[datetime, str] | None = None
    while True:
        rows = fetch(before=before, limit=PAGE)
        yield from rows
        if len(rows) < PAGE:
            return
        before = (rows[-1][at], rows[-1][id_])


def fault(field: str, reason: str) -> InvalidInputError:
    return InvalidInputError(fields=[{"field": field, "reason": reason}])


class Names:
    """Everything that has a name, as it is at this moment of the transaction."""

    def __init__(self, tx: Transaction) -> None:
        self.tx = tx
        self.rules: list[Row] = []
        self._rows: dict[str, dict[str, Row]] = {noun: {} for noun in NOUNS}
        self._names: dict[str, dict[str, str]] = {noun: {} for noun in NOUNS}
        self._people: dict[str, str | None] = {}

    @classmethod
    def load(cls, tx: Transaction, *, caller: Caller) -> Names:
        """Return what is there, as the caller sees it."""

        def rows(fetch: Callable[..., list[Row]], **more: Any) -> list[Row]:
            return list(
                everything(lambda **page: fetch(tx, **more, **page), at="created_at", id_="id")
            )

        found = cls(tx)
        for path, row in _by_path(rows(teams.list_teams, caller=caller)).items():
            found.put("team", path, row)
        for row in rows(projects.list_projects, caller=caller):
            found.put("project", row["name"], row)
        for row in rows(environments.list_environments, caller=caller):
            project = found.name_of("project", row["project_id"])
            found.put("environment", joined([project, row["name"]]), row)
        for row in rows(roles.list_roles, caller=caller):
            found.put("role", row["name"], row)
        for row in rows(workflows.list_workflows, caller=caller):
            found.put("workflow", row["name"], row)
        for row in rows(connections.list_connections):
            found.put("connection", row["name"], row)
        found.rules = _rules(tx)
        return found

    def put(self, noun: str, name: str, row: Row) -> None:
        """Let the name stand for this row from here on."""
        self._rows[noun][name] = row
        self._names[noun][row["id"]] = name

    def rows(self, noun: str) -> list[tuple[str, Row]]:
        """Return every name of the noun with its row, by name."""
        return sorted(self._rows[noun].items())

    def find(self, noun: str, name: str) -> Row | None:
        return self._rows[noun].get(name)

    def id_of(self, noun: str, name: str, *, field: str) -> str:
        """Return the id of what has this name, or refuse it at the field."""
        row = self.find(noun, name)
        if row is None:
            raise fault(field, self.unknown(noun, name))
        return str(row["id"])

    def knows(self, noun: str, name: str) -> bool:
        """Tell whether something, or somebody, has this name."""
        if noun == "person":
            return self._person(name) is not None
        return self.find(noun, name) is not None

    def unknown(self, noun: str, name: str) -> str:
        """Return the sentence about a name that nothing has."""
        if noun == "person":
            return f"nobody has an account with the address {name!r}"
        return f"there is no {noun} {name!r}"

    def name_of(self, noun: str, id_: str) -> str:
        """Return the name of what has this id, or raise GoneError."""
        name = self._names[noun].get(id_)
        if name is None:
            raise GoneError
        return name

    def person(self, email: str, *, field: str) -> str:
        """Return the id of the account with this address; accounts are not made here."""
        user_id = self._person(email)
        if user_id is None:
            raise fault(field, self.unknown("person", email))
        return user_id

    def _person(self, email: str) -> str | None:
        email = normal_email(email)
        if email not in self._people:
            row = self.tx.one("user_find_by_email", email=email)
            self._people[email] = None if row is None else str(row["id"])
        return self._people[email]

    def with_ids(self, named: Mapping[str, Any], *, field: str) -> dict[str, Any]:
        """Return a scope or selector of the file as it is stored: ids in place of names."""
        found = dict(named)
        for key, stored in BY_NAME.items():
            if key in found:
                noun = key.partition("_")[0]
                name = found.pop(key)
                found[stored] = self.id_of(noun, str(name), field=f"{field}.{key}")
        return found

    def with_names(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return a stored scope or selector as a file has it, or raise GoneError."""
        found = dict(stored)
        for key, column in BY_NAME.items():
            if column in found:
                found[key] = self.name_of(key.partition("_")[0], found.pop(column))
        return dict(sorted(found.items()))

    def anchor(self, rule: Row) -> tuple[str | None, str | None]:
        """Return the names of the project and the team a rule stands at."""
        project, team = rule["project_id"], rule["team_id"]
        return (
            None if project is None else self.name_of("project", project),
            None if team is None else self.name_of("team", team),
        )


def _by_path(rows: Sequence[Row]) -> dict[str, Row]:
    by_id = {row["id"]: row for row in rows}

    def path(row: Row) -> str:
        names: list[str] = []
        at: Row | None = row
        while at is not None:
            names.append(at["name"])
            at = by_id.get(at["parent_team_id"])
        return joined(names[::-1])

    return {path(row): row for row in rows}


def _rules(tx: Transaction) -> list[Row]:
    found: list[Row] = []
    after: policy_rules.After | None = None
    while True:
        rows = policy_rules.list_rules(tx, after=after, limit=PAGE)
        found += rows
        if len(rows) < PAGE:
            return found
        last = rows[-1]
        after = policy_rules.After(
            priority=last["priority"], depth=0, at=last["created_at"], id=last["id"]
        )
