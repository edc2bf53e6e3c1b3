"""Routes of agents about their jobs: claim, renew, complete."""

from __future__ import annotations

import random
from typing import Any

import trio
from pydantic import Field

from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.http.bodies import Query
from sb.http.declare import Agent, Call, Reply, route
from sb.http.routes.requests import wake_agents
from sb.ops import errors as refusals
from sb.ops import jobs
from sb.wire import ClaimedJob, CompleteRequest, RenewRequest, RenewResponse

MAX_WAIT_SECONDS = 25
#: A waiting claim looks by itself this often: for delayed jobs, and when signals are lost.
LOOK_AGAIN_SECONDS = 5.0


class Claim(Query):
    wait: int = Field(default=0, ge=0, le=60)


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
    wait = min(call.query.wait, MAX_WAIT_SECONDS)
    claimed: Reply | None = None
    channel = jobs.wake_channel(call.agent.provider_connection_id)
    replaced = _take_poll(call)
    try:
        async with call.state.coord.subscribe(channel) as signals:
            # Listening comes before looking: a job made in between still wakes this call.
            with trio.move_on_after(wait) as waiting:
                while True:
                    with trio.CancelScope(shield=True):
                        # A claim under way is finished, so that no job is leased to nobody.
                        claimed = await _try_claim(call)
                    if claimed is not None or wait == 0:
                        break
                    await _next_look(call, signals, replaced)
                    if replaced.is_set() or call.state.stopping.is_set():
                        break
            del waiting
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


async def _next_look(call: Call[Any], signals: Any, replaced: trio.Event) -> None:
    """Return when there may be a job, or when this poll should end."""

    async def first(wait: Any) -> None:
        await wait()
        nursery.cancel_scope.cancel()

    with trio.move_on_after(LOOK_AGAIN_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311
        async with trio.open_nursery() as nursery:
            for wait in (signals.wait, replaced.wait, call.state.stopping.wait):
                nursery.start_soon(first, wait)


async def _try_claim(call: Call[Any]) -> Reply | None:
    token = new_token()
    job = await call.state.db.run(
        jobs.claim, agent=call.agent, lease_token_hash=token_hash(token), now=utc_now()
    )
    if job is None:
        return None
    return Reply(
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
    errors=(refusals.JobNotFoundError, refusals.LeaseLostError),
    summary="End a job under its lease; the same lease may say so again",
)
async def complete_job(call: Call[CompleteRequest]) -> Reply:
    body = call.body
    wake = await call.state.db.run(
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
    if wake is not None:
        await wake_agents(call, wake)
    return Reply(None)
