"""What one rule more, one changed or one less would have meant for requests that were really made.

Both sides are decided by the rules of this moment, so that the draft is all they differ in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sb.db.engine import Transaction
from sb.errors import InvalidInputError
from sb.ids import new_id
from sb.ops import policies, policy_rules, requests, selectors, targets
from sb.ops.callers import Caller
from sb.ops.governance_errors import PolicyNotFoundError, SystemRowError, SystemRuleSelectorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A new rule, changes of the rule that is replaced, or a rule to go."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    replaces: str | None = None
    removes: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a request is told; the id of a proposed new rule is that of no rule there is."""

    rule_id: str | None
    workflow_id: str
    workflow_name: str
    min_approvers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A request that would have been decided otherwise."""

    request: Mapping[str, Any]
    #: Whether the caller may see more of it than its id.
    in_sight: bool
    before: Outcome
    after: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    #: The id that the proposed new rule goes by here.
    draft_id: str | None
    examined: int
    differences: list[Difference]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proposed:
    """The rule that would be gone and the one that would be there, either of which may be none."""

    gone: Mapping[str, Any] | None
    new: Mapping[str, Any] | None


def simulate(
    tx: Transaction, *, caller: Caller, proposal: Proposal, limit: int, now: datetime
) -> Simulation:
    """Return which of the newest requests the proposal would have decided otherwise."""
    # 1. The proposal must be a rule that could be saved.
    proposed = _proposed(tx, proposal, now=now)
    # 2. Requests that neither side of it matches are decided as before.
    latest = tx.many("request_list_latest", limit=limit)
    lineages: dict[str, dict[str, int]] = {}
    seen: dict[policies.PolicyScope, tuple[Outcome, Outcome] | None] = {}
    differences = []
    for row in latest:
        scope = _scope(row)
        if scope not in seen:
            lineage = _lineage(tx, lineages, scope.project_id)
            seen[scope] = _compare(tx, proposed, scope=scope, lineage=lineage)
        found = seen[scope]
        if found is not None:
            # Whoever writes rules for everybody need not see what people ask for.
            in_sight = requests.may_see(row, caller=caller)
            before, after = found
            differences.append(
                Difference(request=row, in_sight=in_sight, before=before, after=after)
            )
    draft_id = proposed.new["id"] if proposed.new and proposed.gone is None else None
    return Simulation(draft_id=draft_id, examined=len(latest), differences=differences)


def _proposed(tx: Transaction, proposal: Proposal, *, now: datetime) -> _Proposed:
    if proposal.removes is not None:
        if proposal.replaces is not None or proposal.changes:
            raise _invalid("removes", "a rule that goes is not changed as well")
        gone = _rule(tx, proposal.removes)
        if gone["is_system"]:
            raise SystemRowError
        return _Proposed(gone=gone, new=None)
    if proposal.replaces is not None:
        gone = _rule(tx, proposal.replaces)
        return _Proposed(gone=gone, new=_changed(tx, gone, proposal.changes))
    return _Proposed(gone=None, new=_created(tx, proposal.changes, now=now))


def _rule(tx: Transaction, rule_id: str) -> Mapping[str, Any]:
    rule = tx.one("policy_find", id=rule_id)
    if rule is None:
        raise PolicyNotFoundError
    return rule


def _created(tx: Transaction, changes: Mapping[str, Any], *, now: datetime) -> Mapping[str, Any]:
    missing = [name for name in ("selector", "workflow_id") if name not in changes]
    if missing:
        raise InvalidInputError(fields=[{"field": name, "reason": "required"} for name in missing])
    anchor = {key: changes.get(key) for key in ("project_id", "team_id")}
    if None not in anchor.values():
        raise _invalid("team_id", "a rule has one anchor, not two")
    for key, query in (("project_id", "project_find"), ("team_id", "team_find")):
        if anchor[key] is not None and tx.one(query, id=anchor[key]) is None:
            raise _invalid(key, f"no such {key.removesuffix('_id')}")
    facts = {
        "priority": 100,
        "enabled": True,
        "direct_reveal_allowed": False,
        "requires_mfa": False,
        "reveal_ttl_seconds": policies.DEFAULT_REVEAL_SECONDS,
        **changes,
        **anchor,
        "selector": _selector(tx, changes["selector"], anchor),
    }
    # The youngest of all: where everything else is equal, the others come first.
    return _complete(tx, {"id": new_id(), "name": "draft", "created_at": now, **facts})


def _changed(
    tx: Transaction, rule: Mapping[str, Any], changes: Mapping[str, Any]
) -> Mapping[str, Any]:
    for key in ("project_id", "team_id"):
        if key in changes and changes[key] != rule[key]:
            raise _invalid(key, "the anchor of a rule stays as it is")
    selector = rule["selector"]
    if "selector" in changes:
        selector = changes["selector"]
        if rule["is_system"] and selector:
            raise SystemRuleSelectorError(field="selector")
        if not rule["is_system"]:
            selector = _selector(tx, selector, rule)
    return _complete(tx, {**rule, **changes, "selector": selector})


def _selector(
    tx: Transaction, selector: Mapping[str, Any], anchor: Mapping[str, Any]
) -> Mapping[str, Any]:
    if anchor["project_id"] is not None:
        return selectors.for_project(tx, selector, project_id=anchor["project_id"])
    if anchor["team_id"] is not None:
        return selectors.for_team(selector, scoped=False)
    return selectors.for_platform(tx, selector)


def _complete(tx: Transaction, rule: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rule with whether it would count, or refuse one that could not be saved."""
    workflow = tx.one("workflow_find", id=rule["workflow_id"])
    if workflow is None:
        raise _invalid("workflow_id", "no such workflow")
    policy_rules.check(rule, workflow=workflow)
    return {**rule, "counts": rule["enabled"] and workflow["enabled"]}


def _scope(row: Mapping[str, Any]) -> policies.PolicyScope:
    return policies.PolicyScope(
        operation=row["type"],
        provider_type=row["target_provider_type"],
        secret_ref=targets.joined_ref(
            row["target_provider_type"], row["target_secret_ref"], row["target_provider_config"]
        ),
        project_id=row["project_id"],
        environment=row["environment_name"],
        environment_id=row["environment_id"],
        environment_kind=row["environment_kind"],
    )


def _lineage(
    tx: Transaction, known: dict[str, dict[str, int]], project_id: str | None
) -> Mapping[str, int]:
    if project_id is None:
        return {}
    if project_id not in known:
        rows = tx.many("policy_list_lineage", project_id=project_id)
        known[project_id] = {row["team_id"]: row["distance"] for row in rows}
    return known[project_id]


def _compare(
    tx: Transaction,
    proposed: _Proposed,
    *,
    scope: policies.PolicyScope,
    lineage: Mapping[str, int],
) -> tuple[Outcome, Outcome] | None:
    """Return what is decided before and after where that differs."""
    gone, new = proposed.gone, proposed.new
    draft_depth = None if new is None or not new["counts"] else _depth(new, scope, lineage)
    if draft_depth is None and (gone is None or _depth(gone, scope, lineage) is None):
        return None
    winner = policies.first_match(tx, scope=scope)
    rival = winner
    if gone is not None and winner is not None and winner["id"] == gone["id"]:
        rival = policies.first_match(tx, scope=scope, without_id=gone["id"])
    before, after = _outcome(tx, winner, scope), _outcome(tx, rival, scope)
    if new is not None and draft_depth is not None:
        draft = {**new, "depth": draft_depth}
        if rival is None or _order(draft) < _order(rival):
            after = _outcome(tx, draft, scope)
    # A changed rule keeps its id: where it decides as before, nothing differs.
    return None if before == after else (before, after)


def _depth(
    rule: Mapping[str, Any], scope: policies.PolicyScope, lineage: Mapping[str, int]
) -> int | None:
    """Return how far the rule's anchor is from the request, or None where it does not apply."""
    if not policies.matches(rule["selector"], scope):
        return None
    if rule["project_id"] is not None:
        return 0 if rule["project_id"] == scope.project_id else None
    if rule["team_id"] is not None:
        distance = lineage.get(rule["team_id"])
        return None if distance is None else 1 + distance
    return policies.PLATFORM_DEPTH


def _order(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    return (-rule["priority"], rule["depth"], rule["created_at"], rule["id"])


def _outcome(
    tx: Transaction, rule: Mapping[str, Any] | None, scope: policies.PolicyScope
) -> Outcome:
    decision = policies.decision_of(tx, rule=rule, scope=scope)
    return Outcome(
        rule_id=decision.rule_id,
        workflow_id=decision.workflow.id,
        workflow_name=decision.workflow.name,
        min_approvers=decision.workflow.min_approvers,
    )


def _invalid(field_name: str, reason: str) -> InvalidInputError:
    return InvalidInputError(fields=[{"field": field_name, "reason": reason}])
