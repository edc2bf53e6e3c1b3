"""HashiCorp Vault, KV version 2, through hvac.

API: https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import hvac
import requests
from hvac import exceptions as vault_errors

from sb.clock import monotonic
from sb.secret import Secret
from sb_agent.private_files import no_authority
from sb_agent.providers import (
    AuthFailedError,
    Bundle,
    ConflictError,
    InvalidConfigError,
    NotKeyValueError,
    ProviderError,
    ProviderPermissionError,
    SecretNotFoundError,
    ThrottledError,
    UnavailableError,
)

log = logging.getLogger(__name__)

CALL_SECONDS: Final = 10
DEFAULT_MOUNT: Final = "secret"
#: Where Kubernetes puts the pod's own token. Neither a job nor the environment can move it.
SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
RELOGIN_WHEN_LEFT_SECONDS: Final = 30
#: A renewal that failed is tried again with the first call after this.
RENEW_RETRY_SECONDS: Final = 15
_ROLE: Final = "SB_VAULT_KUBERNETES_ROLE"
_ADDRESS: Final = re.compile(r"https?://[^/\s?#@]+(/[^\s?#@]*)?")
_CAS_MISMATCH: Final = "check-and-set parameter did not match"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultConfig:
    """Where Vault is and as whom the agent speaks to it: from the agent's environment alone."""

    address: str
    namespace: str | None = None
    mount: str = DEFAULT_MOUNT
    prefix: str = ""
    token: Secret | None = None
    kubernetes_role: str | None = None
    kubernetes_mount: str = "kubernetes"
    service_account_token: Path = SERVICE_ACCOUNT_TOKEN
    ca_file: str | None = None


#: Mounts of Vault itself.
_NO_STORES = frozenset({"sys", "auth", "identity", "cubbyhole"})
_KV_API = frozenset({"data", "metadata", "delete", "undelete", "destroy", "subkeys"})


class VaultProvider:
    """KV v2 secrets of one Vault, with one client kept while its token lives."""

    routing_keys = frozenset({"kvMount", "kvPrefix"})

    def __init__(self, config: VaultConfig, *, clock: Callable[[], float] = monotonic) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._client: hvac.Client | None = None
        #: When the token should be renewed (token auth) or replaced (kubernetes); None for never.
        self._refresh_at: float | None = None

    def read(self, ref: str, config: Mapping[str, str]) -> Bundle:
        mount, path = self._place(ref, config)
        answer = self._call(
            lambda client: client.secrets.kv.v2.read_secret_version(
                path=path, mount_point=mount, raise_on_deleted_version=True
            )
        )
        data = answer["data"]
        if data["data"] is None:
            msg = "the secret's current version is deleted"
            raise SecretNotFoundError(msg)
        if not isinstance(data["data"], dict):
            msg = "the secret is not a set of keys and values"
            raise NotKeyValueError(msg)
        return Bundle(values=data["data"], version=int(data["metadata"]["version"]))

    def write(
        self, ref: str, values: Mapping[str, Any], *, expected: int, config: Mapping[str, str]
    ) -> int:
        mount, path = self._place(ref, config)
        answer = self._call(
            lambda client: client.secrets.kv.v2.create_or_update_secret(
                path=path, secret=dict(values), cas=expected, mount_point=mount
            )
        )
        return int(answer["data"]["version"])

    def current_version(self, ref: str, config: Mapping[str, str]) -> int:
        # A deleted secret reads as absent, yet its next write must name the deleted version. That
        # 404 names it, so a policy for `data/` is enough.
        mount, path = self._place(ref, config)

        def look(client: hvac.Client) -> Any:
            try:
                return client.secrets.kv.v2.read_secret_version(
                    path=path, mount_point=mount, raise_on_deleted_version=True
                )
            except vault_errors.InvalidPath as problem:
                return problem.json or {}

        data = self._call(look).get("data")
        return int(data["metadata"]["version"]) if data else 0

    def keep_alive(self) -> None:
        # Nobody gives the agent another token, so an idle agent must not lose this one. A login
        # can be repeated when there is work.
        if self._config.token is not None:
            self._ready_client()

    def _place(self, ref: str, config: Mapping[str, str]) -> tuple[str, str]:
        mount = _parts(config.get("kvMount") or self._config.mount)
        if "kvMount" in config and (mount[0] in _NO_STORES or _KV_API & {*mount}):
            # A part of the secrets engine's own API inside the mount would name another secret.
            msg = "the mount is not one of a secrets engine"
            raise InvalidConfigError(msg)
        prefix = config.get("kvPrefix", self._config.prefix).strip("/")
        path = [*(_parts(prefix) if prefix else []), *_parts(ref)]
        return "/".join(mount), "/".join(path)

    def _call(self, call: Callable[[hvac.Client], Any]) -> dict[str, Any]:
        client = self._ready_client()
        try:
            return _translated(lambda: call(client))
        except ProviderPermissionError:
            # A token that died early looks like a missing permission: log in once more and retry.
            if not self._forget_dead_token(client):
                raise
        retried = self._ready_client()
        return _translated(lambda: call(retried))

    def _forget_dead_token(self, client: hvac.Client) -> bool:
        if self._config.token is not None:
            return False
        try:
            _translated(client.auth.token.lookup_self)
        except (ProviderPermissionError, SecretNotFoundError):
            with self._lock:
                if self._client is client:
                    self._client = None
            return True
        return False

    def _ready_client(self) -> hvac.Client:
        with self._lock:
            if self._client is not None and not self._due():
                return self._client
            if self._client is not None and self._config.token is not None:
                self._renew(self._client)
                return self._client
            self._client = self._login()
            return self._client

    def _due(self) -> bool:
        return self._refresh_at is not None and self._clock() >= self._refresh_at

    def _login(self) -> hvac.Client:
        client = hvac.Client(
            url=self._config.address,
            # Without one, the client would look for a token in the environment and at home.
            token="",
            namespace=self._config.namespace,
            timeout=CALL_SECONDS,
            verify=self._config.ca_file or True,
            allow_redirects=False,
        )
        if self._config.token is not None:
            # The token goes into the client of this provider, for the address of its config.
            client.token = self._config.token.reveal().decode()
            self._look_up(client)
            return client
        try:
            jwt = self._config.service_account_token.read_text().strip()
        except OSError as problem:
            msg = "the pod's service account token cannot be read"
            raise AuthFailedError(msg) from problem
        answer = _login_translated(
            lambda: client.auth.kubernetes.login(
                role=self._config.kubernetes_role,
                jwt=jwt,
                mount_point=self._config.kubernetes_mount,
            )
        )
        lease = int(answer["auth"]["lease_duration"])
        left = max(lease - RELOGIN_WHEN_LEFT_SECONDS, 1)
        self._refresh_at = self._clock() + left if lease else None
        return client

    def _look_up(self, client: hvac.Client) -> None:
        try:
            found = _translated(client.auth.token.lookup_self)["data"]
        except ProviderPermissionError:
            # Dead, or not allowed to look at itself: the call that needs it will tell.
            self._refresh_at = None
            return
        self._plan_renewal(found.get("ttl") or 0, renewable=bool(found.get("renewable")))

    def _renew(self, client: hvac.Client) -> None:
        try:
            answer = _translated(client.auth.token.renew_self)["auth"]
        except ProviderError as problem:
            # The token has half its life left: the call that is waiting need not fail.
            log.warning("token not renewed", extra={"fields": {"reason": problem.code}})
            self._refresh_at = self._clock() + RENEW_RETRY_SECONDS
            return
        self._plan_renewal(answer["lease_duration"], renewable=bool(answer["renewable"]))

    def _plan_renewal(self, ttl_seconds: float, *, renewable: bool) -> None:
        usable = renewable and ttl_seconds > 0
        self._refresh_at = self._clock() + ttl_seconds / 2 if usable else None


def _parts(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    # A relative part would leave the mount and reach the rest of Vault's API.
    if any(part in ("", ".", "..") for part in parts):
        msg = "the secret's path, its mount or its prefix has empty or relative parts"
        raise InvalidConfigError(msg)
    return parts


def _login_translated(call: Callable[[], Any]) -> dict[str, Any]:
    try:
        return _translated(call)
    except (ProviderPermissionError, InvalidConfigError, SecretNotFoundError) as problem:
        msg = "Vault refused the kubernetes login"
        raise AuthFailedError(msg) from problem


def _translated(call: Callable[[], Any]) -> dict[str, Any]:
    """Return the call's answer, or raise our error for Vault's, without Vault's text."""
    answer = _raising_ours(call)
    if not isinstance(answer, dict):
        # A redirect, which would take the token elsewhere, or a page of something in between.
        raise UnavailableError("Vault's answer is not one of its API")
    return answer


def _raising_ours(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except vault_errors.InvalidPath:
        raise SecretNotFoundError("the secret does not exist") from None
    except (vault_errors.Forbidden, vault_errors.Unauthorized):
        raise ProviderPermissionError("Vault denied permission") from None
    except vault_errors.RateLimitExceeded:
        raise ThrottledError("Vault limits the rate of calls") from None
    except vault_errors.InvalidRequest as problem:
        if _CAS_MISMATCH in str(problem):
            raise ConflictError("the secret was changed meanwhile") from None
        raise InvalidConfigError("Vault refused the request as invalid") from None
    except vault_errors.VaultDown:
        raise UnavailableError("Vault is sealed or down") from None
    except (vault_errors.VaultError, requests.RequestException) as problem:
        raise UnavailableError(f"Vault cannot be used now ({type(problem).__name__})") from None


def _missing(env: Mapping[str, str]) -> Iterator[str]:
    if not env.get("SB_VAULT_ADDR"):
        yield "SB_VAULT_ADDR is required for provider type vault"
    # A token's file that could not be read is a problem of its own.
    if not any(env.get(name) for name in ("SB_VAULT_TOKEN", "SB_VAULT_TOKEN_FILE", _ROLE)):
        yield f"SB_VAULT_TOKEN or {_ROLE} is required for provider type vault"


def problems(env: Mapping[str, str]) -> Iterator[str]:
    """Yield everything that keeps this Vault from being used, as far as it shows from here."""
    yield from _missing(env)
    address = env.get("SB_VAULT_ADDR")
    if address and not _ADDRESS.fullmatch(address):
        yield "SB_VAULT_ADDR: write an address like https://vault.example.com:8200"
    with_role = env.get(_ROLE) and not (env.get("SB_VAULT_TOKEN") or env.get("SB_VAULT_TOKEN_FILE"))
    if with_role and not os.access(SERVICE_ACCOUNT_TOKEN, os.R_OK):
        yield f"{_ROLE}: {SERVICE_ACCOUNT_TOKEN}, the pod's own token, cannot be read"
    if (ca_file := env.get("SB_VAULT_CACERT")) and (problem := no_authority(Path(ca_file))):
        yield f"SB_VAULT_CACERT: {problem}"
    for name in ("SB_VAULT_KV_MOUNT", "SB_VAULT_KV_PREFIX"):
        if text := env.get(name, "").strip("/"):
            try:
                _parts(text)
            except InvalidConfigError:
                yield f"{name}: has empty or relative parts"


def open_provider(env: Mapping[str, str]) -> VaultProvider:
    """Return the Vault of `SB_VAULT_*`; token auth wins over kubernetes."""
    missing = [*_missing(env)]
    if missing:
        raise InvalidConfigError("; ".join(missing))
    address, token = env["SB_VAULT_ADDR"], env.get("SB_VAULT_TOKEN")
    role = env.get("SB_VAULT_KUBERNETES_ROLE")
    return VaultProvider(
        VaultConfig(
            address=address.rstrip("/"),
            namespace=env.get("SB_VAULT_NAMESPACE") or None,
            mount=env.get("SB_VAULT_KV_MOUNT") or DEFAULT_MOUNT,
            prefix=env.get("SB_VAULT_KV_PREFIX") or "",
            token=Secret(token.encode()) if token else None,
            kubernetes_role=role or None,
            kubernetes_mount=env.get("SB_VAULT_KUBERNETES_MOUNT_PATH") or "kubernetes",
            ca_file=env.get("SB_VAULT_CACERT") or None,
        )
    )
