"""Passwords that somebody else knows: they are for the first sign-in and end by themselves."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from functools import partial

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.ops import accounts, administrators, grants, sessions, users
from sb.ops.callers import Anonymous, Caller
from sb.ops.errors import InvalidCredentialsError
from sb.ops.governance_errors import LastAdminError
from tests.ops.refusals import at_once, kinds
from tests.ops.world import MICROSECOND, NOW, TEST, World, at

RULES = sessions.SessionRules(temporary_password=timedelta(hours=1))
END = at(hours=1)
EXPIRED = "temporary_password_expired"


def account_of(world: World, email: str) -> sessions.Account:
    account = world.run(sessions.find_account, email=email)
    assert isinstance(account, sessions.Account)
    return account


def refusal(world: World, email: str, now: datetime) -> str | None:
    return sessions.refusal(account_of(world, email), now=now, rules=RULES)


def sign_in(world: World, account: sessions.Account, now: datetime) -> None:
    world.run(
        sessions.open_session,
        account=account,
        new_password_hash="hashed again",
        token_hash=token_hash(new_token()),
        rules=RULES,
        ip=None,
        user_agent=None,
        by=Anonymous(),
        now=now,
    )


@pytest.fixture
def admin(world: World) -> Caller:
    return world.person("admin", "admin")


@pytest.fixture
def ada(world: World, admin: Caller) -> Caller:
    """A person with a temporary password, made at the tests' noon."""
    user = world.run(
        accounts.register,
        by=admin,
        email="ada@example.com",
        password_hash="temporary",
        display_name="Ada",
        must_change_password=True,
        now=NOW,
    )
    return world.caller(user.id)


def test_a_temporary_password_opens_nothing_after_its_end(world: World, ada: Caller) -> None:
    assert refusal(world, ada.email, END - MICROSECOND) is None
    assert refusal(world, ada.email, END) == EXPIRED
    account = account_of(world, ada.email)
    sign_in(world, account, END - MICROSECOND)
    # Checked again where the session is made: it may end while the password is being compared.
    with pytest.raises(InvalidCredentialsError):
        sign_in(world, account_of(world, ada.email), END)
    assert len(world.rows("SELECT id FROM sessions WHERE user_id = :id", id=ada.user_id)) == 1


def test_no_sign_in_makes_a_temporary_password_last_longer(world: World, ada: Caller) -> None:
    # Right ones, which may write a fresh hash, wrong ones, the lock they lead to, and its end.
    sign_in(world, account_of(world, ada.email), at(minutes=1))
    for minute in range(2, 8):
        world.run(
            sessions.record_failed_login,
            account=account_of(world, ada.email),
            error_kind="wrong_password",
            email_length=15,
            rules=RULES,
            by=Anonymous(),
            now=at(minutes=minute),
        )
    assert refusal(world, ada.email, at(minutes=8)) == "account_locked"
    sign_in(world, account_of(world, ada.email), at(minutes=40))
    assert account_of(world, ada.email).password_hash == "hashed again"
    assert refusal(world, ada.email, END - MICROSECOND) is None
    assert refusal(world, ada.email, END) == EXPIRED


def test_unlocking_does_not_prolong_a_temporary_password(
    world: World, admin: Caller, ada: Caller
) -> None:
    world.write("UPDATE local_users SET failed_login_count = 3 WHERE id = :id", id=ada.user_id)
    world.run(accounts.unlock, by=admin, user_id=ada.user_id, now=at(minutes=59))
    assert refusal(world, ada.email, END) == EXPIRED


def test_a_reset_begins_anew_and_an_own_password_has_no_end(
    world: World, admin: Caller, ada: Caller
) -> None:
    values = {"by": admin, "user_id": ada.user_id, "new_hash": "second"}
    world.run(accounts.reset_password, **values, now=END)
    assert refusal(world, ada.email, END) is None
    assert refusal(world, ada.email, END + timedelta(hours=1)) == EXPIRED
    world.run(
        users.change_password, caller=ada, expected_hash="second", new_hash="own", now=at(hours=1)
    )
    assert refusal(world, ada.email, at(days=3650)) is None


def test_without_rules_a_temporary_password_lasts_three_days(world: World, ada: Caller) -> None:
    account = account_of(world, ada.email)
    assert sessions.refusal(account, now=at(hours=72) - MICROSECOND) is None
    assert sessions.refusal(account, now=at(hours=72)) == EXPIRED


def helper(world: World) -> Caller:
    """Return an administrator for an hour, who does not count as the one who is always there."""
    person = world.person("helper")
    role_id = world.role("admin")
    given = {"user_id": person.user_id, "role_id": role_id, "granted_by": TEST.actor}
    world.run(grants.give, **given, scope={}, expires_at=END, now=NOW)
    return world.caller(person.user_id)


def reset(world: World, by: Caller, whom: Caller) -> users.User:
    values = {"by": by, "user_id": whom.user_id, "new_hash": "new", "now": NOW}
    user = world.run(accounts.reset_password, **values)
    assert isinstance(user, users.User)
    return user


def test_reset_of_the_last_administrator_is_refused(world: World, admin: Caller) -> None:
    by = helper(world)
    values = {"by": by, "user_id": admin.user_id, "new_hash": "new", "now": NOW}
    world.refuse(LastAdminError, accounts.reset_password, **values)
    assert world.run(users.password_hash, user_id=admin.user_id) != "new"
    assert not world.events(action="user.password.reset")
    # Once somebody else administers as well, it is done.
    other = world.person("other", "admin")
    assert reset(world, by, admin).must_change_password
    values["user_id"] = other.user_id
    world.refuse(LastAdminError, accounts.reset_password, **values)
    world.run(administrators.require_one)


def test_reset_of_who_administers_nothing_anyway_takes_nothing_away(world: World) -> None:
    by, late = helper(world), world.person("late", "admin")
    for column in ("must_change_password", "disabled"):
        statement = f"UPDATE local_users SET {column} = :yes WHERE id = :id"
        world.write(statement, yes=True, id=late.user_id)
        assert reset(world, by, late).must_change_password
        world.write("UPDATE local_users SET must_change_password = :no", no=False)


def test_reset_of_somebody_who_administers_nothing_needs_no_administrator(world: World) -> None:
    assert reset(world, helper(world), world.person("dev", "developer")).must_change_password


def test_reset_of_each_other_at_once_leaves_an_administrator(world: World) -> None:
    for _ in range(3):
        one, two = world.person("one", "admin"), world.person("two", "admin")
        outcomes = at_once([partial(reset, world, one, two), partial(reset, world, two, one)])
        assert kinds(outcomes) == Counter({"ok": 1, "last_admin": 1})
        world.run(administrators.require_one)
        world.write("UPDATE local_users SET disabled = :yes", yes=True)
