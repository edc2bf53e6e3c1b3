"""The agent process: keys, identity, then heartbeat and claim loops in one nursery."""

from __future__ import annotations

import base64
import logging
from functools import partial

import httpx
import trio
from prometheus_client import CollectorRegistry

from sb.probes import serve_probes
from sb.wire import ControlPlaneKey, PublicKeyRequest
from sb_agent import identity, keys
from sb_agent.claims import claims
from sb_agent.client import ControlPlane, ControlPlaneAwayError, ControlPlaneError, open_http
from sb_agent.condition import Condition
from sb_agent.heartbeat import heartbeats
from sb_agent.identity import Identity
from sb_agent.jobs import Workbench
from sb_agent.metrics import AgentMetrics
from sb_agent.pace import Backoff
from sb_agent.providers import Provider, open_provider
from sb_agent.settings import AgentSettings
from sb_agent.upkeep import upkeep

log = logging.getLogger(__name__)

PROVIDER_THREADS = 8
KEY_BACKOFF_SECONDS = (0.5, 15.0)


class AgentRejectedError(Exception):
    """The control plane does not accept this agent any more."""


async def run(
    settings: AgentSettings,
    *,
    stop: trio.Event,
    registry: CollectorRegistry | None = None,
    provider: Provider | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Work until `stop` is set; started with the agent's id once its key is registered.

    Raises IdentityError without an identity, AgentRejectedError when the credential dies.
    """
    registry = registry or CollectorRegistry()
    provider = provider or open_provider(settings.provider_type, settings.provider_env)
    metrics, condition = AgentMetrics(registry), Condition()
    async with open_http(settings) as http, trio.open_nursery() as probes:
        if settings.local_addr:
            checks = {"control_plane": condition.is_alive}
            serve = partial(serve_probes, setting="SB_LOCAL_ADDR", phase=condition.phase)
            await probes.start(serve, settings.local_addr, checks, registry)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_work, settings, http, provider, condition, metrics, task_status)
            await _first_of(stop, condition.rejected)
            condition.drain(settings.shutdown_grace_seconds)
            # Nothing new is begun; jobs under way are shielded for their grace, and probes tell.
            nursery.cancel_scope.cancel()
        probes.cancel_scope.cancel()
    if condition.rejected.is_set():
        msg = "the control plane rejects this agent's credential; enrol it again"
        raise AgentRejectedError(msg)


async def _work(
    settings: AgentSettings,
    http: httpx.AsyncClient,
    provider: Provider,
    condition: Condition,
    metrics: AgentMetrics,
    task_status: trio.TaskStatus[str],
) -> None:
    own_keys = keys.resolve(settings)
    who = await identity.resolve(settings, http, own_keys)
    log.info("identity ready", extra={"fields": {"agent_id": who.agent_id, "from": who.source}})
    plane = ControlPlane(http, settings, agent_id=who.agent_id, agent_secret=who.agent_secret)
    offered = await _exchange_keys(plane, own_keys, condition)
    if offered is None:
        return
    bench = _bench(settings, who, own_keys, plane, provider, identity.pin(settings, who, offered))
    async with trio.open_nursery() as loops:
        loops.start_soon(heartbeats, plane, settings, condition, metrics)
        loops.start_soon(claims, bench, settings, condition, metrics)
        loops.start_soon(upkeep, bench)
        task_status.started(who.agent_id)


def _bench(
    settings: AgentSettings,
    who: Identity,
    own_keys: keys.AgentKeys,
    plane: ControlPlane,
    provider: Provider,
    control_plane_key: str,
) -> Workbench:
    return Workbench(
        plane=plane,
        provider_type=settings.provider_type,
        provider=provider,
        provider_limiter=trio.CapacityLimiter(PROVIDER_THREADS),
        keys=own_keys,
        control_plane_key=base64.b64decode(control_plane_key),
        provider_connection_id=who.provider_connection_id,
    )


async def _exchange_keys(
    plane: ControlPlane, own_keys: keys.AgentKeys, condition: Condition
) -> ControlPlaneKey | None:
    """Return the control plane's key once it knows ours; None when the credential is dead."""
    backoff = Backoff(*KEY_BACKOFF_SECONDS)
    while True:
        try:
            await plane.register_key(PublicKeyRequest(public_key=own_keys.public_base64))
            return await plane.control_plane_key()
        except ControlPlaneAwayError as problem:
            log.warning("control plane not ready", extra={"fields": {"reason": str(problem)}})
        except ControlPlaneError as problem:
            log.warning("public key refused", extra={"fields": {"reason": str(problem)}})
            condition.rejected.set()
            return None
        await backoff.wait()


async def _first_of(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)
