"""The agent's X25519 key pair: from its environment, a file, a new file, or for this run only."""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sb.sealing import KeyPair, fingerprint, generate_keypair, keypair_from_private
from sb.secret import Secret
from sb_agent import private_files
from sb_agent.settings import KEY_BYTES, AgentSettings

log = logging.getLogger(__name__)

Source = Literal["env", "file", "file-generated", "ephemeral"]


class KeyFileError(Exception):
    """The private key cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKeys:
    """The key pair and where it comes from."""

    pair: KeyPair
    source: Source

    @property
    def public_base64(self) -> str:
        return base64.b64encode(self.pair.public).decode()


def resolve(settings: AgentSettings) -> AgentKeys:
    """Return the key pair of this agent, making one where none is configured."""
    keys = _resolve(settings)
    fields = {"source": keys.source, "fingerprint": fingerprint(keys.pair.public)}
    log.info("keypair ready", extra={"fields": fields})
    if keys.source == "ephemeral":
        log.warning("the key pair lasts for this run only; set SB_AGENT_PRIVATE_KEY_FILE")
    return keys


def _resolve(settings: AgentSettings) -> AgentKeys:
    if settings.private_key is not None:
        return AgentKeys(pair=_from_base64(settings.private_key), source="env")
    path = settings.private_key_file
    if path is None:
        return AgentKeys(pair=generate_keypair(), source="ephemeral")
    try:
        pair = generate_keypair()
        # The private key goes into a new file of mode 0600, unless there is one already.
        if not path.exists() and private_files.create(path, pair.private.reveal()):
            return AgentKeys(pair=pair, source="file-generated")
        return AgentKeys(pair=_read(path), source="file")
    except OSError as problem:
        msg = f"the private key file {path} cannot be used: {problem.strerror}"
        raise KeyFileError(msg) from problem


def _from_base64(text: Secret) -> KeyPair:
    try:
        # The text is decoded into the key it stands for.
        raw = base64.b64decode(text.reveal(), validate=True)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        msg = f"the private key is not {KEY_BYTES} bytes of base64"
        raise KeyFileError(msg)
    return keypair_from_private(Secret(raw))


def _read(path: Path) -> KeyPair:
    raw = path.read_bytes()
    if len(raw) != KEY_BYTES:
        msg = f"{path} must hold exactly {KEY_BYTES} bytes"
        raise KeyFileError(msg)
    if not private_files.is_private(path):
        log.warning("the private key file is open to others", extra={"fields": {"path": str(path)}})
    return keypair_from_private(Secret(raw))
