"""How a request that might be made would be decided: by which rule, and by whom then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from sb.auth.access import GLOBAL, Resource, allowed, holds_anywhere
from sb.db.engine import Transaction
from sb.errors import InvalidInputError, SbError
from sb.ops import policies, submissions, targets
from sb.ops.callers import Caller
from sb.ops.errors import AutoApprovalForbiddenError, EnvironmentNotInProjectError
from sb.ops.tenancy_errors import ProjectNotFoundError

#: Any of these over the request lets a person see how it would be decided.
ASKED_BY = ("policy.author", "secret.approve", "secret.request")
MAX_ROWS = 200
#: What is wrong with the question itself is its answer; other refusals stand beside the rules.
MALFORMED = (EnvironmentNotInProjectError, InvalidInputError)

Reason = Literal["priority", "anchor", "nearest_team", "age", "id", "only_match"]
Anchor = Literal["platform", "project", "team"]
Outcome = Literal["won", "lost", "workflow_disabled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A request that might be made, valid in form; its requester is whoever asks."""

    operation: str
    target_provider_type: str
    target_secret_ref: str
    target_keys: Sequence[str] = ()
    project_id: str | None = None
    environment: str | None = None
    target_provider_config: Mapping[str, Any] = field(default_factory=dict)
    provider_connection_id: str | None = None

    @property
    def submitted(self) -> submissions.Draft:
        """What a submit would be given."""
        return submissions.Draft(
            id="",
            # A reveal reads: a binding speaks of reading and writing only.
            type="patch" if self.operation == "patch" else "read",
            justification="",
            target_provider_type=self.target_provider_type,
            target_provider_config=self.target_provider_config,
            target_secret_ref=self.target_secret_ref,
            target_keys=self.target_keys,
            project_id=self.project_id,
            environment=self.environment,
            provider_connection_id=self.provider_connection_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A rule that matches, and what became of it; its values only for those whose rule it is."""

    row: Mapping[str, Any]
    anchor: Anchor
    outcome: Outcome
    #: What decided between it and the winner; for the winner, between it and the next.
    reason: Reason | None
    selector: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvers:
    """People who could decide, the first of them, and how many there are."""

    rows: list[Mapping[str, Any]]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    decision: policies.Decision
    reason: Reason | None
    rules: list[Match]
    rules_count: int
    #: None for those who may not know who decides.
    approvers: Approvers | None
    #: The stable code with which a submit would be refused: the caller's own if they ask for
    #: secrets anywhere, for others on the facts alone.
    refused_as: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the draft points, as far as the caller may look."""

    scope: policies.PolicyScope
    resource: Resource
    refused_as: str | None


def explain(tx: Transaction, *, caller: Caller, draft: Draft, now: datetime) -> Explanation:
    """Return how the rules of this moment would decide the request, and who could approve it."""
    # 1. Where it points; what the caller may not see is not there.
    place = _place(tx, caller=caller, draft=draft)
    # 2. The rules that match, and the one that wins.
    rows = policies.candidates(tx, scope=place.scope, limit=MAX_ROWS)
    winner = next((row for row in rows if row["enabled"]), None)
    if winner is None and len(rows) == MAX_ROWS:
        winner = policies.first_match(tx, scope=place.scope)
    decision = policies.decision_of(tx, rule=winner, scope=place.scope)
    # 3. Who could decide, and what would keep it from being asked at all.
    decides = _edits(caller) or allowed(caller.grants, "secret.approve", place.resource)
    asks = decides or allowed(caller.grants, "secret.request", place.resource)
    refused_as = place.refused_as
    if decision.workflow.auto_approve and place.scope.environment_kind == "prod":
        refused_as = refused_as or AutoApprovalForbiddenError.code
    return Explanation(
        decision=decision,
        reason=_won_by(rows, winner),
        rules=[_match(row, winner=winner, rows=rows, caller=caller) for row in rows],
        rules_count=rows[0]["total"] if rows else 0,
        approvers=_approvers(tx, place, decision.workflow, caller=caller, now=now)
        if decides
        else None,
        refused_as=refused_as if asks else None,
    )


def _place(tx: Transaction, *, caller: Caller, draft: Draft) -> _Place:
    config = targets.check_config(draft.target_provider_type, draft.target_provider_config)
    project, environment = _found(tx, caller, draft)
    asked = draft.submitted
    target, refusal = _target(tx, asked, config)
    if holds_anywhere(caller.grants, "secret.request"):
        refusal = _refusal(tx, caller, asked)
    resource = _resource(draft, project, environment) if target is None else target.resource
    _require_seen(caller, resource, draft=draft)
    if isinstance(refusal, MALFORMED):
        raise refusal
    scope = policies.PolicyScope(
        operation=draft.operation,
        provider_type=draft.target_provider_type,
        # Nobody is refused twice: what is refused anyway is matched as it is written.
        secret_ref=targets.joined_ref(draft.target_provider_type, draft.target_secret_ref, config),
        project_id=draft.project_id,
        environment=environment["name"] if environment else None,
        environment_id=environment["id"] if environment else None,
        environment_kind=environment["kind"] if environment else None,
    )
    if target is not None and refusal is None:
        scope = dataclasses.replace(submissions.scope_of(asked, target), operation=draft.operation)
    return _Place(
        scope=scope, resource=resource, refused_as=None if refusal is None else refusal.code
    )


def _target(
    tx: Transaction, asked: submissions.Draft, config: Mapping[str, str]
) -> tuple[targets.Target | None, SbError | None]:
    """Return where a submit would point, whoever made it, and why it would be refused, if it is."""
    target = None
    try:
        target = submissions.resolve(tx, draft=asked, config=config)
        submissions.require_production(asked, target)
    except SbError as refusal:
        return target, refusal
    return target, None


def _refusal(tx: Transaction, caller: Caller, asked: submissions.Draft) -> SbError | None:
    try:
        submissions.find_target(tx, caller=caller, draft=asked)
    except SbError as refusal:
        return refusal
    return None


def _found(
    tx: Transaction, caller: Caller, draft: Draft
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """Return the project and its environment, or refuse before anything in it is looked at."""
    if draft.project_id is None:
        return None, None
    project = tx.one("project_find", id=draft.project_id)
    if project is None or not _may_reach(caller, project):
        raise ProjectNotFoundError
    if draft.environment is None:
        return project, None
    return project, tx.one(
        "environment_find_by_name", project_id=draft.project_id, name=draft.environment
    )


def _may_reach(caller: Caller, project: Mapping[str, Any]) -> bool:
    """Tell whether some grant could cover something in the project."""
    return _edits(caller) or any(
        grant.permissions.intersection(ASKED_BY)
        and grant.scope.get("project_id", project["id"]) == project["id"]
        and ("team_id" not in grant.scope or project["team_id"] in grant.team_ids)
        for grant in caller.grants
    )


def _edits(caller: Caller) -> bool:
    return allowed(caller.grants, "policy.edit", GLOBAL)


def _resource(
    draft: Draft, project: Mapping[str, Any] | None, environment: Mapping[str, Any] | None
) -> Resource:
    if project is None:
        return GLOBAL
    return Resource(
        team_id=project["team_id"],
        project_id=project["id"],
        environment_id=environment["id"] if environment else None,
        secret_ref=draft.target_secret_ref,
        provider=draft.target_provider_type,
    )


def _require_seen(caller: Caller, resource: Resource, *, draft: Draft) -> None:
    if _edits(caller) or any(allowed(caller.grants, key, resource) for key in ASKED_BY):
        return
    if draft.project_id is None:
        raise InvalidInputError(fields=[{"field": "project_id", "reason": "required"}])
    raise ProjectNotFoundError


def _match(
    row: Mapping[str, Any],
    *,
    winner: Mapping[str, Any] | None,
    rows: Sequence[Mapping[str, Any]],
    caller: Caller,
) -> Match:
    outcome: Outcome = "workflow_disabled"
    reason: Reason | None = None
    if winner is not None and row["id"] == winner["id"]:
        outcome, reason = "won", _won_by(rows, winner)
    elif row["enabled"] and winner is not None:
        outcome, reason = "lost", _differs_by(winner, row)
    return Match(
        row=row,
        anchor=_anchor(row),
        outcome=outcome,
        reason=reason,
        selector=row["selector"] if _owns(caller, row) else None,
    )


def _won_by(rows: Sequence[Mapping[str, Any]], winner: Mapping[str, Any] | None) -> Reason | None:
    if winner is None:
        return None
    for row in rows:
        if row["enabled"] and row["id"] != winner["id"]:
            return _differs_by(winner, row)
    return "only_match"


def _differs_by(winner: Mapping[str, Any], row: Mapping[str, Any]) -> Reason:
    if winner["priority"] != row["priority"]:
        return "priority"
    if _anchor(winner) != _anchor(row):
        return "anchor"
    if winner["depth"] != row["depth"]:
        return "nearest_team"
    return "age" if winner["created_at"] != row["created_at"] else "id"


def _anchor(row: Mapping[str, Any]) -> Anchor:
    if row["project_id"] is not None:
        return "project"
    return "platform" if row["team_id"] is None else "team"


def _owns(caller: Caller, row: Mapping[str, Any]) -> bool:
    """Tell whether the rule is one the caller could write."""
    if _edits(caller):
        return True
    if row["team_id"] is not None:
        return allowed(caller.grants, "policy.author", Resource(team_id=row["team_id"]))
    if row["project_id"] is None:
        return False
    place = Resource(team_id=row["project_team_id"], project_id=row["project_id"])
    return allowed(caller.grants, "policy.author", place)


def _approvers(
    tx: Transaction,
    place: _Place,
    workflow: policies.Workflow,
    *,
    caller: Caller,
    now: datetime,
) -> Approvers:
    if workflow.auto_approve:
        return Approvers(rows=[], total=0)
    resource = place.resource
    facts = {
        "project_id": resource.project_id,
        "environment_id": resource.environment_id,
        "provider": resource.provider,
        "cluster": resource.cluster,
    }
    rows = tx.many(
        "policy_list_approvers",
        permission="secret.approve",
        project_id=resource.project_id,
        secret_ref=resource.secret_ref,
        facts={key: value for key, value in facts.items() if value},
        role_id=workflow.approver_role_id,
        except_id=None if workflow.allow_self_approval else caller.user_id,
        limit=MAX_ROWS,
        now=now,
    )
    return Approvers(rows=rows, total=rows[0]["total"] if rows else 0)
