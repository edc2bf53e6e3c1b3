"""Counting what scoped authors and administrators do to rules: labels are few and never ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from sb.errors import SbError
from sb.http.declare import Call
from sb.ops import governance_errors as refusals
from sb.ops import settings

REASONS: dict[type[SbError], str] = {
    refusals.OutOfScopePolicyError: "out_of_scope",
    refusals.OutOfScopeTeamPolicyError: "out_of_team_scope",
    refusals.PlatformPolicyNotEditableError: "platform_owned",
    refusals.ProdPolicyNotAllowedError: "prod_blocked",
    refusals.PolicyScopeTooBroadError: "scope_too_broad",
    refusals.PolicyPriorityReservedError: "priority_reserved",
    refusals.PolicySelectorMismatchError: "selector_mismatch",
    refusals.PolicyEnvironmentError: "env_not_in_project",
    refusals.PolicyNotFoundError: "not_found",
    refusals.WorkflowNotAuthorableError: "workflow_not_authorable",
    refusals.TeamNotFoundError: "team_not_found",
}


@contextmanager
def denials_counted(call: Call[Any]) -> Iterator[None]:
    """Count a refusal of the block once, by its reason, and let it pass on."""
    try:
        yield
    except SbError as refusal:
        reason = REASONS.get(type(refusal))
        if reason is not None:
            call.state.metrics.policy_rules_denied.labels(reason=reason).inc()
        raise


def count_change(
    call: Call[Any], verb: Literal["created", "updated", "deleted"], *, permission: str, scope: str
) -> None:
    """Count a change of a rule that was committed."""
    metrics = call.state.metrics
    counter = {
        "created": metrics.policy_rules_created,
        "updated": metrics.policy_rules_updated,
        "deleted": metrics.policy_rules_deleted,
    }[verb]
    counter.labels(permission_used=permission, scope=scope).inc()


@contextmanager
def setting_counted(call: Call[Any], key: str) -> Iterator[None]:
    """Count how the change of a setting in the block ended."""
    result, label = "error", key if key in settings.KNOWN else "unknown"
    try:
        yield
        result = "success"
    except refusals.UnknownSettingError:
        result = "unknown"
        raise
    except refusals.InvalidSettingError:
        result = "invalid"
        raise
    finally:
        call.state.metrics.setting_updates.labels(key=label, result=result).inc()
