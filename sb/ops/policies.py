"""Which workflow governs a request: the first enabled rule whose selector matches, or the default.

Source of order: priority, then project before team before platform, nearest team, age, id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sb.db.engine import Transaction
from sb.ops.errors import NoWorkflowError

#: What selectors compare for equality.
EQUALITY_KEYS = (
    "project_id",
    "environment",
    "environment_id",
    "environment_kind",
    "provider_type",
    "operation",
)
#: How far away the platform's rules are; a project's are at 0 and its teams' in between.
PLATFORM_DEPTH = 1000
#: How long a value is shown where no rule says so.
DEFAULT_REVEAL_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyScope:
    """What selectors are matched against; an absent fact matches no selector that names it."""

    operation: str
    provider_type: str
    secret_ref: str
    project_id: str | None = None
    environment: str | None = None
    environment_id: str | None = None
    environment_kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    id: str
    name: str
    min_approvers: int
    auto_approve: bool
    approver_role_id: str | None
    wrap_ttl_created_seconds: int
    wrap_ttl_approved_seconds: int
    wrap_ttl_claimed_seconds: int
    request_ttl_seconds: int
    require_justification: bool
    allow_self_approval: bool
    requires_security_approval: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The workflow a request will follow and the rule that chose it, if one did."""

    workflow: Workflow
    rule_id: str | None
    direct_reveal_allowed: bool = False
    requires_mfa: bool = False
    reveal_ttl_seconds: int = DEFAULT_REVEAL_SECONDS
    #: Whether the rule would have let production be revealed directly, which nothing may.
    reveal_refused: bool = False


def decide(tx: Transaction, *, scope: PolicyScope) -> Decision:
    """Return the decision for this scope; no rule and no default workflow is an error."""
    return decision_of(tx, rule=first_match(tx, scope=scope), scope=scope)


def first_match(
    tx: Transaction, *, scope: PolicyScope, without_id: str | None = None
) -> Mapping[str, Any] | None:
    """Return the rule that governs this scope, as if the one without which to look were gone."""
    rows = candidates(tx, scope=scope, limit=1, winning=True, without_id=without_id)
    return rows[0] if rows else None


def candidates(
    tx: Transaction,
    *,
    scope: PolicyScope,
    limit: int,
    winning: bool = False,
    without_id: str | None = None,
) -> list[Mapping[str, Any]]:
    """Return the enabled rules that match this scope, first winner first, or those that may win."""
    return tx.many(
        "policy_list_candidates",
        project_id=scope.project_id,
        secret_ref=scope.secret_ref,
        facts=facts_of(scope),
        winning=winning,
        without_id=without_id,
        limit=limit,
    )


def decision_of(tx: Transaction, *, rule: Mapping[str, Any] | None, scope: PolicyScope) -> Decision:
    """Return what this rule decides for the scope; without a rule, the default workflow."""
    row = None if rule is None else tx.one("workflow_find", id=rule["workflow_id"])
    if rule is None or row is None:
        row = tx.one("workflow_find_default")
        if row is None:
            raise NoWorkflowError
        return Decision(workflow=_workflow(row), rule_id=None)
    # Whatever a rule says, or said before it was refused to: production is never revealed directly.
    refused = bool(rule["direct_reveal_allowed"]) and scope.environment_kind == "prod"
    return Decision(
        workflow=_workflow(row),
        rule_id=rule["id"],
        direct_reveal_allowed=bool(rule["direct_reveal_allowed"]) and not refused,
        requires_mfa=rule["requires_mfa"],
        reveal_ttl_seconds=rule["reveal_ttl_seconds"],
        reveal_refused=refused,
    )


def facts_of(scope: PolicyScope) -> dict[str, str]:
    """Return what is known of the scope by the keys that selectors compare for equality."""
    known = {key: getattr(scope, key) for key in EQUALITY_KEYS}
    return {key: value for key, value in known.items() if value}


def matches(selector: Mapping[str, Any], scope: PolicyScope) -> bool:
    """Tell whether every key of the selector holds; an unknown key or empty value never does."""
    return all(_holds(key, value, scope) for key, value in selector.items())


def _holds(key: str, value: object, scope: PolicyScope) -> bool:
    if not isinstance(value, str) or not value:
        return False
    if key == "secret_ref_prefix":
        return scope.secret_ref.startswith(value)
    return key in EQUALITY_KEYS and bool(getattr(scope, key) == value)


def _workflow(row: Mapping[str, Any]) -> Workflow:
    return Workflow(**{name: row[name] for name in Workflow.__slots__})
