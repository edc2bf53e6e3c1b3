"""What rules would do: one request explained, one rule simulated. Neither changes anything."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from sb.clock import utc_now
from sb.http.bodies import Body, Label
from sb.http.declare import Call, Reply, Session, route
from sb.http.limits import RateLimit
from sb.http.refs import TargetRef
from sb.http.routes.policies import SELECTOR_ERRORS, Priority, Selector
from sb.http.routes.requests import MAX_KEYS, IdText, KeyName, ProviderType
from sb.ops import governance_errors as refusals
from sb.ops import policies, policy_preview, policy_simulation
from sb.ops.errors import (
    CredentialInConfigError,
    EnvironmentNotInProjectError,
    UnknownConfigKeyError,
)
from sb.ops.tenancy_errors import ProjectNotFoundError

MAX_REQUESTS = 1000


class ExplainRequest(Body):
    """A request that might be made, by the caller."""

    operation: Literal["read", "patch", "reveal"]
    target_provider_type: ProviderType
    target_secret_ref: TargetRef
    target_keys: list[KeyName] = Field(default_factory=list, max_length=MAX_KEYS)
    project_id: IdText | None = None
    environment: Annotated[Label, Field(min_length=1, max_length=255)] | None = None
    target_provider_config: dict[str, Any] = Field(default_factory=dict, max_length=16)
    provider_connection_id: IdText | None = None


class WorkflowFacts(Body):
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


class MatchBody(Body):
    id: str
    name: str
    anchor: Literal["platform", "project", "team"]
    project_id: str | None
    team_id: str | None
    priority: int
    workflow_id: str
    workflow_name: str
    outcome: Literal["won", "lost", "workflow_disabled"]
    reason: policy_preview.Reason | None
    selector_keys: list[str]
    selector: dict[str, Any] | None
    created_at: datetime


class ApproverBody(Body):
    id: str
    email: str
    display_name: str


class ExplanationBody(Body):
    matched_policy_rule_id: str | None
    reason: policy_preview.Reason | None
    workflow: WorkflowFacts
    direct_reveal_allowed: bool
    requires_mfa: bool
    reveal_ttl_seconds: int
    refused_as: str | None
    rules: list[MatchBody]
    rules_count: int
    approvers: list[ApproverBody] | None
    approvers_count: int | None


class SimulatePolicy(Body):
    """A new rule; or, with `replaces`, changes of a rule; or a rule that `removes` names."""

    selector: Selector | None = None
    workflow_id: IdText | None = None
    priority: Priority | None = None
    enabled: bool | None = None
    project_id: IdText | None = None
    team_id: IdText | None = None
    replaces: IdText | None = None
    removes: IdText | None = None
    limit: int = Field(default=200, ge=1, le=MAX_REQUESTS)


class DecidedBody(Body):
    rule_id: str | None
    workflow_id: str
    workflow_name: str
    min_approvers: int


class RecognisedRequest(Body):
    """What a person knows a request by."""

    requester_email: str
    type: str
    project_name: str | None
    environment_name: str | None
    target_provider_type: str
    target_secret_ref: str


class DifferenceBody(Body):
    request_id: str
    status: str
    created_at: datetime
    #: Null where the caller may not see the request.
    request: RecognisedRequest | None
    before: DecidedBody
    after: DecidedBody


class SimulationBody(Body):
    draft_rule_id: str | None
    examined: int
    changed: list[DifferenceBody]


@route(
    "POST",
    "/policies/explain",
    access=Session(),
    body=ExplainRequest,
    returns=ExplanationBody,
    limit=RateLimit("policy:explain", 120, key="user"),
    errors=(
        ProjectNotFoundError,
        EnvironmentNotInProjectError,
        CredentialInConfigError,
        UnknownConfigKeyError,
    ),
    summary="Explain how a request that might be made would be decided, and by whom",
)
async def explain_policy(call: Call[ExplainRequest]) -> Reply:
    found = await call.state.db.read(
        policy_preview.explain,
        caller=call.person,
        draft=policy_preview.Draft(**call.body.model_dump()),
        now=utc_now(),
    )
    return Reply(_explanation(found))


@route(
    "POST",
    "/policies/simulate",
    access=Session("policy.edit", scope="global"),
    body=SimulatePolicy,
    returns=SimulationBody,
    limit=RateLimit("policy:simulate", 20, key="user"),
    errors=(
        *SELECTOR_ERRORS,
        refusals.PolicyNotFoundError,
        refusals.SystemRowError,
        refusals.SystemRuleSelectorError,
        refusals.AutoApproveNotPinnedError,
        refusals.DirectRevealNotPinnedError,
    ),
    summary="Show which of the latest requests a rule would have decided otherwise",
)
async def simulate_policy(call: Call[SimulatePolicy]) -> Reply:
    changes = call.body.model_dump(exclude_none=True, exclude={"replaces", "removes", "limit"})
    found = await call.state.db.read(
        policy_simulation.simulate,
        caller=call.person,
        proposal=policy_simulation.Proposal(
            changes=changes, replaces=call.body.replaces, removes=call.body.removes
        ),
        limit=call.body.limit,
        now=utc_now(),
    )
    return Reply(
        SimulationBody(
            draft_rule_id=found.draft_id,
            examined=found.examined,
            changed=[_difference(one) for one in found.differences],
        )
    )


def _explanation(found: policy_preview.Explanation) -> ExplanationBody:
    decision = found.decision
    approvers = found.approvers
    return ExplanationBody(
        matched_policy_rule_id=decision.rule_id,
        reason=found.reason,
        workflow=_workflow(decision.workflow),
        direct_reveal_allowed=decision.direct_reveal_allowed,
        requires_mfa=decision.requires_mfa,
        reveal_ttl_seconds=decision.reveal_ttl_seconds,
        refused_as=found.refused_as,
        rules=[_match(one) for one in found.rules],
        rules_count=found.rules_count,
        approvers=None
        if approvers is None
        else [
            ApproverBody(id=row["id"], email=row["email"], display_name=row["display_name"])
            for row in approvers.rows
        ],
        approvers_count=None if approvers is None else approvers.total,
    )


def _workflow(workflow: policies.Workflow) -> WorkflowFacts:
    return WorkflowFacts(**{name: getattr(workflow, name) for name in WorkflowFacts.model_fields})


def _match(found: policy_preview.Match) -> MatchBody:
    names = ("id", "name", "project_id", "team_id", "priority", "workflow_id", "workflow_name")
    return MatchBody(
        **{name: found.row[name] for name in names},
        created_at=found.row["created_at"],
        anchor=found.anchor,
        outcome=found.outcome,
        reason=found.reason,
        selector_keys=sorted(found.row["selector"]),
        selector=None if found.selector is None else dict(found.selector),
    )


def _difference(found: policy_simulation.Difference) -> DifferenceBody:
    row, names = found.request, RecognisedRequest.model_fields
    return DifferenceBody(
        request_id=row["id"],
        status=row["status"],
        created_at=row["created_at"],
        request=RecognisedRequest(**{name: row[name] for name in names})
        if found.in_sight
        else None,
        before=_decided(found.before),
        after=_decided(found.after),
    )


def _decided(found: policy_simulation.Outcome) -> DecidedBody:
    return DecidedBody(**{name: getattr(found, name) for name in DecidedBody.model_fields})
