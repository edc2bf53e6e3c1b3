"""In a large organisation nothing that is asked all the time reads a large table from end to end.

Postgres alone: plans are its own, and SQLite serves one process.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench import organisation
from bench.organisation import Person, Sizes, made_id, provider_of, ref_of
from sb.auth.tokens import token_hash
from sb.clock import utc_now
from sb.db import columns
from sb.db.engine import Database, Transaction
from sb.ids import new_id
from sb.ops import (
    grant_lists,
    policies,
    policy_preview,
    requests,
    secret_kinds,
    sessions,
    submissions,
)
from sb.ops.callers import Caller
from tests import servers
from tests.conftest import TEMPLATE
from tests.db import raw

#: Large enough that the planner has every reason to use the indexes there are.
SIZES = Sizes(requests=10_000)
NOW = utc_now()
#: Tables with fewer rows than this may be read whole.
LARGE = 400
PROJECTS = (3, 100, 1234)
#: Who may see what is on a cluster or in a kind of store: no index knows these, and all requests
#: are looked through for them, the newest first where there are many. Their queues are short.
INDISTINCT = ("cluster", "provider")
#: Indexes without which some of it would be.
NEEDED = (
    "policy_rules_pins_idx",
    "policy_rules_order_idx",
    "user_roles_user_idx",
    "access_requests_ref_idx",
)

Scans = set[tuple[str, str]]


class Explaining(Transaction):
    """A transaction that asks for the plan of each statement before it runs it."""

    __slots__ = ("indexes", "scans")

    def __init__(self, tx: Transaction) -> None:
        super().__init__(tx._cursor, tx._queries, tx.dialect)
        self.scans: Scans = set()
        self.indexes: set[str] = set()

    def _execute(self, name: str, shape: str, params: dict[str, Any]) -> None:
        statement = "EXPLAIN (FORMAT JSON) " + self._queries[name].sql
        self._cursor.execute(statement, columns.adapt(params))
        (plan,) = self._cursor.fetchone()[0]
        self.scans |= {
            (name, node["Relation Name"])
            for node in nodes(plan["Plan"])
            if node["Node Type"] == "Seq Scan"
        }
        self.indexes |= {node.get("Index Name", "") for node in nodes(plan["Plan"])}
        super()._execute(name, shape, params)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every node of the plan."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


class Undone(Exception):  # noqa: N818 # no error: how an example leaves nothing behind
    """Takes back what an operation wrote."""


@pytest.fixture
def filled_url(postgres_server: servers.PostgresServer) -> Iterator[str]:
    name = f"t_{secrets.token_hex(6)}"
    postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    url = postgres_server.url(name)
    organisation.fill(url, SIZES, now=NOW)
    yield url
    postgres_server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def filled(filled_url: str) -> Iterator[Database]:
    found = Database.open(filled_url, pool_size=2)
    yield found
    found.close()


def test_no_large_table_is_read_whole_for_what_is_asked_all_the_time(
    filled: Database, filled_url: str
) -> None:
    known = organisation.people(filled, SIZES, authors=1, now=NOW)
    large = large_tables(filled_url)
    assert large >= {"access_requests", "policy_rules", "user_roles", "local_users", "projects"}
    assert large >= {"teams", "sessions", "environments", "secrets", "project_secrets"}

    assert whole_reads(filled, known, large) == set()

    # The look would have seen it: without their indexes they are.
    raw.execute(filled_url, f"DROP INDEX {', '.join(NEEDED)}")
    few = {name: known[name] for name in ("prefix", "author_0", "grant_giver")}
    assert whole_reads(filled, few, large) >= {
        ("policy_list_candidates", "policy_rules"),
        ("grant_list_for_user", "user_roles"),
        ("request_list_refs", "access_requests"),
    }


def large_tables(url: str) -> set[str]:
    found = "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= "
    return {name for (name,) in raw.rows(url, f"{found}{LARGE}")}


def test_productions_secrets_are_found_by_their_paths(filled: Database, filled_url: str) -> None:
    raw.execute(filled_url, "UPDATE secrets SET became_prod_at = first_seen_at")
    raw.execute(filled_url, "ANALYZE secrets")

    def look(tx: Transaction) -> set[str]:
        explaining = Explaining(tx)
        secret_kinds.is_production(
            explaining,
            provider_type="vault",
            secret_ref="team-1/project-1/secret-1",
            config={},
            connection_id=made_id("connection", 1),
            cluster_name=None,
        )
        assert "secrets_pkey" not in explaining.indexes
        return explaining.indexes

    assert len(filled.run_sync(look) & {"secrets_prod_idx", "secrets_ref_idx"}) == 1


def whole_reads(db: Database, known: dict[str, Person], large: set[str]) -> Scans:
    """Return the queries that read a large table whole, with the tables."""
    scans: Scans = set()

    def run(op: Callable[..., Any], **kwargs: Any) -> Any:
        def explained(tx: Transaction) -> None:
            explaining = Explaining(tx)
            done.append(op(explaining, **kwargs))
            scans.update(explaining.scans)
            raise Undone

        done: list[Any] = []
        with pytest.raises(Undone):
            db.run_sync(explained)
        return done[0]

    callers = {
        name: run(sessions.authenticate, token_hash=token_hash(person.token), now=NOW)
        for name, person in known.items()
    }
    for name, caller in callers.items():
        ask_requests(run, caller, undecided=True)
        if name not in INDISTINCT:
            ask_requests(run, caller, undecided=False)
    page: dict[str, Any] = {"before": None, "limit": 50, "now": NOW}
    run(
        grant_lists.list_grants,
        caller=callers["grant_giver"],
        filters=grant_lists.Filters(),
        **page,
    )
    for number in PROJECTS:
        decide_on(run, callers["author_0"], number)
    return {(query, table) for query, table in scans if table in large}


def ask_requests(run: Callable[..., Any], caller: Caller, *, undecided: bool) -> None:
    run(
        requests.list_requests,
        caller=caller,
        filters=requests.Filters(needs_my_decision=undecided),
        before=None,
        limit=50,
        now=NOW,
    )


def decide_on(run: Callable[..., Any], caller: Caller, number: int) -> None:
    target: dict[str, Any] = {
        "target_provider_type": provider_of(number, 1),
        "target_secret_ref": ref_of(SIZES, number, 1),
        "target_keys": ["PASSWORD"],
        "project_id": made_id("project", number),
        "environment": "dev",
    }
    preview = policy_preview.Draft(operation="read", **target)
    explanation = run(policy_preview.explain, caller=caller, draft=preview, now=NOW)
    assert explanation.rules_count > 0
    assert explanation.approvers.total > 0
    draft = submissions.Draft(
        id=new_id(), type="read", justification="x", target_provider_config={}, **target
    )
    seen = run(submissions.submit, caller=caller, draft=draft, new_wraps=[], now=NOW)
    assert seen.row["status"] == "pending"
    scope = policies.PolicyScope(
        operation="read",
        provider_type=provider_of(number, 1),
        secret_ref=ref_of(SIZES, number, 1),
        project_id=made_id("project", number),
    )
    assert run(policies.decide, scope=scope).workflow.name
