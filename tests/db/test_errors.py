"""What a database refuses, in our words: the meaning of a constraint, never a driver's text."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sb.clock import utc_now
from sb.db.engine import Database, Transaction
from sb.db.errors import translate
from sb.errors import (
    ConstraintViolatedError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    InternalError,
    SbError,
)
from sb.ids import new_id
from tests.db import raw
from tests.db.rows import add_event, add_user


class TakenError(SbError):
    code = "taken"
    status = 409
    message = "It is taken."


MEANINGS: dict[str, type[SbError]] = {
    "local_users_email_key": TakenError,
    "local_users_email_form": TakenError,
    "audit_events_status_known": TakenError,
}


@pytest.fixture
def meant(database_url: str) -> Database:
    return Database.open(database_url, constraint_errors=MEANINGS)


def refused(db: Database, op: object, *args: object) -> SbError:
    with pytest.raises(SbError) as caught:
        db.run_sync(op, *args)  # type: ignore[arg-type]
    return caught.value


def test_a_violated_unique_index_becomes_its_meaning(meant: Database) -> None:
    meant.run_sync(add_user, "planted@example.com")

    problem = refused(meant, add_user, "planted@example.com")

    assert type(problem) is TakenError
    assert str(problem) == "It is taken."
    assert problem.__cause__ is not None
    meant.close()


@pytest.mark.parametrize("email", ["UPPER@example.com", "  "])
def test_a_violated_check_becomes_its_meaning(meant: Database, email: str) -> None:
    assert type(refused(meant, add_user, email)) is TakenError
    meant.close()


def test_a_violated_check_of_another_table_becomes_its_meaning(meant: Database) -> None:
    assert type(refused(meant, add_event, "odd")) is TakenError
    meant.close()


def test_a_violated_constraint_without_a_meaning_is_internal_and_named(database_url: str) -> None:
    db = Database.open(database_url)
    db.run_sync(add_user, "planted@example.com")

    problem = refused(db, add_user, "planted@example.com")
    db.close()

    assert isinstance(problem, ConstraintViolatedError)
    assert isinstance(problem, InternalError)
    assert problem.constraint == "local_users_email_key"
    assert "planted" not in str(problem)
    assert "local_users" not in problem.public_message


def test_a_violated_foreign_key_is_internal(db: Database) -> None:
    def op(tx: Transaction) -> None:
        tx.count(
            "grant_insert",
            id=new_id(),
            user_id=new_id(),
            role_id=new_id(),
            scope={},
            granted_by="system:test",
            expires_at=None,
            reason=None,
            now=utc_now(),
        )

    assert isinstance(refused(db, op), ConstraintViolatedError)


def test_a_null_where_none_may_be_is_internal(db: Database) -> None:
    def op(tx: Transaction) -> None:
        add_user(tx, None)  # type: ignore[arg-type]

    assert isinstance(refused(db, op), ConstraintViolatedError)


def test_a_violated_primary_key_has_one_name_on_both(db: Database) -> None:
    user_id = new_id()
    db.run_sync(add_user, "a@example.com", user_id)

    problem = refused(db, add_user, "b@example.com", user_id)

    assert isinstance(problem, ConstraintViolatedError)
    assert problem.constraint == "local_users_pkey"


def test_any_other_driver_error_is_internal_without_its_text(database_url: str) -> None:
    raw.execute(database_url, "DROP TABLE idempotency_keys")
    db = Database.open(database_url)

    problem = refused(
        db, lambda tx: tx.one("idempotency_find", actor="a", key="k", route="r", now=utc_now())
    )
    db.close()

    assert "idempotency" not in str(problem)
    assert type(problem) is InternalError


def test_a_snapshot_overtaken_by_a_writer_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as one,
        closing(sqlite3.connect(path, isolation_level=None)) as two,
    ):
        one.execute("PRAGMA journal_mode = WAL")
        one.execute("CREATE TABLE t (id)")
        one.execute("BEGIN")
        one.execute("SELECT * FROM t").fetchall()
        two.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(sqlite3.OperationalError) as caught:
            one.execute("INSERT INTO t VALUES (2)")

    assert caught.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"
    assert isinstance(translate(caught.value, unique_names={}, meanings={}), DatabaseBusyError)


def test_a_sqlite_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    db = Database.open(f"sqlite:///{tmp_path}/nowhere/a.db")
    with pytest.raises(DatabaseUnavailableError):
        db.run_sync(lambda tx: tx.scalar("user_any"))


def test_a_file_that_is_no_database_is_named_in_our_words(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"no database " * 1000)
    db = Database.open(f"sqlite:///{tmp_path}/a.db")
    with pytest.raises(SbError):
        db.run_sync(lambda tx: tx.scalar("user_any"))
