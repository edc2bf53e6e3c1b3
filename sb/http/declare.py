"""Route declarations: method, path, who may call it, what goes in and out. Nothing else is served.

A route without `access` does not import; an app that serves an undeclared rule does not start.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from sb.auth.permissions import PERMISSION_KEYS
from sb.errors import Denial, SbError
from sb.http.limits import RateLimit
from sb.http.state import AppState
from sb.ops.callers import AgentCaller, Caller

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Public:
    """Anybody; `with_session` also looks who is signed in, without asking for it."""

    with_session: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in person, who holds the permission globally or, for `any`, at some scope.

    With `any` the operation decides on the row it finds; the check here only spares it the work.
    Whoever has a password to change first is let in only `before_password_change`.
    """

    permission: str | None = None
    scope: Literal["any", "global"] = "any"
    before_password_change: bool = False

    def __post_init__(self) -> None:
        if self.permission is not None and self.permission not in PERMISSION_KEYS:
            msg = f"{self.permission} is not in the permission catalogue"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent whose id is in the path, by its own secret."""


Access = Public | Session | Agent


@dataclass(frozen=True, slots=True, kw_only=True)
class Cookie:
    """A session cookie to set, or to clear when it has no end."""

    name: str
    value: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers; the declared status unless it names another."""

    body: Any
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Sequence[Cookie] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[B]):
    """One checked call of a route."""

    route: RouteDeclaration
    state: AppState
    body: B
    query: Any
    raw_body: bytes
    ids: Mapping[str, str]
    caller: Caller | None
    calling_agent: AgentCaller | None
    headers: Mapping[str, str]
    path: str
    request_id: str
    client_ip: str
    user_agent: str | None
    #: When it came, by the monotonic clock.
    began: float

    @property
    def person(self) -> Caller:
        """The signed-in person; routes with Session access always have one."""
        assert self.caller is not None, "the route is not declared with Session access"
        return self.caller

    @property
    def agent(self) -> AgentCaller:
        """The authenticated agent; routes with Agent access always have one."""
        assert self.calling_agent is not None, "the route is not declared with Agent access"
        return self.calling_agent


Handler = Callable[[Call[Any]], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteDeclaration:
    """Everything the edge, the OpenAPI document and the guard tests know about a route."""

    method: str
    path: str
    access: Access
    handler: Handler
    summary: str
    body: type[BaseModel] | None
    body_optional: bool
    query: type[BaseModel] | None
    returns: Any
    status: int
    creates: bool
    limit: RateLimit | None
    errors: tuple[type[SbError], ...]
    invalid_body: Denial | None
    may_be_empty: bool
    headers: tuple[str, ...]
    spends: bool

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


REGISTRY: list[RouteDeclaration] = []


def template(path: str) -> str:
    """Return the path with its variable segments in braces, as documents write it."""
    return re.sub(r"<\w+:(\w+)>", r"{\1}", path)


def route(
    method: Literal["GET", "POST", "PUT", "DELETE"],
    path: str,
    *,
    access: Access,
    summary: str,
    body: type[BaseModel] | None = None,
    body_optional: bool = False,
    query: type[BaseModel] | None = None,
    returns: Any = None,
    status: int = 200,
    creates: bool = False,
    limit: RateLimit | None = None,
    errors: tuple[type[SbError], ...] = (),
    invalid_body: Denial | None = None,
    may_be_empty: bool = False,
    headers: tuple[str, ...] = (),
    spends: bool = False,
) -> Callable[[Handler], Handler]:
    """Declare a route under `/api/v1`; `invalid_body` is audited when the body cannot be read.

    With `may_be_empty` it may answer 204 besides its status; `headers` are those it asks for. A GET
    that `spends` something does not answer HEAD.
    """

    def register(handler: Handler) -> Handler:
        declaration = RouteDeclaration(
            method=method,
            path=path,
            access=access,
            handler=handler,
            summary=summary,
            body=body,
            body_optional=body_optional,
            query=query,
            returns=returns,
            status=status,
            creates=creates,
            limit=limit,
            errors=errors,
            invalid_body=invalid_body,
            may_be_empty=may_be_empty,
            headers=headers,
            spends=spends,
        )
        if any(known.name == declaration.name for known in REGISTRY):
            msg = f"{declaration.name} is declared twice"
            raise ValueError(msg)
        REGISTRY.append(declaration)
        return handler

    return register
