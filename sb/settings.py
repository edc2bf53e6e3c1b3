"""Settings of the API and what the worker shares with it: read once, all problems told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sb.ids import is_id
from sb.kms.local import LocalKeyRing
from sb.secret import Secret

S = TypeVar("S", bound="MigrateSettings")

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})
#: The settings that hold master keys, in the order of the ring.
KEY_RING = ("sb_wrap_master_keys", "sb_wrap_master_key")
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_DURATION = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]*):(\d{1,5})")
#: The host of a URL behind its scheme; a password may hold anything but an @.
_HOST = re.compile(r"(?:[^:/]*(?::[^@]*)?@)?([^/?]*)")
_NO_PORT = re.compile(r":(?!\d{1,5}$)[^:\]]*$")


class SettingsError(Exception):
    """Settings are missing or wrong; the message lists every one of them, never their values."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("the settings are not usable:\n" + "\n".join(f"  {p}" for p in problems))


def parse_duration(text: Any) -> Any:
    """Return `90s`, `5m`, `1h30m` or `250ms` as a time span; anything else is refused."""
    if not isinstance(text, str):
        return text
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        msg = "a duration is written like 90s, 5m or 1h30m"
        raise ValueError(msg)
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=milliseconds)


def parse_bool(text: Any) -> Any:
    """Return 1/true/yes/on and 0/false/no/off, in any case; anything else is refused."""
    if not isinstance(text, str):
        return text
    word = text.strip().lower()
    if word not in TRUE | FALSE:
        msg = "write true or false"
        raise ValueError(msg)
    return word in TRUE


def parse_networks(text: Any) -> Any:
    """Return a comma list of networks; anything else is refused without repeating it."""
    if not isinstance(text, str):
        return text
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        msg = "write networks like 10.0.0.0/8, with commas between them"
        raise ValueError(msg) from None


def _scheme(*known: str) -> AfterValidator:
    def check(url: SecretStr) -> SecretStr:
        scheme, separator, rest = url.get_secret_value().partition("://")
        if not separator or scheme not in known:
            msg = "write a URL that begins with " + " or ".join(f"{name}://" for name in known)
            raise ValueError(msg)
        host = _HOST.match(rest)
        if host is not None and _NO_PORT.search(host[1]):
            msg = "the port is not a number"
            raise ValueError(msg)
        return url

    return AfterValidator(check)


def _check_sqlite_path(url: SecretStr) -> SecretStr:
    """Refuse SQLite without a file: its data would end with each of the pool's connections."""
    scheme, _, rest = url.get_secret_value().partition("://")
    if scheme != "sqlite":
        return url
    path, _, options = rest.partition("?")
    in_memory = ":memory:" in path or "mode=memory" in options
    if not path.startswith("/") or path.endswith("/") or in_memory:
        msg = (
            "SQLite needs a file to keep the data in: sqlite:///bridge.db is one in the current "
            "directory, sqlite:////var/lib/bridge.db has a full path"
        )
        raise ValueError(msg)
    return url


def _check_address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[2]) > 65535:
        msg = "write host:port, or :port for every interface"
        raise ValueError(msg)
    return text


def listening(address: str) -> str:
    """Return the address with every interface spelled out where it names no host."""
    everywhere = "0.0.0.0"  # noqa: S104 # what an address without a host means
    return everywhere + address if address.startswith(":") else address


def _positive(span: timedelta) -> timedelta:
    if span <= timedelta(0):
        msg = "must be longer than nothing"
        raise ValueError(msg)
    return span


def _check_id(text: str) -> str:
    text = text.lower()
    if not is_id(text):
        msg = "write the id of an account, a UUID"
        raise ValueError(msg)
    return text


Id = Annotated[str, AfterValidator(_check_id)]
Delay = Annotated[timedelta, BeforeValidator(parse_duration)]
Duration = Annotated[Delay, AfterValidator(_positive)]
Address = Annotated[str, AfterValidator(_check_address)]
DatabaseUrl = Annotated[
    SecretStr,
    _scheme("postgresql", "postgres", "sqlite"),
    AfterValidator(_check_sqlite_path),
]
RedisUrl = Annotated[SecretStr, _scheme("redis", "rediss", "unix")]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(parse_networks)]
Bool = Annotated[bool, BeforeValidator(parse_bool)]
LogLevel = Literal["debug", "info", "warn", "error"]


class MigrateSettings(BaseSettings):
    """What `sb migrate` needs, and every process that opens the database."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    database_url: DatabaseUrl

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 # the parent's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load` reads the environment once, files included; nothing else slips in beside it.
        return (init_settings,)

    @classmethod
    def contradictions(cls, given: Mapping[str, str]) -> Iterator[str]:  # noqa: ARG003
        """Yield what is wrong with these texts taken together, whatever each one is worth.

        Apart from the fields' own checks, so that all problems are told in one go.
        """
        yield from ()


class ProcessSettings(MigrateSettings):
    """What the API and the worker both need."""

    database_max_conns: int = Field(default=10, ge=2, le=200)
    database_conn_lifetime: Duration = timedelta(minutes=30)
    sb_database_statement_timeout: Duration = timedelta(seconds=5)
    sb_database_lock_timeout: Duration = timedelta(seconds=2)
    redis_url: RedisUrl | None = None
    redis_pool_size: int = Field(default=10, ge=1, le=200)
    redis_namespace: str = Field(default="secrets-bridge", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    log_level: LogLevel = "info"
    sb_env: Literal["dev", "production"] = "production"

    @classmethod
    def contradictions(cls, given: Mapping[str, str]) -> Iterator[str]:
        if given.get("database_url", "").startswith("postgres") and "redis_url" not in given:
            yield "REDIS_URL is required with Postgres"


class ApiSettings(ProcessSettings):
    """Everything `sb api` reads from its environment."""

    api_addr: Address = ":8080"
    #: Where `/metrics` listens when it is to be kept off the API's own port.
    api_metrics_addr: Address | None = None
    #: How long calls are still taken after a stop signal, while readiness says `draining`.
    api_shutdown_delay: Delay = timedelta(seconds=5)
    api_shutdown_grace: Duration = timedelta(seconds=15)
    sb_auto_migrate: Bool = True
    sb_kms_backend: Literal["local"] = "local"
    sb_wrap_master_key: SecretStr | None = None
    sb_wrap_master_keys: SecretStr | None = None
    sb_allow_local_kms: Bool = False
    sb_bootstrap_admin_email: str | None = Field(default=None, pattern=r"\S")
    sb_bootstrap_admin_password: SecretStr | None = None
    sb_bootstrap_admin_user_id: Id | None = None
    sb_allow_direct_agent_mint: Bool = False
    sb_public_origin: str | None = Field(default=None, pattern=r"^https?://[^/]+$")
    sb_trusted_proxies: Networks = ()
    sb_session_ttl: Duration = timedelta(hours=8)
    sb_session_idle_ttl: Duration = timedelta(minutes=30)
    sb_lockout_threshold: int = Field(default=5, ge=1, le=1000)
    sb_lockout_duration: Duration = timedelta(minutes=15)
    sb_temporary_password_ttl: Duration = timedelta(hours=72)
    sb_rate_login: int = Field(default=30, ge=1)
    sb_rate_wrap_retrieve: int = Field(default=20, ge=1)
    sb_rate_heartbeat: int = Field(default=6, ge=1)
    sb_rate_audit_denials: int = Field(default=120, ge=1)

    @classmethod
    def contradictions(cls, given: Mapping[str, str]) -> Iterator[str]:
        yield from super().contradictions(given)
        ring = [given[name] for name in KEY_RING if name in given]
        if not ring:
            yield "SB_WRAP_MASTER_KEYS is required: base64 of 32 bytes, newest first"
        else:
            try:
                LocalKeyRing.parse(Secret(",".join(ring).encode()))
            except ValueError as problem:  # names the position, never the text
                yield f"SB_WRAP_MASTER_KEYS: {problem}"
        accepted = given.get("sb_allow_local_kms", "").strip().lower() in TRUE
        if given.get("sb_env") != "dev" and not accepted:
            yield (
                "SB_KMS_BACKEND=local keeps the master key beside the service: set SB_ENV=dev, or "
                "accept it with SB_ALLOW_LOCAL_KMS=true"
            )
        if ("sb_bootstrap_admin_email" in given) != ("sb_bootstrap_admin_password" in given):
            yield "SB_BOOTSTRAP_ADMIN_EMAIL and SB_BOOTSTRAP_ADMIN_PASSWORD go together"
        metrics = given.get("api_metrics_addr", "")
        if metrics == given.get("api_addr", ":8080") and not metrics.endswith(":0"):
            yield "API_METRICS_ADDR: is the same as API_ADDR; leave it out to serve metrics there"

    @property
    def master_keys(self) -> str:
        """The key ring's text, newest first."""
        both = (getattr(self, name) for name in KEY_RING)
        return ",".join(key.get_secret_value() for key in both if key is not None)

    @property
    def address(self) -> str:
        """The address to listen on, with every interface spelled out."""
        return listening(self.api_addr)


def load(model: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Return the settings of a process, or raise SettingsError with every problem."""
    found = dict(os.environ if environ is None else environ)
    problems: list[str] = []
    _read_files(model, found, problems)
    values = {name: found[name.upper()] for name in model.model_fields if found.get(name.upper())}
    try:
        settings = model.model_validate(values)
    except ValidationError as problem:
        for error in problem.errors(include_input=False, include_url=False, include_context=False):
            text = error["msg"].removeprefix("Value error, ")
            problems.append(f"{str(error['loc'][0]).upper()}: {text}")
    problems.extend(model.contradictions(values))
    if problems:
        raise SettingsError(problems) from None
    return settings


def _read_files(model: type[MigrateSettings], found: dict[str, str], problems: list[str]) -> None:
    """Take `<NAME>_FILE` for every setting, so that secrets need not be in the environment."""
    for name in (field.upper() for field in model.model_fields):
        path = found.get(f"{name}_FILE")
        if not path:
            continue
        if found.get(name):
            problems.append(f"{name} and {name}_FILE are both set; keep one")
            continue
        try:
            found[name] = Path(path).read_text().strip()
        except OSError as problem:
            problems.append(f"{name}_FILE: cannot be read ({problem.strerror})")
        except UnicodeDecodeError:
            problems.append(f"{name}_FILE: is not text in UTF-8")
