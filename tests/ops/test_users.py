"""Accounts: made, changed, switched off and on, unlocked and reset; who may, and what it leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.errors import SbError
from sb.ops import accounts, sessions, users
from sb.ops.callers import Anonymous, Caller
from sb.ops.errors import InvalidCredentialsError, UserNotFoundError
from sb.ops.governance_errors import (
    EmailTakenError,
    EscalationError,
    InvalidEmailError,
    LastAdminError,
    OwnAccountError,
    SessionNotFoundError,
)
from tests.ops.world import NOW, World, at

RULES = sessions.SessionRules()
MISSING = "01a20952-80b3-74ea-a5c6-4e85ee6af5ff"


def account_of(world: World, person: Caller) -> sessions.Account:
    account = world.run(sessions.find_account, email=person.email)
    assert isinstance(account, sessions.Account)
    return account


def sign_in(world: World, account: sessions.Account, now: datetime = NOW) -> bytes:
    """Open a session for a proven password and return the hash of its token."""
    hashed = token_hash(new_token())
    world.run(
        sessions.open_session,
        account=account,
        new_password_hash=None,
        token_hash=hashed,
        rules=RULES,
        ip="192.0.2.1",
        user_agent="ua",
        by=Anonymous(),
        now=now,
    )
    return hashed


def who(world: World, hashed: bytes, now: datetime = NOW) -> Caller | None:
    found: Caller | None = world.run(sessions.authenticate, token_hash=hashed, now=now)
    return found


def live(world: World, user_id: str, now: datetime = NOW) -> list[sessions.LiveSession]:
    found: list[sessions.LiveSession] = world.run(
        sessions.list_live, user_id=user_id, before=None, limit=50, now=now
    )
    return found


def register(world: World, by: Caller, email: str, **changes: Any) -> users.User:
    values = {"password_hash": "h", "display_name": "New", "must_change_password": True, **changes}
    found: users.User = world.run(accounts.register, by=by, email=email, **values, now=NOW)
    return found


def found(world: World, user_id: str) -> users.User:
    user: users.User = world.run(users.find, user_id=user_id)
    return user


# --- making and changing


def test_register_makes_an_account_without_grants_and_audits_it(world: World) -> None:
    admin = world.person("admin", "admin")
    user = register(world, admin, " Ada@Example.COM ")
    assert (user.email, user.disabled, user.must_change_password) == (
        "ada@example.com",
        False,
        True,
    )
    assert world.caller(user.id).grants == ()
    (event,) = world.events(action="user.create")
    assert (event.actor, event.resource) == (admin.actor, f"user:{user.id}")
    assert event.metadata == {
        "email": "ada@example.com",
        "display_name": "New",
        "must_change_password": True,
    }


def test_register_of_a_taken_address_is_refused_whatever_its_case(world: World) -> None:
    admin = world.person("admin", "admin")
    register(world, admin, "ada@example.com")
    values = {"password_hash": "h", "display_name": "x", "must_change_password": False}
    world.refuse(
        EmailTakenError, accounts.register, by=admin, email="ADA@example.com", **values, now=NOW
    )
    assert len(world.events(action="user.create")) == 1


def test_register_of_one_address_at_once_makes_one_account(world: World) -> None:
    admin = world.person("admin", "admin")

    def attempt(number: int) -> str:
        try:
            register(world, admin, "ada@example.com", display_name=str(number))
        except EmailTakenError:
            return "taken"
        return "made"

    with ThreadPoolExecutor(8) as pool:
        outcomes = sorted(pool.map(attempt, range(8)))
    assert outcomes == ["made"] + ["taken"] * 7


def test_register_of_an_address_without_lower_case_is_refused(world: World) -> None:
    admin = world.person("admin", "admin")
    values = {"password_hash": "h", "display_name": "x", "must_change_password": False}
    world.refuse(InvalidEmailError, accounts.register, by=admin, email="  ", **values, now=NOW)


def test_update_changes_what_is_given_and_audits_before_and_after(world: World) -> None:
    admin, ada = world.person("admin", "admin"), world.person("ada", "developer")
    values: dict[str, Any] = {"by": admin, "user_id": ada.user_id}
    user = world.run(
        accounts.update, **values, email=None, display_name="Ada L.", now=at(minutes=1)
    )
    assert (user.email, user.display_name, user.updated_at) == (ada.email, "Ada L.", at(minutes=1))
    user = world.run(
        accounts.update, **values, email="L@Example.com", display_name=None, now=at(minutes=2)
    )
    assert (user.email, user.display_name) == ("l@example.com", "Ada L.")
    world.run(accounts.update, **values, email="l@example.com", display_name="Ada L.", now=NOW)
    name, address = world.events(action="user.update")
    assert name.metadata == {"before": {"display_name": "ada"}, "after": {"display_name": "Ada L."}}
    assert address.metadata == {"before": {"email": ada.email}, "after": {"email": "l@example.com"}}


def test_update_to_a_taken_address_is_refused(world: World) -> None:
    admin, ada = world.person("admin", "admin"), world.person("ada")
    values: dict[str, Any] = {"by": admin, "user_id": ada.user_id, "display_name": "changed"}
    world.refuse(EmailTakenError, accounts.update, **values, email=admin.email, now=NOW)
    assert found(world, ada.user_id).display_name == "ada"


CHANGES: list[tuple[Any, dict[str, Any]]] = [
    (accounts.update, {"email": "x@example.com", "display_name": None}),
    (accounts.disable, {}),
    (accounts.enable, {}),
    (accounts.unlock, {}),
    (accounts.reset_password, {"new_hash": "h"}),
    (sessions.end_all, {}),
]


@pytest.mark.parametrize(("change", "values"), CHANGES)
def test_change_of_nobody_is_not_found(world: World, change: Any, values: dict[str, Any]) -> None:
    admin = world.person("admin", "admin")
    world.refuse(UserNotFoundError, change, by=admin, user_id=MISSING, **values, now=NOW)


def test_list_users_pages_newest_first_and_filters(world: World) -> None:
    admin = world.person("admin", "admin")
    made = [register(world, admin, f"p{n}@example.com").id for n in range(5)]
    register(world, admin, "p_%@example.com")
    world.run(accounts.disable, by=admin, user_id=made[2], now=NOW)

    def page(before: Any = None, **filters: Any) -> list[users.User]:
        values = {"email": None, "disabled": None, **filters}
        rows: list[users.User] = world.run(users.list_users, **values, before=before, limit=2)
        return rows

    seen: list[str] = []
    before = None
    while rows := page(before, email="P"):
        seen += [row.id for row in rows]
        before = (rows[-1].created_at, rows[-1].id)
    assert seen[1:] == made[::-1]
    assert [row.id for row in page(email="p", disabled=True)] == [made[2]]
    assert [row.email for row in page(email="p_")] == ["p_%@example.com"], "a wildcard is a letter"
    assert page(email="%") == []


# --- switching off and on


def test_disable_ends_every_session_and_sign_in_at_once(world: World) -> None:
    admin, ada = world.person("admin", "admin"), world.person("ada", "developer")
    account = account_of(world, ada)
    tokens = [sign_in(world, account) for _ in range(3)]
    user = world.run(accounts.disable, by=admin, user_id=ada.user_id, now=at(minutes=1))
    assert user.disabled
    assert [who(world, hashed, at(minutes=1)) for hashed in tokens] == [None] * 3
    with pytest.raises(InvalidCredentialsError):
        sign_in(world, account, at(minutes=1))
    (event,) = world.events(action="user.disable")
    assert (event.resource, event.metadata) == (f"user:{ada.user_id}", {"sessions_ended": 3})


def test_disable_twice_changes_and_audits_once(world: World) -> None:
    admin, ada = world.person("admin", "admin"), world.person("ada")
    for _ in range(2):
        assert world.run(accounts.disable, by=admin, user_id=ada.user_id, now=NOW).disabled
    assert len(world.events(action="user.disable")) == 1


def test_disable_of_oneself_is_refused(world: World) -> None:
    admin = world.person("admin", "admin")
    world.person("other", "admin")
    error = world.refuse(
        OwnAccountError, accounts.disable, by=admin, user_id=admin.user_id, now=NOW
    )
    assert error.audit is not None
    assert (error.audit.action, error.audit.metadata) == (
        "user.disable",
        {"error_kind": "own_account"},
    )
    assert not found(world, admin.user_id).disabled


def test_disable_of_the_last_administrator_is_refused(world: World) -> None:
    world.role("people", "user_role.edit")
    admin, helper = world.person("admin", "admin"), world.person("helper", "people")
    world.refuse(LastAdminError, accounts.disable, by=helper, user_id=admin.user_id, now=NOW)
    assert not found(world, admin.user_id).disabled
    assert not world.events(action="user.disable")


def test_disable_asks_for_an_administrator_who_has_come(world: World) -> None:
    world.role("people", "user_role.edit")
    admin, helper = world.person("admin", "admin"), world.person("helper", "people")
    late, ada = world.person("late", "admin"), world.person("ada", "developer")
    new = "UPDATE local_users SET must_change_password = :yes WHERE id = :id"
    world.write(new, yes=True, id=late.user_id)
    world.refuse(LastAdminError, accounts.disable, by=helper, user_id=admin.user_id, now=NOW)
    # Where all of them are new, they stay, and everybody else can still be switched off.
    world.write(new, yes=True, id=admin.user_id)
    world.refuse(LastAdminError, accounts.disable, by=helper, user_id=late.user_id, now=NOW)
    assert world.run(accounts.disable, by=helper, user_id=ada.user_id, now=NOW).disabled
    world.write(new, yes=False, id=admin.user_id)
    assert world.run(accounts.disable, by=helper, user_id=late.user_id, now=NOW).disabled


def test_disable_of_each_other_at_once_leaves_an_administrator(world: World) -> None:
    for _ in range(3):
        one, two = world.person("one", "admin"), world.person("two", "admin")

        def attempt(pair: tuple[Caller, Caller]) -> str:
            try:
                world.run(accounts.disable, by=pair[0], user_id=pair[1].user_id, now=NOW)
            except LastAdminError:
                return "refused"
            return "disabled"

        with ThreadPoolExecutor(2) as pool:
            outcomes = sorted(pool.map(attempt, [(one, two), (two, one)]))
        assert outcomes == ["disabled", "refused"]
        world.write("UPDATE local_users SET disabled = :yes", yes=True)


def test_enable_brings_back_sign_in_but_no_session(world: World) -> None:
    admin, ada = world.person("admin", "admin"), world.person("ada")
    account = account_of(world, ada)
    hashed = sign_in(world, account)
    # By hand, as an operator in a hurry would: its sessions are dead, and not revoked.
    world.write("UPDATE local_users SET disabled = :yes WHERE id = :id", yes=True, id=ada.user_id)
    for _ in range(2):
        assert not world.run(accounts.enable, by=admin, user_id=ada.user_id, now=NOW).disabled
    assert who(world, hashed) is None
    assert who(world, sign_in(world, account)) is not None
    (event,) = world.events(action="user.enable")
    assert event.metadata == {"sessions_ended": 1}


def test_unlock_lifts_the_lock_and_says_what_it_was(world: World) -> None:
    admin, ada = world.person("admin", "admin"), world.person("ada")
    account = account_of(world, ada)
    for _ in range(5):
        world.run(
            sessions.record_failed_login,
            account=account,
            error_kind="wrong_password",
            email_length=3,
            rules=RULES,
            by=Anonymous(),
            now=NOW,
        )
    assert found(world, ada.user_id).locked_until == at(minutes=15)
    for _ in range(2):
        user = world.run(accounts.unlock, by=admin, user_id=ada.user_id, now=at(minutes=1))
        assert (user.locked_until, user.failed_login_count) == (None, 0)
    sign_in(world, account, at(minutes=1))
    (event,) = world.events(action="user.unlock")
    assert event.metadata == {
        "failed_login_count": 5,
        "locked_until": at(minutes=15).isoformat(),
    }


# --- passwords


def test_reset_password_ends_sessions_unlocks_and_must_be_changed(world: World) -> None:
    admin, ada = world.person("admin", "admin"), world.person("ada", "developer")
    account = account_of(world, ada)
    hashed = sign_in(world, account)
    world.write("UPDATE local_users SET failed_login_count = 4 WHERE id = :id", id=ada.user_id)
    values: dict[str, Any] = {"by": admin, "user_id": ada.user_id, "new_hash": "temporary"}
    user = world.run(accounts.reset_password, **values, now=at(minutes=1))
    assert (user.must_change_password, user.failed_login_count) == (True, 0)
    assert who(world, hashed, at(minutes=1)) is None
    with pytest.raises(InvalidCredentialsError):
        sign_in(world, account, at(minutes=1))
    caller = who(world, sign_in(world, account_of(world, ada)))
    assert caller is not None
    assert caller.must_change_password
    (event,) = world.events(action="user.password.reset")
    assert event.metadata == {"sessions_ended": 1, "unlocked": False}

    world.run(
        users.change_password, caller=caller, expected_hash="temporary", new_hash="own", now=NOW
    )
    assert not found(world, ada.user_id).must_change_password


def test_reset_password_of_oneself_is_refused(world: World) -> None:
    admin = world.person("admin", "admin")
    values: dict[str, Any] = {"by": admin, "user_id": admin.user_id, "new_hash": "x"}
    world.refuse(OwnAccountError, accounts.reset_password, **values, now=NOW)


def test_taking_over_a_stronger_account_is_refused(world: World) -> None:
    world.role("people", "user_role.edit", "secret.list")
    helper = world.person("helper", "people")
    stronger = [world.person("admin", "admin"), world.person("dev", "developer", {"cluster": "c1"})]
    for target in stronger:
        values: dict[str, Any] = {"by": helper, "user_id": target.user_id}
        error = world.refuse(
            EscalationError, accounts.reset_password, **values, new_hash="x", now=NOW
        )
        assert error.audit is not None
        assert error.audit.action == "user.password.reset"
        email = {"email": "mine@example.com", "display_name": None}
        world.refuse(EscalationError, accounts.update, **values, **email, now=NOW)
        assert world.run(
            accounts.update, **values, email=None, display_name="fine", now=NOW
        ).display_name
    world.role("lister", "secret.list")
    weaker = world.person("weaker", "lister", {"cluster": "c1"})
    gone = world.person("gone", "lister", {"project_id": MISSING})
    for target in (weaker, gone):
        values = {"by": helper, "user_id": target.user_id, "new_hash": "x"}
        assert world.run(accounts.reset_password, **values, now=NOW).must_change_password
    both = world.person("both", "lister")
    world.grant(both.user_id, "developer", {"provider": "a name nothing has"})
    values = {"by": helper, "user_id": both.user_id, "new_hash": "x"}
    world.refuse(EscalationError, accounts.reset_password, **values, now=NOW)


@pytest.mark.parametrize("change", [accounts.reset_password, accounts.disable, sessions.end_all])
def test_sign_in_at_the_same_moment_leaves_no_session_behind(world: World, change: Any) -> None:
    admin = world.person("admin", "admin")
    extra = {"new_hash": "new"} if change is accounts.reset_password else {}
    for _ in range(5):
        ada = world.person("ada", "developer")
        account = account_of(world, ada)
        opened: list[bytes] = []

        def attempt(number: int) -> None:
            if number == 2:
                world.run(change, by=admin, user_id=ada.user_id, **extra, now=NOW)  # noqa: B023
                return
            try:
                opened.append(sign_in(world, account))  # noqa: B023
            except InvalidCredentialsError:
                assert change is not sessions.end_all

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(attempt, range(6)))
        if change is accounts.disable:
            world.write(
                "UPDATE local_users SET disabled = :no WHERE id = :id", no=False, id=ada.user_id
            )
        if change is not sessions.end_all:
            assert live(world, ada.user_id) == [], "an old password opens nothing afterwards"
        assert len(live(world, ada.user_id)) <= len(opened)


# --- sessions


def test_list_live_shows_live_sessions_only_and_never_what_opens_them(world: World) -> None:
    ada = world.person("ada")
    account = account_of(world, ada)
    kept = who(world, sign_in(world, account, at(minutes=20)), at(minutes=21))
    ended = who(world, sign_in(world, account, at(minutes=20)), at(minutes=21))
    sign_in(world, account)  # idle from 12:30 on
    assert kept is not None
    assert ended is not None
    world.run(sessions.revoke, caller=ended, now=at(minutes=22))
    (shown,) = live(world, ada.user_id, at(minutes=30))
    assert shown.id == kept.session_id
    assert (shown.ip, shown.user_agent) == ("192.0.2.1", "ua")
    assert (shown.created_at, shown.idle_expires_at) == (at(minutes=20), at(minutes=50))
    assert not [name for name in sessions.LiveSession.__slots__ if "hash" in name]


def test_end_one_ends_that_session_of_that_person_only(world: World) -> None:
    admin, ada, bob = (
        world.person(name, role)
        for name, role in (("admin", "admin"), ("ada", None), ("bob", None))
    )
    hashed, other = (sign_in(world, account_of(world, person)) for person in (ada, bob))
    (mine,), (theirs,) = live(world, ada.user_id), live(world, bob.user_id)

    def end(user_id: str, session_id: str, error: type[SbError] | None = None) -> None:
        values = {"by": admin, "user_id": user_id, "session_id": session_id, "now": NOW}
        if error is None:
            world.run(sessions.end_one, **values)
        else:
            world.refuse(error, sessions.end_one, **values)

    end(ada.user_id, theirs.id, SessionNotFoundError)
    end(ada.user_id, MISSING, SessionNotFoundError)
    end(ada.user_id, mine.id)
    end(ada.user_id, mine.id, SessionNotFoundError)
    assert who(world, hashed) is None
    assert who(world, other) is not None
    (event,) = world.events(action="session.revoke")
    assert (event.actor, event.resource) == (admin.actor, f"session:{mine.id}")
    assert event.metadata == {"session_id": mine.id, "user_id": ada.user_id}


def test_end_all_and_others_count_and_audit_what_they_ended(world: World) -> None:
    admin, ada = world.person("admin", "admin"), world.person("ada")
    account = account_of(world, ada)
    tokens = [sign_in(world, account) for _ in range(3)]
    caller = who(world, tokens[0])
    assert caller is not None
    assert [world.run(sessions.end_others, caller=caller, now=NOW) for _ in range(2)] == [2, 0]
    assert [who(world, hashed) is not None for hashed in tokens] == [True, False, False]
    values = {"by": admin, "user_id": ada.user_id, "now": NOW}
    assert [world.run(sessions.end_all, **values) for _ in range(2)] == [1, 0]
    assert who(world, tokens[0]) is None
    events = world.events(action="session.revoke_all")
    assert sorted((event.actor, event.metadata["count"]) for event in events) == sorted(
        [(ada.actor, 2), (admin.actor, 1)]
    )


def test_end_others_from_two_sessions_at_once_never_fails(world: World) -> None:
    account = account_of(world, world.person("ada"))
    callers = [who(world, sign_in(world, account)) for _ in range(8)]

    def end(caller: Caller | None) -> int:
        assert caller is not None
        ended: int = world.run(sessions.end_others, caller=caller, now=NOW)
        return ended

    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(end, callers))
    assert sum(counts) == 8, "the first ends seven, the second ends the first"


def test_profile_shows_grants_in_force_with_their_end(world: World) -> None:
    ada = world.person("ada", "developer", {"cluster": "c1"})
    world.grant(ada.user_id, "approver", {})
    world.write(
        "UPDATE user_roles SET expires_at = :end WHERE user_id = :id AND scope <> :everywhere",
        end=at(hours=1),
        id=ada.user_id,
        everywhere={},
    )
    hashed = sign_in(world, account_of(world, ada), at(minutes=50))

    def roles(now: datetime) -> list[tuple[str, Any, Any]]:
        profile = world.run(users.profile, caller=who(world, hashed, now))
        return [(grant.role_name, grant.scope, grant.expires_at) for grant in profile.grants]

    assert roles(at(minutes=55)) == [
        ("approver", {}, None),
        ("developer", {"cluster": "c1"}, at(hours=1)),
    ]
    assert roles(at(hours=1)) == [("approver", {}, None)]
