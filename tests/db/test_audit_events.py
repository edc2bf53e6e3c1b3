"""The audit trail only grows: the database itself refuses to change or remove an event."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from sb.db.engine import Database, Transaction
from sb.errors import InternalError, NotFoundError
from tests.db import raw
from tests.db.rows import add_event, add_user, is_there

COUNT = "SELECT count(*) FROM audit_events"

CHANGES = [
    "UPDATE audit_events SET status = 'failure'",
    "UPDATE audit_events SET metadata = metadata",
    "DELETE FROM audit_events",
    "DELETE FROM audit_events WHERE status = 'success'",
]


@pytest.fixture
def recorded(db: Database) -> Database:
    db.run_sync(add_event)
    return db


def test_every_change_is_refused(database_url: str, recorded: Database) -> None:
    before = raw.rows(database_url, "SELECT * FROM audit_events")
    assert len(before) == 1

    for change in CHANGES:
        with pytest.raises(Exception, match="audit_events is append-only"):
            raw.execute(database_url, change)
        assert raw.rows(database_url, "SELECT * FROM audit_events") == before, change


@pytest.mark.parametrize("table", ["audit_events", "idempotency_keys, audit_events"])
def test_truncate_is_refused(postgres_url: str, postgres: Database, table: str) -> None:
    # SQLite has no TRUNCATE.
    postgres.run_sync(add_event)

    with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
        raw.execute(postgres_url, f"TRUNCATE {table}")

    assert raw.rows(postgres_url, COUNT) == [(1,)]


REPLACE = """INSERT OR REPLACE INTO audit_events
SELECT id, actor, 'forged', resource, status, correlation_id, http_request_id, metadata, occurred_at
FROM audit_events"""


def test_replace_is_refused_on_the_products_own_connections(lite: Database) -> None:
    # Without recursive_triggers REPLACE deletes the old row past the trigger.
    lite.run_sync(add_event)
    connection = lite._engine.raw_connection()
    try:
        with pytest.raises(Exception, match="audit_events is append-only"):
            connection.cursor().execute(REPLACE)
    finally:
        connection.close()


@pytest.mark.parametrize("statement", ["UPDATE", "DELETE"])
def test_a_refused_change_takes_its_transaction_with_it(recorded: Database, statement: str) -> None:
    changes = {"UPDATE": CHANGES[0], "DELETE": CHANGES[2]}

    def op(tx: Transaction) -> None:
        add_user(tx, "a@example.com")
        tx._cursor.execute(changes[statement])

    with pytest.raises(InternalError) as caught:
        recorded.run_sync(op)

    assert "audit_events" not in str(caught.value)
    assert not recorded.read_sync(is_there, "a@example.com")


def test_an_event_goes_away_with_the_change_it_tells_of(
    database_url: str, recorded: Database
) -> None:
    def op(tx: Transaction) -> None:
        add_event(tx)
        raise NotFoundError

    with pytest.raises(NotFoundError):
        recorded.run_sync(op)

    assert raw.rows(database_url, COUNT) == [(1,)]


def test_the_triggers_are_the_same(postgres_url: str, sqlite_url: str) -> None:
    def names(url: str, statement: str) -> set[Any]:
        return {row[0] for row in raw.rows(url, statement)}

    ours = names(postgres_url, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
    theirs = names(sqlite_url, "SELECT name FROM sqlite_master WHERE type = 'trigger'")
    # What only one of them could otherwise do to the trail.
    assert ours - theirs == {"audit_events_no_truncate"}
    assert theirs - ours == {"audit_events_no_replace"}
    disabled = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'O'"
    assert raw.rows(postgres_url, disabled) == [(0,)]
