"""What is under way while a document is applied: the names there are and the steps taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sb.db.engine import Transaction
from sb.errors import SbError
from sb.ops.callers import Caller
from sb.ops.organisation_names import Names, Row

Item = Mapping[str, Any]
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


@dataclass(slots=True, kw_only=True)
class Work:
    tx: Transaction
    caller: Caller
    names: Names
    now: datetime
    steps: dict[tuple[str, str], Step] = field(default_factory=dict)

    def note(
        self, kind: str, name: str, before: Row | None, after: Row, *, shown: Sequence[str] = ()
    ) -> None:
        """Add what became of one thing to its step."""
        step = self.steps.setdefault((kind, name), Step(kind=kind, name=name))
        if before is None:
            step.action = "create"
            return
        changes = [
            Change(field=key, before=before.get(key), after=after.get(key))
            for key in shown
            if before.get(key) != after.get(key)
        ]
        if changes and step.action == "unchanged":
            step.action = "update"
        if step.action == "update":
            step.changes += changes


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
