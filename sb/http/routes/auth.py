"""Routes of sign-in: login, logout, who am I, what is mine, change my password."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from sb.auth.access import Grant
from sb.auth.passwords import PasswordRefusedError, check_new_password
from sb.auth.tokens import new_token, token_hash
from sb.clock import utc_now
from sb.errors import Denial
from sb.http.bodies import Body, Text
from sb.http.declare import Call, Cookie, Public, Reply, Session, route
from sb.http.limits import RateLimit
from sb.ops import sessions, users
from sb.ops.callers import Anonymous
from sb.ops.errors import InvalidCredentialsError, WrongPasswordError
from sb.secret import Secret

COOKIE = "sb_session"


class Login(Body):
    """Both fields are needed; leaving one out is refused and audited like a wrong password."""

    email: Text | None = Field(default=None, max_length=320)
    password: Text | None = Field(default=None, max_length=1024)


class LoginUser(Body):
    id: str
    email: str
    display_name: str


class LoginBody(Body):
    token: str
    expires_at: datetime
    user: LoginUser
    must_change_password: bool


class TeamBody(Body):
    id: str
    name: str
    parent_team_id: str | None
    status: str


class EnvironmentBody(Body):
    id: str
    name: str
    kind: str
    risk_level: int


class ProjectBody(Body):
    id: str
    name: str
    status: str
    environments: list[EnvironmentBody]


class GrantBody(Body):
    role_name: str
    scope: dict[str, Any]
    expires_at: datetime | None


class MeBody(Body):
    id: str
    email: str
    display_name: str
    must_change_password: bool
    permissions: list[str]
    grants: list[GrantBody]
    teams: list[TeamBody]
    projects: list[ProjectBody]
    mfa_enrolled: bool


class ChangePassword(Body):
    current_password: Text = Field(min_length=1, max_length=1024)
    new_password: Text = Field(min_length=1, max_length=1024)


@route(
    "POST",
    "/auth/login",
    access=Public(),
    body=Login,
    returns=LoginBody,
    limit=RateLimit("auth:login", 30, key="ip", on_failure="closed"),
    invalid_body=Denial("auth.login", "auth:login", error_kind="missing_fields", email_length=0),
    errors=(InvalidCredentialsError,),
    summary="Sign in with an address and a password",
)
async def login(call: Call[Login]) -> Reply:
    email, password = call.body.email or "", call.body.password or ""
    account = await call.state.db.read(sessions.find_account, email=email) if email else None
    error_kind = sessions.refusal(account, now=utc_now(), rules=call.state.session_rules)
    if not email.strip() or not password:
        error_kind = "missing_fields"
    else:
        # Unknown, disabled and locked accounts pay for one comparison too: time tells nothing.
        stored = account.password_hash if account else await call.state.hasher.dummy()
        right = await call.state.hasher.verify(stored, Secret(password.encode()))
        if error_kind is None and not right:
            error_kind = "wrong_password"
    if error_kind is not None or account is None:
        await call.state.db.run(
            sessions.record_failed_login,
            account=account,
            error_kind=error_kind or "user_not_found",
            email_length=len(email),
            rules=call.state.session_rules,
            by=Anonymous(http_request_id=call.request_id),
            now=utc_now(),
        )
        raise InvalidCredentialsError
    return await _open(call, account, password)


async def _open(call: Call[Login], account: sessions.Account, password: str) -> Reply:
    token = new_token()
    new_hash = None
    if call.state.hasher.needs_rehash(account.password_hash):
        new_hash = await call.state.hasher.hash(Secret(password.encode()))
    opened = await call.state.db.run(
        sessions.open_session,
        account=account,
        new_password_hash=new_hash,
        token_hash=token_hash(token),
        rules=call.state.session_rules,
        ip=call.client_ip,
        user_agent=call.user_agent,
        by=Anonymous(http_request_id=call.request_id),
        now=utc_now(),
    )
    body = LoginBody(
        token=token,
        expires_at=opened.expires_at,
        user=LoginUser(id=account.id, email=account.email, display_name=account.display_name),
        must_change_password=account.must_change_password,
    )
    return Reply(body, cookies=[Cookie(name=COOKIE, value=token, expires_at=opened.expires_at)])


@route(
    "POST",
    "/auth/logout",
    access=Public(with_session=True),
    status=204,
    limit=RateLimit("auth:logout", 30, key="ip", on_failure="open"),
    summary="End the session; always succeeds",
)
async def logout(call: Call[Any]) -> Reply:
    if call.caller is not None:
        await call.state.db.run(sessions.revoke, caller=call.person, now=utc_now())
    return Reply(None, cookies=[Cookie(name=COOKIE, value="", expires_at=None)])


@route(
    "GET",
    "/users/me",
    access=Session(before_password_change=True),
    returns=MeBody,
    summary="Who am I, and what may I do",
)
async def show_me(call: Call[Any]) -> Reply:
    caller = call.person
    profile = await call.state.db.read(users.profile, caller=caller)
    return Reply(
        MeBody(
            id=caller.user_id,
            email=caller.email,
            display_name=caller.display_name,
            must_change_password=caller.must_change_password,
            permissions=profile.permissions,
            grants=[_grant(grant) for grant in profile.grants],
            teams=[TeamBody(**team) for team in profile.teams],
            projects=[_project(project) for project in profile.projects],
            mfa_enrolled=False,
        )
    )


@route(
    "GET",
    "/users/me/projects",
    access=Session(),
    returns=list[ProjectBody],
    summary="List the projects you may read with their environments, by name",
)
async def list_my_projects(call: Call[Any]) -> Reply:
    found = await call.state.db.read(users.readable_projects, caller=call.person)
    return Reply([_project(project) for project in found])


def _grant(grant: Grant) -> GrantBody:
    return GrantBody(
        role_name=grant.role_name, scope=dict(grant.scope), expires_at=grant.expires_at
    )


def _project(project: users.Project) -> ProjectBody:
    return ProjectBody(
        id=project.id,
        name=project.name,
        status=project.status,
        environments=[
            EnvironmentBody(id=env.id, name=env.name, kind=env.kind, risk_level=env.risk_level)
            for env in project.environments
        ],
    )


@route(
    "POST",
    "/users/me/password",
    access=Session(before_password_change=True),
    body=ChangePassword,
    status=204,
    limit=RateLimit("auth:password", 10, key="user", on_failure="closed"),
    errors=(WrongPasswordError, PasswordRefusedError),
    summary="Change your own password and end your other sessions",
)
async def change_password(call: Call[ChangePassword]) -> Reply:
    caller, state = call.person, call.state
    new_password = Secret(call.body.new_password.encode())
    check_new_password(new_password, email=caller.email)
    stored = await state.db.read(users.password_hash, user_id=caller.user_id)
    if not await state.hasher.verify(stored, Secret(call.body.current_password.encode())):
        raise WrongPasswordError(
            audit=Denial(
                "user.password.change", f"user:{caller.user_id}", error_kind="wrong_password"
            )
        )
    if await state.hasher.verify(stored, new_password):
        # Above all a temporary one: somebody else knows it.
        raise PasswordRefusedError("The new password is the current one.")
    await state.db.run(
        users.change_password,
        caller=caller,
        expected_hash=stored,
        new_hash=await state.hasher.hash(new_password),
        now=utc_now(),
    )
    return Reply(None)
