"""Routes of agents about their jobs: claim, renew, complete."""

from __future__ import annotations

from typing import Any

import trio

from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.http.bodies import Query
from sb.http.declare import Agent, Call, Reply, route
from sb.http.polls import Wait, poll, wake
from sb.ops import errors as refusals
from sb.ops import jobs
from sb.wire import ClaimedJob, CompleteRequest, RenewRequest, RenewResponse


class Claim(Query):
    wait: Wait = 0


@route(
    "POST",
    "/agents/<id:agent_id>/jobs/claim",
    access=Agent(),
    query=Claim,
    returns=ClaimedJob,
    may_be_empty=True,
    summary="Lease a job, waiting up to `wait` seconds for one; 204 when there is none",
)
async def claim_job(call: Call[Any]) -> Reply:
    replaced = _take_poll(call)
    try:
        claimed = await poll(
            call,
            jobs.wake_channel(call.agent.provider_connection_id),
            lambda: _try_claim(call),
            wait=call.query.wait,
            replaced=replaced,
        )
    finally:
        if call.state.polls.get(call.agent.agent_id) is replaced:
            del call.state.polls[call.agent.agent_id]
    return claimed or Reply(None, status=204)


def _take_poll(call: Call[Any]) -> trio.Event:
    """Return this poll's end signal, after ending the agent's older poll: one wait per agent."""
    older = call.state.polls.get(call.agent.agent_id)
    if older is not None:
        older.set()
    mine = call.state.polls[call.agent.agent_id] = trio.Event()
    return mine


async def _try_claim(call: Call[Any]) -> tuple[Reply | None, bool]:
    token = new_token()
    job = await call.state.db.run(
        jobs.claim, agent=call.agent, lease_token_hash=token_hash(token), now=utc_now()
    )
    if job is None:
        return None, False
    reply = Reply(
        ClaimedJob(
            id=job.id,
            job_type=job.job_type,
            payload=dict(job.payload),
            correlation_id=job.correlation_id,
            claim_expires_at=job.claim_expires_at,
            lease_seconds=int(jobs.LEASE.total_seconds()),
            lease_token=token,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
        )
    )
    return reply, True


@route(
    "POST",
    "/agents/<id:agent_id>/jobs/<id:job_id>/renew",
    access=Agent(),
    body=RenewRequest,
    returns=RenewResponse,
    errors=(refusals.LeaseLostError,),
    summary="Move the end of a live lease",
)
async def renew_job(call: Call[RenewRequest]) -> Reply:
    ends_at = await call.state.db.run(
        jobs.renew,
        agent=call.agent,
        job_id=call.ids["job_id"],
        lease_token_hash=token_hash(call.body.lease_token),
        now=utc_now(),
    )
    return Reply(RenewResponse(claim_expires_at=ends_at))


@route(
    "POST",
    "/agents/<id:agent_id>/jobs/<id:job_id>/complete",
    access=Agent(),
    body=CompleteRequest,
    status=204,
    errors=(refusals.LeaseLostError,),
    summary="End a job under its lease; the same lease may say so again",
)
async def complete_job(call: Call[CompleteRequest]) -> Reply:
    body = call.body
    woken = await call.state.db.run(
        jobs.complete,
        agent=call.agent,
        job_id=call.ids["job_id"],
        lease_token_hash=token_hash(body.lease_token),
        outcome=jobs.Outcome(
            succeeded=body.status == "succeeded",
            error=body.error,
            retryable=body.retryable,
            result=body.result.model_dump() if body.result is not None else None,
        ),
        now=utc_now(),
    )
    await wake(call, woken)
    return Reply(None)
