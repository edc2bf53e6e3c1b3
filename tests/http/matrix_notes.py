"""What the page of the authorisation matrix says besides its cells."""

from __future__ import annotations

from collections.abc import Mapping

PREFACE = """\
Who gets what from every route: the authorisation matrix.

Measured, not written: `python -m tests.http.test_authorisation_matrix` calls the running API
and writes this file anew; the test fails when an answer differs from it. Read every change of
a cell as a change of who may do what.

How to read it

  in     what the call is about lies in team A, where the scoped people have their grants;
         of what belongs to a person or an agent, it is the caller's own
  out    the same kind of thing lies in team B, which has nothing in common with A; or it is
         somebody else's. Where a route is about nothing of the kind, both are the same call
  401    authentication_required
  403    permission_denied: unless a line says otherwise, before anything is looked at, so that
         it says nothing of what there is
  404b   any other code: the letter stands for the one at the end of the line
  200+   a list in which the thing is
  200-   a list in which it is not
  ^      why the line above is right although it may surprise

Every call is valid: whoever may make it gets its 2xx. An indented line is the route above it,
called about something else: `own` is the caller's own, whoever they are by now; `the other
side's` stands in the path, or in the body, under something of this side.
"""

OWN = "about the caller alone"
NO_TEAM = "roles, workflows and people belong to no team; see `Who sees what` in docs/security.md"
UNCOVERED = "out: the same refusal whether it exists or not; coverage is looked at before all else"
AUTHORS = "administrators do not write scoped rules: policy.edit is another permission"
ANYBODY = "for anybody by design; what it hands out follows from what the body proves"

#: Cells that surprise and are right, by their row.
NOTES: Mapping[str, str] = {
    "POST /auth/login": ANYBODY,
    "POST /auth/logout": "always succeeds, so that it tells nobody whether a session lives",
    "GET /users/me": OWN,
    "POST /users/me/password": OWN,
    "POST /users/me/sessions/revoke-others": OWN,
    "GET /users": "whoever gives roles at a scope picks a person first: id, address and name only",
    "GET /users/<id:user_id>": "id, address and name only, except for administrators",
    "GET /users/<id:user_id>/roles": "a head sees of anybody the grants within their own scope",
    "GET /users/<id:user_id>/roles | own": OWN,
    "GET /permissions": "the catalogue is the same in every installation",
    "GET /roles": NO_TEAM,
    "GET /roles/<id:role_id>": NO_TEAM,
    "POST /user-roles": "out: the same refusal whether the team exists or not",
    "POST /user-roles | more to oneself": "nobody raises themselves, administrators included",
    "GET /user-roles/<id:grant_id> | own": OWN,
    "DELETE /user-roles/<id:grant_id> | own": (
        "out: seen, being the head's own, yet over B, where they take no grants back"
    ),
    "GET /teams": "audit.read without a scope is a grant over every team: names and members",
    "GET /teams/<id:team_id> | of a member": "members see their team; membership grants nothing",
    "PUT /teams/<id:team_id> | to the other side": "in: the new parent is not there for a head",
    "PUT /teams/<id:team_id> | of a member": "out: the head sees it, and may not change it",
    "POST /projects/<id:project_id>/secrets | the other side's, by place": (
        "in: has to be refused, which tells a head that somebody has what they named"
    ),
    "GET /projects/<id:project_id>/policy-rules": f"{UNCOVERED}; {AUTHORS}",
    "GET /teams/<id:team_id>/policy-rules": f"{UNCOVERED}; {AUTHORS}",
    "POST /requests/read": UNCOVERED,
    "POST /requests": UNCOVERED,
    "POST /requests/read | without a project": "takes secret.request without a scope",
    "GET /requests | own": "one's own stay in sight whatever became of one's grants",
    "GET /requests/<id:request_id> | own": "one's own stay in sight",
    "POST /requests/<id:request_id>/approve": "in: a developer sees it, and does not decide",
    "POST /requests/<id:request_id>/approve | own": "not unless the workflow lets them",
    "POST /requests/<id:request_id>/cancel": "in: whoever sees it may not cancel it",
    "POST /requests/<id:request_id>/cancel | own": "one may always ask for less",
    "GET /requests/<id:request_id>/wraps": "administrators see no one else's values",
    "GET /requests/<id:request_id>/wraps | own": "their names and lengths, never a value",
    "GET /requests/<id:request_id>/wraps/<id:wrap_id> | own": (
        "an approved request reveals nothing to whoever may not ask for it any more"
    ),
    "POST /agents/enroll": ANYBODY,
    "POST /agents/<id:agent_id>/jobs/claim": (
        "no session opens an agent's routes, and no agent's secret another agent's path"
    ),
    "POST /agents/<id:agent_id>/jobs/claim | own path": (
        "204: no work, for the only job waits on the other connection"
    ),
    "POST /agents/<id:agent_id>/jobs/<id:job_id>/renew | own path, the lease that holds it": (
        "409: a lease is good for its own agent alone, even when another one knows its token"
    ),
    "GET /workflows": NO_TEAM,
    "GET /workflows/scoped-policy-authorable": NO_TEAM,
    "GET /workflows/<id:workflow_id>": NO_TEAM,
    "GET /metrics": "not served here when API_METRICS_ADDR is set; holds no ids",
}
