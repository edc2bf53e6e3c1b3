"""Vault's KV engine, version 2, as its published API and plugin source describe it.

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Reply = tuple[int, dict[str, Any] | None]
NOT_FOUND: Reply = (404, {"errors": []})
DEFAULT_MAX_VERSIONS = 10


def refused(status: int, *errors: str) -> Reply:
    """Return an error as Vault words it."""
    return status, {"errors": list(errors)}


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


@dataclass
class Version:
    data: dict[str, Any] | None
    created: str
    deleted: str = ""
    destroyed: bool = False

    @property
    def readable(self) -> bool:
        return not self.deleted and not self.destroyed


@dataclass
class Key:
    created: str
    updated: str
    current: int = 0
    oldest: int = 0
    versions: dict[int, Version] = field(default_factory=dict)
    cas_required: bool = False
    max_versions: int = 0
    custom_metadata: dict[str, str] | None = None


class KvEngine:
    """One mount: versions, check-and-set, soft and hard deletion, metadata."""

    def __init__(self) -> None:
        self.cas_required = False
        self.max_versions = 0
        self._keys: dict[str, Key] = {}
        self._lock = threading.Lock()

    def exists(self, path: str) -> bool:
        """Tell whether a write needs `update` rather than `create`."""
        return path.partition("/")[2] in self._keys

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Reply:
        """Answer one request to this mount."""
        kind, _, key = path.partition("/")
        method = "POST" if method == "PUT" else method
        if method == "GET" and query.get("list") == "true":
            method = "LIST"
        handlers: dict[tuple[str, str], Callable[[], Reply]] = {
            ("GET", "data"): lambda: self._read(key, int(query.get("version") or 0)),
            ("POST", "data"): lambda: self._write(key, body),
            ("DELETE", "data"): lambda: self._delete(key, None),
            ("POST", "delete"): lambda: self._delete(key, body.get("versions")),
            ("POST", "undelete"): lambda: self._undelete(key, body.get("versions")),
            ("POST", "destroy"): lambda: self._destroy(key, body.get("versions")),
            ("GET", "metadata"): lambda: self._read_metadata(key),
            ("POST", "metadata"): lambda: self._write_metadata(key, body),
            ("DELETE", "metadata"): lambda: self._forget(key),
            ("LIST", "metadata"): lambda: self._list(key),
            ("GET", "config"): self._read_config,
            ("POST", "config"): lambda: self._write_config(body),
        }
        if kind not in {known for _, known in handlers}:
            return refused(404, "1 error occurred:\n\t* unsupported path\n\n")
        if (method, kind) not in handlers:
            return refused(405, "1 error occurred:\n\t* unsupported operation\n\n")
        with self._lock:
            return handlers[method, kind]()

    def _read(self, path: str, wanted: int) -> Reply:
        key = self._keys.get(path)
        number = wanted or (key.current if key else 0)
        version = key.versions.get(number) if key else None
        if key is None or version is None:
            return NOT_FOUND
        metadata = self._described(key, number, version)
        data = version.data if version.readable else None
        return 200 if version.readable else 404, {"data": {"data": data, "metadata": metadata}}

    @staticmethod
    def _described(key: Key, number: int, version: Version) -> dict[str, Any]:
        return {
            "created_time": version.created,
            "custom_metadata": key.custom_metadata,
            "deletion_time": version.deleted,
            "destroyed": version.destroyed,
            "version": number,
        }

    def _write(self, path: str, body: Any) -> Reply:
        if "data" not in body:
            return refused(400, "no data provided")
        if not isinstance(body["data"], dict):
            return refused(400, 'error converting input for field "data": expected a map')
        key = self._keys.get(path) or Key(created=stamp(), updated=stamp())
        problem = self._check_cas(key, body.get("options") or {})
        if problem:
            return refused(400, problem)
        self._keys[path] = key
        key.current += 1
        key.updated = stamp()
        version = Version(data=body["data"], created=key.updated)
        key.versions[key.current] = version
        kept = max(key.max_versions, self.max_versions) or DEFAULT_MAX_VERSIONS
        for number in [n for n in key.versions if n <= key.current - kept]:
            del key.versions[number]
        key.oldest = max(key.current - kept + 1, 0)
        return 200, {"data": self._described(key, key.current, version)}

    def _check_cas(self, key: Key, options: dict[str, Any]) -> str | None:
        if "cas" not in options:
            if self.cas_required or key.cas_required:
                return "check-and-set parameter required for this call"
            return None
        try:
            expected = int(options["cas"])
        except (TypeError, ValueError):
            return "error parsing check-and-set parameter"
        if expected != key.current:
            return "check-and-set parameter did not match the current version"
        return None

    def _chosen(self, path: str, numbers: list[int] | None) -> list[Version]:
        key = self._keys.get(path)
        if key is None:
            return []
        wanted = numbers if numbers is not None else [key.current]
        return [key.versions[int(n)] for n in wanted if int(n) in key.versions]

    def _delete(self, path: str, numbers: list[int] | None) -> Reply:
        for version in self._chosen(path, numbers):
            if version.readable:
                version.deleted = stamp()
        return 204, None

    def _undelete(self, path: str, numbers: list[int] | None) -> Reply:
        if not numbers:
            return refused(400, "No version number provided")
        for version in self._chosen(path, numbers):
            version.deleted = ""
        return 204, None

    def _destroy(self, path: str, numbers: list[int] | None) -> Reply:
        if not numbers:
            return refused(400, "No version number provided")
        for version in self._chosen(path, numbers):
            version.data, version.destroyed = None, True
        return 204, None

    def _read_metadata(self, path: str) -> Reply:
        key = self._keys.get(path)
        if key is None:
            return NOT_FOUND
        versions = {
            str(number): {
                "created_time": version.created,
                "deletion_time": version.deleted,
                "destroyed": version.destroyed,
            }
            for number, version in key.versions.items()
        }
        found = {
            "cas_required": key.cas_required,
            "created_time": key.created,
            "current_version": key.current,
            "custom_metadata": key.custom_metadata,
            "delete_version_after": "0s",
            "max_versions": key.max_versions,
            "oldest_version": key.oldest,
            "updated_time": key.updated,
            "versions": versions,
        }
        return 200, {"data": found}

    def _write_metadata(self, path: str, body: Any) -> Reply:
        custom = body.get("custom_metadata")
        if custom is not None and not all(isinstance(value, str) for value in custom.values()):
            return refused(400, "1 error occurred:\n\t* custom_metadata values must be strings\n\n")
        key = self._keys.setdefault(path, Key(created=stamp(), updated=stamp()))
        key.cas_required = bool(body.get("cas_required", key.cas_required))
        key.max_versions = int(body.get("max_versions", key.max_versions))
        if custom is not None:
            key.custom_metadata = dict(custom)
        return 204, None

    def _forget(self, path: str) -> Reply:
        self._keys.pop(path, None)
        return 204, None

    def _list(self, path: str) -> Reply:
        folder = path.rstrip("/") + "/" if path else ""
        rests = [key.removeprefix(folder) for key in self._keys if key.startswith(folder)]
        names = sorted({rest.partition("/")[0] + ("/" if "/" in rest else "") for rest in rests})
        return (200, {"data": {"keys": names}}) if names else NOT_FOUND

    def _read_config(self) -> Reply:
        return 200, {
            "data": {
                "cas_required": self.cas_required,
                "delete_version_after": "0s",
                "max_versions": self.max_versions,
            }
        }

    def _write_config(self, body: Any) -> Reply:
        self.cas_required = bool(body.get("cas_required", self.cas_required))
        self.max_versions = int(body.get("max_versions", self.max_versions))
        return 204, None
