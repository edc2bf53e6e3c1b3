"""Routes of the policy rules that scoped authors write for their projects and teams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.errors import NotFoundError, SbError
from sb.http.bodies import Body, Query
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.policy_metrics import count_change, denials_counted
from sb.http.routes.policies import SELECTOR_ERRORS, HistoryBody, HistoryPage, history_reply
from sb.http.rule_pages import RulePage, next_rules
from sb.http.scoped_rules import (
    CreateRule,
    ProjectRuleBody,
    TeamRule,
    TeamRules,
    UpdateRule,
    project_rule,
    team_rule,
    team_rule_alone,
)
from sb.ops import governance_errors as refusals
from sb.ops import policy_history, scoped_policies, settings
from sb.ops.scoped_policies import PERMISSION, Anchor

AUTHOR = Session("policy.author")
#: How a family of routes shows a rule, inside the transaction that found it.
Shown = Callable[[Transaction, Mapping[str, Any]], Body]


class ListRules(RulePage, Query):
    """A page of rules."""


PROJECT_ERRORS: tuple[type[SbError], ...] = (
    refusals.OutOfScopePolicyError,
    refusals.PolicyNotFoundError,
    NotFoundError,
)
TEAM_ERRORS: tuple[type[SbError], ...] = (
    refusals.OutOfScopeTeamPolicyError,
    refusals.PolicyNotFoundError,
    refusals.TeamNotFoundError,
)
OWNER_ERRORS: tuple[type[SbError], ...] = (refusals.PlatformPolicyNotEditableError,)
WRITE_ERRORS: tuple[type[SbError], ...] = (
    *SELECTOR_ERRORS,
    refusals.ProdPolicyNotAllowedError,
    refusals.PolicyPriorityReservedError,
    refusals.WorkflowNotAuthorableError,
    refusals.AutoApproveNotPinnedError,
    refusals.SettingUnavailableError,
)


@route(
    "POST",
    "/projects/<id:project_id>/policy-rules",
    access=AUTHOR,
    body=CreateRule,
    returns=ProjectRuleBody,
    status=201,
    creates=True,
    errors=(*PROJECT_ERRORS, *WRITE_ERRORS),
    summary="Write a non-production rule for a project you cover",
)
async def create_project_rule(call: Call[CreateRule]) -> Reply:
    anchor = _anchor(call)
    return await _create(call, anchor, lambda _tx, row: project_rule(anchor, row))


@route(
    "GET",
    "/projects/<id:project_id>/policy-rules",
    access=AUTHOR,
    query=ListRules,
    returns=list[ProjectRuleBody],
    errors=PROJECT_ERRORS,
    summary="List the rules that govern a project, in the order in which they are tried",
)
async def list_project_rules(call: Call[Any]) -> Reply:
    anchor, query = _anchor(call), call.query
    with denials_counted(call):
        rows = await call.state.db.read(
            scoped_policies.list_rules,
            caller=call.person,
            anchor=anchor,
            after=query.after,
            limit=query.limit,
        )
    bodies = [project_rule(anchor, row) for row in rows]
    return Reply(bodies, headers=next_rules(call, query, rows))


@route(
    "GET",
    "/projects/<id:project_id>/policy-rules/<id:rule_id>",
    access=AUTHOR,
    returns=ProjectRuleBody,
    errors=PROJECT_ERRORS,
    summary="Show a rule that governs a project",
)
async def show_project_rule(call: Call[Any]) -> Reply:
    anchor = _anchor(call)
    return Reply(project_rule(anchor, await _show(call, anchor)))


@route(
    "PUT",
    "/projects/<id:project_id>/policy-rules/<id:rule_id>",
    access=AUTHOR,
    body=UpdateRule,
    returns=ProjectRuleBody,
    errors=(*PROJECT_ERRORS, *OWNER_ERRORS, *WRITE_ERRORS, refusals.RulesChangedError),
    summary="Change what is named of a project's own rule; what is left out stays",
)
async def update_project_rule(call: Call[UpdateRule]) -> Reply:
    anchor = _anchor(call)
    return await _update(call, anchor, lambda _tx, row: project_rule(anchor, row))


@route(
    "DELETE",
    "/projects/<id:project_id>/policy-rules/<id:rule_id>",
    access=AUTHOR,
    status=204,
    errors=(*PROJECT_ERRORS, *OWNER_ERRORS),
    summary="Delete a project's own rule",
)
async def delete_project_rule(call: Call[Any]) -> Reply:
    return await _delete(call, _anchor(call))


@route(
    "GET",
    "/projects/<id:project_id>/policy-rules/<id:rule_id>/history",
    access=AUTHOR,
    query=HistoryPage,
    returns=HistoryBody,
    errors=PROJECT_ERRORS,
    summary="Show how a project's own rule came to be what it is",
)
async def show_project_rule_history(call: Call[Any]) -> Reply:
    return await _history(call, _anchor(call))


@route(
    "POST",
    "/teams/<id:team_id>/policy-rules",
    access=AUTHOR,
    body=CreateRule,
    returns=TeamRule,
    status=201,
    creates=True,
    errors=(*TEAM_ERRORS, *WRITE_ERRORS),
    summary="Write a non-production rule for every project under a team you cover",
)
async def create_team_rule(call: Call[CreateRule]) -> Reply:
    anchor = _anchor(call)
    return await _create(call, anchor, lambda tx, row: team_rule_alone(tx, anchor, row))


@route(
    "GET",
    "/teams/<id:team_id>/policy-rules",
    access=AUTHOR,
    query=ListRules,
    returns=TeamRules,
    errors=TEAM_ERRORS,
    summary="List the rules a team gives its projects, in the order in which they are tried",
)
async def list_team_rules(call: Call[Any]) -> Reply:
    anchor, query = _anchor(call), call.query

    def op(tx: Transaction) -> tuple[list[Mapping[str, Any]], int]:
        rows = scoped_policies.list_rules(
            tx, caller=call.person, anchor=anchor, after=query.after, limit=query.limit
        )
        return rows, settings.reserved_priority(tx)

    with denials_counted(call):
        rows, cap = await call.state.db.read(op)
    body = TeamRules(rules=[team_rule(anchor, row) for row in rows], priority_cap=cap)
    return Reply(body, headers=next_rules(call, query, rows))


@route(
    "GET",
    "/teams/<id:team_id>/policy-rules/<id:rule_id>",
    access=AUTHOR,
    returns=TeamRule,
    errors=TEAM_ERRORS,
    summary="Show a rule a team gives its projects",
)
async def show_team_rule(call: Call[Any]) -> Reply:
    anchor = _anchor(call)

    def op(tx: Transaction) -> TeamRule:
        row = scoped_policies.show(
            tx, caller=call.person, anchor=anchor, rule_id=call.ids["rule_id"]
        )
        return team_rule_alone(tx, anchor, row)

    with denials_counted(call):
        return Reply(await call.state.db.read(op))


@route(
    "PUT",
    "/teams/<id:team_id>/policy-rules/<id:rule_id>",
    access=AUTHOR,
    body=UpdateRule,
    returns=TeamRule,
    errors=(*TEAM_ERRORS, *OWNER_ERRORS, *WRITE_ERRORS, refusals.RulesChangedError),
    summary="Change what is named of a team's own rule; what is left out stays",
)
async def update_team_rule(call: Call[UpdateRule]) -> Reply:
    anchor = _anchor(call)
    return await _update(call, anchor, lambda tx, row: team_rule_alone(tx, anchor, row))


@route(
    "DELETE",
    "/teams/<id:team_id>/policy-rules/<id:rule_id>",
    access=AUTHOR,
    status=204,
    errors=(*TEAM_ERRORS, *OWNER_ERRORS),
    summary="Delete a team's own rule",
)
async def delete_team_rule(call: Call[Any]) -> Reply:
    return await _delete(call, _anchor(call))


@route(
    "GET",
    "/teams/<id:team_id>/policy-rules/<id:rule_id>/history",
    access=AUTHOR,
    query=HistoryPage,
    returns=HistoryBody,
    errors=TEAM_ERRORS,
    summary="Show how a team's own rule came to be what it is",
)
async def show_team_rule_history(call: Call[Any]) -> Reply:
    return await _history(call, _anchor(call))


def _anchor(call: Call[Any]) -> Anchor:
    if "team_id" in call.ids:
        return Anchor(kind="team", id=call.ids["team_id"])
    return Anchor(kind="project", id=call.ids["project_id"])


async def _create(call: Call[CreateRule], anchor: Anchor, shown: Shown) -> Reply:
    draft = scoped_policies.Draft(**call.body.model_dump())

    def op(tx: Transaction) -> Body:
        row = scoped_policies.create(
            tx, caller=call.person, anchor=anchor, draft=draft, now=utc_now()
        )
        return shown(tx, row)

    with denials_counted(call):
        reply = await run_creating(call, op)
    if "Idempotency-Replayed" not in reply.headers:
        count_change(call, "created", permission=PERMISSION, scope=anchor.kind)
    return reply


async def _show(call: Call[Any], anchor: Anchor) -> Mapping[str, Any]:
    with denials_counted(call):
        return await call.state.db.read(
            scoped_policies.show, caller=call.person, anchor=anchor, rule_id=call.ids["rule_id"]
        )


async def _update(call: Call[UpdateRule], anchor: Anchor, shown: Shown) -> Reply:
    def op(tx: Transaction) -> Body:
        row = scoped_policies.update(
            tx,
            caller=call.person,
            anchor=anchor,
            rule_id=call.ids["rule_id"],
            changes=call.body.given,
            now=utc_now(),
        )
        return shown(tx, row)

    with denials_counted(call):
        body = await call.state.db.run(op)
    count_change(call, "updated", permission=PERMISSION, scope=anchor.kind)
    return Reply(body)


async def _delete(call: Call[Any], anchor: Anchor) -> Reply:
    with denials_counted(call):
        await call.state.db.run(
            scoped_policies.delete,
            caller=call.person,
            anchor=anchor,
            rule_id=call.ids["rule_id"],
            now=utc_now(),
        )
    count_change(call, "deleted", permission=PERMISSION, scope=anchor.kind)
    return Reply(None)


async def _history(call: Call[Any], anchor: Anchor) -> Reply:
    query: HistoryPage = call.query
    with denials_counted(call):
        found = await call.state.db.run(
            policy_history.for_authors,
            caller=call.person,
            anchor=anchor,
            rule_id=call.ids["rule_id"],
            before=query.before,
            limit=query.limit,
            now=utc_now(),
        )
    return history_reply(call, found, scope=anchor.kind)
