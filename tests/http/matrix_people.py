"""Calls of the matrix about people: sign-in, sessions, accounts, roles, grants, the trail."""

from __future__ import annotations

from sb.clock import utc_now
from tests.http.matrix_things import Call, Site, Table, go
from tests.ops import rows
from tests.stack import PASSWORD, PASSWORD_HASH

ANOTHER = "another-password-for-tests"


def _sign_in(at: Site) -> Call:
    row = at.tx.one("user_find", id=at.caller)
    assert row is not None
    return go(body={"email": row["email"], "password": PASSWORD})


def _change_password(at: Site) -> Call:
    statement = "UPDATE local_users SET password_hash = :hash WHERE id = :id"
    rows.run(at.tx, statement, hash=PASSWORD_HASH, id=at.caller)
    return go(body={"current_password": PASSWORD, "new_password": ANOTHER})


def _own_grant(at: Site) -> str:
    return at.grant(at.caller)


def _of_member(at: Site) -> tuple[str, str]:
    """A member of the team and their grant."""
    user_id = at.member()
    return user_id, at.grant(user_id, "secret.list")


def _listed(at: Site) -> Call:
    user_id, grant_id = _of_member(at)
    return go(user_id, shows=grant_id)


def _session(at: Site, user_id: str) -> tuple[str, str]:
    return user_id, at.session(user_id)


def _given(at: Site, *, everywhere: bool = False, permission: str = "secret.list") -> Call:
    scope = {} if everywhere else {"team_id": at.team_of_side}
    body = {"user_id": at.user(), "role_id": at.role(permission), "scope": scope}
    return go(body=body)


def _to_oneself(at: Site) -> Call:
    scope = {"team_id": at.team_of_side}
    body = {"user_id": at.caller, "role_id": at.role("secret.reveal.direct"), "scope": scope}
    return go(body=body)


def _role_held(at: Site) -> str:
    """A role of the caller's inside, one that nobody holds outside."""
    role_id = at.role()
    if at.side == "inside":
        row = at.tx.many("grant_list_for_user", user_id=at.caller, now=utc_now())
        return str(row[0]["role_id"]) if row else role_id
    return role_id


PEOPLE: Table = {
    "POST /auth/login": _sign_in,
    "POST /auth/logout": lambda _: go(),
    "GET /users/me": lambda _: go(),
    "GET /users/me/projects": lambda at: go(shows=at.project()),
    "POST /users/me/password": _change_password,
    "GET /users/me/sessions": lambda at: go(shows=at.session(at.owner)),
    "DELETE /users/me/sessions/<id:session_id>": lambda at: go(at.session(at.owner)),
    "POST /users/me/sessions/revoke-others": lambda _: go(),
    "GET /users": lambda at: go(query={"limit": 200}, shows=at.member()),
    "POST /users": lambda at: go(body={"email": f"{at.user()}@b.example", "display_name": "U"}),
    "GET /users/<id:user_id>": lambda at: go(at.member()),
    "PUT /users/<id:user_id>": lambda at: go(at.member(), body={"display_name": "Other"}),
    "POST /users/<id:user_id>/disable": lambda at: go(at.member()),
    "POST /users/<id:user_id>/enable": lambda at: go(at.member()),
    "POST /users/<id:user_id>/unlock": lambda at: go(at.member()),
    "POST /users/<id:user_id>/password-reset": lambda at: go(at.member()),
    "GET /users/<id:user_id>/sessions": lambda at: go(at.member()),
    "DELETE /users/<id:user_id>/sessions/<id:session_id>": lambda at: go(
        *_session(at, at.member())
    ),
    "POST /users/<id:user_id>/sessions/revoke-all": lambda at: go(at.member()),
    "GET /users/<id:user_id>/roles": _listed,
    "GET /users/<id:user_id>/roles | own": lambda at: go(at.caller, shows=_own_grant(at)),
    "GET /permissions": lambda _: go(),
    "GET /roles": lambda at: go(query={"limit": 200}, shows=_role_held(at)),
    "GET /roles/<id:role_id>": lambda at: go(_role_held(at)),
    "POST /roles": lambda at: go(body={"name": f"{at.user()}", "permissions": ["secret.list"]}),
    "PUT /roles/<id:role_id>": lambda at: go(at.role(), body={"description": "other"}),
    "PUT /roles/<id:role_id>/permissions": lambda at: go(
        at.role(), body={"permissions": ["secret.list"]}
    ),
    "DELETE /roles/<id:role_id>": lambda at: go(at.role()),
    "POST /user-roles": _given,
    "POST /user-roles | without a scope": lambda at: _given(at, everywhere=True),
    "POST /user-roles | of what a head lacks": lambda at: _given(at, permission="audit.read"),
    "POST /user-roles | more to oneself": _to_oneself,
    "GET /user-roles": lambda at: go(query={"limit": 200}, shows=_of_member(at)[1]),
    "GET /user-roles/<id:grant_id>": lambda at: go(_of_member(at)[1]),
    "GET /user-roles/<id:grant_id> | own": lambda at: go(_own_grant(at)),
    "PUT /user-roles/<id:grant_id>": lambda at: go(_of_member(at)[1], body={"reason": "other"}),
    "DELETE /user-roles/<id:grant_id>": lambda at: go(_of_member(at)[1]),
    "DELETE /user-roles/<id:grant_id> | own": lambda at: go(_own_grant(at)),
    "GET /audit-events": lambda _: go(),
}
