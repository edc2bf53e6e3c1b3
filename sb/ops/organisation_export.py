"""The organisation as one document, which applied to an empty installation gives the same again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.auth.permissions import SEED_ROLES
from sb.db.engine import Transaction
from sb.ops import audit, bindings, grant_lists, scopes, teams, workflows
from sb.ops.callers import Caller
from sb.ops.governance_errors import ExportAmbiguousError
from sb.ops.organisation import fingerprint, require_root
from sb.ops.organisation_names import GoneError, Names, Row, everything, parted

VERSION = 1
RESOURCE = "organisation:export"
_SEEDED = {role.name: role for role in SEED_ROLES}
#: What a document knows a rule by.
ANCHORED = ("project", "team", "name")
_RULE_FACTS = (
    "priority",
    "enabled",
    "direct_reveal_allowed",
    "requires_mfa",
    "reveal_ttl_seconds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The document, its fingerprint, and what it cannot say."""

    document: Mapping[str, Any]
    sha256: str
    left_out: list[str]


def export(tx: Transaction, *, caller: Caller, now: datetime) -> Export:
    """Return everything a document can name; ids, accounts and what has ended are not in it."""
    require_root(caller, resource=RESOURCE)
    names = Names.load(tx, caller=caller)
    _require_distinct(names)
    found = _Reader(tx=tx, caller=caller, names=names, now=now, left_out=[])
    document = {
        "version": VERSION,
        "roles": list(found.roles()),
        "teams": list(found.teams()),
        "projects": list(found.projects()),
        "workflows": list(found.workflows()),
        "policies": list(found.policies()),
        "grants": found.grants(),
    }
    return Export(document=document, sha256=fingerprint(document), left_out=found.left_out)


def record(tx: Transaction, *, by: Caller, found: Export, now: datetime) -> None:
    """Leave the row that somebody takes the document out; every call leaves one."""
    sections = {name: rows for name, rows in found.document.items() if name != "version"}
    facts = {
        "counts": {name: len(rows) for name, rows in sections.items()},
        "document_sha256": found.sha256,
        "left_out": len(found.left_out),
    }
    audit.record(
        tx, by=by, action="organisation.exported", resource=RESOURCE, metadata=facts, now=now
    )


def _require_distinct(names: Names) -> None:
    """Refuse what a document could not name: rules of one name at one place, shown or left out."""
    counts = Counter((*names.anchor(rule), rule["name"]) for rule in names.rules)
    rules = [
        {"project": project, "team": team, "name": name, "rules": count}
        for (project, team, name), count in counts.items()
        if count > 1
    ]
    if rules:
        raise ExportAmbiguousError(
            rules=sorted(rules, key=lambda one: [str(one[key] or "") for key in ANCHORED])
        )


def _by_age(rule: Row) -> tuple[bool, datetime, str]:
    # The system's own is there before any other, whenever it was seeded.
    return not rule["is_system"], rule["created_at"], rule["id"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    tx: Transaction
    caller: Caller
    names: Names
    now: datetime
    left_out: list[str]

    def roles(self) -> Iterator[dict[str, Any]]:
        for name, row in self.names.rows("role"):
            seeded = _SEEDED.get(name)
            as_seeded = seeded is not None and (
                row["description"] == seeded.description
                and set(row["permissions"]) == set(seeded.permissions)
            )
            if not as_seeded:
                yield {
                    "name": name,
                    "description": row["description"],
                    "permissions": list(row["permissions"]),
                }

    def teams(self) -> Iterator[dict[str, Any]]:
        for path, row in self.names.rows("team"):
            members = everything(
                lambda _id=row["id"], **page: teams.list_members(
                    self.tx, caller=self.caller, team_id=_id, **page
                ),
                at="created_at",
                id_="user_id",
            )
            yield {
                "path": path,
                "description": row["description"],
                "status": row["status"],
                "members": sorted(member["email"] for member in members),
            }

    def projects(self) -> Iterator[dict[str, Any]]:
        environments: dict[str, list[Row]] = {}
        for _, environment in self.names.rows("environment"):
            environments.setdefault(environment["project_id"], []).append(environment)
        for name, row in self.names.rows("project"):
            team_id = row["team_id"]
            yield {
                "name": name,
                "team": team_id and self.names.name_of("team", team_id),
                "status": row["status"],
                "environments": [
                    {key: one[key] for key in ("name", "type", "kind", "risk_level", "description")}
                    for one in environments.get(row["id"], ())
                ],
                "bindings": self._bindings(row["id"]),
            }

    def _bindings(self, project_id: str) -> list[dict[str, Any]]:
        rows = everything(
            lambda **page: bindings.list_bindings(
                self.tx, caller=self.caller, project_id=project_id, **page
            ),
            at="created_at",
            id_="secret_id",
        )
        found = [self._binding(row) for row in rows]
        return sorted(
            found,
            key=lambda one: [
                one[key] or "" for key in ("provider", "secret_ref", "connection", "cluster")
            ],
        )

    def _binding(self, row: Row) -> dict[str, Any]:
        connection, environment = row["provider_connection_id"], row["environment_id"]
        path = environment and self.names.name_of("environment", environment)
        return {
            "provider": row["provider_type"],
            "secret_ref": row["secret_ref"],
            "connection": connection and self.names.name_of("connection", connection),
            "cluster": row["cluster_name"] or row["connection_cluster"],
            "environment": path and parted(path)[-1],
            "allowed_ops": list(row["allowed_ops"]),
            "allowed_keys": row["allowed_keys"],
        }

    def workflows(self) -> Iterator[dict[str, Any]]:
        for name, row in self.names.rows("workflow"):
            role_id = row["approver_role_id"]
            knobs = {key: row[key] for key in workflows.KNOBS if key != "approver_role_id"}
            role = role_id and self.names.name_of("role", role_id)
            yield {**knobs, "name": name, "approver_role": role}

    def policies(self) -> Iterator[dict[str, Any]]:
        """Yield rules oldest first: made again in this order, the same ones come before others."""
        for row in sorted(self.names.rules, key=_by_age):
            try:
                selector = self.names.with_names(row["selector"])
            except GoneError:
                self.left_out.append(f"policy {row['name']!r}: its selector names what is gone")
                continue
            project, team = self.names.anchor(row)
            yield {
                "name": row["name"],
                "project": project,
                "team": team,
                "selector": selector,
                "workflow": self.names.name_of("workflow", row["workflow_id"]),
                **{key: row[key] for key in _RULE_FACTS},
            }

    def grants(self) -> list[dict[str, Any]]:
        rows = everything(
            lambda **page: grant_lists.list_grants(
                self.tx,
                caller=self.caller,
                filters=grant_lists.Filters(active=True),
                now=self.now,
                **page,
            ),
            at="granted_at",
            id_="id",
        )
        found = [one for row in rows if (one := self._grant(row)) is not None]
        return sorted(
            found, key=lambda one: (one["person"], one["role"], sorted(one["scope"].items()))
        )

    def _grant(self, row: Row) -> dict[str, Any] | None:
        what = f"grant of {row['role_name']!r} to {row['user_email']}"
        try:
            scope = self.names.with_names(row["scope"])
        except GoneError:
            self.left_out.append(f"{what}: its scope names what is gone")
            return None
        named = scopes.ID_KEYS & row["scope"].keys()
        if len(named) > 1 and scopes.find(self.tx, scope=row["scope"]).split:
            self.left_out.append(f"{what}: parts of its scope exclude each other")
            return None
        ends = row["expires_at"]
        return {
            "person": row["user_email"],
            "role": row["role_name"],
            "scope": scope,
            "expires_at": ends and ends.isoformat(),
            "reason": row["reason"],
        }
