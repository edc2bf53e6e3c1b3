"""Routes of workflows: every knob in, every knob out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import Field

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Label, Query, Text
from sb.http.changes import Changes
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.http.routes.requests import IdText
from sb.ops import governance_errors as refusals
from sb.ops import workflows
from sb.ops.workflows import MOST_SECONDS

Name = Annotated[Label, Field(min_length=1, max_length=120)]
Description = Annotated[Text, Field(max_length=1000)]
#: How many must approve; 0 is heard only together with auto_approve.
Approvers = Annotated[int, Field(ge=0, le=workflows.MOST_APPROVERS)]
WrapCreated = Annotated[int, Field(ge=1, le=MOST_SECONDS["wrap_ttl_created_seconds"])]
WrapApproved = Annotated[int, Field(ge=1, le=MOST_SECONDS["wrap_ttl_approved_seconds"])]
WrapClaimed = Annotated[int, Field(ge=1, le=MOST_SECONDS["wrap_ttl_claimed_seconds"])]
RequestTtl = Annotated[int, Field(ge=1, le=MOST_SECONDS["request_ttl_seconds"])]
FillTtl = Annotated[int, Field(ge=1, le=MOST_SECONDS["fill_ttl_seconds"])]
#: Such as `slack:#approvals` or `email:ops@example.com`.
Channels = Annotated[
    list[Annotated[Label, Field(min_length=1, max_length=255)]], Field(max_length=20)
]


class WorkflowKnobs(Changes):
    """The knobs that are called the same wherever a workflow is written; all may be left out."""

    description: Description | None = None
    min_approvers: Approvers | None = None
    auto_approve: bool | None = None
    wrap_ttl_created_seconds: WrapCreated | None = None
    wrap_ttl_approved_seconds: WrapApproved | None = None
    wrap_ttl_claimed_seconds: WrapClaimed | None = None
    request_ttl_seconds: RequestTtl | None = None
    fill_ttl_seconds: FillTtl | None = None
    require_justification: bool | None = None
    allow_self_approval: bool | None = None
    requires_security_approval: bool | None = None
    scoped_policy_authorable: bool | None = None
    notification_channels: Channels | None = None
    is_default: bool | None = None
    enabled: bool | None = None


class UpdateWorkflow(WorkflowKnobs):
    """The knobs to change; all others stay as they are."""

    nullable: ClassVar[frozenset[str]] = frozenset({"approver_role_id"})

    name: Name | None = None
    approver_role_id: IdText | None = None


class CreateWorkflow(UpdateWorkflow):
    """A new workflow; a knob left out has its default."""

    name: Name


class WorkflowBody(Body):
    id: str
    name: str
    description: str
    min_approvers: int
    auto_approve: bool
    approver_role_id: str | None
    wrap_ttl_created_seconds: int
    wrap_ttl_approved_seconds: int
    wrap_ttl_claimed_seconds: int
    request_ttl_seconds: int
    fill_ttl_seconds: int
    require_justification: bool
    allow_self_approval: bool
    requires_security_approval: bool
    scoped_policy_authorable: bool
    notification_channels: list[str]
    is_default: bool
    enabled: bool
    is_system: bool
    created_at: datetime
    updated_at: datetime


class ListWorkflows(Page, Query):
    """A page of workflows."""


CHANGE_ERRORS = (
    refusals.WorkflowNameTakenError,
    refusals.DefaultWorkflowRequiredError,
    refusals.DefaultWorkflowChangedError,
    refusals.AutoApproveNotPinnedError,
)


@route(
    "POST",
    "/workflows",
    access=Session("workflow.edit", scope="global"),
    body=CreateWorkflow,
    returns=WorkflowBody,
    status=201,
    creates=True,
    errors=CHANGE_ERRORS,
    summary="Create a workflow",
)
async def create_workflow(call: Call[CreateWorkflow]) -> Reply:
    knobs = call.body.given

    def op(tx: Transaction) -> WorkflowBody:
        return _workflow(workflows.create(tx, by=call.person, knobs=knobs, now=utc_now()))

    return await run_creating(call, op)


@route(
    "GET",
    "/workflows",
    access=Session(),
    query=ListWorkflows,
    returns=list[WorkflowBody],
    summary="List workflows, newest first",
)
async def list_workflows(call: Call[Any]) -> Reply:
    query: ListWorkflows = call.query
    rows = await call.state.db.read(
        workflows.list_workflows, caller=call.person, before=query.before, limit=query.limit
    )
    return _page(call, query, rows)


@route(
    "GET",
    "/workflows/scoped-policy-authorable",
    access=Session("policy.author"),
    query=ListWorkflows,
    returns=list[WorkflowBody],
    summary="List the workflows that rules of projects and teams may use, newest first",
)
async def list_authorable_workflows(call: Call[Any]) -> Reply:
    query: ListWorkflows = call.query
    rows = await call.state.db.read(
        workflows.list_authorable, before=query.before, limit=query.limit
    )
    return _page(call, query, rows)


@route(
    "GET",
    "/workflows/<id:workflow_id>",
    access=Session(),
    returns=WorkflowBody,
    errors=(refusals.WorkflowNotFoundError,),
    summary="Show a workflow",
)
async def show_workflow(call: Call[Any]) -> Reply:
    row = await call.state.db.read(
        workflows.show, caller=call.person, workflow_id=call.ids["workflow_id"]
    )
    return Reply(_workflow(row))


@route(
    "PUT",
    "/workflows/<id:workflow_id>",
    access=Session("workflow.edit", scope="global"),
    body=UpdateWorkflow,
    returns=WorkflowBody,
    errors=(refusals.WorkflowNotFoundError, *CHANGE_ERRORS),
    summary="Change the knobs that are named; what is left out stays",
)
async def update_workflow(call: Call[UpdateWorkflow]) -> Reply:
    row = await call.state.db.run(
        workflows.update,
        by=call.person,
        workflow_id=call.ids["workflow_id"],
        changes=call.body.given,
        now=utc_now(),
    )
    return Reply(_workflow(row))


@route(
    "DELETE",
    "/workflows/<id:workflow_id>",
    access=Session("workflow.edit", scope="global"),
    status=204,
    errors=(
        refusals.WorkflowNotFoundError,
        refusals.WorkflowInUseError,
        refusals.SystemRowError,
        refusals.DefaultWorkflowRequiredError,
    ),
    summary="Delete a workflow that no rule and no request names",
)
async def delete_workflow(call: Call[Any]) -> Reply:
    await call.state.db.run(
        workflows.delete, by=call.person, workflow_id=call.ids["workflow_id"], now=utc_now()
    )
    return Reply(None)


def _page(call: Call[Any], query: ListWorkflows, rows: list[Mapping[str, Any]]) -> Reply:
    last = (rows[-1]["created_at"], rows[-1]["id"]) if rows else None
    return Reply([_workflow(row) for row in rows], headers=next_link(call, query, rows, last))


def _workflow(row: Mapping[str, Any]) -> WorkflowBody:
    return WorkflowBody(**{name: row[name] for name in WorkflowBody.model_fields})
