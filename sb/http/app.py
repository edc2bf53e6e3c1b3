"""The application: declared routes under `/api/v1`, probes, metrics and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, cast

import trio
from pydantic import BaseModel, TypeAdapter
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from sb.clock import monotonic
from sb.errors import InvalidInputError
from sb.http import errors, guards, health, openapi
from sb.http.bodies import (
    LARGE_BODY_BYTES,
    MAX_BODY_BYTES,
    InvalidJsonError,
    UnsupportedMediaTypeError,
    parse_body,
    parse_query,
)
from sb.http.declare import REGISTRY, Agent, Call, Cookie, Reply, RouteDeclaration, Session
from sb.http.endings import WholeEndings
from sb.http.limits import enforce
from sb.http.looks import CallerChangedError, Look
from sb.http.observe import Observed, name_route
from sb.http.routes import load_all
from sb.http.state import AppState
from sb.ids import is_id
from sb.ops.callers import Actor, AgentCaller, Anonymous, Caller
from sb.threads import run_blocking

PREFIX = "/api/v1"
BODY_SECONDS = 10
_LARGE_BODIES = trio.CapacityLimiter(2)
UNREADABLE = (InvalidInputError, InvalidJsonError, UnsupportedMediaTypeError)
_Look = Look[Caller] | Look[AgentCaller]


class _IdConverter(BaseConverter):
    """One path segment; whether it is an id is checked later, so that a bad one is a 400."""


class _NameConverter(BaseConverter):
    """One path segment that is a name; an unknown one is for the operation to refuse."""


def create_app(state: AppState) -> QuartTrio:
    """Return the application over this state; only declared routes are served."""
    load_all()
    app = QuartTrio("sb", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    # A doubled slash is an unknown path; following it would redirect to whatever Host said.
    app.url_map.merge_slashes = False
    app.url_map.converters["id"] = _IdConverter
    app.url_map.converters["name"] = _NameConverter
    for declaration in REGISTRY:
        app.add_url_rule(
            PREFIX + declaration.path,
            endpoint=declaration.name,
            view_func=_view(declaration, state),
            methods=[declaration.method],
        )
    spending = {declaration.name for declaration in REGISTRY if declaration.spends}
    for rule in app.url_map.iter_rules():
        if rule.endpoint in spending:
            # HEAD would run the handler of GET and spend what nobody sees.
            rule.methods = (rule.methods or set()) - {"HEAD"}
    health.register(app, state)
    openapi.register(app)
    _refuse_undeclared(app)

    async def unmatched(problem: Exception) -> Response:
        return _response(await _refused(problem, state=state, look=None, route=""))

    app.register_error_handler(HTTPException, unmatched)
    app.asgi_app = Observed(WholeEndings(app.asgi_app), state)  # type: ignore[method-assign]
    return app


def _refuse_undeclared(app: QuartTrio) -> None:
    declared = {declaration.name for declaration in REGISTRY}
    served = {rule.endpoint for rule in app.url_map.iter_rules()}
    unknown = served - declared - health.ENDPOINTS - openapi.ENDPOINTS
    if unknown:
        msg = f"served without a declaration: {sorted(unknown)}"
        raise RuntimeError(msg)


def _view(declaration: RouteDeclaration, state: AppState) -> Callable[..., Awaitable[Response]]:
    async def view(**ids: str) -> Response:
        scope: Any = request.scope
        name_route(scope, PREFIX + declaration.path)
        look: _Look | None = None
        began = monotonic()
        try:
            found = _checked_ids(ids, declaration.path)
            # Who, then whether, then how often, then what: a stranger learns nothing of the body.
            look = await _authenticate(declaration, state, found)
            # Apart from the step before, so that a refusal's trail knows whom it refused.
            _authorise(declaration, look)
            await _limit(declaration, state, look)
            raw = await _read_body(declaration)
            call = await _call(declaration, state, found, look, raw, began)
            try:
                reply = await declaration.handler(call)
            except Exception as problem:
                if not isinstance(errors.meaning_of(problem), CallerChangedError):
                    raise
                # Nothing was done yet: begin anew, as who they are by now.
                look = await _authenticate(declaration, state, found)
                _authorise(declaration, look)
                reply = await declaration.handler(_as(call, look, state))
            return _response(reply, declaration.status, state)
        except Exception as problem:  # noqa: BLE001 # the one boundary where errors become responses
            return _response(
                await _refused(problem, state=state, look=look, route=declaration.name)
            )

    return view


def _checked_ids(segments: dict[str, str], path: str) -> dict[str, str]:
    found = dict(segments)
    for name in segments:
        if f"<id:{name}>" in path:
            found[name] = segments[name].lower()
            if not is_id(found[name]):
                raise errors.InvalidIdError(field=name)
    return found


async def _authenticate(
    declaration: RouteDeclaration, state: AppState, ids: dict[str, str]
) -> _Look | None:
    scope: Any = request.scope
    access = declaration.access
    look: _Look | None = None
    if isinstance(access, Agent):
        look = await guards.find_agent(
            state,
            agent_id=ids["agent_id"],
            headers=_headers(),
            client_ip=scope["sb.client_ip"],
            request_id=scope["sb.request_id"],
        )
    elif isinstance(access, Session) or access.with_session:
        look = await guards.find_session(
            state,
            method=declaration.method,
            headers=_headers(),
            cookie=request.cookies.get(guards.COOKIE),
            request_id=scope["sb.request_id"],
        )
        if isinstance(access, Session):
            look = guards.require_person(look)
    if look is not None:
        scope["sb.actor"] = look.who.actor
    return look


def _authorise(declaration: RouteDeclaration, look: _Look | None) -> None:
    access = declaration.access
    if not isinstance(access, Session) or look is None:
        return
    caller = look.who
    assert isinstance(caller, Caller), "sessions are people's"
    guards.require_own_password(caller, access, route=declaration.name)
    if access.permission is not None:
        guards.require_permission(caller, access.permission, access.scope, route=declaration.name)


def _headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


async def _limit(declaration: RouteDeclaration, state: AppState, look: _Look | None) -> None:
    if declaration.limit is None:
        return
    scope: Any = request.scope
    key: str = scope["sb.client_ip"]
    who = None if look is None else look.who
    if declaration.limit.key == "user" and isinstance(who, Caller):
        key = who.user_id
    if declaration.limit.key == "agent" and isinstance(who, AgentCaller):
        key = who.agent_id
    await enforce(declaration.limit, state=state, key=key)


async def _read_body(declaration: RouteDeclaration) -> bytes:
    if declaration.body is None:
        return b""
    return cast("bytes", await request.get_data(cache=False))


async def _call(
    declaration: RouteDeclaration,
    state: AppState,
    ids: dict[str, str],
    look: _Look | None,
    raw: bytes,
    began: float,
) -> Call[Any]:
    scope: Any = request.scope
    body: BaseModel | None = None
    if declaration.body is not None:
        parse = partial(
            parse_body,
            declaration.body,
            raw,
            content_type=request.headers.get("content-type"),
            optional=declaration.body_optional,
        )
        try:
            if len(raw) > LARGE_BODY_BYTES:
                body = await run_blocking(parse, limiter=_LARGE_BODIES)
            else:
                body = parse()
        except UNREADABLE as problem:
            problem.audit = declaration.invalid_body
            raise
    query = None
    if declaration.query is not None:
        query = parse_query(declaration.query, dict(request.args.lists()))
    call: Call[Any] = Call(
        route=declaration,
        state=state,
        body=body,
        query=query,
        raw_body=raw,
        ids=ids,
        caller=None,
        calling_agent=None,
        headers=_headers(),
        path=request.path,
        request_id=scope["sb.request_id"],
        client_ip=scope["sb.client_ip"],
        user_agent=request.headers.get("user-agent"),
        began=began,
    )
    return _as(call, look, state)


def _as(call: Call[Any], look: _Look | None, state: AppState) -> Call[Any]:
    """Return the call as this caller's, who is looked up again in transactions that come late."""
    if look is None:
        return replace(call, caller=None, calling_agent=None, state=state)
    return replace(
        call,
        caller=look.who if isinstance(look.who, Caller) else None,
        calling_agent=look.who if isinstance(look.who, AgentCaller) else None,
        state=replace(state, db=state.db.watched(look)),
    )


async def _refused(
    problem: Exception,
    *,
    state: AppState,
    look: _Look | None,
    route: str,
) -> Reply:
    scope: Any = request.scope
    request_id = scope["sb.request_id"]
    by: Actor = Anonymous(http_request_id=request_id) if look is None else look.who
    return await errors.to_reply(
        problem,
        state=state,
        by=by,
        request_id=request_id,
        client_ip=scope["sb.client_ip"],
        route=route,
    )


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


def _response(reply: Reply, status: int = 200, state: AppState | None = None) -> Response:
    payload = b"" if reply.body is None else _ANYTHING.dump_json(reply.body)
    response = Response(payload, status=reply.status or status, content_type="application/json")
    if reply.body is None:
        response.headers.pop("Content-Type", None)
    response.headers["Cache-Control"] = "no-store"
    for name, value in reply.headers.items():
        response.headers[name] = value
    for cookie in reply.cookies:
        _set_cookie(response, cookie, secure=state is None or state.secure_cookies)
    return response


def _set_cookie(response: Response, cookie: Cookie, *, secure: bool) -> None:
    if cookie.expires_at is None:
        response.delete_cookie(
            cookie.name, path="/", secure=secure, httponly=True, samesite="Strict"
        )
        return
    response.set_cookie(
        cookie.name,
        cookie.value,
        expires=cookie.expires_at,
        path="/",
        secure=secure,
        httponly=True,
        samesite="Strict",
    )
