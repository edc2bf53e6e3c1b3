"""Rows that no operation writes yet, and looks at rows that no operation shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sb.db import columns
from sb.db.engine import Transaction

_PARAMETER = re.compile(r":(\w+)")


def run(tx: Transaction, statement: str, /, **params: Any) -> int:
    """Run a statement with `:name` parameters and return how many rows it touched."""
    if tx.dialect == "postgres":
        statement = _PARAMETER.sub(r"%(\1)s", statement)
    tx._cursor.execute(statement, columns.adapt(params))
    return int(tx._cursor.rowcount)


def insert(tx: Transaction, table: str, /, **values: Any) -> None:
    names = ", ".join(values)
    run(
        tx, f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{n}' for n in values)})", **values
    )


def find(tx: Transaction, statement: str, /, **params: Any) -> list[Mapping[str, Any]]:
    run(tx, statement, **params)
    return tx._rows(tx._cursor.fetchall())
