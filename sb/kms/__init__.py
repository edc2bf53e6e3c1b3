"""Keys that protect stored values: what every key store offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sb.errors import SbError
from sb.sealing import KeyPair
from sb.secret import Secret

__all__ = ["DataKey", "DataKeyRefusedError", "KeyManagement", "KmsKeyUnknownError"]


class KmsKeyUnknownError(SbError):
    """The value needs a master key that this server does not hold.

    It is an outage, not a loss: the value opens once the key is back, so nothing may be consumed.
    """

    code = "kms_key_unknown"
    status = 503
    message = (
        "The master key of this value is not in this server's key ring. Nothing was changed; "
        "an operator can add the key back."
    )


class DataKeyRefusedError(SbError):
    """A wrapped data key is damaged or was wrapped by something else."""

    code = "data_key_refused"
    status = 500
    message = "A stored data key is damaged and cannot be used."


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKey:
    """A fresh 32-byte key: in clear for one use, wrapped for storage, and by which master."""

    plaintext: Secret
    ciphertext: bytes
    key_id: str


class KeyManagement(Protocol):
    """Master keys that never leave their store. Calls may block: enter them through a thread."""

    @property
    def current_key_id(self) -> str:
        """The id of the master key that wraps new data keys."""
        ...

    def generate_data_key(self) -> DataKey:
        """Return a new data key wrapped under the current master key."""
        ...

    def unwrap_data_key(self, ciphertext: bytes, key_id: str) -> Secret:
        """Return the data key; raise KmsKeyUnknownError or DataKeyRefusedError."""
        ...

    def fingerprint_key(self) -> Secret:
        """Return the key for the HMAC of values under the current master key.

        It changes with the current master key, whose id stands beside every HMAC. No value is ever
        checked against one, so rotation breaks nothing.
        """
        ...

    def control_plane_keys(self) -> list[KeyPair]:
        """Return the key pairs to which agents seal values, newest first.

        The same on every replica. Agents are given the first; the others open what agents with
        an older pin still send.
        """
        ...
