"""Generated calls of every published operation over real HTTP: no 500, answers as documented."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import requests
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from sb.http.declare import Agent, Public, template
from tests.http.hostile import ROUTES, callers
from tests.stack import PASSWORD, Stack

CHECKS: list[Any] = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = 10
REASON = "justification"
#: These end the credential they are called with, or somebody's.
ENDING = ("/auth/logout", "/revoke", "/auth/login")
#: What must have worked at least once, or the calls were not worth much.
SUCCEED = {
    "POST /api/v1/requests/read",
    "POST /api/v1/requests",
    "POST /api/v1/agents",
    "POST /api/v1/provider-connections",
    "POST /api/v1/agents/enroll",
}
READ = {
    "target_provider_type": "file",
    "target_secret_ref": "app/db",
    "justification": "ticket 1",
}


@dataclass
class Known:
    """Ids that exist and the credentials to use them with."""

    url: str
    ids: dict[str, str]
    person: dict[str, str]
    agent: dict[str, str]
    agent_id: str
    fields: dict[str, Any]
    problems: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)


def access_of(method: str, path: str) -> Any:
    """Return how the declared route behind a documented operation is guarded."""
    for route in ROUTES:
        if (route.method, f"/api/v1{template(route.path)}") == (method, path):
            return route.access
    return Public()


def put_in_place(case: Case, known: Known, *, own: bool, real: bool) -> None:
    """Let an agent's call name that agent, and on a `real` turn let ids name what exists."""
    for name in case.path_parameters:
        if name == "agent_id" and own:
            case.path_parameters[name] = known.agent_id
        elif real and name in known.ids and not case.path.endswith("/revoke"):
            case.path_parameters[name] = known.ids[name]
    if real and isinstance(case.body, dict):
        # With what exists in these fields, generated bodies get past the look-ups.
        submits = "target_secret_ref" in case.body
        case.body.update(
            {n: v for n, v in known.fields.items() if n in case.body or (submits and n == REASON)}
        )
    if "wait" in (case.query or {}):
        case.query["wait"] = 0


def check_operation(operation: Any, known: Known, session: requests.Session) -> None:
    """Call one operation many times, the same times in every run."""
    name = f"{operation.method.upper()} {operation.path}"
    access = access_of(operation.method.upper(), operation.path)
    headers = known.agent if isinstance(access, Agent) else known.person
    if operation.path.endswith(ENDING) or isinstance(access, Public):
        headers = {} if isinstance(access, Public) else known.person
    turns = itertools.count()
    seen = known.statuses.setdefault(name, Counter())

    def one(case: Case) -> None:
        own = isinstance(access, Agent)
        put_in_place(case, known, own=own, real=next(turns) % 2 == 0)
        response = case.call(
            base_url=known.url, session=session, headers={**headers, "Cookie": ""}, timeout=20
        )
        seen[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    for mode in GenerationMode:
        strategy = operation.as_strategy(generation_mode=mode)
        bounded = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        )
        # An operation without parameters cannot be called wrongly.
        try:
            with suppress(Unsatisfiable):
                bounded(seed(1)(given(case=strategy)(one)))()
        except (Exception, FailureGroup) as problem:  # noqa: BLE001 # one run shows them all
            known.problems[f"{name} {mode.value}"] = f"{type(problem).__name__}: {problem}"[:1500]


def check_all(known: Known) -> None:
    schema = schemathesis.openapi.from_url(f"{known.url}/openapi.json")
    with requests.Session() as session:
        for found in schema.get_all_operations():
            check_operation(found.ok(), known, session)


async def test_generated_calls_find_no_500_and_answers_are_as_documented(plane: Stack) -> None:
    object.__setattr__(plane.state, "allow_direct_mint", True)
    async with callers(plane) as who:
        dev = await plane.person("dev", "developer")
        connection = await plane.connection("vault")
        made = (await dev.post("/requests/read", READ)).json()["id"]
        approved = (await dev.post("/requests/read", READ)).json()["id"]
        await who.admin.post(f"/requests/{approved}/approve")
        job = (await who.agent.post("/jobs/claim")).json()
        body = {"email": dev.email, "password": PASSWORD}
        assert (await who.nobody.post("/api/v1/auth/login", json=body)).status_code == 200
        known = Known(
            url=plane.url,
            ids={"request_id": made, "connection_id": connection, "job_id": job["id"]},
            person={"Authorization": who.admin.http.headers["authorization"]},
            agent={
                "X-Agent-Secret": who.agent.enrolled["agent_token"],
                "X-Lease-Token": job["lease_token"],
            },
            agent_id=who.agent.id,
            fields={
                "project_id": None,
                "environment": None,
                "target_provider_type": "vault",
                "target_provider_config": {},
                "provider_connection_id": connection,
                # The document cannot tell a generator which names are refused.
                "key_values": {"PASSWORD": "a-new-value"},
                "target_secret_ref": "app/db",
                "target_keys": ["PASSWORD"],
                "request_id": approved,
                REASON: "ticket 2",
                "lease_token": job["lease_token"],
                "enrollment_token": await plane.token(connection),
                "agent_name": "agent-7",
                "provider_type": "vault",
                "public_key": None,
            },
        )
        with trio.fail_after(400):
            await trio.to_thread.run_sync(partial(check_all, known))
    assert known.problems == {}, "\n\n".join(map(": ".join, known.problems.items()))
    tried = {name for name, seen in known.statuses.items() if sum(seen.values()) >= EXAMPLES}
    assert len(tried) >= len(ROUTES) - 3
    succeeded = {name for name, seen in known.statuses.items() if min(seen) < 300}
    assert SUCCEED - succeeded == set()
