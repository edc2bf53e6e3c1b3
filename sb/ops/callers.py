"""Who acts: a signed-in person, an authenticated agent or a part of the system itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sb.auth.access import Grant


class Actor(Protocol):
    """What an audit row needs to know about whoever caused it."""

    @property
    def actor(self) -> str: ...

    @property
    def http_request_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A person behind a live session, with every grant they hold."""

    user_id: str
    session_id: str
    email: str
    display_name: str
    grants: tuple[Grant, ...]
    must_change_password: bool = False
    touch_due: bool = False
    http_request_id: str | None = None

    @property
    def actor(self) -> str:
        return f"user:{self.user_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCaller:
    """An agent that presented its own secret, with what its enrolment covers."""

    agent_id: str
    name: str
    provider_connection_id: str | None
    cluster_name: str | None
    provider_type: str | None
    public_key: bytes | None
    http_request_id: str | None = None

    @property
    def actor(self) -> str:
        return f"agent:{self.agent_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anonymous:
    """Nobody yet: the caller of a public route."""

    http_request_id: str | None = None

    @property
    def actor(self) -> str:
        return "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A part of the control plane that acts by itself."""

    part: str
    http_request_id: str | None = None

    @property
    def actor(self) -> str:
        return f"system:{self.part}"
