"""The two schemas say the same, in names that tell each column's type."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sb.db import columns
from sb.db.sqlfiles import sql_root
from sb.ops.errors import CONSTRAINT_ERRORS
from tests import servers
from tests.conftest import TEMPLATE
from tests.db import raw

#: Table, column: Postgres type and whether it may be null.
Columns = dict[tuple[str, str], tuple[str, bool]]

LITE_TYPES = {
    "uuid": "TEXT",
    "text": "TEXT",
    "jsonb": "TEXT",
    "timestamp with time zone": "TEXT",
    "boolean": "INTEGER",
    "integer": "INTEGER",
    "smallint": "INTEGER",
    "bigint": "INTEGER",
    "bytea": "BLOB",
}


@pytest.fixture
def postgres_url(postgres_server: servers.PostgresServer) -> str:
    """The template itself: these tests only look."""
    return postgres_server.url(TEMPLATE)


def postgres_columns(url: str) -> Columns:
    found = raw.rows(
        url,
        """SELECT table_name, column_name, data_type, is_nullable = 'YES'
        FROM information_schema.columns WHERE table_schema = 'public'""",
    )
    return {(table, column): (kind, nullable) for table, column, kind, nullable in found}


def lite_columns(url: str) -> Columns:
    found = raw.rows(
        url,
        """SELECT m.name, c.name, c.type, c."notnull" = 0 AND c.pk = 0
        FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE m.type = 'table'""",
    )
    return {(table, column): (kind, bool(nullable)) for table, column, kind, nullable in found}


def test_tables_and_columns_are_the_same(postgres_url: str, sqlite_url: str) -> None:
    postgres, lite = postgres_columns(postgres_url), lite_columns(sqlite_url)

    assert postgres.keys() == lite.keys()
    for place, (kind, nullable) in postgres.items():
        assert lite[place] == (LITE_TYPES[kind], nullable), place


def test_every_sqlite_table_is_strict(sqlite_url: str) -> None:
    loose = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
    loose += " AND strict = 0 AND name NOT LIKE 'sqlite_%'"
    assert raw.rows(sqlite_url, loose) == []


def test_columns_have_no_defaults_that_ask_the_server(postgres_url: str, sqlite_url: str) -> None:
    ours = "SELECT table_name, column_name FROM information_schema.columns"
    ours += " WHERE table_schema = 'public' AND column_default IS NOT NULL"
    assert raw.rows(postgres_url, ours) == []
    theirs = "SELECT m.name, c.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
    theirs += " WHERE m.type = 'table' AND c.dflt_value IS NOT NULL"
    assert raw.rows(sqlite_url, theirs) == []


def test_unique_constraints_are_the_same(postgres_url: str, sqlite_url: str) -> None:
    postgres = raw.rows(
        postgres_url,
        """SELECT t.relname, string_agg(a.attname, ',' ORDER BY k.place),
               i.indpred IS NOT NULL, i.indisprimary
        FROM pg_index AS i
        JOIN pg_class AS t ON t.oid = i.indrelid
        JOIN pg_namespace AS n ON n.oid = t.relnamespace AND n.nspname = 'public'
        CROSS JOIN unnest(i.indkey::int[]) WITH ORDINALITY AS k (attnum, place)
        JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = k.attnum
        WHERE i.indisunique GROUP BY t.relname, i.indexrelid, i.indpred, i.indisprimary""",
    )
    lite = raw.rows(
        sqlite_url,
        """SELECT m.name, (SELECT group_concat(name) FROM
               (SELECT x.name FROM pragma_index_info(l.name) AS x ORDER BY x.seqno)),
               l.partial, l.origin = 'pk'
        FROM sqlite_master AS m, pragma_index_list(m.name) AS l
        WHERE m.type = 'table' AND l."unique" = 1""",
    )
    # A whole number as a key is the row's own number and needs no index there.
    expected = {row for row in postgres if row[0] != "schema_migrations"}
    assert expected == {(t, c, bool(partial), bool(key)) for t, c, partial, key in lite}
    assert len(expected) > 30


def test_indexes_have_the_same_names_and_conditions(postgres_url: str, sqlite_url: str) -> None:
    listed = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    listed += " AND indexname NOT LIKE '%_pkey'"
    postgres = {name: " WHERE " in text for name, text in raw.rows(postgres_url, listed)}
    listed = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    assert {name: " WHERE " in text for name, text in raw.rows(sqlite_url, listed)} == postgres


def test_foreign_keys_are_the_same(postgres_url: str, sqlite_url: str) -> None:
    postgres = raw.rows(
        postgres_url,
        """SELECT c.conrelid::regclass::text, a.attname, c.confrelid::regclass::text, f.attname,
               CASE c.confdeltype WHEN 'a' THEN 'NO ACTION' WHEN 'r' THEN 'RESTRICT'
                 WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL' END
        FROM pg_constraint AS c
        JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        JOIN pg_attribute AS f ON f.attrelid = c.confrelid AND f.attnum = c.confkey[1]
        WHERE c.contype = 'f'""",
    )
    lite = raw.rows(
        sqlite_url,
        """SELECT m.name, f."from", f."table", f."to", f.on_delete
        FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f WHERE m.type = 'table'""",
    )
    assert set(postgres) == set(lite)
    assert len(postgres) == len(lite) > 30


def named_checks(dialect: str) -> dict[str, str]:
    """Return the text of each named check as the migrations have it."""
    text = "".join(
        path.read_text() for path in sorted((sql_root() / "migrations" / dialect).glob("*.sql"))
    )
    found: dict[str, str] = {}
    for match in re.finditer(r"CONSTRAINT (\w+)\s+CHECK\s*\(", text):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        found[match[1]] = " ".join(text[match.end() : end - 1].split())
    return found


def test_named_checks_are_the_same(postgres_url: str, sqlite_url: str) -> None:
    postgres, lite = named_checks("postgres"), named_checks("sqlite")
    in_force = raw.rows(
        postgres_url, "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0"
    )
    assert {row[0] for row in in_force} == postgres.keys()
    assert {
        name: text.replace("jsonb_typeof", "json_type") for name, text in postgres.items()
    } == lite


def test_the_column_convention_tells_every_type(postgres_url: str) -> None:
    for (table, column), (kind, _) in postgres_columns(postgres_url).items():
        convert = columns.converter_for(column)
        said = {
            "jsonb": convert is columns.json.loads,
            "boolean": convert is bool,
            "timestamp with time zone": convert == columns.datetime.fromisoformat,
        }
        assert said.get(kind, convert is None), f"{table}.{column} is {kind}"


def test_the_column_convention_names_only_columns_there_are(postgres_url: str) -> None:
    there = {column for _, column in postgres_columns(postgres_url)}
    assert there >= columns.JSON_COLUMNS
    assert there >= columns.BOOL_COLUMNS


def test_every_meaning_belongs_to_a_constraint_both_databases_name(
    postgres_url: str, sqlite_url: str
) -> None:
    # SQLite names neither the index of a primary key nor a foreign key.
    ours = {row[0] for row in raw.rows(postgres_url, "SELECT indexname FROM pg_indexes")}
    theirs = {row[0] for row in raw.rows(sqlite_url, "SELECT name FROM sqlite_master")}
    checks = named_checks("postgres").keys() & named_checks("sqlite").keys()
    # What a foreign key points at is looked for first: it is gone only where two write at once.
    foreign = "SELECT conname FROM pg_constraint WHERE contype = 'f'"
    keys = {row[0] for row in raw.rows(postgres_url, foreign)}
    assert (ours & theirs) | checks | keys >= CONSTRAINT_ERRORS.keys()


def test_no_two_indexes_of_a_sqlite_table_have_the_same_columns(sqlite_url: str) -> None:
    # A violation names the columns only; the name of the constraint is found by them. Indexes of
    # expressions have no columns that could be named.
    found = raw.rows(
        sqlite_url,
        """SELECT m.name, (SELECT group_concat(x.name) FROM pragma_index_info(l.name) AS x) AS c
        FROM sqlite_master AS m, pragma_index_list(m.name) AS l WHERE m.type = 'table'
        AND NOT EXISTS (SELECT 1 FROM pragma_index_info(l.name) AS x WHERE x.name IS NULL)""",
    )
    assert len(found) == len(set(found))


BAD_TEXTS = [
    ("created_at", "2026-01-01 00:00:00", "GLOB"),
    ("created_at", "2026-01-01T00:00:00+00:00", "GLOB"),
    ("is_system", "2", "is_system"),
    ("permissions", "no json", "json_valid"),
]


@pytest.mark.parametrize(("column", "value", "check"), BAD_TEXTS)
def test_sqlite_is_no_looser_about_times_booleans_and_json(
    sqlite_url: str, column: str, value: str, check: str
) -> None:
    with pytest.raises(Exception, match=f"CHECK constraint failed: .*{check}"):
        raw.execute(sqlite_url, f"UPDATE roles SET {column} = '{value}'")


def test_checks_cover_every_time_boolean_and_json_of_sqlite(
    postgres_url: str, sqlite_url: str
) -> None:
    files = sorted(Path(sql_root() / "migrations" / "sqlite").glob("*.sql"))
    text = "\n".join(file.read_text() for file in files)
    for (table, column), (kind, nullable) in postgres_columns(postgres_url).items():
        if table == "schema_migrations":
            continue
        wanted = {
            "jsonb": rf"json_valid\({column}\)",
            "boolean": rf"CHECK \({column} IN \(0, 1\)\)",
            "timestamp with time zone": rf"CHECK \({column} GLOB '\?{{4}}-",
        }.get(kind)
        body = re.search(rf"CREATE TABLE {table} \((.*?)\) STRICT;", text, re.DOTALL)
        assert body is not None, table
        added = re.findall(rf"ALTER TABLE {table} ADD COLUMN ([^;]*);", text)
        said = [ln.strip() for ln in (*body[1].splitlines(), *added)]
        line = next(ln for ln in said if ln.startswith(f"{column} "))
        assert wanted is None or re.search(wanted, line), f"{table}.{column}: {line}"
        assert nullable or "NOT NULL" in line or "PRIMARY KEY" in line
