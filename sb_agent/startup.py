"""Whether an agent could start: its settings, provider, identity and key, all problems at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from sb_agent import identity, private_files, providers
from sb_agent.settings import DEFAULT_IDENTITY_FILE, KEY_BYTES, AgentSettings, is_yes, load


def load_to_start(environ: Mapping[str, str] | None = None) -> AgentSettings:
    """Return the settings of an agent that could start, or raise AgentSettingsError.

    Nothing is made and nobody is called; what only Vault or the control plane knows stays open.
    """
    return load(environ, also=_problems)


def _problems(found: Mapping[str, str]) -> Iterator[str]:
    yield from providers.problems(found.get("SB_PROVIDER_TYPE") or providers.KINDS[0], found)
    if (ca_file := found.get("SB_CP_CA_FILE")) and Path(ca_file).is_file():
        yield from _told("SB_CP_CA_FILE", private_files.no_authority(Path(ca_file)))
    yield from _identity(found)
    yield from _key(found)


def _identity(found: Mapping[str, str]) -> Iterator[str]:
    """Yield why the agent could not know who it is; a fixed identity needs no file."""
    path = Path(found.get("SB_IDENTITY_FILE") or DEFAULT_IDENTITY_FILE)
    fixed = bool(found.get("SB_AGENT_ID") or found.get("SB_AGENT_SECRET"))
    try:
        kept = identity.look(path, needs_secret=not fixed)
    except identity.IdentityError as problem:
        yield f"SB_IDENTITY_FILE: {problem}"
        return
    if kept or fixed:
        return
    token = found.get("SB_ENROLLMENT_TOKEN") or found.get("SB_ENROLLMENT_TOKEN_FILE")
    if not token or not is_yes(found.get("SB_ENROLLMENT_ENABLED") or "true"):
        yield identity.no_identity(path)
    else:
        yield from _told("SB_IDENTITY_FILE", private_files.unusable(path))


def _key(found: Mapping[str, str]) -> Iterator[str]:
    if path := found.get("SB_AGENT_PRIVATE_KEY_FILE"):
        reason = private_files.unusable(Path(path), size=KEY_BYTES)
        yield from _told("SB_AGENT_PRIVATE_KEY_FILE", reason)


def _told(name: str, reason: str | None) -> Iterator[str]:
    if reason is not None:
        yield f"{name}: {reason}"
