"""What the database holds before the product starts: people, agents, and a long audit trail."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from sb.auth.passwords import hash_password
from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.db.columns import to_text_time
from sb.db.engine import Database, Transaction
from sb.ids import new_id
from sb.ops import agents, bootstrap, connections, enrollments
from sb.ops.callers import System
from sb.secret import Secret

PASSWORD = "a-password-for-benchmarks"
BENCH = System(part="bench")
ROLES = ("developer", "approver")
SQL = Path(__file__).parent / "sql"

#: One read request's story; the last columns say who acts and on what.
STORY = (
    ("request.submit", "developer", "request"),
    ("request.approve", "approver", "request"),
    ("job.enqueue", "approver", "job"),
    ("job.claim", "agent", "job"),
    ("wrap.create", "agent", "wrap"),
    ("job.complete", "agent", "job"),
    ("request.transition", "agent", "request"),
    ("wrap.retrieve", "developer", "wrap"),
)
TRAIL_DAYS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeded:
    """Who can be acted for."""

    pairs: int
    users: dict[str, str]
    agents: list[tuple[str, str]]
    enrollment_token: str
    correlation_ids: list[str]


def email(role: str, number: int) -> str:
    """Return the address of the role's person with this number."""
    return f"{role}-{number}@example.com"


def seed(url: str, *, pairs: int, agent_count: int, audit_rows: int) -> Seeded:
    """Leave the schema, an administrator, pairs of people, agents and audit rows in place."""
    db = Database.open(url, exclusive=True)
    try:
        db.migrate_sync()
        db.run_sync(bootstrap.seed, now=utc_now())
        users = db.run_sync(_people, pairs)
        minted = db.run_sync(_agents, agent_count)
        token = new_token()
        if url.startswith("postgres"):  # `sb dev` makes its own connection.
            db.run_sync(_enrollment, token)
    finally:
        db.close()
    chains = [new_id() for _ in range(audit_rows // len(STORY))]
    _load(url, _trail(chains, users, [agent_id for agent_id, _ in minted]))
    return Seeded(
        pairs=pairs,
        users=users,
        agents=minted,
        enrollment_token=token,
        correlation_ids=chains,
    )


def _people(tx: Transaction, pairs: int) -> dict[str, str]:
    hashed = hash_password(Secret(PASSWORD.encode()))
    wanted = [("admin", 0), *((role, number) for role in ROLES for number in range(pairs))]
    return {
        email(role, number): bootstrap.create_user(
            tx,
            email=email(role, number),
            password_hash=hashed,
            display_name=f"{role} {number}",
            role=role,
            action="auth.bootstrap_dev_user",
            now=utc_now(),
        )
        for role, number in wanted
    }


def _agents(tx: Transaction, count: int) -> list[tuple[str, str]]:
    found = []
    for number in range(count):
        secret = new_token()
        agent_id = agents.mint(
            tx,
            by=BENCH,
            name=f"bench-{number}",
            secret_hash=token_hash(secret),
            scope={},
            public_key=None,
            now=utc_now(),
        )
        found.append((agent_id, secret))
    return found


def _enrollment(tx: Transaction, token: str) -> None:
    now = utc_now()
    connection = connections.create(
        tx,
        by=BENCH,
        name="bench-file",
        provider_type="file",
        auth_method="default",
        scope={},
        cluster_name=None,
        description=None,
        now=now,
    )
    enrollments.issue(
        tx,
        by=BENCH,
        connection_id=connection["id"],
        token_hash=token_hash(token),
        name="bench",
        expires_in_seconds=None,
        expected_cluster_name=None,
        expected_provider_type=None,
        now=now,
    )


def _trail(
    chains: list[str], users: dict[str, str], agent_ids: list[str]
) -> Iterator[tuple[Any, ...]]:
    """Yield rows of whole stories, a few of them interleaved, the oldest first."""
    chosen = random.Random(7)
    start = utc_now() - timedelta(days=TRAIL_DAYS)
    step = timedelta(days=TRAIL_DAYS) / max(1, len(chains))
    by_role = {role: [i for e, i in users.items() if e.startswith(role)] for role in ROLES}
    for number, chain in enumerate(chains):
        actors = {role: f"user:{chosen.choice(ids)}" for role, ids in by_role.items()}
        actors["agent"] = f"agent:{chosen.choice(agent_ids)}"
        subjects = {"request": chain, "job": new_id(), "wrap": new_id()}
        for place, (action, who, what) in enumerate(STORY):
            # The later steps of a story stand among the first steps of the next ones.
            at = start + step * number + step * place * 0.7
            metadata = {"request_type": "read", "key_names": ["DB_PASSWORD"], "byte_length": 24}
            yield (
                _id_at(at, chosen),
                actors[who],
                action,
                f"{what}:{subjects[what]}",
                "success",
                chain,
                new_id(),
                json.dumps(metadata),
                at,
            )


def _id_at(moment: datetime, chosen: random.Random) -> str:
    """Return a UUIDv7 of that moment."""
    text = f"{int(moment.timestamp() * 1000):012x}7{chosen.getrandbits(12):03x}"
    text += f"{0b10 << 62 | chosen.getrandbits(62):016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _load(url: str, rows: Iterator[tuple[Any, ...]]) -> None:
    if url.startswith("postgres"):
        with psycopg.connect(url, autocommit=True) as connection:
            copy_text = (SQL / "audit_copy.sql").read_text()
            with connection.cursor() as cursor, cursor.copy(copy_text.encode()) as copy:
                for row in rows:
                    copy.write_row(row)
            connection.execute((SQL / "audit_vacuum.sql").read_text().encode())
        return
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    with connection:
        connection.executemany(
            (SQL / "audit_insert.sql").read_text(),
            ((*row[:-1], to_text_time(row[-1].astimezone(UTC))) for row in rows),
        )
    connection.close()
