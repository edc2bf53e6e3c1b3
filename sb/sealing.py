"""Values sealed to one reader on their way between the control plane and an agent.

An ephemeral X25519 key agrees on a secret with the recipient's static key; HKDF-SHA256 turns it
into an AES-256-GCM key. The ephemeral and the recipient's public key are the salt, so a box fits
exactly one recipient, and `info` names the direction, so a box of one direction never opens as the
other. `tests/vectors/sealing.json` has examples with fixed keys for other implementations.

There is no forward secrecy against theft of the recipient's static key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sb.errors import SbError
from sb.secret import Secret

ALGORITHM: Final = "x25519-hkdf-aes-gcm"
KEY_ALGORITHM: Final = "x25519"

#: Changing either string is a new version of the protocol.
WRAP_TO_AGENT: Final = b"secrets-bridge.wrap.v1"
WRAP_TO_CONTROL_PLANE: Final = b"secrets-bridge.wrap.v2.agent-to-cp"

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16


class SealingError(SbError):
    """A sealed value or a key is malformed or does not belong here; carries no data of it."""

    code = "sealing_failed"
    status = 400
    message = "The sealed value cannot be opened."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair:
    """An X25519 key pair, both halves raw."""

    private: Secret
    public: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBox:
    """What travels: nothing in it is secret, and nothing in it is trusted before it opens."""

    algorithm: str
    ciphertext: bytes
    nonce: bytes
    ephemeral_public_key: bytes

    def to_json(self) -> dict[str, str]:
        """Return the JSON object of the wire: bytes as standard base64."""
        return {
            "algorithm": self.algorithm,
            "ciphertext": _to_base64(self.ciphertext),
            "nonce": _to_base64(self.nonce),
            "ephemeral_public_key": _to_base64(self.ephemeral_public_key),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> SealedBox:
        """Return the box of a wire object with exactly these four fields, shapes checked."""
        if set(fields) != set(cls.__slots__) or not isinstance(fields["algorithm"], str):
            raise SealingError("A sealed value has exactly the four fields of its format.")
        box = cls(
            algorithm=fields["algorithm"],
            ciphertext=_from_base64(fields["ciphertext"]),
            nonce=_from_base64(fields["nonce"]),
            ephemeral_public_key=_from_base64(fields["ephemeral_public_key"]),
        )
        _check_shape(box)
        return box


def generate_keypair() -> KeyPair:
    """Return a new random key pair."""
    return keypair_from_private(Secret(secrets.token_bytes(KEY_BYTES)))


def keypair_from_private(private: Secret) -> KeyPair:
    """Return the pair of this raw private key; any 32 bytes are one."""
    return KeyPair(private=private, public=_load_private(private).public_key().public_bytes_raw())


def fingerprint(public: bytes) -> str:
    """Return a short name of a public key for people to compare: 11 characters."""
    digest = hashlib.sha256(public).digest()[:8]
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def agent_to_control_plane_aad(*, request_id: str, key_name: str, agent_id: str) -> bytes:
    """Return the associated data that ties an uplink box to its request, key and sender.

    The ids are UUIDs and hold no separator, so a key name may: first and last field are
    unambiguous and the rest is the name.
    """
    for part in (request_id, agent_id):
        if not part or "|" in part:
            raise SealingError("A sealed value needs the plain ids of its request and its agent.")
    return f"{request_id}|{key_name}|{agent_id}".encode()


def seal(value: Secret, recipient_public: bytes, *, info: bytes, aad: bytes = b"") -> SealedBox:
    """Return the value in a box that only the recipient's private key opens."""
    # Both are drawn afresh for every box: the derived key is used once.
    return seal_with(
        value,
        recipient_public,
        info=info,
        aad=aad,
        ephemeral=generate_keypair(),
        nonce=secrets.token_bytes(NONCE_BYTES),
    )


def seal_with(
    value: Secret,
    recipient_public: bytes,
    *,
    info: bytes,
    aad: bytes,
    ephemeral: KeyPair,
    nonce: bytes,
) -> SealedBox:
    """Return the box made with this ephemeral key and nonce; for `seal` and test vectors only."""
    shared = _agree(ephemeral.private, recipient_public)
    key = _derive(shared, salt=ephemeral.public + recipient_public, info=info)
    return SealedBox(
        algorithm=ALGORITHM,
        # The value goes into the cipher; only ciphertext comes out.
        ciphertext=_cipher(key).encrypt(nonce, value.reveal(), aad),
        nonce=nonce,
        ephemeral_public_key=ephemeral.public,
    )


def open_sealed(box: SealedBox, private_key: Secret, *, info: bytes, aad: bytes = b"") -> Secret:
    """Return the value, proven unchanged and sealed for this key, direction and context."""
    _check_shape(box)
    recipient = keypair_from_private(private_key)
    shared = _agree(recipient.private, box.ephemeral_public_key)
    key = _derive(shared, salt=box.ephemeral_public_key + recipient.public, info=info)
    try:
        return Secret(_cipher(key).decrypt(box.nonce, box.ciphertext, aad))
    except InvalidTag as error:
        raise SealingError from error


def open_sealed_with_any(
    box: SealedBox, private_keys: Iterable[Secret], *, info: bytes, aad: bytes = b""
) -> Secret:
    """Return the value opened by the first key that fits; keys of a rotation, newest first."""
    refusal = SealingError()
    for private_key in private_keys:
        try:
            return open_sealed(box, private_key, info=info, aad=aad)
        except SealingError as error:
            refusal = error
    raise refusal


def _agree(private: Secret, public: bytes) -> Secret:
    if len(public) != KEY_BYTES:
        raise SealingError("An X25519 public key has 32 bytes.")
    try:
        # A low-order point makes the library raise, and would make the shared secret all zeros.
        shared = _load_private(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise SealingError("The X25519 public key is not usable.") from error
    if hmac.compare_digest(shared, bytes(KEY_BYTES)):
        raise SealingError("The X25519 public key is not usable.")
    return Secret(shared)


def _derive(shared: Secret, *, salt: bytes, info: bytes) -> Secret:
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info)
    # The agreed secret goes into the key derivation.
    return Secret(hkdf.derive(shared.reveal()))


def _cipher(key: Secret) -> AESGCM:
    # The derived key goes into the cipher object.
    return AESGCM(key.reveal())


def _load_private(private: Secret) -> X25519PrivateKey:
    if private.byte_length != KEY_BYTES:
        raise SealingError("An X25519 private key has 32 bytes.")
    # The private key goes into the key object.
    return X25519PrivateKey.from_private_bytes(private.reveal())


def _check_shape(box: SealedBox) -> None:
    if box.algorithm != ALGORITHM:
        raise SealingError(f"The sealed value must use {ALGORITHM}.")
    if len(box.nonce) != NONCE_BYTES or len(box.ephemeral_public_key) != KEY_BYTES:
        raise SealingError("The sealed value has a nonce or key of the wrong length.")
    if len(box.ciphertext) < TAG_BYTES:
        raise SealingError("The sealed value is too short.")


def _to_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _from_base64(text: object) -> bytes:
    if isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except ValueError as error:
            raise SealingError("The sealed value is not in standard base64.") from error
    raise SealingError("The sealed value is not in standard base64.")
