"""Providers: where secrets live. One file each; errors are typed and never hold a value."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

#: The providers there are; the first one is the default.
KINDS = ("vault", "file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A secret's keys and values as JSON types, with the version that was read; 0 for none."""

    values: dict[str, Any]
    version: int


class ProviderError(Exception):
    """A provider call failed; the text names no value. `retryable`: waiting may help."""

    retryable: ClassVar[bool] = False
    code: ClassVar[str] = "provider_error"


class SecretNotFoundError(ProviderError):
    code = "not_found"


class ProviderPermissionError(ProviderError):
    code = "permission_denied"


class ConflictError(ProviderError):
    """Somebody else wrote between our read and our write."""

    code = "conflict"
    retryable = True


class NotKeyValueError(ProviderError):
    """The secret is no JSON object; writing a key would destroy it."""

    code = "target_not_key_value"


class InvalidConfigError(ProviderError):
    code = "invalid_config"


class AuthFailedError(ProviderError):
    code = "auth_failed"
    retryable = True


class ThrottledError(ProviderError):
    code = "throttled"
    retryable = True


class UnavailableError(ProviderError):
    code = "unavailable"
    retryable = True


class Provider(Protocol):
    """One store. Calls block: they run in threads under the provider's own limiter."""

    #: What a job's `target_provider_config` may say.
    routing_keys: frozenset[str]

    def read(self, ref: str, config: Mapping[str, str]) -> Bundle:
        """Return the current bundle; raise SecretNotFoundError when there is none."""
        ...

    def write(
        self, ref: str, values: Mapping[str, Any], *, expected: int, config: Mapping[str, str]
    ) -> int:
        """Replace the bundle if its version is still the expected one; return the new version."""
        ...

    def current_version(self, ref: str, config: Mapping[str, str]) -> int:
        """Return the version a write must expect; it counts deleted versions too, 0 for none."""
        ...

    def keep_alive(self) -> None:
        """Renew a credential that would end unused; called often, mostly for nothing."""
        ...


def open_provider(kind: str, env: Mapping[str, str]) -> Provider:
    """Return the provider of this kind, configured from the agent's own environment alone."""
    if kind not in KINDS:
        msg = f"no provider of type {kind}"
        raise InvalidConfigError(msg)
    module = importlib.import_module(f"sb_agent.providers.{kind}")
    provider: Provider = module.open_provider(env)
    return provider


def problems(kind: str, env: Mapping[str, str]) -> Iterable[str]:
    """Return everything in the agent's environment that keeps this provider from working."""
    if kind not in KINDS:
        return ()
    module = importlib.import_module(f"sb_agent.providers.{kind}")
    found: Iterable[str] = module.problems(env)
    return found


def check_config(provider: Provider, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the routing keys of a job; anything that would steer the agent is refused by name."""
    for key, value in config.items():
        if key not in provider.routing_keys or not isinstance(value, str):
            msg = f"provider config key {key[:64]!r} is not accepted from a job"
            raise InvalidConfigError(msg)
    return {key: str(value) for key, value in config.items()}
