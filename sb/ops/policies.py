"""Which workflow governs a request: the first enabled rule whose selector matches, or the default.

Source of order: priority, then project before team before platform, nearest team, age, id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sb.db.engine import Transaction
from sb.ops.errors import NoWorkflowError


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


def decide(tx: Transaction, *, scope: PolicyScope) -> Decision:
    """Return the decision for this scope; no rule and no default workflow is an error."""
    for rule in tx.many("policy_list_candidates", project_id=scope.project_id):
        if matches(rule["selector"], scope):
            row = tx.one("workflow_find", id=rule["workflow_id"])
            if row is not None:
                return Decision(workflow=_workflow(row), rule_id=rule["id"])
    row = tx.one("workflow_find_default")
    if row is None:
        raise NoWorkflowError
    return Decision(workflow=_workflow(row), rule_id=None)


def matches(selector: Mapping[str, Any], scope: PolicyScope) -> bool:
    """Tell whether every key of the selector holds; an unknown key or empty value never does."""
    return all(_holds(key, value, scope) for key, value in selector.items())


def _holds(key: str, value: object, scope: PolicyScope) -> bool:
    if not isinstance(value, str) or not value:
        return False
    match key:
        case "secret_ref_prefix":
            return scope.secret_ref.startswith(value)
        case (
            "project_id"
            | "environment"
            | "environment_id"
            | "environment_kind"
            | "provider_type"
            | "operation"
        ):
            return bool(getattr(scope, key) == value)
        case _:
            return False


def _workflow(row: Mapping[str, Any]) -> Workflow:
    return Workflow(**{name: row[name] for name in Workflow.__slots__})
