"""The gauges of the whole installation over real rows: what waits, is open and is alive."""

from __future__ import annotations

import logging
from datetime import datetime

import pytest
import trio
from prometheus_client import CollectorRegistry

from sb.db.engine import Database
from sb.ops import fleet as counted
from sb_worker import fleet
from sb_worker.metrics import FleetMetrics
from tests.ops.world import NOW, World, at
from tests.servers import free_port
from tests.stack import until
from tests.worker.due import Crew

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Gauges:
    """The gauges of one replica, and what Prometheus would read of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = FleetMetrics(self.registry)

    def refresh(self, world: World, now: datetime = NOW) -> Samples:
        fleet.show(world.db.read_sync(counted.counts, now=now), self.metrics)
        return self.samples()

    def samples(self) -> Samples:
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def gauges() -> Gauges:
    return Gauges()


def test_an_empty_installation_shows_zeros_and_no_labels(world: World, gauges: Gauges) -> None:
    assert gauges.refresh(world) == {
        ("jobs_oldest_queued_seconds", ()): 0,
        ("wraps_live", ()): 0,
    }


def test_jobs_are_shown_by_type_and_status_while_unfinished(world: World, gauges: Gauges) -> None:
    crew = Crew.build(world)
    for later, (submit, key) in enumerate(
        [(world.read, "A"), (world.read, "B"), (world.patch, "C")]
    ):
        request_id = submit(crew.asks, key, now=at(minutes=later))
        world.approve(crew.approves, request_id, now=at(minutes=later))
    held = world.held(crew.agent, now=at(minutes=3))

    gauges.refresh(world, at(minutes=11))

    assert gauges.value("jobs_queue_depth", job_type="read", status="claimed") == 1
    assert gauges.value("jobs_queue_depth", job_type="read", status="queued") == 1
    assert gauges.value("jobs_queue_depth", job_type="patch", status="queued") == 1
    assert gauges.value("jobs_oldest_queued_seconds") == 600, "the second; the first is in hand"

    world.finish(crew.agent, held, now=at(minutes=3))
    world.held(crew.agent, now=at(minutes=3))
    gauges.refresh(world, at(minutes=11))
    jobs = {labels: value for (name, labels), value in gauges.samples().items() if "depth" in name}
    assert jobs == {
        (("job_type", "read"), ("status", "claimed")): 1,
        (("job_type", "patch"), ("status", "queued")): 1,
    }, "a status nothing is in any more leaves no series behind"
    assert gauges.value("jobs_oldest_queued_seconds") == 540

    world.held(crew.agent, now=at(minutes=3))
    gauges.refresh(world, at(minutes=11))
    assert gauges.value("jobs_oldest_queued_seconds") == 0, "nobody waits"


def test_requests_are_shown_until_they_are_over(world: World, gauges: Gauges) -> None:
    crew = Crew.build(world)
    pending, approved, rejected = (world.read(crew.asks, key) for key in "ABC")
    world.patch(crew.asks, "D")
    world.approve(crew.approves, approved)
    over = "UPDATE access_requests SET status = :status WHERE id = :id"
    world.write(over, status="rejected", id=rejected)

    gauges.refresh(world)

    shown = {labels: v for (name, labels), v in gauges.samples().items() if name == "requests_open"}
    assert shown == {
        (("status", "pending"), ("type", "read")): 1,
        (("status", "approved"), ("type", "read")): 1,
        (("status", "pending"), ("type", "patch")): 1,
    }
    for status in ("rejected", "cancelled", "executed", "failed", "expired"):
        world.write("UPDATE access_requests SET status = :status", status=status)
        gauges.refresh(world)
        assert "requests_open" not in {name for name, _ in gauges.samples()}
    world.write(over, status="pending", id=pending)
    gauges.refresh(world)
    assert gauges.value("requests_open", type="read", status="pending") == 1


def test_agents_are_shown_in_whatever_status_they_are(world: World, gauges: Gauges) -> None:
    connection = world.connection()
    found = [world.agent(connection) for _ in range(5)]
    statuses = ["enrolled", "active", "active", "stale", "revoked"]
    for agent, status in zip(found, statuses, strict=True):
        world.write(
            "UPDATE agents SET status = :status, revoked_at = :revoked_at WHERE id = :id",
            status=status,
            revoked_at=NOW if status == "revoked" else None,
            id=agent.agent_id,
        )
    gauges.refresh(world)
    assert {labels: v for (name, labels), v in gauges.samples().items() if name == "agents"} == {
        (("status", "enrolled"),): 1,
        (("status", "active"),): 2,
        (("status", "stale"),): 1,
        (("status", "revoked"),): 1,
    }


def test_wraps_count_while_they_can_be_opened(world: World, gauges: Gauges) -> None:
    crew = Crew.build(world)
    request_id = world.read(crew.asks, "A", "B", "C")
    world.approve(crew.approves, request_id)
    held = world.held(crew.agent)
    wrap_id, _, _ = (world.post(crew.agent, held, key) for key in "ABC")
    world.finish(crew.agent, held)
    gauges.refresh(world)
    assert gauges.value("wraps_live") == 3

    world.reveal(crew.asks, request_id, wrap_id)
    gauges.refresh(world)
    assert gauges.value("wraps_live") == 2, "the spent one cannot be opened again"

    end = world.wraps_of(request_id)[1]["expires_at"]
    gauges.refresh(world, end)
    assert gauges.value("wraps_live") == 0, "at its end a wrap is over, swept or not"


def test_no_gauge_carries_an_identifier(world: World, gauges: Gauges) -> None:
    """However many people, agents and requests there are, the series stay few."""
    crew = Crew.build(world)
    world.agent(world.connection("vault"))
    for key in "ABC":
        world.approve(crew.approves, world.read(crew.asks, key))
    labels = {name for (_, pairs) in gauges.refresh(world) for name, _ in pairs}
    assert labels == {"job_type", "status", "type"}
    assert len(gauges.samples()) == 5


async def test_replicas_show_the_same_and_keep_it_without_a_database(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    crew = Crew.build(world)
    world.patch(crew.asks, "A", "B", now=at(days=10_000))  # Its end is ahead on the real clock.
    replicas = [Gauges(), Gauges()]
    async with trio.open_nursery() as nursery:
        for replica in replicas:
            nursery.start_soon(fleet.observe, world.db, replica.metrics)

        async def shown() -> bool:
            return all(replica.value("wraps_live") == 2 for replica in replicas)

        await until(shown)
        nursery.cancel_scope.cancel()
    one, other = (replica.samples() for replica in replicas)
    assert one == other
    assert replicas[0].value("requests_open", type="patch", status="pending") == 1

    gone = Database.open(f"postgresql://nobody@127.0.0.1:{free_port()}/gone")
    caplog.set_level(logging.WARNING, logger=fleet.__name__)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fleet.observe, gone, replicas[0].metrics)

        async def told() -> bool:
            return "gauges not refreshed" in caplog.messages

        await until(told)
        assert replicas[0].samples() == one
        nursery.cancel_scope.cancel()
    gone.close()
