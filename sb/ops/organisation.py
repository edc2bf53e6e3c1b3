"""A whole organisation from one document: what it names is created or changed, in one transaction.

Every change goes through the operation that the API uses for it, so checks, refusals and audit rows
are the same. What the document does not name stays; nothing is ever deleted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sb.auth.access import GLOBAL, allowed
from sb.db.engine import Transaction
from sb.errors import Denial, PermissionDeniedError
from sb.ops import (
    administrators,
    audit,
    grants,
    organisation_grants,
    organisation_powers,
    organisation_tenancy,
    projects,
    teams,
)
from sb.ops.callers import Caller
from sb.ops.organisation_names import Names
from sb.ops.organisation_references import require_known
from sb.ops.organisation_work import Item, Step, Work, placed

#: Beside being an administrator.
NEEDED = ("policy.edit", "workflow.edit", "team.edit", "project.edit", "environment.edit")


def apply(
    tx: Transaction, *, caller: Caller, document: Mapping[str, Any], now: datetime
) -> list[Step]:
    """Leave everything the document names as it says and return the steps; again, nothing changes.

    One step that is refused refuses all of them.
    """
    # Powers first: the order in which everything here is held.
    caller = grants.hold(tx, caller=caller, now=now)
    require_root(caller, resource="organisation:apply")
    if document.get("teams"):
        teams.hold_tree(tx)
    names = Names.load(tx, caller=caller)
    require_known(document, names)
    work = Work(tx=tx, caller=caller, names=names, now=now)
    for section, one in SECTIONS.items():
        for index, item in _ordered(section, document.get(section) or ()):
            with placed(f"{section}.{index}"):
                one(work, item, f"{section}.{index}")
    for at, item in work.later:
        with placed(at):
            organisation_powers.settle_workflow(work, item, at)
    # What is archived takes nothing new, so that comes when everything else is there.
    for section, archive in (("projects", _archive_project), ("teams", _archive_team)):
        for index, item in enumerate(document.get(section) or ()):
            if item.get("status") == "archived":
                with placed(f"{section}.{index}"):
                    archive(work, item)
    steps = list(work.steps.values())
    _record(tx, by=caller, document=document, steps=steps, now=now)
    return steps


def _record(
    tx: Transaction,
    *,
    by: Caller,
    document: Mapping[str, Any],
    steps: Sequence[Step],
    now: datetime,
) -> None:
    """Append one event about all the steps, beside their own, if any of them changed something."""
    counts: dict[str, dict[str, int]] = {}
    for step in steps:
        of_kind = counts.setdefault(step.kind, {})
        of_kind[step.action] = of_kind.get(step.action, 0) + 1
    if any(of_kind.keys() - {"unchanged"} for of_kind in counts.values()):
        facts = {"document_sha256": fingerprint(document), "steps": counts}
        resource = "organisation:apply"
        audit.record(
            tx, by=by, action="organisation.applied", resource=resource, metadata=facts, now=now
        )


def fingerprint(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the document as JSON with sorted keys and no spaces, in hex."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=datetime.isoformat)
    return hashlib.sha256(text.encode()).hexdigest()


def require_root(caller: Caller, *, resource: str) -> None:
    """Refuse a caller who is not an administrator of everything a document can name."""
    missing = [key for key in NEEDED if not allowed(caller.grants, key, GLOBAL)]
    if missing or not administrators.is_root(caller):
        permission = missing[0] if missing else administrators.ROOT[0]
        denial = Denial("access.denied", resource, permission=permission)
        raise PermissionDeniedError(permission=permission, audit=denial)


def _ordered(section: str, items: Sequence[Item]) -> Iterator[tuple[int, Item]]:
    """Yield items with their index: parents before children, a new default before the old one."""
    found = list(enumerate(items))
    if section == "teams":
        found.sort(key=lambda pair: pair[1]["path"].count("/"))
    if section == "workflows":
        found.sort(key=lambda pair: not pair[1].get("is_default"))
    return iter(found)


def _archive_project(work: Work, item: Item) -> None:
    _archive(work, "project", item["name"], projects.set_status)


def _archive_team(work: Work, item: Item) -> None:
    _archive(work, "team", item["path"], teams.set_status)


def _archive(work: Work, noun: str, name: str, set_status: Callable[..., None]) -> None:
    row = work.names.find(noun, name)
    assert row is not None, "its own step has made it"
    named = {f"{noun}_id": row["id"]}
    set_status(work.tx, caller=work.caller, status="archived", now=work.now, **named)
    work.note(noun, name, row, {**row, "status": "archived"}, shown=("status",))


#: What is done, in the order in which rows are held: powers, teams, projects, workflows, rules.
SECTIONS: Mapping[str, Callable[[Work, Item, str], None]] = {
    "roles": organisation_powers.role,
    "teams": organisation_tenancy.team,
    "projects": organisation_tenancy.project,
    "workflows": organisation_powers.workflow,
    "policies": organisation_powers.policy,
    "grants": organisation_grants.grant,
}
