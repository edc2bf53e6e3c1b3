"""Routes of the whole organisation as one document: apply it, or read it as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sb.clock import utc_now
from sb.db.rehearsal import rehearse
from sb.http.bodies import Body, Query
from sb.http.declare import Call, Reply, Session, route
from sb.http.organisation_document import OrganisationDocument
from sb.http.policy_metrics import count_change
from sb.ops import governance_errors as refusals
from sb.ops import organisation, organisation_export, tenancy_errors
from sb.ops.organisation_work import Step


class ApplyMode(Query):
    """With `plan` everything is tried, then rolled back: the answer is what would happen."""

    plan: bool = False


class ChangeBody(Body):
    field: str
    before: Any
    after: Any


class StepBody(Body):
    kind: str
    name: str
    action: Literal["create", "update", "unchanged"]
    changes: list[ChangeBody]


class AppliedBody(Body):
    applied: bool
    created: int
    updated: int
    unchanged: int
    steps: list[StepBody]


class ExportBody(Body):
    """The document, and what it cannot say: what names something that is gone."""

    document: dict[str, Any]
    left_out: list[str]


@route(
    "POST",
    "/organisation/apply",
    access=Session("policy.edit", scope="global"),
    body=OrganisationDocument,
    query=ApplyMode,
    returns=AppliedBody,
    errors=(
        refusals.EscalationError,
        refusals.TooManyGrantsError,
        refusals.LastAdminError,
        refusals.UnknownPermissionError,
        refusals.PolicyScopeTooBroadError,
        refusals.AutoApproveNotPinnedError,
        refusals.DefaultWorkflowRequiredError,
        tenancy_errors.TeamArchivedError,
        tenancy_errors.ProjectArchivedError,
        tenancy_errors.EnvironmentKindProtectedError,
    ),
    summary="Create and change what a document of the organisation names, all of it or nothing",
)
async def apply_organisation(call: Call[OrganisationDocument]) -> Reply:
    query: ApplyMode = call.query
    db, now = call.state.db, utc_now()
    asked: dict[str, Any] = {"caller": call.person, "document": call.body.given, "now": now}
    if query.plan:
        steps = await rehearse(db, organisation.apply, **asked)
    else:
        steps = await db.run(organisation.apply, **asked)
        _count_rules(call, steps)
    return Reply(applied_body(steps, applied=not query.plan))


@route(
    "GET",
    "/organisation/export",
    access=Session("policy.edit", scope="global"),
    returns=ExportBody,
    errors=(refusals.ExportAmbiguousError,),
    summary="Read the organisation as one document that can be applied",
)
async def export_organisation(call: Call[Any]) -> Reply:
    db, now = call.state.db, utc_now()
    # Read from one moment, which takes a reading transaction; on record before anything is shown.
    found = await db.read(organisation_export.export, caller=call.person, now=now)
    await db.run(organisation_export.record, by=call.person, found=found, now=now)
    return Reply(ExportBody(document=dict(found.document), left_out=found.left_out))


def _count_rules(call: Call[OrganisationDocument], steps: Sequence[Step]) -> None:
    written = [step.action for step in steps if step.kind == "policy"]
    for action, item in zip(written, call.body.policies, strict=True):
        if action != "unchanged":
            scope = "project" if item.project else "team" if item.team else "platform"
            verb: Literal["created", "updated"] = "created" if action == "create" else "updated"
            count_change(call, verb, permission="policy.edit", scope=scope)


def applied_body(steps: Sequence[Step], *, applied: bool) -> AppliedBody:
    """Return the steps as they are answered, with their numbers."""
    actions = [step.action for step in steps]
    return AppliedBody(
        applied=applied,
        created=actions.count("create"),
        updated=actions.count("update"),
        unchanged=actions.count("unchanged"),
        steps=[
            StepBody(
                kind=step.kind,
                name=step.name,
                action=step.action,
                changes=[
                    ChangeBody(field=c.field, before=c.before, after=c.after) for c in step.changes
                ],
            )
            for step in steps
        ],
    )
