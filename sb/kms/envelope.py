"""Values at rest: a fresh data key per wrap, tied to the row it was made for.

The associated data is the JSON array `[wrap_id, request_id, key_name, kms_key_id]` without spaces
and in ASCII, other characters as lower-case `\\uXXXX`, the ids as canonical lower-case UUIDs. An
array rather than joined text, because a key name may hold any separator. A row copied to another
id, request or key does not open.

Revealing takes two steps, because no key store is called while a transaction is open:
`unwrap_key` before it, `decrypt` after its commit.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import uuid
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sb.errors import SbError
from sb.kms import DataKey, DataKeyRefusedError, KeyManagement
from sb.secret import Secret

ALGORITHM: Final = "AES-256-GCM-AADv1"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
#: What is left of a ciphertext and of its data key once the value was seen or written.
ERASED: Final = b""


class WrapIntegrityError(SbError):
    """A stored wrap was changed, or moved to another row, after it was sealed."""

    code = "wrap_integrity_failed"
    status = 500
    message = "The stored value is damaged or was moved, and cannot be opened."


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedWrap:
    """The columns of a stored value.

    The HMAC covers the associated data too, so that whoever reads it in the trail cannot compare
    it with that of a value of their own; who holds the key can show which value a wrap held.
    """

    encrypted_value: bytes
    nonce: bytes
    data_key_ciphertext: bytes
    kms_key_id: str
    algorithm: str
    content_hmac: bytes
    byte_length: int


def seal_wrap(
    kms: KeyManagement, *, wrap_id: str, request_id: str, key_name: str, value: Secret
) -> SealedWrap:
    """Return the value encrypted for this row under a data key of its own; empty is a value."""
    data_key = kms.generate_data_key()
    with data_key.plaintext, kms.fingerprint_key() as fingerprint_key:
        return seal_wrap_with(
            data_key,
            fingerprint_key,
            nonce=secrets.token_bytes(NONCE_BYTES),
            aad=wrap_aad(
                wrap_id=wrap_id,
                request_id=request_id,
                key_name=key_name,
                kms_key_id=data_key.key_id,
            ),
            value=value,
        )


def seal_wrap_with(
    data_key: DataKey, fingerprint_key: Secret, *, nonce: bytes, aad: bytes, value: Secret
) -> SealedWrap:
    """Return the value encrypted with this key and nonce; for `seal_wrap` and vectors only."""
    # The value goes into the cipher and the HMAC; only ciphertext and digest come out.
    plaintext = value.reveal()
    return SealedWrap(
        encrypted_value=_cipher(data_key.plaintext).encrypt(nonce, plaintext, aad),
        nonce=nonce,
        data_key_ciphertext=data_key.ciphertext,
        kms_key_id=data_key.key_id,
        algorithm=ALGORITHM,
        # The fingerprint key goes into the HMAC.
        content_hmac=hmac.digest(fingerprint_key.reveal(), aad + b"\0" + plaintext, hashlib.sha256),
        byte_length=value.byte_length,
    )


def unwrap_key(kms: KeyManagement, sealed: SealedWrap) -> Secret:
    """Return the wrap's data key; an outage or unknown key raises and leaves the wrap usable."""
    try:
        data_key = kms.unwrap_data_key(sealed.data_key_ciphertext, sealed.kms_key_id)
    except DataKeyRefusedError as error:
        raise WrapIntegrityError from error
    if data_key.byte_length != KEY_BYTES:
        raise WrapIntegrityError
    return data_key


def decrypt(
    sealed: SealedWrap, data_key: Secret, *, wrap_id: str, request_id: str, key_name: str
) -> Secret:
    """Return the value, proven unchanged and sealed for exactly this row. Calls nothing outside."""
    if sealed.algorithm != ALGORITHM or len(sealed.nonce) != NONCE_BYTES:
        raise WrapIntegrityError
    aad = wrap_aad(
        wrap_id=wrap_id,
        request_id=request_id,
        key_name=key_name,
        kms_key_id=sealed.kms_key_id,
    )
    try:
        value = Secret(_cipher(data_key).decrypt(sealed.nonce, sealed.encrypted_value, aad))
    except InvalidTag as error:
        raise WrapIntegrityError from error
    if value.byte_length != sealed.byte_length:
        raise WrapIntegrityError
    return value


def open_wrap(
    kms: KeyManagement, sealed: SealedWrap, *, wrap_id: str, request_id: str, key_name: str
) -> Secret:
    """Return the value in one step, for callers that hold no transaction."""
    with unwrap_key(kms, sealed) as data_key:
        return decrypt(sealed, data_key, wrap_id=wrap_id, request_id=request_id, key_name=key_name)


def wrap_aad(*, wrap_id: str, request_id: str, key_name: str, kms_key_id: str) -> bytes:
    """Return the associated data of a wrap; every spelling of a UUID gives the same.

    Databases and callers accept other spellings and a row gives back the canonical one. Without
    this, such a wrap would be refused only once it is consumed.
    """
    ids = [str(uuid.UUID(wrap_id)), str(uuid.UUID(request_id))]
    return json.dumps([*ids, key_name, kms_key_id], separators=(",", ":")).encode()


def _cipher(data_key: Secret) -> AESGCM:
    # The data key goes into the cipher object.
    return AESGCM(data_key.reveal())
