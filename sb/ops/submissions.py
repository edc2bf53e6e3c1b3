"""Submitting: where a request may point, which rules it will follow, its values already sealed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sb.auth.access import GLOBAL, Resource, allowed
from sb.db.engine import Transaction
from sb.errors import Denial, InvalidInputError
from sb.kms.envelope import SealedWrap
from sb.ops import approvals, audit, policies, requests, secret_kinds, targets, wraps
from sb.ops.callers import Caller, System
from sb.ops.errors import (
    AutoApprovalForbiddenError,
    OutOfScopeKeyError,
    OutOfScopeOpError,
    OutOfScopeProjectError,
)
from sb.ops.tenancy_errors import ProductionSecretError


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a person asks for, already valid in form."""

    id: str
    type: str
    justification: str
    target_provider_type: str
    target_provider_config: Mapping[str, Any]
    target_secret_ref: str
    target_keys: Sequence[str]
    project_id: str | None = None
    environment: str | None = None
    provider_connection_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWrap:
    """A value of a patch, sealed before the transaction began."""

    id: str
    key_name: str
    sealed: SealedWrap


def submit(
    tx: Transaction, *, caller: Caller, draft: Draft, new_wraps: Sequence[NewWrap], now: datetime
) -> requests.Seen:
    """Create a pending request with its wraps; one that needs no approval is approved at once.

    A second call with the same draft id is refused by the primary key.
    """
    # 1. The target, as far as the submitter may reach.
    target = find_target(tx, caller=caller, draft=draft)
    # 2. The rules, as they are now: the request keeps this snapshot.
    decision = policies.decide(tx, scope=scope_of(draft, target))
    require_asked(decision, environment_kind=target.environment_kind)
    # 3. Write the request, its wraps and its trail.
    _insert(tx, caller=caller, draft=draft, target=target, decision=decision, now=now)
    wraps_end = now + timedelta(seconds=decision.workflow.wrap_ttl_created_seconds)
    for wrap in new_wraps:
        wraps.store_submitted(
            tx,
            by=caller,
            request_id=draft.id,
            environment_id=target.environment_id,
            wrap_id=wrap.id,
            key_name=wrap.key_name,
            sealed=wrap.sealed,
            expires_at=wraps_end,
            now=now,
        )
    audit.record(
        tx,
        by=caller,
        action="request.submit",
        resource=f"request:{draft.id}",
        correlation_id=draft.id,
        metadata={
            "request_type": draft.type,
            "workflow_id": decision.workflow.id,
            "policy_rule_id": decision.rule_id,
            "target_provider_type": draft.target_provider_type,
            "target_secret_ref": draft.target_secret_ref,
            "key_count": len(draft.target_keys),
            "min_approvers": decision.workflow.min_approvers,
        },
        now=now,
    )
    if decision.reveal_refused:
        _record_zeroed(tx, draft=draft, target=target, decision=decision, by=caller, now=now)
    # 4. Nobody needs to be asked.
    wake = None
    if decision.workflow.auto_approve:
        wake = approvals.approve_without_vote(tx, request_id=draft.id, now=now)
    return requests.seen_by(tx, caller=caller, request_id=draft.id, wake=wake, now=now)


def _record_zeroed(
    tx: Transaction,
    *,
    draft: Draft,
    target: targets.Target,
    decision: policies.Decision,
    by: Caller,
    now: datetime,
) -> None:
    """Append that the rule would have let production be revealed directly and was not followed."""
    audit.record(
        tx,
        by=System(part="policy-engine", http_request_id=by.http_request_id),
        action="policy.invariant.violated",
        resource=f"policy_rule:{decision.rule_id}",
        correlation_id=draft.id,
        metadata={
            "reason": "direct_reveal_on_prod_env_zeroed",
            "rule_id": decision.rule_id,
            "workflow_id": decision.workflow.id,
            "environment_name": target.environment,
            "environment_kind": target.environment_kind,
            "project_id": target.project_id,
        },
        now=now,
    )


def find_target(tx: Transaction, *, caller: Caller, draft: Draft) -> targets.Target:
    """Return where the request points, all of it within the caller's reach, or refuse it."""
    config = targets.check_config(draft.target_provider_type, draft.target_provider_config)
    target = _reachable_target(tx, caller=caller, draft=draft, config=config)
    require_production(draft, target)
    return target


def resolve(tx: Transaction, *, draft: Draft, config: Mapping[str, str]) -> targets.Target:
    """Return where the request points, whoever asks, with its binding's limits enforced.

    Its kind is production's also where only the secret is.
    """
    target = targets.resolve(
        tx,
        operation=draft.type,
        provider_type=draft.target_provider_type,
        secret_ref=draft.target_secret_ref,
        keys=draft.target_keys,
        config=config,
        project_id=draft.project_id,
        environment=draft.environment,
        connection_id=draft.provider_connection_id,
    )
    return secret_kinds.settle(
        tx,
        target=target,
        provider_type=draft.target_provider_type,
        secret_ref=draft.target_secret_ref,
    )


def require_production(draft: Draft, target: targets.Target) -> None:
    """Refuse a project that asks for production's secret in an environment that is not."""
    if draft.project_id is not None and target.sticks:
        raise ProductionSecretError(
            field="environment", audit=_submit_denied(draft, ProductionSecretError.code)
        )


def scope_of(draft: Draft, target: targets.Target) -> policies.PolicyScope:
    """Return what the rules are matched against, or refuse a path with two spellings."""
    return policies.PolicyScope(
        operation=draft.type,
        provider_type=draft.target_provider_type,
        # The way the job will go, not the one the submitter wrote: saying a connection's own prefix
        # or leaving it out makes the same secret of it.
        secret_ref=targets.full_ref(
            draft.target_provider_type, draft.target_secret_ref, target.config
        ),
        project_id=target.project_id,
        environment=target.environment,
        environment_id=target.environment_id,
        environment_kind=target.environment_kind,
    )


def require_asked(decision: policies.Decision, *, environment_kind: str | None) -> None:
    """Refuse a workflow that asks nobody where production is concerned."""
    if decision.workflow.auto_approve and environment_kind == "prod":
        raise AutoApprovalForbiddenError


def _reachable_target(
    tx: Transaction, *, caller: Caller, draft: Draft, config: Mapping[str, str]
) -> targets.Target:
    # Whoever has no reach over the project learns nothing about its bindings.
    if draft.project_id is not None:
        project = tx.one("project_find", id=draft.project_id)
        reach = Resource(
            project_id=draft.project_id, team_id=project["team_id"] if project else None
        )
        if project is None or not _may_reach(caller, reach):
            raise OutOfScopeProjectError(audit=_submit_denied(draft, "out_of_scope_project"))
    elif not allowed(caller.grants, "secret.request", GLOBAL):
        raise InvalidInputError(
            "project_id is required.", field="project_id", reason="project_id_required"
        )
    try:
        target = resolve(tx, draft=draft, config=config)
    except (OutOfScopeProjectError, OutOfScopeOpError, OutOfScopeKeyError) as refusal:
        refusal.audit = _submit_denied(draft, refusal.code)
        raise
    if not allowed(caller.grants, "secret.request", target.resource):
        raise OutOfScopeProjectError(audit=_submit_denied(draft, "out_of_scope_project"))
    return target


def _may_reach(caller: Caller, project: Resource) -> bool:
    """Tell whether some grant of secret.request could cover something in the project."""
    wanted = {"project_id", "team_id"}
    return any(
        "secret.request" in grant.permissions
        and all(
            (key == "project_id" and value == project.project_id)
            or (key == "team_id" and project.team_id in grant.team_ids)
            for key, value in grant.scope.items()
            if key in wanted
        )
        for grant in caller.grants
    )


def _submit_denied(draft: Draft, error_kind: str) -> Denial:
    resource = f"project:{draft.project_id}" if draft.project_id else "request:submit"
    return Denial(
        "request.submit",
        resource,
        error_kind=error_kind,
        request_type=draft.type,
        target_provider_type=draft.target_provider_type,
    )


def _insert(
    tx: Transaction,
    *,
    caller: Caller,
    draft: Draft,
    target: targets.Target,
    decision: policies.Decision,
    now: datetime,
) -> None:
    workflow = decision.workflow
    if workflow.require_justification and not draft.justification.strip():
        raise InvalidInputError(
            "justification is required.", field="justification", reason="required"
        )
    target_scope = {"project_id": target.project_id, "environment": target.environment}
    tx.count(
        "request_insert",
        id=draft.id,
        requester_id=caller.user_id,
        type=draft.type,
        justification=draft.justification.strip() or "(none asked for)",
        workflow_id=workflow.id,
        matched_policy_rule_id=decision.rule_id,
        project_id=target.project_id,
        environment_id=target.environment_id,
        secret_id=target.secret_id,
        provider_connection_id=target.connection_id,
        cluster_name=target.cluster_name,
        target_provider_type=draft.target_provider_type,
        target_provider_config=dict(target.config),
        target_secret_ref=draft.target_secret_ref,
        target_keys=sorted(draft.target_keys),
        target_scope={key: value for key, value in target_scope.items() if value is not None},
        snap_min_approvers=workflow.min_approvers,
        snap_allow_self_approval=workflow.allow_self_approval,
        snap_approver_role_id=workflow.approver_role_id,
        snap_requires_security_approval=workflow.requires_security_approval,
        snap_wrap_ttl_created_seconds=workflow.wrap_ttl_created_seconds,
        snap_wrap_ttl_approved_seconds=workflow.wrap_ttl_approved_seconds,
        snap_wrap_ttl_claimed_seconds=workflow.wrap_ttl_claimed_seconds,
        snap_request_ttl_seconds=workflow.request_ttl_seconds,
        snap_environment_kind=target.environment_kind,
        expires_at=now + timedelta(seconds=workflow.request_ttl_seconds),
        now=now,
    )
