"""Postgres gone and back: a named error in between, then work goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

import pytest
import trio
import trio.testing

from sb.db.engine import Database, Transaction
from sb.db.schema import schema_arrived
from sb.errors import DatabaseUnavailableError
from sb.threads import run_blocking
from tests import servers
from tests.db.rows import add_user, is_there


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[servers.PostgresServer]:
    """A server the tests of this file may stop; each leaves it running."""
    with servers.postgres() as server:
        with closing(Database.open(server.url("postgres"))) as db:
            db.migrate_sync()
        yield server


@pytest.fixture
def victim(own_postgres: servers.PostgresServer) -> Iterator[Database]:
    with closing(Database.open(own_postgres.url("postgres"), pool_size=3)) as db:
        yield db


async def unavailable(db: Database) -> None:
    with trio.fail_after(5):
        for call in (partial(db.run, add_user, "lost@example.com"), db.ping):
            with pytest.raises(DatabaseUnavailableError) as caught:
                await call()
            assert caught.value.headers == {"Retry-After": "2"}


async def test_a_stopped_server_is_unavailable_until_it_is_back(
    own_postgres: servers.PostgresServer, victim: Database
) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(victim.run, add_user, f"before{number}@example.com")

    own_postgres.stop()
    try:
        await unavailable(victim)
        # Many at once are refused as well, and no connection is lost on the way.
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(unavailable, victim)
        assert victim.pool_status()["in_use"] == 0
    finally:
        own_postgres.start()

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(victim.run, add_user, f"after{number}@example.com")
    for name in ("before", "after"):
        assert await victim.read(is_there, f"{name}3@example.com")
    assert not await victim.read(is_there, "lost@example.com")


async def test_connections_cut_while_idle_are_noticed_before_use(
    own_postgres: servers.PostgresServer, victim: Database
) -> None:
    await victim.ping()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    own_postgres.execute(cut + " WHERE application_name = 'secrets-bridge'")

    await victim.ping()


async def test_an_operation_cut_in_the_middle_is_unavailable_and_did_nothing(
    own_postgres: servers.PostgresServer, victim: Database
) -> None:
    def op(tx: Transaction) -> None:
        add_user(tx, "cut@example.com")
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        own_postgres.execute(cut + " WHERE application_name = 'secrets-bridge'")
        is_there(tx, "cut@example.com")

    with pytest.raises(DatabaseUnavailableError):
        await victim.run(op)

    assert not await victim.read(is_there, "cut@example.com")


async def test_a_commit_that_is_cut_is_unavailable(
    own_postgres: servers.PostgresServer, victim: Database
) -> None:
    def op(tx: Transaction) -> None:
        add_user(tx, "uncommitted@example.com")
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        own_postgres.execute(cut + " WHERE application_name = 'secrets-bridge'")

    with pytest.raises(DatabaseUnavailableError):
        await victim.run(op)

    assert not await victim.read(is_there, "uncommitted@example.com")


def test_a_server_that_never_was_is_unavailable() -> None:
    url = f"postgresql://nobody@127.0.0.1:{servers.free_port()}/none"
    with closing(Database.open(url)) as db, pytest.raises(DatabaseUnavailableError):
        db.run_sync(lambda tx: tx.scalar("user_any"))


def test_asking_for_the_schema_of_an_absent_server_says_unavailable() -> None:
    url = f"postgresql://nobody@127.0.0.1:{servers.free_port()}/none"
    with closing(Database.open(url)) as db, pytest.raises(DatabaseUnavailableError):
        db.schema_version_sync()


def test_migrating_an_absent_server_says_unavailable() -> None:
    url = f"postgresql://nobody@127.0.0.1:{servers.free_port()}/none"
    with closing(Database.open(url)) as db, pytest.raises(DatabaseUnavailableError):
        db.migrate_sync()


async def test_waiting_for_the_schema_outlives_an_absent_server() -> None:
    url = f"postgresql://nobody@127.0.0.1:{servers.free_port()}/none"
    stop = trio.Event()
    with closing(Database.open(url)) as db:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def later() -> None:
                await trio.sleep(0.2)
                stop.set()

            assert await schema_arrived(db, stop) is False


async def test_waiting_for_the_schema_ends_when_somebody_migrates(
    own_postgres: servers.PostgresServer,
) -> None:
    own_postgres.execute("CREATE DATABASE waiting")
    url = own_postgres.url("waiting")
    arrived = trio.Event()
    with closing(Database.open(url)) as waiting, closing(Database.open(url)) as migrating:

        async def wait() -> None:
            assert await schema_arrived(waiting, trio.Event()) is True
            arrived.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert not arrived.is_set()
            await run_blocking(migrating.migrate_sync, limiter=trio.CapacityLimiter(1))
            with trio.fail_after(5):
                await arrived.wait()
