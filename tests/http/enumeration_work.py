"""What one call shows to its caller, and what the server did for it: statements, keys, hashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from sb.auth.passwords import PasswordHasher
from sb.db.queries import Query
from sb.ops import audit
from sb.secret import Secret
from tests.http.enumeration_calls import Shot
from tests.stack import Stack

#: Headers that differ between any two calls: the clock, and the id of this one call.
OWN_HEADERS = frozenset({"date", "x-request-id"})


class Heard(dict[str, Query]):
    """The queries of a database; it remembers which were asked for, in order."""

    def __init__(self, known: Mapping[str, Query]) -> None:
        super().__init__(known)
        self.asked: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.append(name)
        return super().get(name, default)


class CountingHasher(PasswordHasher):
    """Hashes as ever; it remembers what each hash and comparison cost."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.costs: list[str] = []

    async def hash(self, password: Secret) -> str:
        self.costs.append(f"hash {self.parameters}")
        return await super().hash(password)

    async def verify(self, stored: str, password: Secret) -> bool:
        # The stored hash says what comparing with it costs: "$argon2id$v=19$m=…,t=…,p=…$…".
        self.costs.append(f"verify {stored.split('$')[1:4]}")
        return await super().verify(stored, password)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Everything in which two calls could differ, without what differs between any two."""

    status: int
    headers: Mapping[str, str]
    body: Any
    audit: list[Any]
    statements: list[str]
    transactions: float
    keys: Mapping[str, float]
    hashes: list[str]


@dataclass
class Observer:
    """Listens at the edges of a running control plane."""

    plane: Stack
    heard: Heard = field(init=False)
    hasher: CountingHasher = field(init=False)
    _newest: str = ""

    def __post_init__(self) -> None:
        # At the database's edge: one named query is one statement on the driver's cursor.
        self.heard = Heard(vars(self.plane.db)["_queries"])
        vars(self.plane.db)["_queries"] = self.heard
        self.hasher = CountingHasher(self.plane.state.hasher.parameters)
        object.__setattr__(self.plane.state, "hasher", self.hasher)

    async def see(self, http: httpx.AsyncClient, shot: Shot, sent: Mapping[str, str]) -> Seen:
        """Make the call and return what it showed and did; the ids that were sent become names."""
        await self._new_rows()
        self.heard.asked.clear()
        self.hasher.costs.clear()
        keys, transactions = self._keys(), self._transactions()
        body = {} if shot.body is None else {"json": shot.body}
        answer = await http.request(shot.method, shot.path, headers=dict(shot.headers), **body)
        statements, hashes = list(self.heard.asked), list(self.hasher.costs)
        now = self._keys()
        work = {op: now[op] - keys[op] for op in now}
        begun = self._transactions() - transactions
        return Seen(
            status=answer.status_code,
            headers={
                name: _renamed(value, sent)
                for name, value in answer.headers.items()
                if name not in OWN_HEADERS
            },
            body=_body(answer, sent),
            audit=[_row(row, sent) for row in await self._new_rows()],
            statements=statements,
            transactions=begun,
            keys=work,
            hashes=hashes,
        )

    async def _new_rows(self) -> list[audit.AuditEvent]:
        rows = await self.plane.db.read(
            audit.list_events, filters=audit.Filters(), before=None, limit=20
        )
        new = [row for row in rows if row.id > self._newest]
        self._newest = max([self._newest, *(row.id for row in rows)])
        return new

    def _keys(self) -> dict[str, float]:
        ops = ("generate_data_key", "unwrap_data_key")
        return {op: self._sample("kms_operation_seconds_count", op=op) for op in ops}

    def _transactions(self) -> float:
        return self._sample("db_pool_wait_seconds_count")

    def _sample(self, name: str, **labels: str) -> float:
        return self.plane.state.registry.get_sample_value(name, labels) or 0


def _renamed(text: str, sent: Mapping[str, str]) -> str:
    for value, name in sent.items():
        text = text.replace(value, f"<{name}>")
    return text


def _body(answer: httpx.Response, sent: Mapping[str, str]) -> Any:
    if not answer.content:
        return None
    found = json.loads(_renamed(answer.text, sent))
    if isinstance(found, dict):
        # As random as the header of the same name.
        found.pop("request_id", None)
    return found


def _row(row: audit.AuditEvent, sent: Mapping[str, str]) -> Any:
    """Return the row but for its own id, its time, and the ids of the call and its correlation.

    The correlation id is random unless the row is about a request; auditors may know which.
    """
    metadata = dict(row.metadata)
    if row.action == "agent.auth.rejected":
        # The auditor, and nobody else, is told whether there is such an agent.
        assert metadata.pop("reason") in ("unknown_agent", "bad_secret")
    found = [row.actor, row.action, row.resource, row.status, metadata]
    return json.loads(_renamed(json.dumps(found), sent))
