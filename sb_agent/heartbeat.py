"""The heartbeat: the control plane hears that this agent lives, and may say that it must not."""

from __future__ import annotations

import logging

import trio

from sb.wire import HeartbeatRequest
from sb_agent.client import ControlPlane, ControlPlaneError, CredentialRejectedError
from sb_agent.condition import Condition
from sb_agent.identity import CAPABILITIES
from sb_agent.metrics import AgentMetrics
from sb_agent.pace import jittered
from sb_agent.settings import AGENT_VERSION, AgentSettings

log = logging.getLogger(__name__)

#: The control plane takes six a minute; failed ones count, so retries stay below that.
RETRY_SECONDS = 12.0


async def heartbeats(
    plane: ControlPlane, settings: AgentSettings, condition: Condition, metrics: AgentMetrics
) -> None:
    """Beat at the pace the control plane asks for, until cancelled or the credential is dead."""
    request = HeartbeatRequest(
        status="active", agent_version=AGENT_VERSION, capabilities=CAPABILITIES
    )
    while not condition.rejected.is_set():
        delay = settings.heartbeat_interval_seconds
        try:
            answer = await plane.heartbeat(request)
            if answer.next_heartbeat_seconds > 0:
                delay = answer.next_heartbeat_seconds
            metrics.last_heartbeat.set_to_current_time()
            condition.beat(delay)
        except CredentialRejectedError:
            condition.rejected.set()
            return
        except ControlPlaneError as problem:
            log.warning("heartbeat failed", extra={"fields": {"reason": str(problem)}})
            delay = min(delay, RETRY_SECONDS)
        await trio.sleep(jittered(delay))
