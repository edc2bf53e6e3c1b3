"""Everything `sb agent` reads from its environment, parsed once, all problems told at once."""

from __future__ import annotations

import base64
import binascii
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from sb.secret import Secret

AGENT_VERSION = "0.1.0"
PROVIDER_TYPES = ("vault", "file")
DEFAULT_IDENTITY_FILE = Path("/etc/secrets-bridge/identity.json")
KEY_BYTES = 32

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile(f"(?:{_NUMBER}h)?(?:{_NUMBER}m(?!s))?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})")
_PROVIDER_PREFIXES = ("SB_VAULT_", "SB_FILE_STORE_")
#: Credentials that may stand in a file of their own, named by `<NAME>_FILE`.
_FROM_FILES = ("SB_AGENT_SECRET", "SB_ENROLLMENT_TOKEN", "SB_VAULT_TOKEN")


class AgentSettingsError(Exception):
    """Settings are missing or wrong; the message lists every one, never a secret."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("the settings are not usable:\n" + "\n".join(f"  {p}" for p in problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """How one agent reaches its control plane, who it is, and what it may touch."""

    cp_endpoint: str
    insecure_transport: bool = False
    cp_ca_file: Path | None = None
    cp_tls_server_name: str | None = None
    agent_id: str | None = None
    agent_secret: Secret | None = None
    #: What a static credential is bound to; an enrolled agent learns it by enrolling.
    provider_connection_id: str | None = None
    identity_file: Path = DEFAULT_IDENTITY_FILE
    enrollment_enabled: bool = True
    enrollment_token: Secret | None = None
    agent_name: str = field(default_factory=socket.gethostname)
    provider_type: str = "vault"
    region: str | None = None
    cluster_name: str | None = None
    #: Standard base64 of 32 bytes.
    private_key: Secret | None = None
    private_key_file: Path | None = None
    heartbeat_interval_seconds: float = 30.0
    #: The pause where the control plane answers a waiting claim at once.
    claim_interval_seconds: float = 5.0
    claim_wait_seconds: int = 25
    claim_concurrency: int = 4
    shutdown_grace_seconds: float = 15.0
    #: Empty for no probe listener.
    local_addr: str = "127.0.0.1:8090"
    log_level: str = "info"
    #: The provider's own variables, credentials among them: `SB_VAULT_*`, `SB_FILE_STORE_*`.
    provider_env: Mapping[str, str] = field(default_factory=dict, repr=False)


def _seconds(text: Any) -> Any:
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or not any(match.groups()):
        msg = "a duration is written like 30s, 5m or 1h30m"
        raise ValueError(msg)
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


def _bool(text: Any) -> Any:
    word = str(text).strip().lower()
    if word not in _TRUE | _FALSE:
        msg = "write true or false"
        raise ValueError(msg)
    return word in _TRUE


def is_yes(text: str) -> bool:
    """Tell whether the text is one of the ways to write yes."""
    return text.strip().lower() in _TRUE


def _endpoint(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#@]*)?", text):
        msg = "write an address like https://bridge.example.com"
        raise ValueError(msg)
    return text.rstrip("/")


def _address(text: str) -> str:
    match = _ADDRESS.fullmatch(text)
    if text and (match is None or int(match[2]) > 65535):
        msg = "write host:port, or leave it empty for no listener"
        raise ValueError(msg)
    return text


def _private_key(text: SecretStr) -> SecretStr:
    try:
        raw = base64.b64decode(text.get_secret_value(), validate=True)
    except binascii.Error:
        raw = b""
    if len(raw) != KEY_BYTES:
        msg = f"write {KEY_BYTES} bytes in standard base64"
        raise ValueError(msg)
    return text


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
Bool = Annotated[bool, BeforeValidator(_bool)]


class _Environment(BaseSettings):
    """The variables by their names in lower case, texts turned into what they mean."""

    # The defaults are what the texts would mean, not texts.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, validate_default=False)

    sb_cp_endpoint: Annotated[str, AfterValidator(_endpoint)]
    sb_insecure_transport: Bool = False
    sb_cp_ca_file: Path | None = None
    sb_cp_tls_server_name: str | None = None
    sb_agent_id: Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{36}$")] | None = None
    sb_agent_secret: SecretStr | None = None
    sb_provider_connection_id: Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{36}$")] | None = None
    sb_identity_file: Path = DEFAULT_IDENTITY_FILE
    sb_enrollment_enabled: Bool = True
    sb_enrollment_token: SecretStr | None = None
    sb_agent_name: str = Field(default_factory=socket.gethostname, max_length=255)
    sb_provider_type: Literal["vault", "file"] = "vault"
    sb_region: str | None = None
    sb_cluster_name: str | None = None
    sb_agent_private_key: Annotated[SecretStr, AfterValidator(_private_key)] | None = None
    sb_agent_private_key_file: Path | None = None
    sb_heartbeat_interval: Seconds = 30.0
    sb_claim_interval: Seconds = 5.0
    sb_claim_concurrency: int = Field(default=4, ge=1, le=64)
    sb_shutdown_grace: Seconds = 15.0
    sb_local_addr: Annotated[str, AfterValidator(_address)] = "127.0.0.1:8090"
    log_level: Literal["debug", "info", "warn", "error"] = "info"

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


def _nothing(_found: Mapping[str, str]) -> Iterable[str]:
    return ()


def load(
    environ: Mapping[str, str] | None = None,
    *,
    also: Callable[[Mapping[str, str]], Iterable[str]] = _nothing,
) -> AgentSettings:
    """Return the agent's settings, or raise AgentSettingsError with every problem.

    `also` looks at the same variables and yields what else is wrong with them.
    """
    found = dict(os.environ if environ is None else environ)
    problems = list(_read_files(found))
    values = {name: found[name.upper()] for name in _Environment.model_fields if _is(found, name)}
    try:
        parsed = _Environment.model_validate(values)
    except ValidationError as problem:
        for error in problem.errors(include_input=False, include_url=False, include_context=False):
            text = error["msg"].removeprefix("Value error, ")
            problems.append(f"{str(error['loc'][0]).upper()}: {text}")
    problems += _contradictions(values)
    problems += _insecure_vault(found)
    problems += also(found)
    if problems:
        raise AgentSettingsError(problems)
    return _settings(parsed, found)


def _is(found: Mapping[str, str], name: str) -> bool:
    # An empty variable counts as unset, but for the address, where it means "no listener".
    return bool(found.get(name.upper())) or (name == "sb_local_addr" and name.upper() in found)


def _read_files(found: dict[str, str]) -> Iterator[str]:
    """Take `<NAME>_FILE` for credentials; yield what is wrong with them."""
    for name in _FROM_FILES:
        path = found.get(f"{name}_FILE", "")
        if not path:
            continue
        if found.get(name):
            yield f"{name} and {name}_FILE are both set; keep one"
            continue
        try:
            found[name] = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError):
            yield f"{name}_FILE: cannot be read"
        else:
            # What stands there still was not read, for whoever would miss it.
            del found[f"{name}_FILE"]


def _contradictions(given: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with these texts taken together, whatever each one is worth."""
    insecure = is_yes(given.get("sb_insecure_transport", ""))
    if given.get("sb_cp_endpoint", "").startswith("http://") and not insecure:
        yield "SB_CP_ENDPOINT: must be https:// (SB_INSECURE_TRANSPORT=true allows http in dev)"
    if ("sb_agent_id" in given) != ("sb_agent_secret" in given):
        yield "SB_AGENT_ID and SB_AGENT_SECRET go together"
    if "sb_agent_private_key" in given and "sb_agent_private_key_file" in given:
        yield "SB_AGENT_PRIVATE_KEY and SB_AGENT_PRIVATE_KEY_FILE are both set; keep one"
    if "sb_cp_ca_file" in given and not Path(given["sb_cp_ca_file"]).is_file():
        yield "SB_CP_CA_FILE: names no file"


def _insecure_vault(found: Mapping[str, str]) -> Iterator[str]:
    """Yield whether Vault's token would travel in clear beyond this host."""
    address = urlsplit(found.get("SB_VAULT_ADDR", ""))
    insecure = is_yes(found.get("SB_INSECURE_TRANSPORT", ""))
    local = address.hostname in ("127.0.0.1", "::1", "localhost")
    if address.scheme == "http" and not insecure and not local:
        yield "SB_VAULT_ADDR: must be https:// (SB_INSECURE_TRANSPORT=true allows http in dev)"


def _settings(parsed: _Environment, found: Mapping[str, str]) -> AgentSettings:
    return AgentSettings(
        cp_endpoint=parsed.sb_cp_endpoint,
        insecure_transport=parsed.sb_insecure_transport,
        cp_ca_file=parsed.sb_cp_ca_file,
        cp_tls_server_name=parsed.sb_cp_tls_server_name,
        agent_id=parsed.sb_agent_id.lower() if parsed.sb_agent_id else None,
        agent_secret=_hidden(parsed.sb_agent_secret),
        provider_connection_id=parsed.sb_provider_connection_id,
        identity_file=parsed.sb_identity_file,
        enrollment_enabled=parsed.sb_enrollment_enabled,
        enrollment_token=_hidden(parsed.sb_enrollment_token),
        agent_name=parsed.sb_agent_name,
        provider_type=parsed.sb_provider_type,
        region=parsed.sb_region,
        cluster_name=parsed.sb_cluster_name,
        private_key=_hidden(parsed.sb_agent_private_key),
        private_key_file=parsed.sb_agent_private_key_file,
        heartbeat_interval_seconds=parsed.sb_heartbeat_interval,
        claim_interval_seconds=parsed.sb_claim_interval,
        claim_concurrency=parsed.sb_claim_concurrency,
        shutdown_grace_seconds=parsed.sb_shutdown_grace,
        local_addr=parsed.sb_local_addr,
        log_level=parsed.log_level,
        provider_env={
            name: value for name, value in found.items() if name.startswith(_PROVIDER_PREFIXES)
        },
    )


def _hidden(text: SecretStr | None) -> Secret | None:
    # From one type that hides to the other.
    return Secret(text.get_secret_value().encode()) if text is not None else None
