"""Routes of policy rules for those who administer them all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Label, Query
from sb.http.changes import Changes
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import DEFAULT_LIMIT, Page, next_link
from sb.http.policy_metrics import count_change, denials_counted
from sb.http.routes.requests import IdText
from sb.http.rule_pages import RulePage, next_rules
from sb.ops import governance_errors as refusals
from sb.ops import policy_history, policy_rules

MAX_HISTORY = 500
Name = Annotated[Label, Field(min_length=1, max_length=200)]
Priority = Annotated[int, Field(ge=policy_rules.LEAST_PRIORITY, le=policy_rules.MOST_PRIORITY)]
RevealTtl = Annotated[
    int, Field(ge=policy_rules.LEAST_REVEAL_SECONDS, le=policy_rules.MOST_REVEAL_SECONDS)
]
#: What a rule matches by: see `selector` in the documentation for its keys.
Selector = Annotated[dict[Annotated[Label, Field(max_length=100)], Any], Field(max_length=20)]


class CreatePolicy(Body):
    """A rule of the platform or, with an anchor, of one project or team."""

    name: Name
    selector: Selector
    workflow_id: IdText
    priority: Priority = 100
    enabled: bool = True
    direct_reveal_allowed: bool = False
    requires_mfa: bool = False
    reveal_ttl_seconds: RevealTtl = 60
    project_id: IdText | None = None
    team_id: IdText | None = None


class UpdatePolicy(Changes):
    """What to change; the anchor may be repeated and cannot be changed."""

    nullable: ClassVar[frozenset[str]] = frozenset({"project_id", "team_id"})

    name: Name | None = None
    selector: Selector | None = None
    workflow_id: IdText | None = None
    priority: Priority | None = None
    enabled: bool | None = None
    direct_reveal_allowed: bool | None = None
    requires_mfa: bool | None = None
    reveal_ttl_seconds: RevealTtl | None = None
    project_id: IdText | None = None
    team_id: IdText | None = None


class PolicyBody(Body):
    id: str
    name: str
    selector: dict[str, str]
    workflow_id: str
    priority: int
    enabled: bool
    is_system: bool
    direct_reveal_allowed: bool
    requires_mfa: bool
    reveal_ttl_seconds: int
    project_id: str | None
    team_id: str | None
    created_at: datetime
    updated_at: datetime


class ListPolicies(RulePage, Query):
    """A page of rules."""


class HistoryPage(Page, Query):
    """A page of a rule's story; larger limits are cut to 500."""

    limit: int = Field(default=DEFAULT_LIMIT, ge=1)

    @field_validator("limit")
    @classmethod
    def _cut(cls, value: int) -> int:
        return min(value, MAX_HISTORY)


class HistoryEntry(Body):
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
    reconstructed: bool


class HistoryBody(Body):
    rule_id: str
    scope: str
    entries: list[HistoryEntry]
    has_more: bool
    limit: int


SELECTOR_ERRORS = (
    refusals.PolicyScopeTooBroadError,
    refusals.PolicySelectorMismatchError,
    refusals.PolicyEnvironmentError,
)
WRITE_ERRORS = (
    *SELECTOR_ERRORS,
    refusals.AutoApproveNotPinnedError,
    refusals.DirectRevealNotPinnedError,
)


@route(
    "POST",
    "/policies",
    access=Session("policy.edit", scope="global"),
    body=CreatePolicy,
    returns=PolicyBody,
    status=201,
    creates=True,
    errors=WRITE_ERRORS,
    summary="Create a policy rule at any anchor",
)
async def create_policy(call: Call[CreatePolicy]) -> Reply:
    rule = policy_rules.NewRule(**call.body.model_dump())

    def op(tx: Transaction) -> PolicyBody:
        return _policy(policy_rules.create(tx, by=call.person, rule=rule, now=utc_now()))

    with denials_counted(call):
        reply = await run_creating(call, op)
    if "Idempotency-Replayed" not in reply.headers:
        scope = policy_rules.scope_of(call.body.model_dump())
        count_change(call, "created", permission="policy.edit", scope=scope)
    return reply


@route(
    "GET",
    "/policies",
    access=Session("policy.edit", scope="global"),
    query=ListPolicies,
    returns=list[PolicyBody],
    summary="List all policy rules, highest priority first, then oldest",
)
async def list_policies(call: Call[Any]) -> Reply:
    query: ListPolicies = call.query
    rows = await call.state.db.read(policy_rules.list_rules, after=query.after, limit=query.limit)
    return Reply([_policy(row) for row in rows], headers=next_rules(call, query, rows))


@route(
    "GET",
    "/policies/<id:policy_id>",
    access=Session("policy.edit", scope="global"),
    returns=PolicyBody,
    errors=(refusals.PolicyNotFoundError,),
    summary="Show a policy rule",
)
async def show_policy(call: Call[Any]) -> Reply:
    row = await call.state.db.read(policy_rules.find, rule_id=call.ids["policy_id"])
    return Reply(_policy(row))


@route(
    "PUT",
    "/policies/<id:policy_id>",
    access=Session("policy.edit", scope="global"),
    body=UpdatePolicy,
    returns=PolicyBody,
    errors=(
        *WRITE_ERRORS,
        refusals.PolicyNotFoundError,
        refusals.SystemRuleSelectorError,
        refusals.RulesChangedError,
    ),
    summary="Change what is named of a policy rule; what is left out stays",
)
async def update_policy(call: Call[UpdatePolicy]) -> Reply:
    with denials_counted(call):
        row = await call.state.db.run(
            policy_rules.update,
            by=call.person,
            rule_id=call.ids["policy_id"],
            changes=call.body.given,
            now=utc_now(),
        )
    count_change(call, "updated", permission="policy.edit", scope=policy_rules.scope_of(row))
    return Reply(_policy(row))


@route(
    "DELETE",
    "/policies/<id:policy_id>",
    access=Session("policy.edit", scope="global"),
    status=204,
    errors=(refusals.PolicyNotFoundError, refusals.SystemRowError),
    summary="Delete a policy rule",
)
async def delete_policy(call: Call[Any]) -> Reply:
    with denials_counted(call):
        scope = await call.state.db.run(
            policy_rules.delete, by=call.person, rule_id=call.ids["policy_id"], now=utc_now()
        )
    count_change(call, "deleted", permission="policy.edit", scope=scope)
    return Reply(None)


@route(
    "GET",
    "/policies/<id:policy_id>/history",
    access=Session("policy.edit", scope="global"),
    query=HistoryPage,
    returns=HistoryBody,
    errors=(refusals.PolicyNotFoundError,),
    summary="Show how a policy rule came to be what it is, or was",
)
async def show_policy_history(call: Call[Any]) -> Reply:
    query: HistoryPage = call.query
    with denials_counted(call):
        found = await call.state.db.run(
            policy_history.for_administrators,
            caller=call.person,
            rule_id=call.ids["policy_id"],
            before=query.before,
            limit=query.limit,
            now=utc_now(),
        )
    return history_reply(call, found, scope="platform")


def history_reply(call: Call[Any], found: policy_history.History, *, scope: str) -> Reply:
    """Return the page, counted as one view by the surface it was asked on."""
    query: HistoryPage = call.query
    call.state.metrics.policy_rule_history_views.labels(scope=scope).inc()
    names = HistoryEntry.model_fields
    body = HistoryBody(
        rule_id=found.rule_id,
        scope=found.scope,
        entries=[
            HistoryEntry(**{name: getattr(entry, name) for name in names})
            for entry in found.entries
        ],
        has_more=found.has_more,
        limit=query.limit,
    )
    link = next_link(call, query, body.entries, found.before, limit=1) if found.has_more else {}
    return Reply(body, headers=link)


def _policy(row: Mapping[str, Any]) -> PolicyBody:
    return PolicyBody(**{name: row[name] for name in PolicyBody.model_fields})
