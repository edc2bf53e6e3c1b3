"""Routes of people's accounts: found by whoever gives roles, administered by whoever may do all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, RootModel

from sb.auth.passwords import PasswordRefusedError, check_new_password, temporary_password
from sb.clock import utc_now
from sb.db.engine import Transaction
from sb.errors import InvalidInputError
from sb.http.bodies import Body, Query, Text
from sb.http.declare import Call, Reply, Session, route
from sb.http.idempotency import run_creating
from sb.http.pages import Page, next_link
from sb.ops import accounts, users
from sb.ops import governance_errors as refusals
from sb.ops.callers import Caller
from sb.ops.errors import UserNotFoundError
from sb.secret import Secret

#: Scoped givers of roles look people up; accounts belong to the unscoped ones.
LOOK_UP = Session("user_role.edit")
ADMINISTER = Session("user_role.edit", scope="global")

_PART = r"[^@\s\x00-\x1f\x7f]+"
Email = Annotated[Text, Field(max_length=320, pattern=rf"^\s*{_PART}@{_PART}\s*$")]
DisplayName = Annotated[Text, Field(min_length=1, max_length=255, pattern=r"\S")]


class CreateUser(Body):
    """Without a password a temporary one is made, and shown in this answer only."""

    email: Email
    display_name: DisplayName
    password: Annotated[Text, Field(min_length=1, max_length=1024)] | None = None
    must_change_password: bool = True


class UpdateUser(Body):
    """What is left out, or null, stays as it is."""

    email: Email | None = None
    display_name: DisplayName | None = None


class ListUsers(Page, Query):
    """A page of accounts; `email` is how the address begins."""

    email: Annotated[str, Field(max_length=320)] | None = None
    disabled: bool | None = None


class PersonBody(Body):
    """As much of an account as it takes to pick a person."""

    id: str
    email: str
    display_name: str
    disabled: bool


class UserBody(PersonBody):
    """An account as its administrators see it; a lock that lies in the past is none."""

    failed_login_count: int
    locked_until: datetime | None
    must_change_password: bool
    created_at: datetime
    updated_at: datetime


class SeenUserBody(RootModel[UserBody | PersonBody]):
    """All of the account, or as much as it takes to pick a person."""


class CreatedUserBody(UserBody):
    temporary_password: str | None


class ResetBody(Body):
    """The password opens nothing but its own change, and is shown here only."""

    user_id: str
    temporary_password: str


@route(
    "GET",
    "/users",
    access=LOOK_UP,
    query=ListUsers,
    returns=list[SeenUserBody],
    summary="List people, newest first; with an unscoped grant, all of their accounts",
)
async def list_users(call: Call[Any]) -> Reply:
    query: ListUsers = call.query
    rows = await call.state.db.read(
        users.list_users,
        email=query.email,
        disabled=query.disabled,
        before=query.before,
        limit=query.limit,
    )
    last = (rows[-1].created_at, rows[-1].id) if rows else None
    body = [_seen(user, by=call.person) for user in rows]
    return Reply(body, headers=next_link(call, query, rows, last))


@route(
    "POST",
    "/users",
    access=ADMINISTER,
    body=CreateUser,
    returns=CreatedUserBody,
    status=201,
    creates=True,
    errors=(refusals.EmailTakenError, refusals.InvalidEmailError, PasswordRefusedError),
    summary="Create an account; a temporary password is shown once",
)
async def create_user(call: Call[CreateUser]) -> Reply:
    body, temporary = call.body, call.body.password is None
    if temporary and not body.must_change_password:
        reason = "a temporary password must be changed"
        raise InvalidInputError(fields=[{"field": "must_change_password", "reason": reason}])
    password = temporary_password() if body.password is None else Secret(body.password.encode())
    check_new_password(password, email=body.email)
    password_hash = await call.state.hasher.hash(password)

    def op(tx: Transaction) -> CreatedUserBody:
        user = accounts.register(
            tx,
            by=call.person,
            email=body.email,
            password_hash=password_hash,
            display_name=body.display_name,
            must_change_password=body.must_change_password,
            now=utc_now(),
        )
        # A temporary password goes to whoever hands it to the person, this once.
        shown = password.reveal().decode() if temporary else None
        return CreatedUserBody(**_whole(user).model_dump(), temporary_password=shown)

    return await run_creating(call, op, secret_response=temporary)


@route(
    "GET",
    "/users/<id:user_id>",
    access=LOOK_UP,
    returns=SeenUserBody,
    errors=(UserNotFoundError,),
    summary="Show a person; with an unscoped grant, all of their account",
)
async def show_user(call: Call[Any]) -> Reply:
    user = await call.state.db.read(users.find, user_id=call.ids["user_id"])
    return Reply(_seen(user, by=call.person))


@route(
    "PUT",
    "/users/<id:user_id>",
    access=ADMINISTER,
    body=UpdateUser,
    returns=UserBody,
    errors=(
        UserNotFoundError,
        refusals.EmailTakenError,
        refusals.InvalidEmailError,
        refusals.EscalationError,
    ),
    summary="Change the address or the name of an account; what is left out stays",
)
async def update_user(call: Call[UpdateUser]) -> Reply:
    user = await call.state.db.run(
        accounts.update,
        by=call.person,
        user_id=call.ids["user_id"],
        email=call.body.email,
        display_name=call.body.display_name,
        now=utc_now(),
    )
    return Reply(_whole(user))


@route(
    "POST",
    "/users/<id:user_id>/disable",
    access=ADMINISTER,
    returns=UserBody,
    errors=(UserNotFoundError, refusals.OwnAccountError, refusals.LastAdminError),
    summary="Switch an account off and end its sessions at once",
)
async def disable_user(call: Call[Any]) -> Reply:
    return await _changed(call, accounts.disable)


@route(
    "POST",
    "/users/<id:user_id>/enable",
    access=ADMINISTER,
    returns=UserBody,
    errors=(UserNotFoundError,),
    summary="Switch an account on again, without the sessions it had",
)
async def enable_user(call: Call[Any]) -> Reply:
    return await _changed(call, accounts.enable)


@route(
    "POST",
    "/users/<id:user_id>/unlock",
    access=ADMINISTER,
    returns=UserBody,
    errors=(UserNotFoundError,),
    summary="Lift the lock that wrong passwords put on an account",
)
async def unlock_user(call: Call[Any]) -> Reply:
    return await _changed(call, accounts.unlock)


@route(
    "POST",
    "/users/<id:user_id>/password-reset",
    access=ADMINISTER,
    returns=ResetBody,
    errors=(
        UserNotFoundError,
        refusals.OwnAccountError,
        refusals.EscalationError,
        refusals.LastAdminError,
    ),
    summary="Give somebody a temporary password, shown once, and end their sessions",
)
async def reset_password(call: Call[Any]) -> Reply:
    password = temporary_password()
    new_hash = await call.state.hasher.hash(password)
    user = await call.state.db.run(
        accounts.reset_password,
        by=call.person,
        user_id=call.ids["user_id"],
        new_hash=new_hash,
        now=utc_now(),
    )
    # It goes to whoever hands it to the person, this once.
    return Reply(ResetBody(user_id=user.id, temporary_password=password.reveal().decode()))


async def _changed(call: Call[Any], change: Callable[..., users.User]) -> Reply:
    user = await call.state.db.run(
        change, by=call.person, user_id=call.ids["user_id"], now=utc_now()
    )
    return Reply(_whole(user))


def _seen(user: users.User, *, by: Caller) -> PersonBody:
    if accounts.administers(by):
        return _whole(user)
    return PersonBody(**{name: getattr(user, name) for name in PersonBody.model_fields})


def _whole(user: users.User) -> UserBody:
    return UserBody(**{name: getattr(user, name) for name in UserBody.model_fields})
