"""How the governance machine runs a step and compares: outcome, rows, what is seen, what is tried.

A person is whoever their session says, at every step anew. What they could do is tried for real and
rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine

from sb.auth.tokens import new_token, token_hash
from sb.db.engine import Transaction
from sb.errors import AuthenticationRequiredError, SbError
from sb.http.declare import REGISTRY, Session
from sb.http.guards import require_permission
from sb.http.routes import load_all
from sb.ops import sessions
from sb.ops.callers import Anonymous, Caller
from tests.ops.governance_model import Model, Person
from tests.ops.governance_picks import AFTERWARDS, TRIES, Walker
from tests.ops.governance_sight import (
    Sight,
    expected,
    expected_looks,
    expected_rows,
    looks,
    shown,
    stored,
)
from tests.ops.governance_stage import Stage
from tests.ops.governance_steps import Refusal, Step
from tests.ops.world import MICROSECOND

Thing = TypeVar("Thing")

load_all()
DOORS = {route.name: route.access for route in REGISTRY}
#: Nobody is signed out by the time that passes in a walk.
RULES = sessions.SessionRules(absolute=timedelta(days=9999), idle=timedelta(days=9999))
#: How many people look around after each step, how many things one of them tries to do, and after
#: how many steps somebody looks for everything there is. Fewer on Postgres, where each costs more.
WATCHING = {"sqlite": (2, 5, 1), "postgres": (1, 4, 3)}


class _TakenBackError(Exception):
    """A try that went through, so that its transaction ends without it."""


class Walk(RuleBasedStateMachine):
    """One walk: the product, the model, and who is signed in."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage, self.world = stage, stage.world
        self.model: Model = stage.begin()
        self.walker = Walker(self.model)
        self.tokens: dict[Person, bytes] = {}
        self.turn = 0
        self._sign_in(self.model.people[0])

    # Who is acting.

    def _sign_in(self, who: Person) -> None:
        self.tokens[who] = token_hash(new_token())
        email = f"{who.name}@example.com"
        self.world.run(
            sessions.open_session,
            account=self.world.run(sessions.find_account, email=email),
            new_password_hash=None,
            token_hash=self.tokens[who],
            rules=RULES,
            ip=None,
            user_agent=None,
            by=Anonymous(),
            now=self.model.now,
        )

    def _caller(self, tx: Transaction, who: Person) -> Caller:
        caller = sessions.authenticate(
            tx, token_hash=self.tokens[who], now=self.model.now, rules=RULES
        )
        if caller is None:
            raise AuthenticationRequiredError
        return caller

    # How a step is run.

    def act(self, step: Step) -> None:
        """Run the step for good, keep the model up with it, and compare everything."""
        met, found = self._outcome(step, self._run)
        if met is None:
            step.then(found)
            self.model.now += MICROSECOND
            for who in self.model.people:
                if not who.disabled and (who not in self.tokens or step.name == "accounts.enable"):
                    self._sign_in(who)
        self.stage.met[(step.name, _name(met))] += 1

    def _outcome(self, step: Step, run: Callable[..., Any]) -> tuple[Refusal, Any]:
        met: Refusal = None
        found = None
        try:
            found = self.world.run(run, step=step)
        except SbError as error:
            met = type(error)
        refusal = AuthenticationRequiredError if step.who.disabled else step.refusal
        said = f"{step.who.name}: {step.name} {dict(step.args)}"
        assert met is refusal, f"{said}: {_name(met)} instead of {_name(refusal)}"
        return met, found

    def _run(self, tx: Transaction, *, step: Step) -> Any:
        """Do what the edge does: who is calling, may they in, and then the operation."""
        caller, access = self._caller(tx, step.who), DOORS[step.route]
        assert isinstance(access, Session)
        if access.permission is not None:
            require_permission(caller, access.permission, access.scope, route=step.route)
        by = "by" if step.op.__module__.endswith(".accounts") else "caller"
        return step.op(tx, **{by: caller}, **step.args, now=self.model.now)

    def _try(self, tx: Transaction, *, step: Step) -> None:
        self._run(tx, step=step)
        raise _TakenBackError

    # How things are compared.

    def check(self) -> None:
        """Compare all rows, what people in turn see, and what one of them could do now."""
        self.turn += 1
        assert self.world.run(stored) == expected_rows(self.model)
        watching, tries, every = WATCHING[self.world.db.dialect]
        people = self.model.people
        for number in range(watching):
            self._check_sight(people[(self.turn + number) % len(people)], shown, expected)
        if self.turn % every == 0:
            self._check_sight(people[(self.turn + 1) % len(people)], looks, expected_looks)
        self._check_tries(people[self.turn % len(people)], tries)

    def check_everybody(self) -> None:
        """Compare all rows, and all that everybody sees whom a twist is about."""
        assert self.world.run(stored) == expected_rows(self.model)
        for who in self.model.people[:3]:
            self._check_sight(who, shown, expected)
            self._check_sight(who, looks, expected_looks)

    def _check_sight(
        self,
        who: Person,
        look: Callable[..., Sight],
        expect: Callable[[Model, Person], Sight],
    ) -> None:
        if who.disabled:
            return
        found = self.world.run(self._look, who=who, look=look)
        for name, seen in expect(self.model, who).items():
            said = f"{look.__name__} {who.name}: {name}"
            assert found.get(name, seen) == seen, f"{said}: {found[name]} instead of {seen}"

    def _look(self, tx: Transaction, *, who: Person, look: Callable[..., Sight]) -> Sight:
        caller = self._caller(tx, who)
        return look(tx, caller=caller, model=self.model, now=self.model.now)

    def _check_tries(self, who: Person, tries: int) -> None:
        chance = Random(self.turn)

        def pick(things: Sequence[Thing]) -> Thing:
            return chance.choice(things)

        for name in chance.sample(AFTERWARDS, tries):
            step = TRIES[name](self.walker, who, pick)
            if step is not None:
                self._check_try(step)

    def _check_try(self, step: Step) -> None:
        try:
            met, _ = self._outcome(step, self._try)
        except _TakenBackError:
            met = AuthenticationRequiredError if step.who.disabled else step.refusal
            assert met is None, f"{step.who.name}: {step.name} {dict(step.args)}: not {_name(met)}"
        self.stage.met[(step.name, _name(met))] += 1


def _name(refusal: Refusal) -> str:
    return refusal.__name__ if refusal else "ok"
