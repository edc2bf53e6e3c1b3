"""What a request may become, told once more from the specification: no SQL, no product code.

`spec/requests-and-wraps.md` §1.3, §1.7, §1.10, §3.5 to §3.7, `spec/agents-and-providers.md` §2.4
and §2.5, and D5. A method changes the model and returns None, or changes nothing and returns the
class of the refusal; `claim` and the sweeps return what they did.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sb.errors import InvalidInputError, PermissionDeniedError, SbError
from sb.ops import errors
from tests.ops.request_stage import Flow, Person, Worker
from tests.ops.request_work import ATTEMPTS, LEASE, Job, Lease, Wrap

Refusal = type[SbError] | None
Entry = tuple[str, str, str]

AFTER_REFUSAL = timedelta(minutes=5)
TERMINAL = frozenset({"rejected", "cancelled", "executed", "failed", "expired"})


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    requester: Person
    kind: Literal["read", "patch"]
    flow: Flow
    place: str
    line: str
    keys: tuple[str, ...]
    ends_at: datetime
    id: str = ""
    status: str = "pending"
    execute_before: datetime | None = None
    votes: dict[str, str] = field(default_factory=dict)
    approvers: list[Person] = field(default_factory=list)
    job: Job | None = None
    #: Every value ever stored for the request, oldest first.
    wraps: list[Wrap] = field(default_factory=list)
    trail: Counter[Entry] = field(default_factory=Counter)

    def note(self, actor: str, action: str, status: str = "success") -> None:
        self.trail[(actor, action, status)] += 1

    def seen_by(self, person: Person) -> bool:
        return person is self.requester or self.place in person.asks | person.decides

    def stored(self) -> list[Wrap]:
        return [wrap for wrap in self.wraps if not wrap.gone]

    def move_ends(self, ends_at: datetime, now: datetime) -> None:
        for wrap in self.stored():
            wrap.move_end(ends_at, now)

    def undecidable_by(self, person: Person, now: datetime) -> Refusal:
        """§1.10: exists, pending, self-approval, scope, duplicate vote; D5 adds the role."""
        if not self.seen_by(person):
            return errors.RequestNotFoundError
        if self.status != "pending" or self.ends_at <= now:
            return errors.RequestNotPendingError
        if person is self.requester and not self.flow.own_vote:
            return errors.SelfApprovalForbiddenError
        if self.place not in person.decides:
            return PermissionDeniedError if self.place == "free" else errors.OutOfScopeProjectError
        if self.flow.needs_role and not person.has_role:
            return errors.ApproverRoleRequiredError
        return errors.AlreadyVotedError if person.actor in self.votes else None

    def could_decide(self, person: Person) -> bool:
        """Tell whether the person could vote, an earlier vote of theirs aside."""
        own = person is self.requester and not self.flow.own_vote
        able = person.has_role or not self.flow.needs_role
        return self.place in person.decides and able and not own

    def counting(self) -> int:
        """Return how many approvals count; who lost the right has not voted until it is back."""
        return sum(map(self.could_decide, self.approvers))

    def forsaken(self) -> Refusal:
        """Nothing goes on for who could not ask for it now."""
        return None if self.place in self.requester.asks else errors.RequesterLostRightError

    def approve(self, person: Person, now: datetime) -> Refusal:
        refusal = self.undecidable_by(person, now) or self.forsaken()
        if refusal:
            return refusal
        yes = 1 + self.counting()
        # W18: a patch whose values are past their end must not become a job without them.
        if yes >= self.flow.quorum and any(wrap.ends_at <= now for wrap in self.wraps):
            return errors.WrapExpiredError
        self.votes[person.actor] = "approve"
        self.approvers.append(person)
        self.note(person.actor, "request.approve")
        if yes >= self.flow.quorum:
            self.open_by(person.actor, now)
        return None

    def open_by(self, actor: str, now: datetime) -> None:
        self.status, self.job = "approved", Job(made_at=now, run_after=now)
        self.execute_before = now + self.flow.approved
        self.move_ends(self.execute_before, now)
        self.note(actor, "job.enqueue")

    def reject(self, person: Person, now: datetime) -> Refusal:
        refusal = self.undecidable_by(person, now)
        if refusal:
            return refusal
        self.votes[person.actor] = "reject"
        self._close("rejected", person, "request.reject", now)
        return None

    def cancel(self, person: Person, now: datetime) -> Refusal:
        if not self.seen_by(person):
            return errors.RequestNotFoundError
        if person is not self.requester:
            return errors.NotTheRequesterError
        if self.status != "pending":
            return errors.RequestNotPendingError
        self._close("cancelled", person, "request.cancel", now)
        return None

    def _close(self, status: str, person: Person, action: str, now: datetime) -> None:
        self.status = status
        for wrap in self.stored():
            wrap.move_end(min(wrap.ends_at, now + AFTER_REFUSAL), now)
        self.note(person.actor, action)

    def runnable_at(self, now: datetime) -> bool:
        return self.job is not None and self.job.runnable_at(now) and not self.out_of_time(now)

    def made_at(self) -> datetime:
        return self._job().made_at

    def take(self, worker: Worker, now: datetime) -> Lease:
        job = self._job()
        job.status, job.attempts = "claimed", job.attempts + 1
        job.lease = Lease(request=self, worker=worker, attempt=job.attempts)
        job.lease_ends = now + LEASE
        if self.kind == "patch":
            self.move_ends(now + self.flow.claimed, now)
        self.note(worker.actor, "job.claim")
        return job.lease

    def set_aside(self, now: datetime) -> None:
        """Fail the job that was to be handed out: no agent has had it this time."""
        self._job().status, self._job().lease = "failed", None
        self.note("system:jobs", "job.revoked", "failure")
        self._end_with_job(done=False, now=now)

    def unheld_by(self, lease: Lease, worker: Worker, now: datetime) -> Refusal:
        """Fencing (D5): the live lease, presented by the agent it was given to."""
        live = self.in_hand_at(now)
        return None if live and self._is_mine(lease, worker) else errors.LeaseLostError

    def _is_mine(self, lease: Lease, worker: Worker) -> bool:
        return self._job().lease is lease and lease.worker is worker

    def renew(self, lease: Lease, worker: Worker, now: datetime) -> Refusal:
        # An agent that kept renewing would keep the request approved for ever (D5).
        if self.unheld_by(lease, worker, now) or self.out_of_time(now):
            return errors.LeaseLostError
        self._job().lease_ends = now + LEASE
        return None

    def post(self, lease: Lease, worker: Worker, wrap_id: str, key: str, now: datetime) -> Refusal:
        refusal = self.unheld_by(lease, worker, now)
        if refusal:
            return refusal
        if self.kind != "read":
            return errors.ReadRequestsOnlyError
        if self.keys and key not in self.keys:
            return errors.KeyNotRequestedError
        if self.forsaken():
            return self.forsaken()
        earlier = [wrap for wrap in self.wraps if wrap.key == key]
        # A value its requester has seen is not offered a second time.
        if not any(wrap.spent for wrap in earlier):
            for wrap in earlier:
                wrap.gone = True
            self.wraps.append(Wrap(id=wrap_id, key=key, ends_at=now + self.flow.approved))
            self.note(worker.actor, "wrap.create")
        return None

    def fetch(self, lease: Lease, worker: Worker, wrap: Wrap, now: datetime) -> Refusal:
        if wrap.gone:
            # What is not there is under nobody's lease.
            return errors.LeaseLostError
        refusal = self.unheld_by(lease, worker, now)
        if refusal:
            return refusal
        if self.kind != "patch":
            return errors.WrapNotFoundError
        if wrap.ends_at <= now:
            return errors.WrapExpiredError
        if self.forsaken():
            return self.forsaken()
        self.note(worker.actor, "wrap.retrieve")
        return None

    def complete(self, lease: Lease, worker: Worker, outcome: str, now: datetime) -> Refusal:
        """A lease that lapsed may still report while nobody else has touched the job."""
        job = self._job()
        # A failure that was reported has put the job back; a success never does.
        requeued = job.status == "queued" and outcome != "succeeded"
        known = requeued or job.status in ("claimed", "succeeded", "failed")
        if not self._is_mine(lease, worker) or not known:
            return errors.LeaseLostError
        if job.status != "claimed":
            self.note(worker.actor, "job.complete.idempotent")
        elif outcome == "retryable" and job.attempts < ATTEMPTS:
            self._requeue(worker.actor, now, reported=True)
        else:
            self._finish(worker, done=outcome == "succeeded", now=now)
        return None

    def _requeue(self, actor: str, now: datetime, *, reported: bool) -> None:
        assert self.execute_before is not None
        self._job().requeue(now, reported=reported)
        # The life of claimed values ends with the claim; they wait as long as the job may.
        if self.kind == "patch":
            self.move_ends(self.execute_before, now)
        self.note(actor, "job.requeued")

    def _finish(self, worker: Worker, *, done: bool, now: datetime) -> None:
        self._job().status = "succeeded" if done else "failed"
        self.note(worker.actor, "job.complete", "success" if done else "failure")
        self._end_with_job(done=done, now=now)
        if done and self.kind == "patch":
            for wrap in self.stored():
                wrap.spent_by = worker.actor

    def _end_with_job(self, *, done: bool, now: datetime) -> None:
        self.status = "executed" if done else "failed"
        self.note("system:jobs", "request.transition")
        if not done:
            self.move_ends(now, now)

    def recover(self, now: datetime) -> str:
        """Requeue or give up the job, whose lease has lapsed; return which."""
        job = self._job()
        if job.attempts < ATTEMPTS:
            self._requeue("system:jobs", now, reported=False)
            return "requeued"
        # Nobody has reported an end, so nobody may repeat one.
        job.status, job.lease = "failed", None
        self.note("system:jobs", "job.expired", "failure")
        self._end_with_job(done=False, now=now)
        return "failed"

    def out_of_time(self, now: datetime) -> bool:
        return self.execute_before is not None and self.execute_before <= now

    def in_hand_at(self, now: datetime) -> bool:
        return self.job is not None and self.job.held_at(now)

    def overdue(self, now: datetime) -> bool:
        """Tell whether the request is open past its end, and in no agent's hands."""
        if self.status == "approved":
            return self.out_of_time(now) and not self.in_hand_at(now)
        return self.status == "pending" and self.ends_at <= now

    def expire(self, now: datetime) -> None:
        if self.job is not None:
            self.job.status = "expired"
        self.status = "expired"
        self.move_ends(now, now)
        self.note("system:worker", "request.expired")

    def unreadable_by(self, person: Person, wrap: Wrap, now: datetime) -> Refusal:
        """§3.6 and §3.7: only the requester, only a read, only while it is retrievable."""
        if not self.seen_by(person):
            return errors.RequestNotFoundError
        if person is not self.requester:
            return errors.NotTheRequesterError
        if self.kind != "read":
            return errors.WrapNotFoundError
        if self.forsaken():
            return PermissionDeniedError
        if wrap not in self.wraps:
            return errors.WrapNotFoundError
        # The trail remembers a value without a row: it is spent or expired, not unknown.
        if not wrap.gone and self.status not in ("approved", "executed"):
            return errors.RequestNotRetrievableError
        return self.ended(wrap, now)

    def ended(self, wrap: Wrap, now: datetime) -> Refusal:
        if wrap.spent:
            return errors.WrapConsumedError
        return errors.WrapExpiredError if wrap.gone or wrap.ends_at <= now else None

    def spend(self, wrap: Wrap, now: datetime) -> Refusal:
        refusal = self.ended(wrap, now)
        if refusal:
            return refusal
        wrap.spent_by = self.requester.actor
        self.note(self.requester.actor, "wrap.retrieve")
        return None

    def _job(self) -> Job:
        assert self.job is not None
        return self.job

    def last_moment(self) -> datetime:
        """Return when the lease can be renewed no more: just before its end, or out of time."""
        job = self._job()
        assert self.execute_before is not None
        if job.lease_ends is None:
            return self.execute_before
        return min(job.lease_ends - timedelta(microseconds=1), self.execute_before)

    def deadlines(self) -> list[datetime]:
        ends = [self.ends_at, *(wrap.ends_at for wrap in self.stored())]
        if self.execute_before is not None and self.job is not None:
            ends += [self.execute_before, self.job.run_after]
            ends += [self.job.lease_ends] if self.job.lease_ends else []
        return ends


@dataclass(slots=True)
class Model:
    """Every request there is, how often the purge found something, how many jobs failed unheld."""

    requests: list[Request] = field(default_factory=list)
    purges: int = 0
    set_aside: int = 0

    def submit(self, draft: Request, now: datetime) -> Refusal:
        """D5: without a project only an unscoped grant; never nobody's approval in production."""
        if draft.place not in draft.requester.asks:
            return InvalidInputError if draft.place == "free" else errors.OutOfScopeProjectError
        if draft.flow.auto and draft.place == "prod":
            return errors.AutoApprovalForbiddenError
        draft.note(draft.requester.actor, "request.submit")
        for key in draft.keys if draft.kind == "patch" else ():
            draft.wraps.append(Wrap(key=key, ends_at=now + draft.flow.created))
            draft.note(draft.requester.actor, "wrap.create")
        if draft.flow.auto:
            draft.note("system:policy", "request.approve")
            draft.open_by("system:policy", now)
        self.requests.append(draft)
        return None

    def claim(self, worker: Worker, now: datetime) -> Lease | None:
        """§2.5: the oldest job that can run, of those the agent's enrolment covers.

        Older ones whose requester could not ask any more fail on the way to it.
        """
        fitting = [r for r in self.requests if r.line == worker.line and r.runnable_at(now)]
        for request in sorted(fitting, key=Request.made_at):
            if not request.forsaken():
                return request.take(worker, now)
            request.set_aside(now)
            self.set_aside += 1
        return None

    def recover(self, now: datetime) -> dict[str, int]:
        lapsed = [r for r in self.requests if r.job and r.job.lapsed_at(now)]
        counts = Counter(request.recover(now) for request in lapsed)
        return {"requeued": counts["requeued"], "failed": counts["failed"]}

    def expire(self, now: datetime) -> dict[str, int]:
        overdue = [request for request in self.requests if request.overdue(now)]
        for request in overdue:
            request.expire(now)
        return {"seen": len(overdue), "expired": len(overdue)}

    def purge(self, now: datetime) -> int:
        ended = [
            wrap
            for request, wrap in self.stored()
            if wrap.ends_at <= now and not (wrap.spent and request.status == "approved")
        ]
        for wrap in ended:
            wrap.gone = True
        self.purges += bool(ended)
        return len(ended)

    def stored(self) -> list[tuple[Request, Wrap]]:
        return [(request, wrap) for request in self.requests for wrap in request.stored()]
