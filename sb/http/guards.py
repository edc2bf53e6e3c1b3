"""Who is calling: sessions of people, secrets of agents, same-origin for cookies, permissions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from sb.auth.access import GLOBAL, allowed, holds_anywhere
from sb.auth.tokens import is_token, token_hash
from sb.clock import monotonic, utc_now
from sb.db.engine import Transaction
from sb.errors import AuthenticationRequiredError, Denial, PermissionDeniedError, SbError
from sb.http.declare import Session
from sb.http.limits import RateLimit, enforce
from sb.http.looks import Look
from sb.http.state import AppState
from sb.ops import agents, sessions
from sb.ops.callers import AgentCaller, Caller
from sb.ops.errors import AgentAuthRejectedError

COOKIE = "sb_session"
AUTH_FAILURES = RateLimit("agent:auth-fail", 20, key="ip", on_failure="open")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginMismatchError(SbError):
    code = "origin_mismatch"
    status = 403
    message = "A cookie session changes state from the product's own pages only."


class PasswordChangeRequiredError(SbError):
    code = "password_change_required"
    status = 403
    message = "Change your password first, at POST /api/v1/users/me/password."


async def find_session(
    state: AppState,
    *,
    method: str,
    headers: Mapping[str, str],
    cookie: str | None,
    request_id: str,
) -> Look[Caller] | None:
    """Return the person behind the bearer token or, without one, behind the cookie, or None."""
    authorization = headers.get("authorization")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        # A credential that is there decides: a bad one never falls through to the cookie.
        token = token.strip() if scheme.lower() == "bearer" else ""
    else:
        token = cookie or ""
    if not is_token(token):
        return None
    look = await state.db.read(_look, token=token, state=state, request_id=request_id)
    if look is None:
        return None
    if authorization is None and method not in SAFE_METHODS:
        require_same_origin(state, headers)
    if look.who.touch_due:
        await state.db.run(
            sessions.touch,
            session_id=look.who.session_id,
            rules=state.session_rules,
            now=utc_now(),
        )
    return look


def _look(tx: Transaction, *, token: str, state: AppState, request_id: str) -> Look[Caller] | None:
    at = monotonic()
    found = sessions.authenticate(
        tx, token_hash=token_hash(token), now=utc_now(), rules=state.session_rules
    )
    if found is None:
        return None
    who = dataclasses.replace(found, http_request_id=request_id)
    return Look(
        who=who, at=at, again=lambda later: sessions.refresh(later, caller=who, now=utc_now())
    )


def require_same_origin(state: AppState, headers: Mapping[str, str]) -> None:
    """Refuse a cookie's change of state that another site could have sent."""
    origin = headers.get("origin")
    if origin is not None:
        host = headers.get("host", "")
        own = (
            {state.public_origin} if state.public_origin else {f"http://{host}", f"https://{host}"}
        )
        if origin in own:
            return
    elif headers.get("sec-fetch-site") in ("same-origin", "none"):
        return
    raise OriginMismatchError


def require_own_password(caller: Caller, access: Session, *, route: str) -> None:
    """Refuse a person whose password somebody else knows, but for what it takes to change it."""
    if caller.must_change_password and not access.before_password_change:
        raise PasswordChangeRequiredError(
            audit=Denial("access.denied", f"route:{route}", error_kind="password_change_required")
        )


def require_permission(caller: Caller, permission: str, scope: str, *, route: str) -> None:
    """Refuse a person who holds the permission nowhere, or not globally where that is needed."""
    held = (
        allowed(caller.grants, permission, GLOBAL)
        if scope == "global"
        else holds_anywhere(caller.grants, permission)
    )
    if not held:
        raise PermissionDeniedError(
            permission=permission,
            scope=scope,
            audit=Denial("access.denied", f"route:{route}", permission=permission),
        )


async def find_agent(
    state: AppState, *, agent_id: str, headers: Mapping[str, str], client_ip: str, request_id: str
) -> Look[AgentCaller]:
    """Return the agent of the path by its own secret; every refusal looks the same."""

    def look(tx: Transaction) -> AgentCaller:
        # A text no secret ever had is judged like any other, so that it leaves the same trace.
        secret_hash = token_hash(headers.get("x-agent-secret", ""))
        agent = agents.authenticate(tx, agent_id=agent_id, secret_hash=secret_hash, now=utc_now())
        return dataclasses.replace(agent, http_request_id=request_id)

    try:
        return await state.db.read(lambda tx: Look(at=monotonic(), who=look(tx), again=look))
    except AgentAuthRejectedError:
        # Guessing is slow, and cannot fill the audit log.
        await enforce(AUTH_FAILURES, state=state, key=client_ip)
        raise


def require_person(look: Look[Caller] | None) -> Look[Caller]:
    """Return the caller, or ask to sign in."""
    if look is None:
        raise AuthenticationRequiredError(headers={"WWW-Authenticate": "Bearer"})
    return look
