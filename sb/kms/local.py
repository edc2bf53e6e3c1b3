"""Master keys held in this process: a ring whose newest key wraps and whose keys all unwrap.

To rotate, put a new key in front of the list and restart; drop the last one when no row carries
its id any more. The other keys of this module are derived from the masters with HKDF under an
`info` of their own, so replicas share them without a further setting.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sb.kms import DataKey, DataKeyRefusedError, KmsKeyUnknownError
from sb.sealing import KeyPair, keypair_from_private
from sb.secret import Secret

CONTENT_HMAC: Final = b"secrets-bridge.content-hmac.v1"
CONTROL_PLANE_KEY: Final = b"secrets-bridge.cp-x25519.v1"

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
WRAPPED_BYTES: Final = NONCE_BYTES + KEY_BYTES + TAG_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Master:
    key_id: str
    key: Secret


class LocalKeyRing:
    """The `local` key store. Needs no network and no lock; fit for any number of threads."""

    def __init__(self, masters: list[Secret]) -> None:
        """Hold these 32-byte keys, newest first; raise ValueError naming the entry at fault."""
        if not masters:
            raise ValueError("at least one master key is needed")
        ring: dict[str, _Master] = {}
        for position, key in enumerate(masters, start=1):
            if key.byte_length != KEY_BYTES:
                raise ValueError(f"master key {position} does not have {KEY_BYTES} bytes")
            key_id = _key_id(key)
            if key_id in ring:
                raise ValueError(f"master key {position} is there twice")
            ring[key_id] = _Master(key_id=key_id, key=key)
        self._ring = ring
        self._newest = next(iter(ring.values()))

    @classmethod
    def parse(cls, setting: Secret) -> LocalKeyRing:
        """Return the ring of `SB_WRAP_MASTER_KEYS`: base64 of 32 bytes, commas, newest first.

        One key without a comma is the form of `SB_WRAP_MASTER_KEY`. Raises ValueError that names
        the position of a bad entry and never its text.
        """
        # The setting goes into the base64 decoder, piece by piece.
        pieces = [piece.strip() for piece in setting.reveal().split(b",")]
        return cls([_decode(piece, position) for position, piece in enumerate(pieces, start=1)])

    @property
    def current_key_id(self) -> str:
        """The id of the newest key."""
        return self._newest.key_id

    def generate_data_key(self) -> DataKey:
        """Return a new random data key wrapped under the newest key."""
        return self.wrap_data_key(
            Secret(secrets.token_bytes(KEY_BYTES)), nonce=secrets.token_bytes(NONCE_BYTES)
        )

    def wrap_data_key(self, data_key: Secret, *, nonce: bytes) -> DataKey:
        """Return this key wrapped with this nonce; for `generate_data_key` and vectors only."""
        # The data key goes into the cipher; only its ciphertext comes out.
        wrapped = _cipher(self._newest).encrypt(nonce, data_key.reveal(), None)
        return DataKey(plaintext=data_key, ciphertext=nonce + wrapped, key_id=self._newest.key_id)

    def unwrap_data_key(self, ciphertext: bytes, key_id: str) -> Secret:
        """Return the data key, unwrapped by the key with this id."""
        master = self._ring.get(key_id)
        if master is None:
            raise KmsKeyUnknownError
        if len(ciphertext) != WRAPPED_BYTES:
            raise DataKeyRefusedError
        nonce, wrapped = ciphertext[:NONCE_BYTES], ciphertext[NONCE_BYTES:]
        try:
            return Secret(_cipher(master).decrypt(nonce, wrapped, None))
        except InvalidTag as error:
            raise DataKeyRefusedError from error

    def fingerprint_key(self) -> Secret:
        """Return the HMAC key derived from the newest key."""
        return _derive(self._newest, CONTENT_HMAC)

    def control_plane_keys(self) -> list[KeyPair]:
        """Return one key pair per master key, newest first."""
        return [
            keypair_from_private(_derive(master, CONTROL_PLANE_KEY))
            for master in self._ring.values()
        ]


def _decode(piece: bytes, position: int) -> Secret:
    try:
        return Secret(base64.b64decode(piece, validate=True))
    except ValueError as error:
        raise ValueError(f"master key {position} is not standard base64") from error


def _key_id(key: Secret) -> str:
    # The key goes into a hash; 32 random bytes cannot be guessed from it.
    digest = hashlib.sha256(key.reveal()).digest()
    return "local:" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _cipher(master: _Master) -> AESGCM:
    # The master key goes into the cipher object.
    return AESGCM(master.key.reveal())


def _derive(master: _Master, info: bytes) -> Secret:
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info)
    # The master key goes into the key derivation.
    return Secret(hkdf.derive(master.key.reveal()))
