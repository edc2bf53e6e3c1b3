"""Messages between an agent and the control plane. Bytes are standard base64 with padding."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_VALUE_BASE64 = 87_500  # 64 KiB of value, in base64, with room for the tag.
SHORT = 255

Short = Annotated[str, Field(min_length=1, max_length=SHORT)]
Token = Annotated[str, Field(min_length=1, max_length=200)]


class Message(BaseModel):
    """A message in which unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Answer(BaseModel):
    """An answer that may gain fields in a later release."""

    model_config = ConfigDict(extra="ignore")


class EnrollRequest(Message):
    enrollment_token: Annotated[str, Field(max_length=200)] = ""
    agent_name: Annotated[str, Field(max_length=SHORT)] = ""
    provider_type: Short | None = None
    cluster_name: Short | None = None
    region: Short | None = None
    agent_version: Short | None = None
    public_key_fingerprint: Short | None = None
    capabilities: Annotated[list[Short], Field(max_length=32)] = Field(default_factory=list)
    public_key: Annotated[str, Field(max_length=100)] | None = None
    public_key_algorithm: Literal["x25519"] = "x25519"


class EnrollResponse(Answer):
    agent_id: str
    provider_connection_id: str
    agent_token: str
    heartbeat_interval_seconds: int
    job_poll_interval_seconds: int
    control_plane_public_key: str
    control_plane_key_algorithm: Literal["x25519"] = "x25519"


class PublicKeyRequest(Message):
    public_key: Annotated[str, Field(max_length=100)]
    public_key_algorithm: Literal["x25519"] = "x25519"


class ControlPlaneKey(Answer):
    """The key agents seal to; `previous` are older ones that still open."""

    public_key: str
    algorithm: Literal["x25519"] = "x25519"
    previous: list[str] = Field(default_factory=list)


class HeartbeatRequest(Message):
    status: Short | None = None
    agent_version: Short | None = None
    cluster_name: Short | None = None
    capabilities: Annotated[list[Short], Field(max_length=32)] | None = None


class HeartbeatResponse(Answer):
    status: Literal["ok"] = "ok"
    server_time: datetime
    next_heartbeat_seconds: int


class ClaimedJob(Answer):
    """A leased job; the lease token proves the lease in every later call about it."""

    id: str
    job_type: str
    payload: dict[str, Any]
    correlation_id: str
    claim_expires_at: datetime
    lease_seconds: int
    lease_token: str
    attempt: int
    max_attempts: int


class RenewRequest(Message):
    lease_token: Token


class RenewResponse(Answer):
    claim_expires_at: datetime


class JobResult(Message):
    missing_keys: Annotated[list[Short], Field(max_length=256)] = Field(default_factory=list)
    version: Short | None = None


class CompleteRequest(Message):
    lease_token: Token
    status: Literal["succeeded", "failed"]
    error: Annotated[str, Field(max_length=4000)] | None = None
    retryable: bool = False
    result: JobResult | None = None


class Sealed(Message):
    algorithm: Literal["x25519-hkdf-aes-gcm"]
    ciphertext: Annotated[str, Field(max_length=MAX_VALUE_BASE64)]
    nonce: Annotated[str, Field(max_length=24)]
    ephemeral_public_key: Annotated[str, Field(max_length=64)]


class WrapDelivery(Answer):
    """A value on its way to the agent: sealed, or in clear only for an agent without a key."""

    wrap_id: str
    request_id: str
    key_name: str
    byte_length: int
    algorithm: str
    sealed: Sealed | None = None
    value: str | None = None


class WrapPost(Message):
    """A value the agent read: exactly one of `sealed` and `value`."""

    request_id: Annotated[str, Field(min_length=36, max_length=36)]
    key_name: Short
    sealed: Sealed | None = None
    value: Annotated[str, Field(max_length=MAX_VALUE_BASE64)] | None = None


class WrapPosted(Answer):
    wrap_id: str
    request_id: str
    key_name: str
    byte_length: int
    expires_at: datetime
