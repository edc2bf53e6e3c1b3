"""Migrations: forward only, once each, by one process at a time, wholly or not at all."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from sb.db.engine import Database
from sb.db.errors import SchemaError
from sb.db.sqlfiles import sql_root
from tests.db import raw

NEXT = "CREATE TABLE later (id integer);\nINSERT INTO later (id) VALUES (1);\n"
#: The number of the newest migration there is.
LATEST = len([*(sql_root() / "migrations" / "sqlite").iterdir()])
FAILING = "CREATE TABLE later (id integer);\nINSERT INTO nowhere (id) VALUES (1);\n"


@contextmanager
def opened(url: str, root: Path | None = None) -> Iterator[Database]:
    db = Database.open(url, sql_root=root, pool_size=2)
    try:
        yield db
    finally:
        db.close()


def migrate(url: str, root: Path | None = None) -> list[str]:
    with opened(url, root) as db:
        return db.migrate_sync()


def version(url: str, root: Path | None = None) -> int:
    with opened(url, root) as db:
        return db.schema_version_sync()


def add(root: Path, text: str, name: str = f"{LATEST + 1:04}_later.sql") -> None:
    for dialect in ("postgres", "sqlite"):
        (root / "migrations" / dialect / name).write_text(text)


def names(dialect: str) -> list[str]:
    return sorted(path.name for path in (sql_root() / "migrations" / dialect).iterdir())


def test_both_databases_have_the_same_migrations() -> None:
    assert names("postgres") == names("sqlite")
    for number, name in enumerate(names("postgres"), start=1):
        assert re.fullmatch(rf"{number:04}_[a-z0-9_]+\.sql", name)


def test_migrate_of_an_empty_database_applies_everything_in_order(empty_url: str) -> None:
    assert version(empty_url) == 0

    applied = migrate(empty_url)

    assert applied == [name[5:-4] for name in names("postgres")]
    with opened(empty_url) as db:
        assert db.schema_version_sync() == db.expected_version == len(applied)
    assert "audit_events" in raw.tables(empty_url)
    recorded = raw.rows(empty_url, "SELECT version, name FROM schema_migrations ORDER BY version")
    assert recorded == list(enumerate(applied, start=1))


def test_migrate_again_does_nothing(empty_url: str) -> None:
    migrate(empty_url)
    before = raw.rows(empty_url, "SELECT * FROM schema_migrations")

    assert migrate(empty_url) == []

    assert raw.rows(empty_url, "SELECT * FROM schema_migrations") == before


def test_migrate_applies_only_what_is_missing(database_url: str, sql_copy: Path) -> None:
    add(sql_copy, NEXT)

    assert migrate(database_url, sql_copy) == ["later"]

    assert version(database_url, sql_copy) == LATEST + 1
    assert raw.rows(database_url, "SELECT id FROM later") == [(1,)]


def test_a_migration_changed_after_it_was_applied_is_refused(
    database_url: str, sql_copy: Path
) -> None:
    for path in (sql_copy / "migrations").glob("*/0001_*.sql"):
        path.write_text(path.read_text() + "\n-- harmless\n")
    add(sql_copy, NEXT)

    with pytest.raises(SchemaError, match=r"migration 1 \(core\) was changed after it was applied"):
        migrate(database_url, sql_copy)

    assert "later" not in raw.tables(database_url)


def test_a_database_newer_than_the_code_is_refused(database_url: str, sql_copy: Path) -> None:
    add(sql_copy, NEXT)
    migrate(database_url, sql_copy)

    with pytest.raises(
        SchemaError, match=rf"at migration {LATEST + 1} \(later\).*run the newer release"
    ):
        migrate(database_url)

    assert raw.rows(database_url, "SELECT id FROM later") == [(1,)]
    assert version(database_url) == LATEST + 1


def test_a_failing_migration_leaves_nothing_and_can_be_tried_again(
    database_url: str, sql_copy: Path
) -> None:
    add(sql_copy, FAILING)

    with pytest.raises(Exception, match="nowhere"):
        migrate(database_url, sql_copy)

    assert version(database_url, sql_copy) == LATEST
    assert "later" not in raw.tables(database_url)

    add(sql_copy, NEXT)
    assert migrate(database_url, sql_copy) == ["later"]
    assert raw.rows(database_url, "SELECT id FROM later") == [(1,)]


def test_a_migration_that_cannot_be_recorded_leaves_nothing(
    database_url: str, sql_copy: Path
) -> None:
    # Statement and record stand or fall together, also where the statements alone went well.
    record = f"({LATEST + 1}, 'x', 'x', '2026-01-01T00:00:00Z')"
    taken = f"INSERT INTO schema_migrations VALUES {record};\n"
    add(sql_copy, NEXT + taken)

    with pytest.raises(Exception, match=r"(?i)unique"):
        migrate(database_url, sql_copy)

    assert version(database_url, sql_copy) == LATEST
    assert "later" not in raw.tables(database_url)


def test_a_failing_migration_leaves_the_handle_usable(database_url: str, sql_copy: Path) -> None:
    add(sql_copy, FAILING)
    with opened(database_url, sql_copy) as db:
        with pytest.raises(Exception, match="nowhere"):
            db.migrate_sync()
        assert db.run_sync(lambda tx: tx.one("role_find_by_name", name="admin")) is not None
        add(sql_copy, NEXT)
        assert db.migrate_sync() == ["later"]


def test_migrating_leaves_no_long_timeouts_behind(postgres_url: str, sql_copy: Path) -> None:
    path = sql_copy / "queries" / "timeouts.sql"
    path.write_text(
        "-- name: timeout_show :scalar\n-- Returns both.\n"
        "SELECT current_setting('statement_timeout') || ' ' || current_setting('lock_timeout');\n"
    )
    with opened(postgres_url, sql_copy) as db:
        db.migrate_sync()
        assert db.run_sync(lambda tx: tx.scalar("timeout_show")) == "5s 2s"


@pytest.mark.parametrize(
    "name",
    [
        f"{LATEST + 2:04}_gap.sql",
        f"{LATEST:04}_twice.sql",
        f"{LATEST + 1}_short.sql",
        f"{LATEST + 1:04}-dash.sql",
        f"{LATEST + 1:04}_Big.sql",
    ],
)
def test_a_badly_numbered_or_named_file_is_refused(
    sqlite_url: str, sql_copy: Path, name: str
) -> None:
    add(sql_copy, NEXT, name)

    with pytest.raises(SchemaError, match=r"NNNN_name\.sql and numbered without gaps") as caught:
        migrate(sqlite_url, sql_copy)
    assert "migrations/sqlite/" in str(caught.value)


STATEMENTS = """-- A comment; with a semicolon.
CREATE TABLE later (
  id integer,
  note text DEFAULT 'a; b'
);
INSERT INTO later (id, note)
VALUES (1, 'x;
y');
CREATE TABLE log (id integer);
"""


def test_semicolons_inside_statements_do_not_end_them(database_url: str, sql_copy: Path) -> None:
    add(sql_copy, STATEMENTS)

    migrate(database_url, sql_copy)

    assert raw.rows(database_url, "SELECT id, note FROM later") == [(1, "x;\ny")]
    assert {"later", "log"} <= raw.tables(database_url)


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param("CREATE TABLE last (id integer)\n", id="no-semicolon"),
        pytest.param("CREATE TABLE last (id integer); -- why\n", id="comment-behind"),
    ],
)
def test_the_last_statement_is_applied_however_its_line_ends(
    database_url: str, sql_copy: Path, ending: str
) -> None:
    add(sql_copy, NEXT + ending)

    migrate(database_url, sql_copy)

    assert "last" in raw.tables(database_url)


def test_threads_that_migrate_at_once_apply_everything_once(empty_url: str) -> None:
    ready = threading.Barrier(4)
    applied: list[list[str]] = []
    problems: list[Exception] = []

    def work() -> None:
        with opened(empty_url) as db:
            ready.wait()
            try:
                applied.append(db.migrate_sync())
            except Exception as problem:  # noqa: BLE001 # shown by the assertion below
                problems.append(problem)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert sorted(applied, key=len) == [[], [], [], [name[5:-4] for name in names("postgres")]]


PROCESS = """
import sys
from sb.db.engine import Database
db = Database.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(*db.migrate_sync(), flush=True)
"""


def test_processes_that_migrate_one_file_at_once_apply_everything_once(tmp_path: Path) -> None:
    # Files are locked by process; to Postgres a process is a connection like any thread's.
    url = f"sqlite:///{tmp_path}/empty.db"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=30)[0] for process in started]

    assert [process.returncode for process in started] == [0, 0]
    assert sorted(said) == ["\n", " ".join(name[5:-4] for name in names("postgres")) + "\n"]


def test_migrate_waits_for_a_migration_under_way_elsewhere(postgres_url: str) -> None:
    done = threading.Event()

    def work() -> None:
        migrate(postgres_url)
        done.set()

    with psycopg.connect(postgres_url, autocommit=True) as elsewhere:
        elsewhere.execute("SELECT pg_advisory_lock(%s)", (0x5EC2E75B,))
        thread = threading.Thread(target=work)
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while elsewhere.execute(waiting).fetchone() == (0,):
            assert thread.is_alive()
        assert not done.is_set()
        elsewhere.execute("SELECT pg_advisory_unlock(%s)", (0x5EC2E75B,))
        thread.join(10)
    assert done.is_set()
