"""Policy rules, written by whoever holds `policy.edit`: any anchor, any priority, any time.

What no rule may do, whoever writes it: send production to a workflow that asks nobody, or allow a
direct reveal there. Both are refused by what the selector pins, before any request is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sb.db.engine import Transaction
from sb.errors import InvalidInputError
from sb.ids import new_id
from sb.ops import audit, selectors
from sb.ops.callers import Actor
from sb.ops.governance_errors import (
    AutoApproveNotPinnedError,
    DirectRevealNotPinnedError,
    PolicyNotFoundError,
    RulesChangedError,
    SystemRowError,
    SystemRuleSelectorError,
)

Permission = Literal["policy.edit", "policy.author"]
Scope = Literal["platform", "project", "team"]
LEAST_PRIORITY, MOST_PRIORITY = -(2**31), 2**31 - 1
LEAST_REVEAL_SECONDS, MOST_REVEAL_SECONDS = 10, 300
#: What a rule may be changed in; its anchor stays as it is.
FIELDS = (
    "name",
    "selector",
    "workflow_id",
    "priority",
    "enabled",
    "direct_reveal_allowed",
    "requires_mfa",
    "reveal_ttl_seconds",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRule:
    """A rule as it is asked for; without an anchor it is the platform's."""

    name: str
    selector: Mapping[str, Any]
    workflow_id: str
    priority: int = 100
    enabled: bool = True
    direct_reveal_allowed: bool = False
    requires_mfa: bool = False
    reveal_ttl_seconds: int = 60
    project_id: str | None = None
    team_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """The last rule of a page of rules in their order of precedence."""

    priority: int
    depth: int
    at: datetime
    id: str


def create(tx: Transaction, *, by: Actor, rule: NewRule, now: datetime) -> Mapping[str, Any]:
    """Create a rule at any anchor and return it."""
    # 1. The anchor, then what the selector may say there.
    _check_anchor(tx, rule)
    selector = _checked_selector(tx, rule.selector, asdict(rule))
    # 2. The workflow, held so that it cannot start to ask nobody before the rule is there.
    workflow = tx.one("workflow_lock", id=rule.workflow_id)
    if workflow is None:
        raise InvalidInputError(fields=[{"field": "workflow_id", "reason": "no such workflow"}])
    values = {**asdict(rule), "selector": selector}
    check(values, workflow=workflow)
    # 3. Write it and its trail.
    return insert(tx, by=by, values=values, permission="policy.edit", now=now)


def update(
    tx: Transaction, *, by: Actor, rule_id: str, changes: Mapping[str, Any], now: datetime
) -> Mapping[str, Any]:
    """Change what is given, keep all else, and return the rule; the same again does nothing."""
    # 1. Hold the workflow and the rule.
    rule, workflow = hold(tx, seen=find(tx, rule_id=rule_id), changes=changes)
    if workflow is None:
        raise InvalidInputError(fields=[{"field": "workflow_id", "reason": "no such workflow"}])
    # 2. What the rule would be as a whole, where it is.
    if moved := [
        name for name in ("project_id", "team_id") if changes.get(name, rule[name]) != rule[name]
    ]:
        raise InvalidInputError(
            fields=[{"field": name, "reason": "a rule stays where it is"} for name in moved]
        )
    values = merged(rule, changes)
    if "selector" in changes:
        values["selector"] = _changed_selector(tx, rule, changes["selector"])
    check(values, workflow=workflow)
    # 3. Write it and its trail.
    return replace(tx, by=by, rule=rule, values=values, permission="policy.edit", now=now)


def delete(tx: Transaction, *, by: Actor, rule_id: str, now: datetime) -> Scope:
    """Remove a rule that is not the system's own and return where it was anchored.

    A second call is refused as not found.
    """
    rule = tx.one("policy_lock", id=rule_id)
    if rule is None:
        raise PolicyNotFoundError
    if rule["is_system"]:
        raise SystemRowError
    remove(tx, by=by, rule=rule, permission="policy.edit", now=now)
    return scope_of(rule)


def find(tx: Transaction, *, rule_id: str) -> Mapping[str, Any]:
    """Return the rule, whatever its anchor, or refuse it as not found."""
    rule = tx.one("policy_find", id=rule_id)
    if rule is None:
        raise PolicyNotFoundError
    return rule


def list_rules(tx: Transaction, *, after: After | None, limit: int) -> list[Mapping[str, Any]]:
    """Return up to `limit` rules of all anchors: highest priority first, then the oldest."""
    return tx.many(
        "policy_list",
        after_priority=after.priority if after else None,
        after_at=after.at if after else None,
        after_id=after.id if after else None,
        limit=limit,
    )


def scope_of(rule: Mapping[str, Any]) -> Scope:
    """Return where the rule is anchored."""
    if rule["project_id"] is not None:
        return "project"
    return "platform" if rule["team_id"] is None else "team"


def hold(
    tx: Transaction, *, seen: Mapping[str, Any], changes: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """Return the rule and the workflow it would point at, both held, the workflow first."""
    workflow = tx.one("workflow_lock", id=changes.get("workflow_id", seen["workflow_id"]))
    rule = tx.one("policy_lock", id=seen["id"])
    if rule is None:
        raise PolicyNotFoundError
    if "workflow_id" not in changes and rule["workflow_id"] != seen["workflow_id"]:
        raise RulesChangedError  # Somebody else moved it between the two looks.
    return rule, workflow


def merged(rule: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return every changeable fact of the rule after the changes."""
    return {name: changes.get(name, rule[name]) for name in FIELDS}


def check(values: Mapping[str, Any], *, workflow: Mapping[str, Any]) -> None:
    """Refuse facts out of bounds, and what must never happen to production."""
    faults = []
    if not values["name"].strip():
        faults.append({"field": "name", "reason": "required"})
    if not LEAST_PRIORITY <= values["priority"] <= MOST_PRIORITY:
        faults.append({"field": "priority", "reason": "out of range"})
    if not LEAST_REVEAL_SECONDS <= values["reveal_ttl_seconds"] <= MOST_REVEAL_SECONDS:
        reason = f"must be between {LEAST_REVEAL_SECONDS} and {MOST_REVEAL_SECONDS}"
        faults.append({"field": "reveal_ttl_seconds", "reason": reason})
    if faults:
        raise InvalidInputError(fields=faults)
    if selectors.pins_non_prod(values["selector"]):
        return
    if workflow["auto_approve"]:
        raise AutoApproveNotPinnedError(field="workflow_id")
    if values["direct_reveal_allowed"]:
        raise DirectRevealNotPinnedError(field="direct_reveal_allowed")


def insert(
    tx: Transaction,
    *,
    by: Actor,
    values: Mapping[str, Any],
    permission: Permission,
    now: datetime,
) -> Mapping[str, Any]:
    """Write a checked rule with its audit row and return it."""
    rule_id = new_id()
    tx.count("policy_insert", id=rule_id, is_system=False, **values, now=now)
    rule = find(tx, rule_id=rule_id)
    _record(tx, by=by, action="policy.create", rule=rule, permission=permission, now=now)
    return rule


def replace(
    tx: Transaction,
    *,
    by: Actor,
    rule: Mapping[str, Any],
    values: Mapping[str, Any],
    permission: Permission,
    now: datetime,
) -> Mapping[str, Any]:
    """Write checked facts over a held rule with their audit row and return it."""
    before = {name: rule[name] for name in FIELDS if rule[name] != values[name]}
    if not before:
        return rule
    tx.count("policy_update", id=rule["id"], **values, now=now)
    changed = find(tx, rule_id=rule["id"])
    _record(
        tx,
        by=by,
        action="policy.update",
        rule=changed,
        before=before,
        permission=permission,
        now=now,
    )
    return changed


def remove(
    tx: Transaction, *, by: Actor, rule: Mapping[str, Any], permission: Permission, now: datetime
) -> None:
    """Delete a held rule with its audit row."""
    tx.count("policy_delete", id=rule["id"])
    _record(tx, by=by, action="policy.delete", rule=rule, permission=permission, now=now)


def _check_anchor(tx: Transaction, rule: NewRule) -> None:
    faults = []
    if rule.project_id is not None and rule.team_id is not None:
        faults.append({"field": "team_id", "reason": "a rule has one anchor, not two"})
    elif rule.project_id is not None and tx.one("project_find", id=rule.project_id) is None:
        faults.append({"field": "project_id", "reason": "no such project"})
    elif rule.team_id is not None and tx.one("team_find", id=rule.team_id) is None:
        faults.append({"field": "team_id", "reason": "no such team"})
    if faults:
        raise InvalidInputError(fields=faults)


def _checked_selector(
    tx: Transaction, selector: Mapping[str, Any], anchor: Mapping[str, Any]
) -> dict[str, str]:
    match scope_of(anchor):
        case "project":
            return selectors.for_project(tx, selector, project_id=anchor["project_id"])
        case "team":
            return selectors.for_team(selector, scoped=False)
        case "platform":
            return selectors.for_platform(tx, selector)


def _changed_selector(
    tx: Transaction, rule: Mapping[str, Any], selector: Mapping[str, Any]
) -> Mapping[str, Any]:
    if rule["is_system"]:
        if selector:
            raise SystemRuleSelectorError(field="selector")
        return {}
    return _checked_selector(tx, selector, rule)


def _record(
    tx: Transaction,
    *,
    by: Actor,
    action: str,
    rule: Mapping[str, Any],
    permission: Permission,
    now: datetime,
    before: Mapping[str, Any] | None = None,
) -> None:
    """Append the audit row of a change; what the selector is set to is kept apart from it."""
    change_id, was = new_id(), dict(before or {})
    metadata: dict[str, Any] = {
        "policy_rule_id": rule["id"],
        "project_id": rule["project_id"],
        "team_id": rule["team_id"],
        "scope": scope_of(rule),
        **{name: rule[name] for name in FIELDS if name != "selector"},
        "selector_keys": sorted(rule["selector"]),
        "actor_permission_used": permission,
    }
    if before is not None:
        metadata["changed_keys"] = sorted(before)
        if "selector" in was:
            was["selector_keys"] = sorted(was.pop("selector"))
        metadata["before"] = was
    tx.count(
        "policy_selector_insert",
        change_id=change_id,
        policy_rule_id=rule["id"],
        selector=dict(rule["selector"]),
        now=now,
    )
    audit.record(
        tx,
        by=by,
        action=action,
        resource=f"policy_rule:{rule['id']}",
        correlation_id=change_id,
        metadata=metadata,
        now=now,
    )
