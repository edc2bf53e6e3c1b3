"""A large organisation: permission checks, queues, decisions and explanations, on Postgres."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

from sb.auth.access import Resource, allowed
from sb.auth.tokens import token_hash
from sb.clock import utc_now
from sb.db.engine import Database, Transaction
from sb.ops import policies, sessions

from bench import organisation
from bench.client import Client
from bench.organisation import ENVIRONMENTS, SECRETS_PER_PROJECT, Person, Sizes, made_id
from bench.plane import Plane
from bench.stats import Goal, latency

CHECK_GOAL, QUEUE_GOAL, DECISION_GOAL, EXPLAIN_GOAL = Goal(5), Goal(30), Goal(10), Goal(50)
#: How often one person may ask for an explanation, or submit, in a minute; with some to spare.
ASKED_A_MINUTE = 100
QUEUE = "/api/v1/requests?needs_my_decision=true"
LIST = "/api/v1/requests"
#: Whose queues and lists are timed, by what they hold.
READERS = (
    "root_team",
    "leaf_team",
    "project",
    "environment",
    "prefix",
    "wide_prefix",
    "provider",
    "cluster",
    "everywhere",
    "many_grants",
)

#: Whose plain lists are timed besides; these have no goal.
LISTED = ("leaf_team", "prefix", "everywhere", "many_grants")

Call = Callable[[], Any]


async def governance(plane: Plane) -> dict[str, Any]:
    """Return the times of each on an organisation of the plan's sizes, which it makes first."""
    plan, now = plane.plan, utc_now()
    organisation.fill(plane.database_url, plan.organisation, now=now)
    db = Database.open(plane.database_url, pool_size=2)
    try:
        asked = 2 * plan.repeats * plan.governance_samples
        authors = math.ceil(asked / ASKED_A_MINUTE)
        people = organisation.people(db, plan.organisation, authors=authors, now=now)
        return {
            "permission_check": _checks(plane, db, people["many_grants"]),
            "permission_check_http": await _http(
                plane, people["many_grants"], "/api/v1/users/me/sessions"
            ),
            "queue": {
                name: await _http(plane, people[name], QUEUE, QUEUE_GOAL) for name in READERS
            },
            "list": {name: await _http(plane, people[name], LIST) for name in LISTED},
            "grants_of_leaf_team": await _http(plane, people["grant_giver"], "/api/v1/user-roles"),
            "policy_decision": _decisions(plane, db),
            "submit_http": await _asked(plane, people, "/api/v1/requests/read", _submitted),
            "explain_http": await _asked(
                plane, people, "/api/v1/policies/explain", _explained, EXPLAIN_GOAL
            ),
        }
    finally:
        db.close()


def _checks(plane: Plane, db: Database, person: Person) -> dict[str, Any]:
    """Return the times of finding the session, loading its grants and deciding, in one read."""
    chosen, sizes, hashed = random.Random(1), plane.plan.organisation, token_hash(person.token)

    def check(tx: Transaction) -> bool:
        caller = sessions.authenticate(tx, token_hash=hashed, now=utc_now())
        assert caller is not None
        project = chosen.randint(1, sizes.projects)
        resource = Resource(
            team_id=made_id("team", organisation.team_of(sizes, project)),
            project_id=made_id("project", project),
        )
        return allowed(caller.grants, "secret.approve", resource)

    return _timed(plane, lambda: db.read_sync(check), CHECK_GOAL)


def _decisions(plane: Plane, db: Database) -> dict[str, Any]:
    """Return the times of choosing the rule and the workflow of a request, as a submit does."""
    chosen, sizes = random.Random(2), plane.plan.organisation

    def decide(tx: Transaction) -> policies.Decision:
        project, secret, environment = _place(chosen, sizes)
        scope = policies.PolicyScope(
            operation="read",
            provider_type=organisation.provider_of(project, secret),
            secret_ref=organisation.ref_of(sizes, project, secret),
            project_id=made_id("project", project),
            environment=ENVIRONMENTS[environment],
            environment_id=made_id("environment", 3 * project + 1 + environment),
            environment_kind="prod" if ENVIRONMENTS[environment] == "prod" else "non_prod",
        )
        return policies.decide(tx, scope=scope)

    return _timed(plane, lambda: db.read_sync(decide), DECISION_GOAL)


def _timed(plane: Plane, call: Call, goal: Goal) -> dict[str, Any]:
    runs = []
    call()
    for _ in range(plane.plan.repeats):
        times = []
        for _ in range(plane.plan.governance_samples):
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
        runs.append(times)
    return latency(runs, p99=goal)


async def _http(
    plane: Plane, person: Person, path: str, goal: Goal | None = None
) -> dict[str, Any]:
    """Return the times of the call as the person."""
    client = Client(plane.port, person.token)
    await client.expect(200, "GET", path)
    runs = []
    for _ in range(plane.plan.repeats):
        times = []
        for _ in range(plane.plan.governance_samples):
            begun = time.perf_counter()
            await client.expect(200, "GET", path)
            times.append(time.perf_counter() - begun)
        runs.append(times)
    await client.aclose()
    return latency(runs, p99=goal)


async def _asked(
    plane: Plane,
    people: dict[str, Person],
    path: str,
    body: Callable[[random.Random, Sizes], tuple[int, dict[str, Any]]],
    goal: Goal | None = None,
) -> dict[str, Any]:
    """Return the times of a call with a body, by people who take turns because of their limits."""
    chosen = random.Random(3)
    authors = [person for name, person in people.items() if name.startswith("author_")]
    clients = [Client(plane.port, person.token) for person in authors]
    runs: list[list[float]] = []
    for run in range(plane.plan.repeats):
        runs.append([])
        for number in range(plane.plan.governance_samples):
            client = clients[(run * plane.plan.governance_samples + number) % len(clients)]
            status, asked = body(chosen, plane.plan.organisation)
            begun = time.perf_counter()
            await client.expect(status, "POST", path, asked)
            runs[-1].append(time.perf_counter() - begun)
    for client in clients:
        await client.aclose()
    return latency(runs, p99=goal)


def _submitted(chosen: random.Random, sizes: Sizes) -> tuple[int, dict[str, Any]]:
    return 201, {"justification": "a measure", **_target(chosen, sizes)}


def _explained(chosen: random.Random, sizes: Sizes) -> tuple[int, dict[str, Any]]:
    return 200, {"operation": "read", **_target(chosen, sizes)}


def _target(chosen: random.Random, sizes: Sizes) -> dict[str, Any]:
    project, secret, environment = _place(chosen, sizes)
    return {
        "target_provider_type": organisation.provider_of(project, secret),
        "target_secret_ref": organisation.ref_of(sizes, project, secret),
        "target_keys": ["PASSWORD"],
        "project_id": made_id("project", project),
        "environment": ENVIRONMENTS[environment],
    }


def _place(chosen: random.Random, sizes: Sizes) -> tuple[int, int, int]:
    """Return the numbers of a project, a secret of it and an environment."""
    return (
        chosen.randint(1, sizes.projects),
        chosen.randint(1, SECRETS_PER_PROJECT),
        chosen.randrange(len(ENVIRONMENTS)),
    )
