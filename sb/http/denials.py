"""Refusals on record, and how many of them one caller may leave in the trail in a minute."""

from __future__ import annotations

import logging

import trio

from sb.clock import utc_now
from sb.coord import CoordUnavailableError
from sb.errors import Denial
from sb.http.state import AppState
from sb.ops import audit
from sb.ops.callers import Actor, Anonymous

log = logging.getLogger(__name__)

#: How long the audit row of a refusal may take, whatever becomes of the caller.
DENIAL_SECONDS = 10.0
BUCKET, ROWS, WINDOW_SECONDS = "audit:denials", 120, 60
#: Never left out: the limits `auth:login` and `agent:auth-fail` bound them before they get here.
COMPLETE = frozenset({"auth.login", "agent.auth.rejected"})


async def record(denial: Denial, *, state: AppState, by: Actor, client_ip: str) -> None:
    """Leave the refusal's audit row, or count it as left out where the caller has too many.

    The first one left out in a window leaves a row that says so.
    """
    try:
        # Shielded: hanging up early must not be a way to leave no trace.
        with trio.fail_after(DENIAL_SECONDS, shield=True):
            if denial.action in COMPLETE or await _has_room(state, by, client_ip):
                await state.db.run(audit.record_denial, denial=denial, by=by, now=utc_now())
            else:
                await _leave_out(denial, state=state, by=by, client_ip=client_ip)
    except Exception:  # noqa: BLE001 # whatever went wrong, the caller still gets the refusal
        # The refusal stands; that its row is missing must be seen.
        state.metrics.audit_append_failures.inc()
        log.warning("denial not audited", extra={"fields": {"action": denial.action}})


def _source(by: Actor, client_ip: str) -> str:
    return f"address:{client_ip}" if isinstance(by, Anonymous) else by.actor


async def _has_room(state: AppState, by: Actor, client_ip: str) -> bool:
    """Tell whether the caller may leave another row; without a store to count in, always."""
    rows = state.rate_limits.get(BUCKET, ROWS)
    return await _counted(state, BUCKET, _source(by, client_ip), rows)


async def _leave_out(denial: Denial, *, state: AppState, by: Actor, client_ip: str) -> None:
    state.metrics.audit_denials_suppressed.inc()
    source = _source(by, client_ip)
    if not await _counted(state, f"{BUCKET}-suppressed", source, 1):
        return
    left_out = Denial(
        "audit.denials.suppressed",
        source,
        first_action=denial.action,
        limit=state.rate_limits.get(BUCKET, ROWS),
        window_seconds=WINDOW_SECONDS,
    )
    await state.db.run(audit.record_denial, denial=left_out, by=by, now=utc_now())


async def _counted(state: AppState, bucket: str, source: str, limit: int) -> bool:
    try:
        decision = await state.coord.hit(bucket, source, limit=limit, window_seconds=WINDOW_SECONDS)
    except CoordUnavailableError:
        state.metrics.rate_limit_backend_errors.inc()
        return True
    return decision.allowed
