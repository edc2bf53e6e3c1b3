"""A small encrypted store in one file, for development and tests: versions, compare-and-set."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sb_agent import private_files
from sb_agent.providers import (
    Bundle,
    ConflictError,
    InvalidConfigError,
    SecretNotFoundError,
    UnavailableError,
)

_AAD = b"secrets-bridge.file-store.v1"
NONCE_BYTES = 12
KEY_BYTES = 32
_REQUIRED = "SB_FILE_STORE_PATH is required for provider type file"


class FileProvider:
    """Secrets in an AES-256-GCM file under a key file of mode 0600 beside it."""

    routing_keys = frozenset[str]()

    def __init__(self, path: Path, key_file: Path) -> None:
        self._path = path
        self._key = _load_key(key_file)

    def read(self, ref: str, config: Mapping[str, str]) -> Bundle:
        del config
        with self._locked():
            entry = self._load().get(ref)
        if entry is None:
            msg = "the secret does not exist"
            raise SecretNotFoundError(msg)
        return Bundle(values=entry["values"], version=entry["version"])

    def write(
        self, ref: str, values: Mapping[str, Any], *, expected: int, config: Mapping[str, str]
    ) -> int:
        del config
        with self._locked():
            store = self._load()
            current = store.get(ref, {"version": 0})["version"]
            if current != expected:
                msg = "the secret was changed meanwhile"
                raise ConflictError(msg)
            store[ref] = {"values": dict(values), "version": current + 1}
            self._save(store)
        return int(current) + 1

    def current_version(self, ref: str, config: Mapping[str, str]) -> int:
        del config
        with self._locked():
            return int(self._load().get(ref, {"version": 0})["version"])

    def keep_alive(self) -> None:
        """Nothing here ends."""

    def seed(self, samples: Mapping[str, Mapping[str, str]]) -> None:
        """Put the samples into a store that does not exist yet; an existing one stays as it is."""
        with self._locked():
            if self._path.exists():
                return
            self._save({ref: {"values": dict(keys), "version": 1} for ref, keys in samples.items()})

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.with_name(self._path.name + ".lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _load(self) -> dict[str, Any]:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        try:
            clear = AESGCM(self._key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _AAD)
        except InvalidTag:
            msg = "the store cannot be opened with its key file"
            raise UnavailableError(msg) from None
        found: dict[str, Any] = json.loads(clear)
        return found

    def _save(self, store: Mapping[str, Any]) -> None:
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(self._key).encrypt(nonce, json.dumps(store).encode(), _AAD)
        handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".store-")
        with os.fdopen(handle, "wb") as file:
            file.write(nonce + sealed)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(self._path)


def _load_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = AESGCM.generate_key(bit_length=256)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(key)
    if len(key) != KEY_BYTES:
        msg = f"the store's key file must hold exactly {KEY_BYTES} bytes"
        raise InvalidConfigError(msg)
    return key


def problems(env: Mapping[str, str]) -> Iterator[str]:
    """Yield everything that keeps this store from being used; nothing is made."""
    path = env.get("SB_FILE_STORE_PATH")
    if not path:
        yield _REQUIRED
        return
    if store := private_files.unusable(Path(path)):
        yield f"SB_FILE_STORE_PATH: {store}"
    named = env.get("SB_FILE_STORE_KEY_FILE")
    key_file = private_files.unusable(Path(named or f"{path}.key"), size=KEY_BYTES)
    # Beside a store without a place, the key's place is the same problem.
    if key_file and (named or not store):
        yield f"SB_FILE_STORE_KEY_FILE: {key_file}"


def open_provider(env: Mapping[str, str]) -> FileProvider:
    """Return the store named by SB_FILE_STORE_PATH and SB_FILE_STORE_KEY_FILE."""
    path = env.get("SB_FILE_STORE_PATH")
    if not path:
        raise InvalidConfigError(_REQUIRED)
    key_file = env.get("SB_FILE_STORE_KEY_FILE") or f"{path}.key"
    return FileProvider(Path(path), Path(key_file))
