"""The story of a policy rule, told from the audit trail: who changed what, from what, to what.

What a selector is set to is told to administrators only; its keys are told to everybody who may
read the rule at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.ops import audit, policy_rules
from sb.ops.callers import Caller
from sb.ops.governance_errors import PolicyNotFoundError
from sb.ops.scoped_policies import Anchor, cover

#: The id of an entry that no event stands behind.
NO_EVENT = "00000000-0000-0000-0000-000000000000"
#: What is compared, in the order in which it is told.
DIFFED = (
    "name",
    "enabled",
    "priority",
    "workflow_id",
    "direct_reveal_allowed",
    "requires_mfa",
    "reveal_ttl_seconds",
    "selector_keys",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    event_id: str
    occurred_at: datetime
    actor: str
    actor_display: str
    correlation_id: str
    action: str
    actor_permission_used: str | None
    scope: str | None
    changes: list[dict[str, Any]]
    snapshot_after: dict[str, Any]
    reconstructed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One page of a rule's story, oldest entry first; the first page holds the newest ones."""

    rule_id: str
    scope: str
    entries: list[Entry]
    has_more: bool
    #: Where the page before this one in time begins.
    before: tuple[datetime, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What a rule was after an event, as far as it may be told."""

    facts: Mapping[str, Any]
    selector: Mapping[str, str] | None
    workflow_name: str | None


def for_administrators(
    tx: Transaction,
    *,
    caller: Caller,
    rule_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
    now: datetime,
) -> History:
    """Return a page of the rule's story with selector values; deleted rules have one too."""
    rule = tx.one("policy_find", id=rule_id)
    return _history(
        tx,
        caller=caller,
        rule=rule,
        rule_id=rule_id,
        before=before,
        limit=limit,
        values=True,
        now=now,
    )


def for_authors(
    tx: Transaction,
    *,
    caller: Caller,
    anchor: Anchor,
    rule_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
    now: datetime,
) -> History:
    """Return a page of the story of one of the anchor's own rules, without selector values."""
    cover(tx, caller=caller, anchor=anchor)
    rule = tx.one("policy_find", id=rule_id)
    if rule is None or not anchor.owns(rule):
        raise PolicyNotFoundError
    return _history(
        tx,
        caller=caller,
        rule=rule,
        rule_id=rule_id,
        before=before,
        limit=limit,
        values=False,
        now=now,
    )


def _history(
    tx: Transaction,
    *,
    caller: Caller,
    rule: Mapping[str, Any] | None,
    rule_id: str,
    before: tuple[datetime, str] | None,
    limit: int,
    values: bool,
    now: datetime,
) -> History:
    # 1. The newest events before the cursor, and one more that the oldest is compared with.
    rows = tx.many(
        "policy_history_list",
        resource=f"policy_rule:{rule_id}",
        before_at=before[0] if before else None,
        before_id=before[1] if before else None,
        limit=limit + 1,
    )
    if rule is None and not rows and before is None:
        raise PolicyNotFoundError
    has_more, page = len(rows) > limit, list(reversed(rows[:limit]))
    # 2. Told forwards, each against the one before it.
    names = audit.display_names(tx, {row["actor"] for row in page})
    earlier = _state(rows[limit]) if has_more else None
    entries = _entries(page, earlier, names=names, values=values)
    if not has_more and rule is not None and (not page or page[0]["action"] != "policy.create"):
        entries = [*_beginning(tx, rule, page, first_page=before is None), *entries]
    # 3. Looking is an act of its own.
    scope = policy_rules.scope_of(rule) if rule is not None else _scope_told(page)
    audit.record(
        tx,
        by=caller,
        action="audit.read.policy_history",
        resource=f"policy_rule:{rule_id}",
        metadata={"policy_rule_id": rule_id, "scope": scope, "entry_count": len(entries)},
        now=now,
    )
    oldest = (page[0]["occurred_at"], page[0]["id"]) if page else None
    return History(rule_id=rule_id, scope=scope, entries=entries, has_more=has_more, before=oldest)


def _entries(
    page: Sequence[Mapping[str, Any]],
    earlier: _State | None,
    *,
    names: Mapping[str, str],
    values: bool,
) -> list[Entry]:
    entries: list[Entry] = []
    for row in page:
        state = _state(row)
        if earlier is None:
            earlier = _state_before(row)
        deleted = row["action"] == "policy.delete"
        shown = earlier if deleted and earlier is not None else state
        changes = [] if deleted or earlier is None else _changes(earlier, state, values=values)
        entries.append(
            Entry(
                event_id=row["id"],
                occurred_at=row["occurred_at"],
                actor=row["actor"],
                actor_display=names[row["actor"]],
                correlation_id=row["correlation_id"],
                action=row["action"],
                actor_permission_used=row["metadata"].get("actor_permission_used"),
                scope=row["metadata"].get("scope"),
                changes=changes,
                snapshot_after=_snapshot(shown),
            )
        )
        earlier = state
    return entries


def _state(row: Mapping[str, Any]) -> _State:
    facts = {name: row["metadata"].get(name) for name in DIFFED}
    return _State(facts=facts, selector=row["selector"], workflow_name=row["workflow_name"])


def _state_before(row: Mapping[str, Any]) -> _State | None:
    """Return what the first change that was recorded found, if it was not the creation."""
    was = row["metadata"].get("before")
    if was is None:
        return None
    state = _state(row)
    return _State(
        facts={**state.facts, **was},
        selector=None if "selector_keys" in was else state.selector,
        workflow_name=None if "workflow_id" in was else state.workflow_name,
    )


def _changes(before: _State, after: _State, *, values: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in DIFFED:
        if before.facts[name] == after.facts[name]:
            continue
        change = {"key": name, "before": before.facts[name], "after": after.facts[name]}
        if name == "workflow_id":
            change["before_workflow_name"] = before.workflow_name
            change["after_workflow_name"] = after.workflow_name
        found.append(change)
    if before.selector is not None and after.selector is not None:
        found += _selector_change(before.selector, after.selector, values=values)
    return found


def _selector_change(
    before: Mapping[str, str], after: Mapping[str, str], *, values: bool
) -> list[dict[str, Any]]:
    keys = sorted(key for key in {*before, *after} if before.get(key) != after.get(key))
    if not keys:
        return []
    change: dict[str, Any] = {"key": "selector", "changed_keys": keys}
    if values:
        change |= {"before": dict(before), "after": dict(after)}
    return [change]


def _beginning(
    tx: Transaction, rule: Mapping[str, Any], page: Sequence[Mapping[str, Any]], *, first_page: bool
) -> list[Entry]:
    """Return the creation of a rule that was there before anything was recorded about it."""
    state = _state_before(page[0]) if page else None
    if state is None:
        if page or not first_page:
            return []
        workflow = tx.one("workflow_find", id=rule["workflow_id"])
        facts = {name: rule.get(name) for name in DIFFED}
        facts["selector_keys"] = sorted(rule["selector"])
        name = workflow["name"] if workflow else None
        state = _State(facts=facts, selector=rule["selector"], workflow_name=name)
    return [
        Entry(
            event_id=NO_EVENT,
            occurred_at=rule["created_at"],
            actor="system",
            actor_display="System",
            correlation_id=NO_EVENT,
            action="policy.create",
            actor_permission_used=None,
            scope=policy_rules.scope_of(rule),
            changes=[],
            snapshot_after=_snapshot(state),
            reconstructed=True,
        )
    ]


def _snapshot(state: _State) -> dict[str, Any]:
    return {**state.facts, "workflow_name": state.workflow_name}


def _scope_told(page: Sequence[Mapping[str, Any]]) -> str:
    return str(page[-1]["metadata"].get("scope", "platform")) if page else "platform"
