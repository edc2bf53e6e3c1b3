"""Doing one job: read keys and hand them over sealed, or fetch values and write them with CAS."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import trio

from sb.sealing import (
    WRAP_TO_AGENT,
    WRAP_TO_CONTROL_PLANE,
    SealedBox,
    SealingError,
    agent_to_control_plane_aad,
    open_sealed,
    seal,
)
from sb.secret import Secret
from sb.threads import run_blocking
from sb.wire import ClaimedJob, JobResult, Sealed, WrapPost
from sb_agent.client import ControlPlane, ControlPlaneAwayError, ControlPlaneError
from sb_agent.keys import AgentKeys
from sb_agent.providers import (
    Bundle,
    ConflictError,
    Provider,
    ProviderError,
    SecretNotFoundError,
    check_config,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

WRITE_ATTEMPTS = 4


class JobError(Exception):
    """The job cannot be done; the text names ids, key names and counts, never a value."""

    def __init__(self, text: str, *, retryable: bool = False) -> None:
        super().__init__(text)
        self.retryable = retryable


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What every job of this agent uses."""

    plane: ControlPlane
    provider_type: str
    provider: Provider
    provider_limiter: trio.CapacityLimiter
    keys: AgentKeys
    control_plane_key: bytes
    provider_connection_id: str | None

    async def call(self, call: Callable[[], T]) -> T:
        """Return what a blocking provider call returns, from a thread of the provider's limiter."""
        return await run_blocking(call, limiter=self.provider_limiter)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    request_id: str
    ref: str
    keys: list[str]
    config: dict[str, str]

    def trace(self, step: str, **fields: Any) -> None:
        """Log a step of the job at the level debug: names, counts and versions, never a value."""
        named = {"correlation_id": self.request_id, "secret_ref": self.ref, **fields}
        log.debug(step, extra={"fields": named})


async def do(job: ClaimedJob, bench: Workbench) -> JobResult:
    """Do the job and return its result; raises JobError with whether trying again may help."""
    lease = Secret(job.lease_token.encode())
    try:
        target = _target(job, bench)
        match job.job_type:
            case "read":
                return await _read(target, bench, lease)
            case "patch":
                return await _patch(job, target, bench, lease)
            case _:
                msg = f"unsupported_job_type: {job.job_type[:32]}"
                raise JobError(msg)
    except ProviderError as problem:
        text = f"{bench.provider_type}: {problem.code}: {problem}"
        raise JobError(text, retryable=problem.retryable) from problem
    except ControlPlaneAwayError as problem:
        raise JobError(f"control plane: {problem}", retryable=True) from problem
    except ControlPlaneError as problem:
        raise JobError(f"control plane: {problem}") from problem
    except SealingError as problem:
        raise JobError("a sealed value could not be opened") from problem


def _target(job: ClaimedJob, bench: Workbench) -> _Target:
    payload = job.payload
    request_id, ref = payload.get("request_id"), payload.get("target_secret_ref")
    if not isinstance(request_id, str) or not isinstance(ref, str) or not ref:
        msg = "the job's payload names no request or no secret"
        raise JobError(msg)
    if payload.get("target_provider_type") != bench.provider_type:
        msg = f"this agent serves {bench.provider_type} only"
        raise JobError(msg)
    connection = payload.get("provider_connection_id")
    if connection != bench.provider_connection_id:
        msg = "the job belongs to a provider connection this agent is not bound to"
        raise JobError(msg)
    return _Target(
        request_id=request_id,
        ref=ref,
        keys=[str(key) for key in payload.get("target_keys") or []],
        config=check_config(bench.provider, payload.get("target_provider_config") or {}),
    )


async def _read(target: _Target, bench: Workbench, lease: Secret) -> JobResult:
    bundle = await bench.call(partial(bench.provider.read, target.ref, target.config))
    wanted = target.keys or sorted(bundle.values)
    missing = [key for key in wanted if key not in bundle.values]
    found = [key for key in wanted if key in bundle.values]
    target.trace("secret read", version=bundle.version, found_keys=found, missing_keys=missing)
    if not found:
        msg = f"none of the {len(wanted)} keys exist in the secret"
        raise JobError(msg)
    for key in found:
        with _as_secret(bundle.values[key]) as value:
            await _post(target.request_id, key, value, bench, lease)
            target.trace("wrap posted", key_name=key, byte_length=value.byte_length)
    return JobResult(missing_keys=missing, version=str(bundle.version))


async def _post(request_id: str, key: str, value: Secret, bench: Workbench, lease: Secret) -> None:
    aad = agent_to_control_plane_aad(
        request_id=request_id, key_name=key, agent_id=bench.plane.agent_id
    )
    box = seal(value, bench.control_plane_key, info=WRAP_TO_CONTROL_PLANE, aad=aad)
    await bench.plane.post_wrap(
        WrapPost(request_id=request_id, key_name=key, sealed=Sealed.model_validate(box.to_json())),
        lease,
    )


def _as_secret(value: Any) -> Secret:
    """Return a bundle value as bytes: text as it is, anything else as its JSON text."""
    return Secret((value if isinstance(value, str) else json.dumps(value)).encode())


async def _patch(job: ClaimedJob, target: _Target, bench: Workbench, lease: Secret) -> JobResult:
    wraps = job.payload.get("wraps")
    if not isinstance(wraps, list) or not wraps:
        msg = "the job lists no values to write"
        raise JobError(msg)
    # 1. The provider first: an outage there must not touch any value.
    await _current(target, bench)
    # 2. The values, sealed to this agent's key.
    values = {}
    try:
        for reference in wraps:
            name, value = await _fetch(reference, bench, lease)
            values[name] = value
            target.trace("wrap fetched", key_name=name, byte_length=value.byte_length)
        # 3. Read, merge, write if unchanged; another writer in between only costs another round.
        version = await _merge(target, values, bench)
    finally:
        for value in values.values():
            value.wipe()
    return JobResult(version=str(version))


async def _current(target: _Target, bench: Workbench) -> Bundle:
    """Return the bundle to merge into; an absent one is empty, at the version a write expects."""
    try:
        return await bench.call(partial(bench.provider.read, target.ref, target.config))
    except SecretNotFoundError:
        version = await bench.call(
            partial(bench.provider.current_version, target.ref, target.config)
        )
        return Bundle(values={}, version=version)


async def _fetch(
    reference: Mapping[str, Any], bench: Workbench, lease: Secret
) -> tuple[str, Secret]:
    wrap_id = str(reference.get("wrap_id", ""))
    delivery = await bench.plane.fetch_wrap(wrap_id, lease)
    # This agent has registered a key: a value in clear would be a downgrade.
    if delivery.sealed is None or delivery.value is not None:
        msg = f"the value of wrap {wrap_id} came unsealed and was refused"
        raise JobError(msg)
    box = SealedBox.from_json(delivery.sealed.model_dump())
    value = open_sealed(box, bench.keys.pair.private, info=WRAP_TO_AGENT)
    if value.byte_length != delivery.byte_length:
        msg = f"the value of wrap {wrap_id} has the wrong length"
        raise JobError(msg)
    return delivery.key_name, value


def _as_text(name: str, value: Secret) -> str:
    try:
        # The text goes into the provider's write call.
        return value.reveal().decode()
    except UnicodeDecodeError:
        # Without the chain: the error carries the value.
        raise JobError(f"the new value of {name} is not text") from None


async def _merge(target: _Target, values: Mapping[str, Secret], bench: Workbench) -> int:
    for attempt in range(WRITE_ATTEMPTS):
        bundle = await _current(target, bench)
        # The new values go into the provider's own write call; other keys keep their types.
        new = {name: _as_text(name, value) for name, value in values.items()}
        merged = {**bundle.values, **new}
        write = partial(
            bench.provider.write,
            target.ref,
            merged,
            expected=bundle.version,
            config=target.config,
        )
        try:
            version = await bench.call(write)
            target.trace("secret written", version=version, key_count=len(merged))
            return version
        except ConflictError:
            target.trace("secret changed meanwhile", version=bundle.version)
            if attempt == WRITE_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")
