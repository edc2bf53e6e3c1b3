"""The rules of query files: names, shapes, descriptions, parameters, overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sb.db.engine import Database, Transaction
from sb.db.queries import DialectName, Query, QueryFileError, load
from sb.db.sqlfiles import sql_root

ONE = """-- name: thing_find :one
-- Returns the thing, or no row.
SELECT id FROM things WHERE id = :id;
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("postgres", "sqlite"):
        (tmp_path / "queries" / folder).mkdir(parents=True)
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    (root / "queries" / path).write_text(text)


def only(root: Path, dialect: DialectName = "sqlite") -> Query:
    (query,) = load(root, dialect).values()
    return query


def refusal(root: Path) -> str:
    with pytest.raises(QueryFileError) as caught:
        load(root, "sqlite")
    return str(caught.value)


@pytest.mark.parametrize("shape", ["one", "many", "scalar", "count"])
def test_load_reads_name_shape_description_and_parameters(root: Path, shape: str) -> None:
    write(root, "things.sql", ONE.replace(":one", f":{shape}"))

    query = only(root)

    assert (query.name, query.shape) == ("thing_find", shape)
    assert query.description == "Returns the thing, or no row."
    assert query.parameters == {"id"}
    assert query.sql.strip() == "SELECT id FROM things WHERE id = :id"
    assert only(root, "postgres").sql.strip() == "SELECT id FROM things WHERE id = %(id)s"


def test_load_takes_every_query_of_every_file(root: Path) -> None:
    write(root, "things.sql", ONE + "\n" + ONE.replace("thing_find", "thing_find_2"))
    write(root, "others.sql", ONE.replace("thing_find", "other_find"))

    assert set(load(root, "sqlite")) == {"thing_find", "thing_find_2", "other_find"}


def test_comments_are_no_part_of_the_statement(root: Path) -> None:
    write(
        root,
        "things.sql",
        ONE.replace("SELECT id", "-- Why: the :lock comes first.\nSELECT id\n  -- and :more\n "),
    )

    assert only(root).parameters == {"id"}
    assert "--" not in only(root).sql


def test_casts_and_times_in_text_are_no_parameters(root: Path) -> None:
    write(root, "things.sql", ONE.replace("SELECT id", "SELECT id::text, 'at 12:30'"))

    assert only(root).parameters == {"id"}
    assert "id::text, 'at 12:30'" in only(root).sql


def test_a_parameter_named_twice_is_one(root: Path) -> None:
    write(root, "things.sql", ONE.replace("id = :id", "id = :id OR parent = :id"))

    assert only(root).parameters == {"id"}


@pytest.mark.parametrize(
    "head",
    [
        "-- name: thing_find",
        "-- name: thing_find :all",
        "-- name: thing_find :One",
        "-- name: Thing_find :one",
        "-- name: thing-find :one",
        "-- name: 2thing :one",
        "-- name: :one",
        "-- name: thing_find :one :many",
        " -- name: thing_find :one",
    ],
)
def test_a_bad_head_is_refused_with_its_file(root: Path, head: str) -> None:
    write(root, "fine.sql", ONE.replace("thing_find", "fine"))
    write(root, "things.sql", ONE.replace("-- name: thing_find :one", head))

    assert "queries/things.sql" in refusal(root)


def test_a_missing_description_is_refused_by_name(root: Path) -> None:
    write(root, "things.sql", "-- name: thing_find :one\nSELECT 1;\n")

    message = refusal(root)
    assert "queries/things.sql" in message
    assert "thing_find" in message


def test_a_query_without_a_statement_is_refused(root: Path) -> None:
    write(root, "things.sql", "-- name: thing_find :one\n-- Returns the thing.\n")

    assert "thing_find" in refusal(root)


def test_a_statement_without_a_head_is_refused(root: Path) -> None:
    write(root, "things.sql", "SELECT 1;\n\n" + ONE)

    assert "queries/things.sql" in refusal(root)


@pytest.mark.parametrize("second", ["things.sql", "zebras.sql"])
def test_a_name_twice_in_one_folder_is_refused(root: Path, second: str) -> None:
    write(root, "things.sql", ONE)
    path = root / "queries" / second
    path.write_text((path.read_text() if path.exists() else "") + "\n" + ONE)

    message = refusal(root)
    assert "thing_find" in message
    assert f"queries/{second}" in message


def test_a_name_twice_in_a_dialect_folder_is_refused(root: Path) -> None:
    write(root, "things.sql", ONE)
    write(root, "postgres/things.sql", ONE)
    write(root, "postgres/zebras.sql", ONE)

    assert "thing_find" in refusal(root)


def test_a_dialect_folder_overrides_by_name(root: Path) -> None:
    write(root, "things.sql", ONE + "\n" + ONE.replace("thing_find", "other_find"))
    write(root, "postgres/elsewhere.sql", ONE.replace("= :id", "= :id FOR UPDATE"))

    assert "FOR UPDATE" in load(root, "postgres")["thing_find"].sql
    assert "FOR UPDATE" not in load(root, "sqlite")["thing_find"].sql
    assert "FOR UPDATE" not in load(root, "postgres")["other_find"].sql


def test_a_query_of_one_dialect_only_is_refused(root: Path) -> None:
    write(root, "things.sql", ONE)
    write(root, "sqlite/things.sql", ONE.replace("thing_find", "thing_lock"))

    assert "thing_lock" in refusal(root)
    with pytest.raises(QueryFileError, match="thing_lock"):
        load(root, "postgres")


@pytest.mark.parametrize(
    "override", [ONE.replace(":one", ":many"), ONE.replace(":id", ":key"), ONE.replace(":id", "1")]
)
def test_an_override_with_another_shape_or_parameters_is_refused(root: Path, override: str) -> None:
    write(root, "things.sql", ONE)
    write(root, "sqlite/things.sql", override)

    assert "thing_find" in refusal(root)


def test_the_products_queries_load_from_its_own_folder() -> None:
    assert (sql_root() / "queries").is_dir()
    postgres, lite = load(sql_root(), "postgres"), load(sql_root(), "sqlite")
    assert postgres.keys() == lite.keys()
    assert len(postgres) > 50
    for name, query in postgres.items():
        assert query.description == lite[name].description, name


CALLS: list[tuple[str, str, dict[str, Any], str]] = [
    ("one", "nothing_find", {}, "there is no query 'nothing_find'"),
    ("many", "user_find", {"id": "x"}, "user_find is a :one query, called as :many"),
    ("scalar", "user_find", {"id": "x"}, "called as :scalar"),
    ("count", "user_find", {"id": "x"}, "called as :count"),
    ("one", "user_lock", {"id": "x"}, "user_lock is a :count query"),
    ("one", "user_find", {}, r"user_find takes \['id'\], got \[\]"),
    ("one", "user_find", {"id": "x", "now": 1}, r"got \['id', 'now'\]"),
    ("one", "user_find", {"ID": "x"}, r"got \['ID'\]"),
]


def test_a_wrong_call_is_refused_before_it_is_sent(db: Database) -> None:
    def op(tx: Transaction) -> None:
        for shape, name, params, message in CALLS:
            with pytest.raises(TypeError, match=message):
                getattr(tx, shape)(name, **params)
        # On Postgres a statement that had been sent and failed would end the transaction.
        assert tx.one("role_find_by_name", name="admin") is not None

    db.run_sync(op)


def test_percent_signs_and_quotes_reach_the_server_as_they_are(
    database_url: str, root: Path
) -> None:
    write(
        root,
        "things.sql",
        """-- name: text_like :one
-- Returns what matches.
SELECT :text AS found WHERE :text LIKE '%s%' AND '100%' = '100%';

-- name: text_plain :scalar
-- Returns a text with a percent sign.
SELECT '5 %(x)s %% ?';
""",
    )
    db = Database.open(database_url, sql_root=root)
    try:
        for text in ("o'brien; -- %s :x \\", "ß %(text)s"):
            row = db.run_sync(lambda tx, text=text: tx.one("text_like", text=text))
            assert row == {"found": text}
        assert db.run_sync(lambda tx: tx.one("text_like", text="none")) is None
        assert db.run_sync(lambda tx: tx.scalar("text_plain")) == "5 %(x)s %% ?"
    finally:
        db.close()
