"""What is under way while a document is applied: the names there are and the steps taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from sb.db.engine import Transaction
from sb.errors import SbError
from sb.ops.callers import Caller
from sb.ops.organisation_names import Names, Row

Item = Mapping[str, Any]
Key = tuple[Any, ...]
Action = Literal["create", "update", "unchanged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    field: str
    before: Any
    after: Any


@dataclass(slots=True, kw_only=True)
class Step:
    """What becomes of one thing the document names."""

    kind: str
    name: str
    action: Action = "unchanged"
    changes: list[Change] = field(default_factory=list)

    def add(self, change: Change) -> None:
        """Add the change, or let it go on from an earlier one of the same field."""
        for index, earlier in enumerate(self.changes):
            if (earlier.field, earlier.after) == (change.field, change.before):
                self.changes[index] = replace(earlier, after=change.after)
                return
        self.changes.append(change)


@dataclass(slots=True, kw_only=True)
class Work:
    tx: Transaction
    caller: Caller
    names: Names
    now: datetime
    steps: dict[tuple[str, str], Step] = field(default_factory=dict)
    #: What a project or a person has, by its id: read at the first item of it and kept up to
    #: date, or every item would read again what those before it have made.
    bindings: dict[str, dict[Key, dict[str, Row]]] = field(default_factory=dict)
    grants: dict[str, dict[Key, Row]] = field(default_factory=dict)
    rules: dict[Key, list[Row]] = field(default_factory=dict)
    #: When grants were last taken back, by person, role and scope: read before the first new one.
    taken_back: dict[Key, datetime] | None = None
    #: Workflows that are to ask nobody, each with its place: once the rules are as they are to be.
    later: list[tuple[str, Item]] = field(default_factory=list)

    def note(
        self, kind: str, name: str, before: Row | None, after: Row, *, shown: Sequence[str] = ()
    ) -> None:
        """Add what became of one thing to its step."""
        step = self.steps.setdefault((kind, name), Step(kind=kind, name=name))
        if before is None:
            # Its name says the step itself.
            step.action, before = "create", {"name": after.get("name")}
        changes = [
            Change(field=key, before=before.get(key), after=after.get(key))
            for key in shown
            if before.get(key) != after.get(key)
        ]
        if changes and step.action == "unchanged":
            step.action = "update"
        for change in changes:
            step.add(change)


@contextmanager
def placed(at: str) -> Iterator[None]:
    """Let a refusal say which part of the document it is about."""
    try:
        yield
    except SbError as refusal:
        details = refusal.details
        details.setdefault("at", at)
        for one in details.get("fields", ()):
            if not one["field"].startswith(at):
                one["field"] = f"{at}.{one['field']}"
        raise


def given(item: Item, keys: Sequence[str]) -> dict[str, Any]:
    return {key: item[key] for key in keys if key in item}
