"""How a step of the request machine is run and compared: outcome, rows, trail, invariants."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from sb.db.engine import Transaction
from sb.errors import SbError
from sb.ids import new_id
from sb.kms.envelope import unwrap_key
from sb.ops import wraps
from tests.ops import rows
from tests.ops.request_model import TERMINAL, Model, Refusal, Request
from tests.ops.request_stage import KEYS, TABLES, Person, Stage, Worker
from tests.ops.request_work import Lease, Wrap
from tests.ops.world import MICROSECOND, NOW, PLANTED

Rows = Mapping[str, list[Mapping[str, Any]]]
Found = TypeVar("Found")

REQUEST = ("status", "requester_id", "expires_at", "execute_before_at")
JOB = ("status", "attempts", "run_after")
PURGED = ("system:worker", "wrap.purge", "success")
#: What walks that test anything must have met, among much else.
MET = {
    *((name, "ok") for name in ("submit", "approve", "reject", "claim", "renew", "post", "fetch")),
    *((name, "ok") for name in ("complete", "recover", "expire", "purge", "reveal")),
    *(("approve", refused) for refused in ("RequestNotPendingError", "SelfApprovalForbiddenError")),
    *((name, "LeaseLostError") for name in ("renew", "post", "fetch", "complete")),
    *((name, "RequesterLostRightError") for name in ("approve", "post", "fetch")),
    ("claim", "set aside"),
    ("approve", "left out"),
    ("reveal", "NotTheRequesterError"),
    ("reveal", "PermissionDeniedError"),
    ("spend", "WrapConsumedError"),
    *(("status", status) for status in TERMINAL),
}


def look(tx: Transaction, since: datetime) -> Rows:
    found = {table: rows.find(tx, f"SELECT * FROM {table} ORDER BY id") for table in TABLES}
    trail = "SELECT * FROM audit_events WHERE occurred_at >= :since ORDER BY id"
    return {**found, "audit_events": rows.find(tx, trail, since=since)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rows say, in the shape of the model."""

    requests: dict[str, Any]
    jobs: dict[str, Any]
    votes: dict[str, dict[str, str]]
    wraps: dict[str, Any]
    trails: dict[str, Counter[tuple[str, str, str]]]
    purges: int

    @classmethod
    def expected(cls, model: Model) -> Facts:
        return cls(
            requests={r.id: _request_facts(r) for r in model.requests},
            jobs={r.id: _job_facts(r) for r in model.requests if r.job},
            votes={r.id: r.votes for r in model.requests if r.votes},
            wraps={w.id: _wrap_facts(r, w) for r, w in model.stored()},
            trails={r.id: r.trail for r in model.requests},
            purges=model.purges,
        )

    @classmethod
    def of(cls, found: Rows) -> Facts:
        votes: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for row in found["approvals"]:
            votes[row["request_id"]][f"user:{row['approver_id']}"] = row["decision"]
        trails: defaultdict[str, Counter[tuple[str, str, str]]] = defaultdict(Counter)
        for row in found["audit_events"]:
            trails[row["correlation_id"]][(row["actor"], row["action"], row["status"])] += 1
        purges = [key for key, trail in trails.items() if PURGED in trail]
        return cls(
            requests={r["id"]: _columns(r, REQUEST) for r in found["access_requests"]},
            jobs={r["request_id"]: _columns(r, JOB) for r in found["sync_jobs"]},
            votes=votes,
            wraps={r["id"]: _stored_wrap(r) for r in found["secret_wraps"]},
            trails={key: trail for key, trail in trails.items() if key not in purges},
            purges=len(purges),
        )


def _columns(row: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _stored_wrap(row: Mapping[str, Any]) -> tuple[Any, ...]:
    spent = {"agent:": row["consumed_by_agent"], "user:": row["consumed_by_user"]}
    spent_by = "".join(kind + who for kind, who in spent.items() if who)
    return row["request_id"], row["key_name"], row["expires_at"], spent_by


def _request_facts(request: Request) -> tuple[Any, ...]:
    ends = request.ends_at, request.execute_before
    return request.status, request.requester.caller.user_id, *ends


def _job_facts(request: Request) -> tuple[Any, ...]:
    assert request.job is not None
    return request.job.status, request.job.attempts, request.job.run_after


def _wrap_facts(request: Request, wrap: Wrap) -> tuple[Any, ...]:
    return request.id, wrap.key, wrap.ends_at, wrap.spent_by


def check_rows(before: Rows, after: Rows) -> None:
    """Check what holds whatever the model says."""
    status = {row["id"]: row["status"] for row in after["access_requests"]}
    for row in before["access_requests"]:
        left = row["status"] in TERMINAL and status[row["id"]] != row["status"]
        assert not left, "a terminal state was left"
    owners = [job["request_id"] for job in after["sync_jobs"]]
    assert len(owners) == len(set(owners)), "a request has two jobs"
    said = [(row["action"], row["status"], row["resource"]) for row in after["audit_events"]]
    done = [resource for *what, resource in said if what == ["job.complete", "success"]]
    assert len(done) == len(set(done)), "a job succeeded twice"
    assert PLANTED not in repr(after["audit_events"]), "the trail holds a value"


def overstaying(found: Rows, now: datetime) -> list[str]:
    """Return the open requests that are past their end with nobody at work on them."""
    jobs = {job["request_id"]: job for job in found["sync_jobs"]}
    held = {
        key
        for key, job in jobs.items()
        if job["status"] == "claimed" and job["claim_expires_at"] > now
    }
    ends = {"pending": "expires_at", "approved": "execute_before_at"}
    return [
        row["id"]
        for row in found["access_requests"]
        if row["status"] in ends and row[ends[row["status"]]] <= now and row["id"] not in held
    ]


class Walk(RuleBasedStateMachine):
    """One walk: the product, the model, and the time both are told."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage, self.world, self.model = stage, stage.world, Model()
        self.now = stage.starts_at
        self.leases: list[Lease] = []
        self.revealed: Counter[tuple[str, str]] = Counter()
        self.rows = self._look()
        self.sound = True

    # Whom and what a step is about.

    def _in(self, status: str) -> list[Request]:
        return [request for request in self.model.requests if request.status == status]

    def _asked(self, pick: int, late: bool) -> Request:
        """Return a pending request, or one that is decided already."""
        return recent_of((not late and self._in("pending")) or self.model.requests, pick)

    def _value(self, which: int, recent: int) -> tuple[Request, Wrap]:
        """Return a request, mostly one with something to reveal, and a wrap, mostly its own."""
        posted = [r for r in self.model.requests if r.kind == "read" and r.wraps]
        request = recent_of(posted if posted and which else self.model.requests, recent)
        return request, wrap_of(posted[-1] if posted and not which else request, which or recent)

    def _lease(self, pick: int, by: str) -> tuple[Lease, Worker]:
        lease = recent_of(self.leases, pick)
        return lease, self.stage.workers.get(by, lease.worker)

    def _open(self, stored: wraps.StoredWrap) -> str:
        with unwrap_key(self.world.kms, stored.sealed) as data_key:
            return self.world.open(stored, data_key)

    # How a step is compared.

    def _of(self, person: Person, op: Callable[..., Any], **args: Any) -> Callable[[], Any]:
        return partial(self.world.run, op, caller=person.caller, **args, now=self.now)

    def _under(
        self, lease: Lease, worker: Worker, op: Callable[..., Any], **args: Any
    ) -> Callable[[], Any]:
        presented = {"agent": worker.caller, "lease_token_hash": lease.held.lease}
        return partial(self.world.run, op, **presented, **args, now=self.now)

    def _step(
        self,
        name: str,
        refusal: Refusal,
        call: Callable[[], Any],
    ) -> Any:
        """Run the product's side of a step and compare everything; return what it returned."""
        self.sound, found = False, None
        met: type[SbError] | None = None
        try:
            found = call()
        except SbError as error:
            met = type(error)
        assert met is refusal, f"{name}: {met} instead of {refusal}"
        before, self.rows = self.rows, self._look()
        if met is not None:
            assert self.rows == before, "a refusal changed something"
        self._compare(before)
        self.stage.met[(name, met.__name__ if met else "ok")] += 1
        # No two accepted steps share a moment, so who is oldest is never a matter of ids.
        self.now += MICROSECOND if met is None else timedelta(0)
        self.sound = True
        return found

    def _look(self) -> Rows:
        found: Rows = self.world.run(look, since=self.stage.starts_at)
        return found

    def _compare(self, before: Rows) -> None:
        found, expected = Facts.of(self.rows), Facts.expected(self.model)
        for name in Facts.__slots__:
            assert getattr(found, name) == getattr(expected, name), name
        check_rows(before, self.rows)
        self.stage.met.update(("status", row["status"]) for row in self.rows["access_requests"])


def recent_of(found: list[Found], pick: int) -> Found:
    """Return the newest, or one that many before it as far as there are any."""
    return found[-1 - min(pick, len(found) - 1)]


def wrap_of(request: Request, which: int) -> Wrap:
    """Return one of the request's wraps, or one that nobody ever stored."""
    if which and request.wraps:
        return recent_of(request.wraps, which - 1)
    return Wrap(id=new_id(), key=KEYS[0], ends_at=NOW, gone=True)
