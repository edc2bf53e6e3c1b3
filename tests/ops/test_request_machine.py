"""The request state machine, walked at random over the real operations, beside a small model.

Anybody tries anything at any time. After every step the product and `request_model` must agree on
the outcome and on every row that matters, and a refusal must have left every row as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sb.ops import approvals, expiry, jobs, requests, wraps
from tests.ops.request_model import TERMINAL, Model, Request
from tests.ops.request_stage import (
    ASKING,
    FLOWS,
    KEYS,
    OTHER,
    OUTCOMES,
    PEOPLE,
    PRESENTED_BY,
    RECENT,
    SELDOM,
    SPANS,
    WHICH,
    WORKERS,
    Person,
    Stage,
    Worker,
)
from tests.ops.request_walk import MET, Walk, overstaying, recent_of, wrap_of
from tests.ops.request_work import ATTEMPTS, LEASE, Lease, Wrap
from tests.ops.world import PLANTED, World, post_args

SWEEPS: dict[str, tuple[Callable[..., Any], Callable[[Model, datetime], Any]]] = {
    "recover": (jobs.recover, Model.recover),
    "expire": (expiry.expire_requests, Model.expire),
    "purge": (expiry.purge_wraps, Model.purge),
}
Half = tuple[Request, Wrap, wraps.StoredWrap]
PATIENCE = timedelta(days=60)
#: Fewer on Postgres, where a step costs more.
ROUNDS = {"sqlite": 12, "postgres": 6}
#: From its eleventh walk on hypothesis mostly repeats parts of earlier ones; fresh walks meet more.
ROUND = settings(
    max_examples=10,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class RequestMachine(Walk):
    """Steps by anybody, in any order, at any time; `Walk` compares what comes of them."""

    opened: Bundle[Half] = Bundle("opened")

    # What people do.

    @initialize(
        kinds=st.permutations(["read", "patch"]),
        first=st.sampled_from(["two", "role", "brief", "brief"]),
        second=st.sampled_from([*FLOWS, "brief"]),
    )
    def begin(self, kinds: list[Any], first: str, second: str) -> None:
        """Every walk has something to walk on: a request just made and one that is decided."""
        self.submit("dev", kinds[0], first, "dev", "east", KEYS)
        self.submit("local", kinds[1], second, "dev", "east", ("A",))
        self.agree(0, 9)

    # Few requests at once, so that something happens to each.
    @precondition(lambda self: len(self.model.requests) < 6)
    @rule(
        name=st.sampled_from(ASKING),
        kind=st.sampled_from(["read", "patch"]),
        flow=st.sampled_from([*FLOWS, "two", "role", "auto", "brief", "brief"]),
        place=st.sampled_from(["free", "dev", "prod"]),
        line=st.sampled_from(["east", "west", "next"]),
        keys=st.sampled_from([("A",), ("A", "B"), ()]),
    )
    def submit(
        self, name: str, kind: Any, flow: str, place: str, line: str, keys: tuple[str, ...]
    ) -> None:
        draft = Request(
            requester=self.stage.people[name],
            kind=kind,
            flow=FLOWS[flow],
            place=place,
            line=line if place == "free" else "east",
            keys=keys or (("B",) if kind == "patch" else ()),
            ends_at=self.now + FLOWS[flow].lives,
        )
        refusal = self.model.submit(draft, self.now)
        self._step("submit", refusal, partial(self._submit, flow, draft))

    def _submit(self, flow: str, draft: Request) -> None:
        ask = self.world.read if draft.kind == "read" else self.world.patch
        caller, target = draft.requester.caller, self.stage.target(flow, draft.place, draft.line)
        draft.id = ask(caller, *draft.keys, now=self.now, **target)
        ids = {row["key_name"]: row["id"] for row in self.world.wraps_of(draft.id)}
        for wrap in draft.wraps:
            wrap.id = ids[wrap.key]

    @precondition(lambda self: self.model.requests)
    @rule(pick=RECENT, name=st.sampled_from(["", "", "root", *PEOPLE]), late=SELDOM)
    def approve(self, pick: int, name: str, late: bool) -> None:
        """Anybody votes, or whoever has voted does so again."""
        request = self._asked(pick, late)
        voted = [p for p in self.stage.people.values() if p.actor in request.votes]
        person = self.stage.people.get(name, (voted or [request.requester])[0])
        self._approve(request, person)

    @precondition(lambda self: self._in("pending"))
    @rule(pick=RECENT, enough=st.sampled_from([1, 1, 9]))
    def agree(self, pick: int, enough: int) -> None:
        """Some who may vote do so; chance alone would seldom fill a quorum."""
        if not self._in("pending"):
            return
        self._agree(recent_of(self._in("pending"), pick), enough)

    def _agree(self, request: Request, enough: int) -> None:
        people = self.stage.people.values()
        for person in [p for p in people if not request.undecidable_by(p, self.now)][:enough]:
            if request.status == "pending":
                self._approve(request, person)

    def _approve(self, request: Request, person: Person) -> None:
        call = partial(self.world.approve, person.caller, request.id, self.now)
        seen = self._step("approve", request.approve(person, self.now), call)
        if seen and request.status == "pending":
            assert seen.row["approvals_count"] == request.counting()
            self.stage.met[("approve", "left out")] += len(request.approvers) >= request.flow.quorum

    @precondition(lambda self: self._in("pending") or self._in("approved"))
    @rule(pick=RECENT, voter=st.booleans(), of_account=st.booleans())
    def lose(self, pick: int, voter: bool, of_account: bool) -> None:
        """Who asked for something that is not over, or voted on it, loses every right."""
        request = recent_of(self._in("approved") + self._in("pending"), pick)
        people = (voter and request.approvers) or [request.requester]
        self.stage.strip(people[0], of_account=of_account)

    @precondition(lambda self: any(r.flow.quorum > 1 for r in self._in("pending")))
    @rule(of_account=st.booleans(), back=st.booleans())
    def outlive(self, of_account: bool, back: bool) -> None:
        """A voter loses every right before the quorum, and perhaps has it back for the next one."""
        request = next(r for r in self._in("pending") if r.flow.quorum > 1)
        self._agree(request, 1)
        for voter in request.approvers[:1]:
            self.stage.strip(voter, of_account=of_account)
        self._agree(request, 1)
        if back:
            self.regain()
        self._agree(request, 1)

    @precondition(lambda self: any(person.lost for person in self.stage.people.values()))
    @rule()
    def regain(self) -> None:
        """Everybody has their rights again."""
        for person in self.stage.people.values():
            self.stage.restore(person)

    @precondition(lambda self: self.model.requests)
    @rule(pick=RECENT, name=st.sampled_from(["", *PEOPLE]), cancel=st.booleans(), late=SELDOM)
    def refuse(self, pick: int, name: str, cancel: bool, late: bool) -> None:
        """Somebody rejects or cancels."""
        request = self._asked(pick, late)
        person = self.stage.people.get(name, request.requester)
        if cancel:
            call = self._of(person, requests.cancel, request_id=request.id)
            self._step("cancel", request.cancel(person, self.now), call)
        else:
            call = self._of(person, approvals.reject, request_id=request.id, reason="no")
            self._step("reject", request.reject(person, self.now), call)

    @precondition(lambda self: any(request.wraps for request in self.model.requests))
    @rule(which=WHICH, recent=RECENT, name=st.sampled_from(["", "", "", "", "dev", "stranger"]))
    def reveal(self, which: int, recent: int, name: str) -> None:
        """Somebody, mostly the requester, reveals a value; at times one of another request."""
        request, wrap = self._value(which, recent)
        person = self.stage.people.get(name, request.requester)
        refusal = request.unreadable_by(person, wrap, self.now) or request.spend(wrap, self.now)
        call = partial(self.world.reveal, person.caller, request.id, wrap.id, self.now)
        found = self._step("reveal", refusal, call)
        if refusal is None:
            self._check_revealed(request, person, wrap, found)

    @precondition(lambda self: any(r.kind == "read" and r.wraps for r in self.model.requests))
    @rule(target=opened, which=WHICH, recent=RECENT)
    def begin_reveal(self, which: int, recent: int) -> Any:
        """The first half of a reveal: other steps may come before the second."""
        half = self._begin_reveal(*self._value(which, recent))
        return half or multiple()

    @precondition(lambda self: any(r.kind == "read" and r.wraps for r in self.model.requests))
    @rule(recent=RECENT)
    def reveal_at_once(self, recent: int) -> None:
        """Both tabs of one person begin before either ends; one of them must lose."""
        request, wrap = self._value(1, recent)
        for half in [self._begin_reveal(request, wrap), self._begin_reveal(request, wrap)]:
            if half:
                self.end_reveal(half)

    def _begin_reveal(self, request: Request, wrap: Wrap) -> Half | None:
        caller = request.requester.caller
        refusal = request.unreadable_by(request.requester, wrap, self.now)
        call = partial(self.world.find, caller, request.id, wrap.id, self.now)
        found = self._step("find", refusal, call)
        return None if refusal else (request, wrap, found)

    @rule(half=opened)
    def end_reveal(self, half: Half) -> None:
        request, wrap, stored = half
        person = request.requester
        refusal = request.spend(wrap, self.now)
        self._step("spend", refusal, self._of(person, wraps.spend_by_requester, wrap=stored))
        if refusal is None:
            self._check_revealed(request, person, wrap, self._open(stored))

    def _check_revealed(self, request: Request, person: Person, wrap: Wrap, value: Any) -> None:
        assert value == PLANTED + wrap.key
        assert person is request.requester
        self.revealed[(request.id, wrap.key)] += 1
        assert self.revealed[(request.id, wrap.key)] == 1, "a value was revealed twice"

    # What agents do.

    @precondition(lambda self: any(r.runnable_at(self.now) for r in self.model.requests))
    @rule(outcome=st.sampled_from(["", "succeeded", "retryable", "failed"]), lost=SELDOM)
    def serve(self, outcome: str, lost: bool) -> None:
        """An agent does what it should, perhaps to the end; chance alone would seldom get there.

        At times its requester loses the right to the values meanwhile.
        """
        (request, *_) = (r for r in self.model.requests if r.runnable_at(self.now))
        (worker, *_) = (w for w in self.stage.workers.values() if w.line == request.line)
        lease = self._claim(worker)
        if lease is None:
            return
        if lost:
            self.stage.strip(lease.request.requester, of_account=outcome == "succeeded")
        for key in lease.request.keys or KEYS if lease.request.kind == "read" else ():
            self._post(lease, worker, lease.request, key)
        for wrap in lease.request.stored() if lease.request.kind == "patch" else ():
            self._fetch(lease, worker, lease.request, wrap)
        if outcome:
            self._complete(lease, worker, outcome)
            self.now = max(self.now, lease.request.job.run_after if lease.request.job else self.now)

    @precondition(lambda self: any(not r.in_hand_at(self.now) for r in self._in("approved")))
    @rule(name=st.sampled_from([*WORKERS]))
    def claim(self, name: str) -> None:
        self._claim(self.stage.workers[name])

    @precondition(lambda self: any(r.runnable_at(self.now) for r in self.model.requests))
    @rule(name=st.sampled_from([*WORKERS]), times=st.integers(1, ATTEMPTS + 1))
    def neglect(self, name: str, times: int) -> None:
        """An agent claims and falls silent, again and again: after three there is nothing left."""
        for _ in range(times):
            self._claim(self.stage.workers[name])
            self.now += LEASE

    def _claim(self, worker: Worker) -> Lease | None:
        before = self.model.set_aside
        lease = self.model.claim(worker, self.now)
        self.stage.met[("claim", "set aside")] += self.model.set_aside - before
        held = self._step(
            "claim" if lease else "claim nothing",
            None,
            partial(self.world.claim, worker.caller, self.now),
        )
        assert (held is None) == (lease is None)
        if lease is not None:
            lease.held = held
            assert (held.job.request_id, held.job.attempt) == (lease.request.id, lease.attempt)
            self.leases.append(lease)
        return lease

    @precondition(lambda self: self.leases)
    @rule(pick=RECENT, by=PRESENTED_BY, late=st.booleans())
    def renew(self, pick: int, by: str, late: bool) -> None:
        """Renew a lease now, or at the last moment there is for it."""
        lease, worker = self._lease(pick, by)
        if late:
            self.now = max(self.now, lease.request.last_moment())
        call = self._under(lease, worker, jobs.renew, job_id=lease.held.job.id)
        self._step("renew", lease.request.renew(lease, worker, self.now), call)

    @precondition(lambda self: self.leases)
    @rule(pick=RECENT, which=WHICH, by=PRESENTED_BY, other=OTHER, wrong=SELDOM)
    def exchange(self, pick: int, which: int, by: str, other: int, wrong: bool) -> None:
        """Post for a read or fetch for a patch; at times the wrong one, or for another request."""
        lease, worker = self._lease(pick, by)
        request = recent_of(self.model.requests, other) if other else lease.request
        if (request.kind == "read") != wrong:
            self._post(lease, worker, request, KEYS[which % 2])
        else:
            self._fetch(lease, worker, request, wrap_of(request, which))

    def _post(self, lease: Lease, worker: Worker, request: Request, key: str) -> None:
        new = self.world.sealed(request.id, key)
        refusal = request.post(lease, worker, new.id, key, self.now)
        args = {**post_args(worker.caller, lease.held, new), "request_id": request.id}
        call = partial(self.world.run, wraps.store_from_agent, **args, now=self.now)
        self._step("post", refusal, call)

    def _fetch(self, lease: Lease, worker: Worker, request: Request, wrap: Wrap) -> None:
        refusal = request.fetch(lease, worker, wrap, self.now)
        call = self._under(lease, worker, wraps.find_for_agent, wrap_id=wrap.id)
        stored = self._step("fetch", refusal, call)
        assert refusal or self._open(stored) == PLANTED + wrap.key

    @precondition(lambda self: self.leases)
    @rule(pick=RECENT, outcome=OUTCOMES, by=PRESENTED_BY)
    def complete(self, pick: int, outcome: str, by: str) -> None:
        self._complete(*self._lease(pick, by), outcome)

    def _complete(self, lease: Lease, worker: Worker, outcome: str) -> None:
        refusal = lease.request.complete(lease, worker, outcome, self.now)
        said = jobs.Outcome(succeeded=outcome == "succeeded", retryable=outcome == "retryable")
        call = self._under(lease, worker, jobs.complete, job_id=lease.held.job.id, outcome=said)
        self._step("complete", refusal, call)

    # What time does.

    # The first rule by name and arguments is what hypothesis fills its simplest walks with, a fifth
    # of all: one that asks no database costs nothing.
    @precondition(lambda self: self.model.requests)
    @rule(by=SPANS)
    def age(self, by: timedelta | tuple[int, timedelta]) -> None:
        """Let time pass: a while, or up to the very moment something ends, or just before it."""
        if isinstance(by, timedelta):
            self.now += by
            return
        which, before = by
        ends = sorted({end for request in self.model.requests for end in request.deadlines()})
        ahead = [end - before for end in ends if end - before > self.now]
        if ahead:
            self.now = ahead[min(which, len(ahead) - 1)]

    @precondition(lambda self: any(r.wraps for r in self._in("pending")))
    @rule(vote=st.booleans())
    def wither(self, vote: bool) -> None:
        """The values of a patch end, and perhaps are swept, before anybody votes on it."""
        request = next(r for r in self._in("pending") if r.wraps)
        self.now = max(self.now, request.wraps[0].ends_at)
        self.sweep("purge")
        if vote:
            self.agree(0, 1)

    @precondition(lambda self: self.model.stored() or self._in("pending") or self._in("approved"))
    @rule(which=st.sampled_from(["purge", "expire", "recover", "expire"]))
    def sweep(self, which: str) -> None:
        op, expect = SWEEPS[which]
        expected, swept_at = expect(self.model, self.now), self.now
        done = self._step(which, None, partial(self.world.run, op, now=self.now, limit=100))
        assert done == expected
        if which == "expire":
            assert not overstaying(self.rows, swept_at)

    def teardown(self) -> None:
        """Whatever was left open ends by itself, given time."""
        try:
            if self.sound and self.model.requests:
                self.now += PATIENCE
                self.sweep("recover")
                self.sweep("expire")
                assert {row["status"] for row in self.rows["access_requests"]} <= TERMINAL
                assert PLANTED not in repr(self.rows)
        finally:
            self.stage.clear(self.now)


def test_every_walk_agrees_with_the_model(world: World) -> None:
    stage = Stage.build(world)
    for number in range(ROUNDS[world.db.dialect]):
        machine = seed(number)(partial(RequestMachine, stage))
        run_state_machine_as_test(machine, settings=ROUND)
    # Walks that never got anywhere would agree just as well.
    missed = MET - set(+stage.met)
    assert not missed, f"never met: {sorted(missed)}"
