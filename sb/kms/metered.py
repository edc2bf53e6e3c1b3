"""Key management with a stopwatch: how long each operation of the key store takes."""

from __future__ import annotations

from prometheus_client import Histogram

from sb.kms import DataKey, KeyManagement
from sb.sealing import KeyPair
from sb.secret import Secret


class MeteredKeys:
    """The key store it wraps; what goes to the store is observed by operation, failures too."""

    def __init__(self, keys: KeyManagement, seconds: Histogram) -> None:
        self._keys = keys
        self._generate = seconds.labels(op="generate_data_key")
        self._unwrap = seconds.labels(op="unwrap_data_key")

    @property
    def current_key_id(self) -> str:
        return self._keys.current_key_id

    def generate_data_key(self) -> DataKey:
        with self._generate.time():
            return self._keys.generate_data_key()

    def unwrap_data_key(self, ciphertext: bytes, key_id: str) -> Secret:
        with self._unwrap.time():
            return self._keys.unwrap_data_key(ciphertext, key_id)

    def fingerprint_key(self) -> Secret:
        return self._keys.fingerprint_key()

    def control_plane_keys(self) -> list[KeyPair]:
        return self._keys.control_plane_keys()
