"""Refusals on record, and how many of them one caller may leave in the trail in a minute."""

from __future__ import annotations

import logging

import trio

from sb.clock import utc_now
from sb.errors import Denial
from sb.http.limits import RateLimit, count, most
from sb.http.state import AppState
from sb.ops import audit
from sb.ops.callers import Actor, Anonymous

log = logging.getLogger(__name__)

#: How long the audit row of a refusal may take, whatever becomes of the caller.
DENIAL_SECONDS = 10.0
ROWS = RateLimit("audit:denials", 120)
#: How often a caller's refusals being left out is told.
TOLD = RateLimit("audit:denials-suppressed", 1)
#: Never left out: the limits `auth:login` and `agent:auth-fail` bound them before they get here.
COMPLETE = frozenset({"auth.login", "agent.auth.rejected"})


async def record(denial: Denial, *, state: AppState, by: Actor, client_ip: str) -> None:
    """Leave the refusal's audit row, or count it as left out where the caller has too many.

    The first one left out in a window leaves a row that says so.
    """
    try:
        # Shielded: hanging up early must not be a way to leave no trace.
        with trio.fail_after(DENIAL_SECONDS, shield=True):
            source = _source(by, client_ip)
            if denial.action in COMPLETE or await _is_within(ROWS, state=state, key=source):
                await state.db.run(audit.record_denial, denial=denial, by=by, now=utc_now())
            else:
                await _leave_out(denial, state=state, by=by, source=source)
    except Exception:  # noqa: BLE001 # whatever went wrong, the caller still gets the refusal
        # The refusal stands; that its row is missing must be seen.
        state.metrics.audit_append_failures.inc()
        log.warning("denial not audited", extra={"fields": {"action": denial.action}})


def _source(by: Actor, client_ip: str) -> str:
    return f"address:{client_ip}" if isinstance(by, Anonymous) else by.actor


async def _is_within(limit: RateLimit, *, state: AppState, key: str) -> bool:
    decision = await count(limit, state=state, key=key)
    # Without a store to count in every refusal is put on record.
    return decision is None or decision.allowed


async def _leave_out(denial: Denial, *, state: AppState, by: Actor, source: str) -> None:
    state.metrics.audit_denials_suppressed.inc()
    if not await _is_within(TOLD, state=state, key=source):
        return
    left_out = Denial(
        "audit.denials.suppressed",
        source,
        first_action=denial.action,
        limit=most(ROWS, state=state),
        window_seconds=ROWS.window,
    )
    await state.db.run(audit.record_denial, denial=left_out, by=by, now=utc_now())
