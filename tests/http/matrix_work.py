"""Calls of the matrix about requests, values, agents and what governs the whole installation."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from typing import Any

from sb.ids import new_id
from sb.ops.settings import RESERVED_PRIORITY
from sb.sealing import generate_keypair
from tests.http.matrix_things import KEY, Asked, Call, Site, Table, go, rule_body, target

VALUE = base64.b64encode(b"a value").decode()
REASON = {"reason": "not now"}


def _own_wrap(at: Site) -> tuple[str, str]:
    found = at.answered(at.caller)
    return found.id, found.wrap


def _anothers_wrap(at: Site) -> tuple[str, str]:
    found = at.answered()
    return found.id, found.wrap


def _wrap_of_another(at: Site) -> tuple[str, str]:
    """A request of the caller's, and a value that waits for somebody else."""
    return at.answered(at.caller).id, at.answered().wrap


def _wraps(at: Site, requester: str | None = None) -> Call:
    found = at.answered(requester)
    return go(found.id, shows=found.wrap)


def _anywhere(at: Site, **more: Any) -> Call:
    body = target(at.bound(), **more)
    del body["project_id"]
    return go(body={**body, "provider_connection_id": at.connection()})


def _explain(at: Site) -> Call:
    body = target(at.bound(), operation="read")
    del body["justification"]
    return go(body=body)


PATCH = {"key_values": {KEY: "a value"}}

REQUESTS: Table = {
    "POST /requests/read": lambda at: go(body=target(at.bound())),
    "POST /requests/read | without a project": _anywhere,
    "POST /requests": lambda at: go(body=target(at.bound(), **PATCH)),
    "POST /requests | without a project": lambda at: _anywhere(at, **PATCH),
    "GET /requests": lambda at: go(query={"limit": 200}, shows=at.asked().id),
    "GET /requests | own": lambda at: go(query={"limit": 200}, shows=at.asked(at.caller).id),
    "GET /requests/<id:request_id>": lambda at: go(at.asked().id),
    "GET /requests/<id:request_id> | own": lambda at: go(at.asked(at.caller).id),
    "POST /requests/<id:request_id>/approve": lambda at: go(at.asked().id),
    "POST /requests/<id:request_id>/approve | own": lambda at: go(at.asked(at.caller).id),
    "POST /requests/<id:request_id>/reject": lambda at: go(at.asked().id, body=REASON),
    "POST /requests/<id:request_id>/reject | own": lambda at: go(
        at.asked(at.caller).id, body=REASON
    ),
    "POST /requests/<id:request_id>/cancel": lambda at: go(at.asked().id),
    "POST /requests/<id:request_id>/cancel | own": lambda at: go(at.asked(at.caller).id),
    "GET /requests/<id:request_id>/wraps": _wraps,
    "GET /requests/<id:request_id>/wraps | own": lambda at: _wraps(at, at.caller),
    "GET /requests/<id:request_id>/wraps/<id:wrap_id>": lambda at: go(*_anothers_wrap(at)),
    "GET /requests/<id:request_id>/wraps/<id:wrap_id> | own": lambda at: go(*_own_wrap(at)),
    "GET /requests/<id:request_id>/wraps/<id:wrap_id> | own request, another's value": (
        lambda at: go(*_wrap_of_another(at))
    ),
    "POST /policies/explain": _explain,
}


def _connection_body(_: Site) -> Call:
    return go(body={"name": f"c-{new_id()}", "type": "file"})


def _agents(at: Site) -> Call:
    return go(query={"limit": 200}, shows=at.crew()[at.side].caller.agent_id)


def _agent_id(at: Site) -> str:
    return at.crew()[at.side].caller.agent_id


def _enrol(at: Site) -> Call:
    _, token = at.enrolment()
    return go(body={"enrollment_token": token, "agent_name": f"agent-{new_id()}"})


FLEET: Table = {
    "GET /provider-connections": lambda at: go(query={"limit": 200}, shows=at.connection()),
    "POST /provider-connections": _connection_body,
    "GET /provider-connections/<id:connection_id>": lambda at: go(at.connection()),
    "POST /provider-connections/<id:connection_id>/agent-enrollment-token": lambda at: go(
        at.connection()
    ),
    "POST /agent-enrollment-tokens/<id:token_id>/revoke": lambda at: go(at.enrolment()[0]),
    "GET /agents": _agents,
    "POST /agents": lambda _: go(body={"name": f"a-{new_id()}"}),
    "GET /admin/agents": _agents,
    "GET /admin/agents/<id:agent_id>": lambda at: go(_agent_id(at)),
    "POST /agents/<id:agent_id>/revoke": lambda at: go(_agent_id(at)),
    "POST /admin/agents/<id:agent_id>/revoke": lambda at: go(_agent_id(at)),
    "POST /agents/enroll": _enrol,
}

#: What an agent's call about a job adds to the path.
Details = Callable[[Site, Asked], Call]
AGENT = "/agents/<id:agent_id>"


def _alone(at: Site, **more: Any) -> Call:
    """A call at the path of the agent of the side, about itself."""
    made = at.crew()
    return go(made[at.side].caller.agent_id, crew=made, **more)


def _with_a_job(at: Site, found: Asked, details: Details, *, own: bool) -> Call:
    """A call about the job of the side's agent: at its path, or at the calling agent's own."""
    home = at.who.at_home if own and at.who.at_home else at.side
    at.personal = at.personal or own
    call = details(at, found)
    agent_id = found.crew[home].caller.agent_id
    return dataclasses.replace(call, ids=(agent_id, *call.ids), crew=found.crew)


def _renew(_: Site, found: Asked) -> Call:
    return go(found.job, body={"lease_token": found.lease})


def _complete(_: Site, found: Asked) -> Call:
    return go(found.job, body={"lease_token": found.lease, "status": "succeeded"})


def _fetch(_: Site, found: Asked) -> Call:
    return go(found.wrap, headers={"X-Lease-Token": found.lease})


def _post(_: Site, found: Asked) -> Call:
    body = {"request_id": found.id, "key_name": KEY, "value": VALUE}
    return go(body=body, headers={"X-Lease-Token": found.lease})


def _on_jobs(route: str, details: Details, kind: str = "read") -> Table:
    """Return the calls about a job: at its agent's path, and at one's own under its lease."""
    return {
        route: lambda at: _with_a_job(at, at.claimed(kind=kind), details, own=False),
        f"{route} | own path, the lease that holds it": lambda at: _with_a_job(
            at, at.claimed(kind=kind), details, own=True
        ),
    }


def _claim(at: Site, *, own: bool) -> Call:
    return _with_a_job(at, at.approved(), lambda _at, _found: go(), own=own)


def _public_key(at: Site) -> Call:
    key = base64.b64encode(generate_keypair().public).decode()
    return _alone(at, body={"public_key": key})


AGENTS: Table = {
    f"PUT {AGENT}/public-key": _public_key,
    f"GET {AGENT}/control-plane-key": _alone,
    f"POST {AGENT}/heartbeat": _alone,
    f"POST {AGENT}/jobs/claim": lambda at: _claim(at, own=False),
    f"POST {AGENT}/jobs/claim | own path": lambda at: _claim(at, own=True),
    **_on_jobs(f"POST {AGENT}/jobs/<id:job_id>/renew", _renew),
    **_on_jobs(f"POST {AGENT}/jobs/<id:job_id>/complete", _complete),
    **_on_jobs(f"GET {AGENT}/wraps/<id:wrap_id>", _fetch, kind="patch"),
    **_on_jobs(f"POST {AGENT}/wraps", _post),
}


def _rule(at: Site) -> str:
    return at.rule(project_id=at.project())


PLATFORM: Table = {
    "GET /workflows": lambda at: go(query={"limit": 200}, shows=at.workflow()),
    "POST /workflows": lambda _: go(body={"name": f"w-{new_id()}"}),
    "GET /workflows/scoped-policy-authorable": lambda at: go(
        query={"limit": 200}, shows=at.workflow()
    ),
    "GET /workflows/<id:workflow_id>": lambda at: go(at.workflow()),
    "PUT /workflows/<id:workflow_id>": lambda at: go(at.workflow(), body={"description": "other"}),
    "DELETE /workflows/<id:workflow_id>": lambda at: go(at.workflow()),
    "GET /policies": lambda at: go(query={"limit": 200}, shows=_rule(at)),
    "POST /policies": lambda at: go(body=rule_body(at, project_id=at.project())),
    "GET /policies/<id:policy_id>": lambda at: go(_rule(at)),
    "PUT /policies/<id:policy_id>": lambda at: go(_rule(at), body={"name": "other"}),
    "DELETE /policies/<id:policy_id>": lambda at: go(_rule(at)),
    "GET /policies/<id:policy_id>/history": lambda at: go(_rule(at)),
    "POST /policies/simulate": lambda at: go(
        body={"selector": {"project_id": at.project()}, "workflow_id": at.world.workflow}
    ),
    "GET /platform-settings": lambda _: go(),
    "GET /platform-settings/<name:key>": lambda _: go(RESERVED_PRIORITY),
    "PUT /platform-settings/<name:key>": lambda _: go(RESERVED_PRIORITY, body={"value": 9000}),
    "POST /organisation/apply": lambda _: go(
        body={"version": 1, "teams": [{"path": f"t-{new_id()}"}]}
    ),
    "GET /organisation/export": lambda _: go(),
}

#: Served beside the declared routes.
UNVERSIONED: Table = {
    f"GET {path}": lambda _: go()
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs")
}
