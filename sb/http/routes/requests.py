"""Routes of access requests: submit, list, show, approve, reject, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.http.bodies import Body, Label, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.limits import RateLimit
from sb.http.pages import Page, next_link
from sb.http.polls import Wait, poll, wake
from sb.http.refs import TargetRef
from sb.ids import new_id
from sb.kms.envelope import seal_wrap
from sb.ops import approvals, requests, submissions, tenancy_errors
from sb.ops import errors as refusals
from sb.secret import Secret
from sb.threads import run_blocking

MAX_KEYS = 256
MAX_VALUE_BYTES = 65_536

ProviderType = Literal["vault", "aws-sm", "azure-kv", "gcp-sm", "kubernetes", "file"]
KeyName = Annotated[Label, Field(min_length=1, max_length=255)]
LongText = Annotated[Text, Field(min_length=1, max_length=4000)]
IdText = Annotated[
    Text,
    Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"),
    AfterValidator(str.lower),
]


class Submit(Body):
    """What every submit names; `requester_id` is accepted for old clients and ignored."""

    target_provider_type: ProviderType
    target_secret_ref: TargetRef
    target_provider_config: dict[str, Any] = Field(default_factory=dict, max_length=16)
    justification: Annotated[Text, Field(max_length=4000)] = ""
    project_id: IdText | None = None
    environment: Annotated[Label, Field(min_length=1, max_length=255)] | None = None
    provider_connection_id: IdText | None = None
    requester_id: Any = Field(default=None, exclude=True)


class SubmitRead(Submit):
    """A request to see keys of a secret; no keys named means every key."""

    target_keys: list[KeyName] = Field(default_factory=list, max_length=MAX_KEYS)


class SubmitPatch(Submit):
    """A request to write keys of a secret; values are sealed before anything is stored."""

    key_values: dict[KeyName, Annotated[Text, Field(min_length=1)]] = Field(
        min_length=1, max_length=MAX_KEYS
    )


class ApprovalBody(Body):
    id: str
    approver_id: str
    approver_display: str
    decision: str
    comment: str | None
    #: Whether its voter could still cast it; null once the request is decided.
    counts: bool | None
    created_at: datetime


class RequestBody(Body):
    id: str
    requester_id: str
    requester_display: str
    type: str
    status: str
    overdue: bool  # Pending though its time is over.
    blocked_by: str | None  # The code that would refuse an approval now; of one request shown.
    justification: str
    workflow_id: str
    workflow_name: str
    matched_policy_rule_id: str | None
    project_id: str | None
    project_name: str | None
    environment_id: str | None
    environment_name: str | None
    environment_kind: str | None
    provider_connection_id: str | None
    target_provider_type: str
    target_provider_config: dict[str, Any]
    target_secret_ref: str
    target_keys: list[str]
    target_scope: dict[str, Any]
    job_id: str | None
    reject_reason: str | None
    failure_reason: str | None
    approvals_required: int
    approvals_count: int
    allowed_actions: list[str]
    expires_at: datetime
    execute_before_at: datetime | None
    created_at: datetime
    updated_at: datetime
    approvals: list[ApprovalBody]


class Approve(Body):
    """`approver_id` is accepted for old clients and ignored: the session decides who votes."""

    comment: LongText | None = None
    approver_id: Any = Field(default=None, exclude=True)


class Reject(Body):
    reason: LongText
    approver_id: Any = Field(default=None, exclude=True)


class ShowRequest(Query):
    wait: Wait = 0


class ListRequests(Page, Query):
    requester_id: IdText | None = None
    status: (
        Literal["pending", "approved", "rejected", "cancelled", "executed", "failed", "expired"]
        | None
    ) = None
    type: Literal["read", "patch"] | None = None
    project_id: IdText | None = None
    environment_id: IdText | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    needs_my_decision: bool = False


SUBMIT_ERRORS = (
    refusals.OutOfScopeProjectError,
    refusals.OutOfScopeOpError,
    refusals.OutOfScopeKeyError,
    refusals.EnvironmentNotInProjectError,
    refusals.EnvironmentRequiredError,
    refusals.ConnectionNotFoundError,
    refusals.ProviderConnectionRequiredError,
    refusals.CredentialInConfigError,
    refusals.AutoApprovalForbiddenError,
    tenancy_errors.ProductionSecretError,
)
DECIDE_ERRORS = (
    refusals.RequestNotFoundError,
    refusals.RequestNotPendingError,
    refusals.SelfApprovalForbiddenError,
    refusals.AlreadyVotedError,
    refusals.OutOfScopeProjectError,
)


@route(
    "POST",
    "/requests/read",
    access=Session("secret.request"),
    body=SubmitRead,
    returns=RequestBody,
    status=201,
    creates=True,
    limit=RateLimit("request:submit", 120, key="user"),
    errors=SUBMIT_ERRORS,
    summary="Ask to read keys of a secret",
)
async def submit_read(call: Call[SubmitRead]) -> Reply:
    draft = _draft(call.body, request_id=new_id(), kind="read", keys=call.body.target_keys)
    return await _submit(call, draft, [])


@route(
    "POST",
    "/requests",
    access=Session("secret.request"),
    body=SubmitPatch,
    returns=RequestBody,
    status=201,
    creates=True,
    limit=RateLimit("request:submit", 120, key="user"),
    errors=SUBMIT_ERRORS,
    summary="Ask to change keys of a secret",
)
async def submit_patch(call: Call[SubmitPatch]) -> Reply:
    values = {name: Secret(text.encode()) for name, text in call.body.key_values.items()}
    too_long = [name for name, value in values.items() if value.byte_length > MAX_VALUE_BYTES]
    if too_long:
        raise refusals.ValueTooLargeError(limit_bytes=MAX_VALUE_BYTES, field="key_values")
    draft = _draft(call.body, request_id=new_id(), kind="patch", keys=list(values))
    # Sealed before the transaction begins: no KMS call holds a row lock.
    new_wraps = await run_blocking(
        lambda: [_seal(call, draft.id, name, value) for name, value in values.items()],
        limiter=call.state.kms_limiter,
    )
    return await _submit(call, draft, new_wraps)


def _seal(call: Call[Any], request_id: str, name: str, value: Secret) -> submissions.NewWrap:
    wrap_id = new_id()
    sealed = seal_wrap(
        call.state.kms, wrap_id=wrap_id, request_id=request_id, key_name=name, value=value
    )
    value.wipe()
    return submissions.NewWrap(id=wrap_id, key_name=name, sealed=sealed)


def _draft(body: Submit, *, request_id: str, kind: str, keys: list[str]) -> submissions.Draft:
    return submissions.Draft(
        id=request_id,
        type=kind,
        justification=body.justification,
        target_provider_type=body.target_provider_type,
        target_provider_config=body.target_provider_config,
        target_secret_ref=body.target_secret_ref,
        target_keys=sorted(set(keys)),
        project_id=body.project_id,
        environment=body.environment,
        provider_connection_id=body.provider_connection_id,
    )


async def _submit(
    call: Call[Any], draft: submissions.Draft, new_wraps: list[submissions.NewWrap]
) -> Reply:
    woken: list[str | None] = []

    def op(tx: Transaction) -> RequestBody:
        seen = submissions.submit(
            tx, caller=call.person, draft=draft, new_wraps=new_wraps, now=utc_now()
        )
        woken.append(seen.wake)
        return _body(seen)

    reply = await run_creating(call, op)
    for channel in woken:
        await wake(call, channel)
    return reply


@route(
    "GET",
    "/requests",
    access=Session(),
    query=ListRequests,
    returns=list[RequestBody],
    summary="List the requests you may see, newest first",
)
async def list_requests(call: Call[Any]) -> Reply:
    query: ListRequests = call.query
    found = await call.state.db.read(
        requests.list_requests,
        caller=call.person,
        filters=requests.Filters(
            requester_id=query.requester_id,
            status=query.status,
            type=query.type,
            project_id=query.project_id,
            environment_id=query.environment_id,
            since=query.since,
            until=query.until,
            needs_my_decision=query.needs_my_decision,
        ),
        before=query.before,
        limit=query.limit,
        now=utc_now(),
    )
    last = (found[-1].row["created_at"], found[-1].row["id"]) if found else None
    return Reply([_body(seen) for seen in found], headers=next_link(call, query, found, last))


@route(
    "GET",
    "/requests/<id:request_id>",
    access=Session(),
    query=ShowRequest,
    returns=RequestBody,
    errors=(refusals.RequestNotFoundError,),
    summary="Show one request, or wait up to `wait` seconds until it has ended and show it then",
)
async def show_request(call: Call[Any]) -> Reply:
    request_id = call.ids["request_id"]

    async def look() -> tuple[requests.Seen, bool]:
        seen = await call.state.db.read(
            requests.show, caller=call.person, request_id=request_id, now=utc_now()
        )
        return seen, seen.row["status"] not in requests.OPEN_IN

    channel = requests.ended_channel(request_id)
    return Reply(_body(await poll(call, channel, look, wait=call.query.wait)))


@route(
    "POST",
    "/requests/<id:request_id>/approve",
    access=Session(),
    body=Approve,
    body_optional=True,
    returns=RequestBody,
    limit=RateLimit("request:decide", 120, key="user"),
    errors=DECIDE_ERRORS,
    summary="Approve a request of somebody else",
)
async def approve_request(call: Call[Approve]) -> Reply:
    seen = await call.state.db.run(
        approvals.approve,
        caller=call.person,
        request_id=call.ids["request_id"],
        comment=call.body.comment,
        now=utc_now(),
    )
    await wake(call, seen.wake)
    return Reply(_body(seen))


@route(
    "POST",
    "/requests/<id:request_id>/reject",
    access=Session(),
    body=Reject,
    returns=RequestBody,
    limit=RateLimit("request:decide", 120, key="user"),
    errors=DECIDE_ERRORS,
    summary="Reject a request of somebody else",
)
async def reject_request(call: Call[Reject]) -> Reply:
    seen = await call.state.db.run(
        approvals.reject,
        caller=call.person,
        request_id=call.ids["request_id"],
        reason=call.body.reason,
        now=utc_now(),
    )
    await wake(call, seen.wake)
    return Reply(_body(seen))


@route(
    "POST",
    "/requests/<id:request_id>/cancel",
    access=Session(),
    returns=RequestBody,
    errors=(
        refusals.RequestNotFoundError,
        refusals.NotTheRequesterError,
        refusals.RequestNotPendingError,
    ),
    summary="Cancel your own pending request",
)
async def cancel_request(call: Call[Any]) -> Reply:
    seen = await call.state.db.run(
        requests.cancel, caller=call.person, request_id=call.ids["request_id"], now=utc_now()
    )
    await wake(call, seen.wake)
    return Reply(_body(seen))


def _body(seen: requests.Seen) -> RequestBody:
    row = seen.row
    made = {"requester_display", "approvals_required", "allowed_actions", "overdue", "approvals"}
    made |= {"blocked_by"}
    names = set(RequestBody.model_fields) - made
    return RequestBody(
        **{name: row[name] for name in names},
        requester_display=row["requester_name"] or row["requester_email"],
        approvals_required=row["snap_min_approvers"],
        allowed_actions=seen.allowed_actions,
        overdue=seen.overdue,
        blocked_by=seen.blocked_by,
        approvals=[_vote(vote) for vote in seen.votes],
    )


def _vote(vote: Mapping[str, Any]) -> ApprovalBody:
    return ApprovalBody(
        id=vote["id"],
        approver_id=vote["approver_id"],
        approver_display=vote["approver_name"] or vote["approver_email"],
        decision=vote["decision"],
        comment=vote["comment"],
        counts=vote["counts"],
        created_at=vote["created_at"],
    )
