"""People, agents, workflows and targets for tests of operations; every step takes its time."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.db.engine import Database, Transaction
from sb.errors import SbError
from sb.ids import new_id
from sb.kms.envelope import SealedWrap, decrypt, seal_wrap, unwrap_key
from sb.kms.local import LocalKeyRing
from sb.ops import (
    approvals,
    audit,
    connections,
    enrollments,
    grants,
    jobs,
    requests,
    submissions,
    users,
    wraps,
)
from sb.ops.callers import AgentCaller, Caller, System
from sb.secret import Secret
from tests.ops import rows

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TEST = System(part="test")
#: Every secret value of these tests begins like this, and no audit row may hold it.
PLANTED = "planted-value-"
MICROSECOND = timedelta(microseconds=1)

WORKFLOW: dict[str, Any] = {
    "description": "",
    "min_approvers": 1,
    "auto_approve": False,
    "approver_role_id": None,
    "wrap_ttl_created_seconds": 7 * 86400,
    "wrap_ttl_approved_seconds": 3600,
    "wrap_ttl_claimed_seconds": 300,
    "request_ttl_seconds": 14 * 86400,
    "fill_ttl_seconds": 86400,
    "require_justification": True,
    "allow_self_approval": False,
    "requires_security_approval": False,
    "scoped_policy_authorable": False,
    "notification_channels": [],
    "is_default": False,
    "enabled": True,
    "is_system": False,
}


def at(**later: float) -> datetime:
    """Return the time that much after the tests' own noon."""
    return NOW + timedelta(**later)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A claimed job with the lease that holds it."""

    job: jobs.ClaimedJob
    lease: bytes


@dataclass
class World:
    """One database with the few things a test of an operation needs."""

    db: Database

    def __post_init__(self) -> None:
        self.kms = LocalKeyRing([Secret(b"k" * 32)])

    def run(self, op: Callable[..., Any], **kwargs: Any) -> Any:
        return self.db.run_sync(op, **kwargs)

    def refuse(self, error: type[SbError], op: Callable[..., Any], **kwargs: Any) -> SbError:
        """Return the refusal of the operation, which must be exactly of this class."""
        with pytest.raises(error) as caught:
            self.db.run_sync(op, **kwargs)
        assert type(caught.value) is error
        return caught.value

    def role(self, name: str, *permissions: str) -> str:
        def make(tx: Transaction) -> str:
            if permissions:
                tx.count(
                    "role_insert",
                    id=new_id(),
                    name=name,
                    description="",
                    permissions=list(permissions),
                    is_system=False,
                    now=NOW,
                )
            row = tx.one("role_find_by_name", name=name)
            assert row is not None
            return str(row["id"])

        return self.db.run_sync(make)

    def person(
        self, name: str, role: str | None = None, scope: Mapping[str, str] | None = None
    ) -> Caller:
        user_id = self.run(
            users.create,
            email=f"{name}-{secrets.token_hex(4)}@example.com",
            password_hash="a hash nothing matches",
            display_name=name,
            now=NOW,
        )
        if role is not None:
            self.grant(user_id, role, scope or {})
        return self.caller(user_id)

    def grant(self, user_id: str, role: str, scope: Mapping[str, Any]) -> None:
        self.run(
            grants.give,
            user_id=user_id,
            role_id=self.role(role),
            scope=scope,
            granted_by=TEST.actor,
            now=NOW,
        )

    def caller(self, user_id: str) -> Caller:
        """Return the person as a fresh session would: with every grant they have now."""

        def load(tx: Transaction) -> Caller:
            row = tx.one("user_find", id=user_id)
            assert row is not None
            return Caller(
                user_id=user_id,
                session_id=new_id(),
                email=row["email"],
                display_name=row["display_name"],
                grants=grants.load(tx, user_id=user_id, now=NOW),
                http_request_id="req-1",
            )

        return self.db.run_sync(load)

    def connection(self, kind: str = "file", cluster: str | None = None) -> str:
        row = self.run(
            connections.create,
            by=TEST,
            name=f"c-{secrets.token_hex(4)}",
            provider_type=kind,
            auth_method="none",
            scope={},
            cluster_name=cluster,
            description=None,
            now=NOW,
        )
        return str(row["id"])

    def token(self, connection_id: str, now: datetime = NOW, **changes: Any) -> bytes:
        """Issue an enrolment token and return its hash."""
        hashed = token_hash(new_token())
        expected = {"expected_cluster_name": None, "expected_provider_type": None}
        self.run(
            enrollments.issue,
            by=TEST,
            connection_id=connection_id,
            token_hash=hashed,
            **{"name": None, "expires_in_seconds": None, **expected, **changes},
            now=now,
        )
        return hashed

    def agent(self, connection_id: str, now: datetime = NOW, **claims: Any) -> AgentCaller:
        claims.setdefault("agent_name", f"agent-{secrets.token_hex(4)}")
        found: AgentCaller = self.run(
            enrollments.redeem,
            token_hash=self.token(connection_id, now),
            secret_hash=token_hash(new_token()),
            enrollment=enrollments.Enrollment(**claims),
            http_request_id=None,
            now=now,
        )
        return found

    def workflow(self, **changes: Any) -> str:
        workflow_id = new_id()
        values = {"name": f"w-{workflow_id}", **WORKFLOW, **changes}

        def make(tx: Transaction) -> None:
            tx.count("workflow_insert", id=workflow_id, **values, now=NOW)

        self.db.run_sync(make)
        return workflow_id

    def rule(self, selector: Mapping[str, Any], priority: int = 10, **workflow: Any) -> str:
        """Add a rule with a workflow of its own and return the workflow's id."""
        workflow_id = self.workflow(**workflow)

        def make(tx: Transaction) -> None:
            tx.count(
                "policy_insert",
                id=new_id(),
                name=f"r-{workflow_id}",
                selector=dict(selector),
                workflow_id=workflow_id,
                priority=priority,
                enabled=True,
                is_system=False,
                direct_reveal_allowed=False,
                requires_mfa=False,
                reveal_ttl_seconds=60,
                project_id=None,
                team_id=None,
                now=NOW,
            )

        self.db.run_sync(make)
        return workflow_id

    def read(self, caller: Caller, *keys: str, now: datetime = NOW, **changes: Any) -> str:
        """Submit a read and return its id."""
        draft = _draft("read", keys, changes)
        self.run(submissions.submit, caller=caller, draft=draft, new_wraps=[], now=now)
        return draft.id

    def patch(self, caller: Caller, *keys: str, now: datetime = NOW, **changes: Any) -> str:
        """Submit a patch of these keys and return its id."""
        draft = _draft("patch", keys, changes)
        new_wraps = [self.sealed(draft.id, key) for key in keys]
        self.run(submissions.submit, caller=caller, draft=draft, new_wraps=new_wraps, now=now)
        return draft.id

    def sealed(self, request_id: str, key: str, text: str = PLANTED) -> submissions.NewWrap:
        wrap_id = new_id()
        sealed = seal_wrap(
            self.kms,
            wrap_id=wrap_id,
            request_id=request_id,
            key_name=key,
            value=Secret(f"{text}{key}".encode()),
        )
        return submissions.NewWrap(id=wrap_id, key_name=key, sealed=sealed)

    def approve(self, caller: Caller, request_id: str, now: datetime = NOW) -> requests.Seen:
        seen: requests.Seen = self.run(
            approvals.approve, caller=caller, request_id=request_id, comment=None, now=now
        )
        return seen

    def claim(self, agent: AgentCaller, now: datetime = NOW) -> Held | None:
        lease = token_hash(new_token())
        job = self.run(jobs.claim, agent=agent, lease_token_hash=lease, now=now)
        return None if job is None else Held(job=job, lease=lease)

    def held(self, agent: AgentCaller, now: datetime = NOW) -> Held:
        found = self.claim(agent, now)
        assert found is not None, "there was no job to claim"
        return found

    def finish(
        self, agent: AgentCaller, held: Held, now: datetime = NOW, **outcome: Any
    ) -> str | None:
        outcome.setdefault("succeeded", True)
        wake: str | None = self.run(
            jobs.complete,
            agent=agent,
            job_id=held.job.id,
            lease_token_hash=held.lease,
            outcome=jobs.Outcome(**outcome),
            now=now,
        )
        return wake

    def post(self, agent: AgentCaller, held: Held, key: str, now: datetime = NOW) -> str:
        """Post a value the agent read and return its wrap's id."""
        request_id = held.job.request_id
        assert request_id is not None
        new = self.sealed(request_id, key)
        state = self.run(wraps.store_from_agent, **post_args(agent, held, new), now=now)
        return str(state.id)

    def find(self, caller: Caller, request_id: str, wrap_id: str, now: datetime = NOW) -> Any:
        return self.run(
            wraps.find_for_requester,
            caller=caller,
            request_id=request_id,
            wrap_id=wrap_id,
            now=now,
        )

    def reveal(self, caller: Caller, request_id: str, wrap_id: str, now: datetime = NOW) -> str:
        """Return the value as the edge would: unwrap its key, spend it, open it."""
        wrap = self.find(caller, request_id, wrap_id, now)
        with unwrap_key(self.kms, wrap.sealed) as data_key:
            self.run(wraps.spend_by_requester, caller=caller, wrap=wrap, now=now)
            return self.open(wrap, data_key)

    def open(self, wrap: wraps.StoredWrap, data_key: Secret) -> str:
        value = decrypt(
            wrap.sealed,
            data_key,
            wrap_id=wrap.id,
            request_id=wrap.request_id,
            key_name=wrap.key_name,
        )
        # The value goes into the test's comparison.
        return value.reveal().decode()

    def request(self, request_id: str) -> Mapping[str, Any]:
        def look(tx: Transaction) -> Mapping[str, Any]:
            row = tx.one("request_find", id=request_id)
            assert row is not None
            return row

        return self.db.run_sync(look)

    def status(self, request_id: str) -> str:
        return str(self.request(request_id)["status"])

    def rows(self, statement: str, **params: Any) -> list[Mapping[str, Any]]:
        return self.db.run_sync(rows.find, statement, **params)

    def write(self, statement: str, **params: Any) -> int:
        return self.db.run_sync(rows.run, statement, **params)

    def insert(self, table: str, **values: Any) -> None:
        self.db.run_sync(rows.insert, table, **values)

    def job(self, request_id: str) -> Mapping[str, Any]:
        return self.rows("SELECT * FROM sync_jobs WHERE request_id = :id", id=request_id)[0]

    def wraps_of(self, request_id: str) -> list[Mapping[str, Any]]:
        statement = "SELECT * FROM secret_wraps WHERE request_id = :id ORDER BY key_name"
        return self.rows(statement, id=request_id)

    def events(self, **filters: Any) -> list[audit.AuditEvent]:
        """Return the matching audit rows, oldest first."""
        found = self.run(
            audit.list_events, filters=audit.Filters(**filters), before=None, limit=10_000
        )
        return list(reversed(found))

    def trail(self, request_id: str) -> list[tuple[str, str]]:
        """Return who did what about the request, sorted: rows of one moment have no order."""
        found = self.events(correlation_id=request_id)
        return sorted((event.actor, event.action) for event in found)


def _draft(kind: str, keys: Sequence[str], changes: Mapping[str, Any]) -> submissions.Draft:
    values: dict[str, Any] = {
        "id": new_id(),
        "type": kind,
        "justification": "ticket 1",
        "target_provider_type": "file",
        "target_provider_config": {},
        "target_secret_ref": "app/db",
        "target_keys": list(keys),
        **changes,
    }
    return submissions.Draft(**values)


def post_args(agent: AgentCaller, held: Held, new: submissions.NewWrap) -> dict[str, Any]:
    sealed: SealedWrap = new.sealed
    return {
        "agent": agent,
        "lease_token_hash": held.lease,
        "request_id": held.job.request_id,
        "wrap_id": new.id,
        "key_name": new.key_name,
        "sealed": sealed,
    }
