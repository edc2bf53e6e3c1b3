"""Who this agent is, and whom it talks to: its credential and the control plane's key, kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import httpx

from sb.secret import Secret
from sb.wire import ControlPlaneKey, EnrollRequest, EnrollResponse
from sb_agent import private_files
from sb_agent.client import ControlPlaneAwayError, ControlPlaneError, enroll
from sb_agent.keys import AgentKeys
from sb_agent.pace import Backoff
from sb_agent.settings import AGENT_VERSION, AgentSettings

log = logging.getLogger(__name__)

CAPABILITIES = ["read", "patch"]
ENROLL_BACKOFF_SECONDS = (1.0, 30.0)


class IdentityError(Exception):
    """The agent cannot know who it is or whom it talks to; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The agent's credential, and the control plane's key as it was first seen."""

    agent_id: str
    agent_secret: Secret
    source: Literal["env", "file", "enrolled"]
    control_plane_key: str | None = None
    provider_connection_id: str | None = None


async def resolve(settings: AgentSettings, http: httpx.AsyncClient, keys: AgentKeys) -> Identity:
    """Return the identity: environment first, then the file, then enrolment; else IdentityError.

    Cancelled while enrolling, the token may or may not be spent.
    """
    if settings.agent_id and settings.agent_secret is not None:
        return _from_env(settings, settings.agent_id, settings.agent_secret)
    found = _from_file(settings.identity_file)
    if found is not None:
        return found
    if not settings.enrollment_enabled or settings.enrollment_token is None:
        raise IdentityError(no_identity(settings.identity_file))
    return await _enroll(settings, http, keys, settings.enrollment_token)


def no_identity(path: Path) -> str:
    """Return what to say where the agent has no identity and no way to get one."""
    return (
        f"no identity: set SB_AGENT_ID and SB_AGENT_SECRET, provide {path}, or give "
        "SB_ENROLLMENT_TOKEN for a first start"
    )


def look(path: Path, *, needs_secret: bool) -> bool:
    """Tell whether the file holds an identity; IdentityError where it is damaged or is half one."""
    found = _from_file(path) if needs_secret else _load(path)
    return found is not None


def pin(settings: AgentSettings, who: Identity, offered: ControlPlaneKey) -> str:
    """Return the key to seal to: the pinned one, or the offered one, pinned from now on.

    A control plane that does not know the pinned key any more is refused: sealing to whatever key
    is offered would hand values to whoever can answer in its place.
    """
    pinned = who.control_plane_key
    if pinned is None:
        _keep_pin(settings, replace(who, control_plane_key=offered.public_key))
        return offered.public_key
    if pinned == offered.public_key or pinned in offered.previous:
        # A rotated ring still opens what is sealed to the pinned key.
        return pinned
    msg = (
        "the control plane shows another key than the one this agent has pinned. If its master "
        f"keys were replaced on purpose, remove {settings.identity_file} and enrol again."
    )
    raise IdentityError(msg)


def _keep_pin(settings: AgentSettings, who: Identity) -> None:
    try:
        kept = _load(settings.identity_file)
        if kept is not None and kept["agent_id"] != who.agent_id:
            log.warning("the identity file is another agent's; the pin lasts for this run only")
            return
        write(settings.identity_file, who)
    except OSError as problem:
        fields = {"path": str(settings.identity_file), "reason": problem.strerror}
        log.warning("the control plane's key is pinned for this run only", extra={"fields": fields})


def write(path: Path, who: Identity) -> None:
    """Leave the identity in the file, atomically; a secret that came from outside stays outside."""
    fields = {
        "agent_id": who.agent_id,
        "control_plane_key": who.control_plane_key,
        "provider_connection_id": who.provider_connection_id,
    }
    if who.source != "env":
        # The credential goes into a file of mode 0600.
        fields["agent_secret"] = who.agent_secret.reveal().decode()
    private_files.replace(path, json.dumps(fields).encode())


def _from_env(settings: AgentSettings, agent_id: str, agent_secret: Secret) -> Identity:
    kept = _load(settings.identity_file)
    same = kept is not None and kept["agent_id"] == agent_id
    known = kept if kept is not None and same else {}
    return Identity(
        agent_id=agent_id,
        agent_secret=agent_secret,
        source="env",
        control_plane_key=known.get("control_plane_key"),
        provider_connection_id=(
            settings.provider_connection_id or known.get("provider_connection_id")
        ),
    )


def _from_file(path: Path) -> Identity | None:
    kept = _load(path)
    if kept is None:
        return None
    if not isinstance(kept.get("agent_secret"), str) or not kept["agent_secret"]:
        msg = (
            f"{path} holds no agent_secret: set SB_AGENT_ID and SB_AGENT_SECRET again, or remove "
            "it and enrol with a new token"
        )
        raise IdentityError(msg)
    return Identity(
        agent_id=kept["agent_id"],
        agent_secret=Secret(kept["agent_secret"].encode()),
        source="file",
        control_plane_key=kept.get("control_plane_key"),
        provider_connection_id=kept.get("provider_connection_id"),
    )


def _load(path: Path) -> Mapping[str, Any] | None:
    """Return what the identity file says, None without one; a damaged one is an error."""
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as problem:
        msg = f"{path} cannot be read: {problem.strerror}"
        raise IdentityError(msg) from problem
    except ValueError:
        fields = None  # Chaining would carry the file's text along.
    if not isinstance(fields, dict) or not isinstance(fields.get("agent_id"), str):
        msg = f"{path} is damaged: restore it, or remove it and enrol again with a new token"
        raise IdentityError(msg)
    if not private_files.is_private(path):
        log.warning("the identity file is open to others", extra={"fields": {"path": str(path)}})
    return fields


async def _enroll(
    settings: AgentSettings, http: httpx.AsyncClient, keys: AgentKeys, token: Secret
) -> Identity:
    _require_writable(settings.identity_file)
    request = EnrollRequest(
        # The token goes to the control plane, once.
        enrollment_token=token.reveal().decode(),
        agent_name=settings.agent_name,
        provider_type=settings.provider_type,
        cluster_name=settings.cluster_name,
        region=settings.region,
        agent_version=AGENT_VERSION,
        capabilities=CAPABILITIES,
        public_key=keys.public_base64,
    )
    answer = await _redeem(settings, http, request)
    # The token is spent; nothing awaits, so nothing cancels, until the identity is kept.
    who = Identity(
        agent_id=answer.agent_id,
        agent_secret=Secret(answer.agent_token.encode()),
        source="enrolled",
        control_plane_key=answer.control_plane_public_key,
        provider_connection_id=answer.provider_connection_id or None,
    )
    _keep(settings.identity_file, who)
    return who


def _require_writable(path: Path) -> None:
    try:
        private_files.check_writable(path)
    except OSError as problem:
        msg = f"{path} cannot be written ({problem.strerror}); the enrolment token was not used"
        raise IdentityError(msg) from problem


def _keep(path: Path, who: Identity) -> None:
    try:
        write(path, who)
    except OSError as problem:
        msg = (
            f"{path} cannot be written ({problem.strerror}); the enrolment token is spent: revoke "
            f"agent {who.agent_id} and enrol again with a new token"
        )
        raise IdentityError(msg) from problem


async def _redeem(
    settings: AgentSettings, http: httpx.AsyncClient, request: EnrollRequest
) -> EnrollResponse:
    """Return the answer, however long the control plane is away; a refusal is final."""
    backoff = Backoff(*ENROLL_BACKOFF_SECONDS)
    while True:
        try:
            return await enroll(http, settings, request)
        except ControlPlaneAwayError as problem:
            log.warning("enrolment waits", extra={"fields": {"reason": str(problem)}})
        except ControlPlaneError as problem:
            msg = f"enrolment was refused: {problem.code}"
            raise IdentityError(msg) from problem
        await backoff.wait()
