"""Agents of tests: the real daemon in the test's own event loop."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from sb.secret import Secret
from sb_agent import daemon
from sb_agent.providers import Bundle, Provider
from sb_agent.providers.file import FileProvider
from sb_agent.settings import AgentSettings
from tests.agent.plane_double import TOKEN, PlaneDouble


def settings_for(plane: PlaneDouble, root: Path, **extra: Any) -> AgentSettings:
    """Return settings of an agent that has a token and no identity yet."""
    found: dict[str, Any] = {
        "cp_endpoint": plane.url,
        "insecure_transport": True,
        "identity_file": root / "identity" / "identity.json",
        "enrollment_token": Secret(TOKEN.encode()),
        "agent_name": "agent-1",
        "provider_type": "file",
        "local_addr": "",
        "shutdown_grace_seconds": 5.0,
        **extra,
    }
    return AgentSettings(**found)


class GatedStore(FileProvider):
    """A store whose reads wait for a gate, and which counts who waits."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, path.with_suffix(".key"))
        self.gate = threading.Event()
        self.gate.set()
        self.arrivals = trio.Semaphore(0)
        self.inside = 0
        self.most_inside = 0
        self._counting = threading.Lock()

    def read(self, ref: str, config: Mapping[str, str]) -> Bundle:
        with self._counting:
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        trio.from_thread.run_sync(self.arrivals.release)
        try:
            assert self.gate.wait(10)
            return super().read(ref, config)
        finally:
            with self._counting:
                self.inside -= 1

    def read_now(self, ref: str) -> Bundle:
        """Read past the gate."""
        return super().read(ref, {})

    async def entered(self, count: int = 1) -> None:
        """Return once this many more reads have come in."""
        with trio.fail_after(10):
            for _ in range(count):
                await self.arrivals.acquire()


class AgentRun:
    """One run of the daemon, and how it ended."""

    def __init__(self) -> None:
        self.stop = trio.Event()
        self.id = ""
        self.registry = CollectorRegistry()
        self.started = trio.Event()
        self._ended = trio.Event()
        self._problem: BaseException | None = None

    async def ended(self) -> BaseException | None:
        """Return what the daemon raised, once it has ended; its group's first when in one."""
        with trio.fail_after(10):
            await self._ended.wait()
        problem = self._problem
        while isinstance(problem, BaseExceptionGroup):
            problem = problem.exceptions[0]
        return problem

    @property
    def is_over(self) -> bool:
        return self._ended.is_set()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    async def counted(self, outcome: str, job_type: str = "read") -> None:
        """Return once one job of this outcome is counted."""
        with trio.fail_after(10):
            while self.metric("agent_jobs_total", job_type=job_type, outcome=outcome) != 1:
                await trio.lowlevel.checkpoint()

    async def run(self, settings: AgentSettings, provider: Provider | None) -> None:
        async def body(task_status: trio.TaskStatus[str]) -> None:
            await daemon.run(
                settings,
                stop=self.stop,
                registry=self.registry,
                provider=provider,
                task_status=task_status,
            )

        async def told() -> None:
            async with trio.open_nursery() as nursery:
                self.id = await nursery.start(body)
                self.started.set()

        try:
            await told()
        except Exception as problem:  # noqa: BLE001 # the tests look at it
            self._problem = problem
        finally:
            self._ended.set()


@asynccontextmanager
async def launched(settings: AgentSettings, provider: Provider | None) -> AsyncIterator[AgentRun]:
    """Run an agent, which may fail to start; stop it at the end of the context."""
    agent = AgentRun()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent.run, settings, provider)
        try:
            yield agent
        finally:
            agent.stop.set()
            with trio.CancelScope(shield=True), trio.move_on_after(10):
                await agent._ended.wait()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(settings: AgentSettings, provider: Provider | None) -> AsyncIterator[AgentRun]:
    """Run an agent that is at work before the context begins."""
    async with launched(settings, provider) as agent:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:

                async def first(event: trio.Event) -> None:
                    await event.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(first, agent.started)
                nursery.start_soon(first, agent._ended)
        assert agent.started.is_set(), await agent.ended()
        yield agent
