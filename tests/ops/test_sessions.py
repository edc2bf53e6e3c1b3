"""Sign-in: who is refused and what it leaves behind, how accounts lock, how sessions end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest

from sb.auth.tokens import new_token, token_hash
from sb.ops import sessions, users
from sb.ops.callers import Anonymous, Caller
from sb.ops.errors import InvalidCredentialsError, WrongPasswordError
from tests.ops.world import MICROSECOND, NOW, World, at

RULES = sessions.SessionRules()
NOBODY = Anonymous(http_request_id="req-9")


def account_of(world: World, person: Caller) -> sessions.Account:
    account = world.run(sessions.find_account, email=person.email)
    assert isinstance(account, sessions.Account)
    return account


def sign_in(world: World, account: sessions.Account, now: datetime = NOW, **changes: Any) -> bytes:
    """Open a session for a proven password and return the hash of its token."""
    hashed = token_hash(new_token())
    values = {"new_password_hash": None, "ip": "192.0.2.1", "user_agent": "ua", "rules": RULES}
    world.run(
        sessions.open_session,
        account=account,
        token_hash=hashed,
        by=NOBODY,
        **{**values, **changes},
        now=now,
    )
    return hashed


def fail(
    world: World,
    account: sessions.Account | None,
    kind: str = "wrong_password",
    now: datetime = NOW,
) -> None:
    world.run(
        sessions.record_failed_login,
        account=account,
        error_kind=kind,
        email_length=17,
        rules=RULES,
        by=NOBODY,
        now=now,
    )


def who(world: World, hashed: bytes, now: datetime) -> Caller | None:
    found: Caller | None = world.run(sessions.authenticate, token_hash=hashed, now=now)
    return found


def denied(world: World) -> list[Any]:
    return world.events(action="auth.login", status="denied")


def test_sign_in_opens_a_session_and_writes_both_rows(world: World) -> None:
    person = world.person("ada", "developer")
    hashed = sign_in(world, account_of(world, person))
    found = who(world, hashed, NOW)
    assert found is not None
    assert (found.user_id, found.email) == (person.user_id, person.email)
    assert found.grants == person.grants
    events = world.events(actor=f"user:{person.user_id}")
    assert {(e.action, e.status, e.http_request_id) for e in events} == {
        ("auth.login", "success", "req-9"),
        ("session.create", "success", "req-9"),
    }
    resources = {e.action: e.resource for e in events}
    assert resources["auth.login"] == f"user:{person.user_id}"
    assert resources["session.create"] == f"session:{found.session_id}"
    assert not [event for event in events if hashed.hex() in repr(event)]


@pytest.mark.parametrize("email", ["ADA@example.com", "  ada@Example.COM "])
def test_an_address_is_found_whatever_its_case(world: World, email: str) -> None:
    user_id = world.run(users.create, email=email, password_hash="x", display_name="Ada", now=NOW)
    account = world.run(sessions.find_account, email=" Ada@EXAMPLE.com")
    assert (account.id, account.email) == (user_id, "ada@example.com")


def test_an_unknown_address_is_refused(world: World) -> None:
    account = world.run(sessions.find_account, email="nobody@example.com")
    assert account is None
    assert sessions.refusal(account, now=NOW) == "user_not_found"


def test_a_disabled_account_is_refused(world: World) -> None:
    person = world.person("ada")
    assert sessions.refusal(account_of(world, person), now=NOW) is None
    world.write(
        "UPDATE local_users SET disabled = :yes WHERE id = :id", yes=True, id=person.user_id
    )
    assert sessions.refusal(account_of(world, person), now=NOW) == "user_disabled"


@pytest.mark.parametrize("kind", ["user_not_found", "user_disabled", "missing_fields"])
def test_a_refusal_says_its_kind_and_no_address(world: World, kind: str) -> None:
    person = world.person("ada")
    fail(world, account_of(world, person) if kind == "user_disabled" else None, kind)
    (event,) = denied(world)
    assert (event.actor, event.resource, event.http_request_id) == (
        "anonymous",
        "auth:login",
        "req-9",
    )
    assert event.metadata == {"error_kind": kind, "email_length": 17}
    assert account_of(world, person).locked_until is None


def test_a_wrong_password_is_counted(world: World) -> None:
    person = world.person("ada")
    for second in range(3):
        fail(world, account_of(world, person), now=at(seconds=second))
    events = denied(world)
    assert [e.metadata["failed_login_count"] for e in events] == [1, 2, 3]
    assert {e.metadata["error_kind"] for e in events} == {"wrong_password"}
    assert {e.resource for e in events} == {f"user:{person.user_id}"}


def test_the_fifth_wrong_password_locks_the_account(world: World) -> None:
    person = world.person("ada")
    for second in range(5):
        assert sessions.refusal(account_of(world, person), now=at(seconds=second)) is None
        fail(world, account_of(world, person), now=at(seconds=second))
    until = at(seconds=4, minutes=15)
    account = account_of(world, person)
    assert account.locked_until == until
    assert sessions.refusal(account, now=until - MICROSECOND) == "account_locked"
    assert sessions.refusal(account, now=until) is None
    (event,) = world.events(action="auth.lockout.applied")
    assert event.status == "denied"
    assert event.metadata == {
        "failed_login_count": 5,
        "locked_until": until.isoformat(),
        "threshold": 5,
        "duration_seconds": 900,
    }


def test_a_locked_account_counts_no_further_and_says_until_when(world: World) -> None:
    person = world.person("ada")
    for _ in range(5):
        fail(world, account_of(world, person))
    fail(world, account_of(world, person), "account_locked", at(minutes=1))
    event = denied(world)[-1]
    assert event.metadata["error_kind"] == "account_locked"
    assert event.metadata["locked_until"] == at(minutes=15).isoformat()
    # A guess that was under way when the lock fell moves neither the count nor the lock.
    fail(world, account_of(world, person), "wrong_password", at(minutes=2))
    assert denied(world)[-1].metadata["failed_login_count"] is None
    assert account_of(world, person).locked_until == at(minutes=15)
    assert len(world.events(action="auth.lockout.applied")) == 1


def test_a_locked_account_is_refused_with_the_right_password(world: World) -> None:
    person = world.person("ada")
    before = account_of(world, person)
    for _ in range(5):
        fail(world, before)
    with pytest.raises(InvalidCredentialsError):
        sign_in(world, before, at(minutes=1))
    assert world.rows("SELECT id FROM sessions") == []
    assert world.events(action="session.create") == []


def test_a_lapsed_lock_gives_the_whole_count_back(world: World) -> None:
    person = world.person("ada")
    for _ in range(5):
        fail(world, account_of(world, person))
    fail(world, account_of(world, person), now=at(minutes=15))
    assert denied(world)[-1].metadata["failed_login_count"] == 1
    assert account_of(world, person).locked_until is None


def test_a_success_forgets_failures_and_a_lapsed_lock(world: World) -> None:
    person = world.person("ada")
    for _ in range(5):
        fail(world, account_of(world, person))
    sign_in(world, account_of(world, person), at(minutes=16))
    assert account_of(world, person).locked_until is None
    fail(world, account_of(world, person), now=at(minutes=17))
    assert denied(world)[-1].metadata["failed_login_count"] == 1


def test_guesses_at_once_are_all_counted_and_lock_once(world: World) -> None:
    account = account_of(world, world.person("ada"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: fail(world, account), range(8)))
    counts = [e.metadata["failed_login_count"] for e in denied(world)]
    assert sorted(n for n in counts if n is not None) == [1, 2, 3, 4, 5]
    assert len(counts) == 8
    assert len(world.events(action="auth.lockout.applied")) == 1


@pytest.mark.parametrize(
    "change", ["disabled = :on", "password_hash = 'another'", "locked_until = :until"]
)
def test_an_account_that_changed_during_the_check_opens_nothing(world: World, change: str) -> None:
    person = world.person("ada")
    account = account_of(world, person)
    values = {"on": True, "until": at(minutes=1)}
    used = {name: value for name, value in values.items() if f":{name}" in change}
    world.write(f"UPDATE local_users SET {change} WHERE id = :id", id=person.user_id, **used)
    with pytest.raises(InvalidCredentialsError):
        sign_in(world, account)
    assert world.rows("SELECT id FROM sessions") == []


def test_a_hash_at_an_old_cost_is_replaced_at_sign_in(world: World) -> None:
    account = account_of(world, world.person("ada"))
    sign_in(world, account, new_password_hash="a newer hash")
    assert account_of_id(world, account.id)["password_hash"] == "a newer hash"


def test_renewing_a_hash_keeps_the_duty_to_change_it(world: World) -> None:
    account = account_of(world, world.person("ada"))
    world.write("UPDATE local_users SET must_change_password = :yes", yes=True)
    hashed = sign_in(world, account, new_password_hash="a newer hash")
    found = who(world, hashed, NOW)
    assert found is not None
    assert found.must_change_password


def account_of_id(world: World, user_id: str) -> Any:
    return world.rows("SELECT * FROM local_users WHERE id = :id", id=user_id)[0]


def test_a_session_ends_when_it_is_idle(world: World) -> None:
    hashed = sign_in(world, account_of(world, world.person("ada")))
    assert who(world, hashed, at(minutes=30) - MICROSECOND) is not None
    assert who(world, hashed, at(minutes=30)) is None


def test_a_touch_moves_the_idle_end_and_never_the_absolute_one(world: World) -> None:
    hashed = sign_in(world, account_of(world, world.person("ada")))
    now = NOW
    while now < at(hours=7, minutes=40):
        now += timedelta(minutes=29)
        found = who(world, hashed, now)
        assert found is not None
        assert found.touch_due
        world.run(sessions.touch, session_id=found.session_id, rules=RULES, now=now)
    assert who(world, hashed, at(hours=8) - MICROSECOND) is not None
    assert who(world, hashed, at(hours=8)) is None


def test_a_touch_is_due_once_a_minute(world: World) -> None:
    hashed = sign_in(world, account_of(world, world.person("ada")))
    due = {}
    for seconds in (0, 60, 61):
        found = who(world, hashed, at(seconds=seconds))
        assert found is not None
        due[seconds] = found.touch_due
    assert due == {0: False, 60: False, 61: True}


def test_a_session_shorter_than_its_idle_time_ends_at_its_absolute_end(world: World) -> None:
    rules = sessions.SessionRules(absolute=timedelta(minutes=10))
    hashed = sign_in(world, account_of(world, world.person("ada")), rules=rules)
    assert who(world, hashed, at(minutes=10) - MICROSECOND) is not None
    assert who(world, hashed, at(minutes=10)) is None


def test_a_revoked_session_is_nobody_and_is_revoked_once(world: World) -> None:
    hashed = sign_in(world, account_of(world, world.person("ada")))
    caller = who(world, hashed, NOW)
    assert caller is not None
    for _ in range(2):
        world.run(sessions.revoke, caller=caller, now=at(minutes=1))
    assert who(world, hashed, at(minutes=1)) is None
    (event,) = world.events(action="session.revoke")
    assert (event.actor, event.resource) == (caller.actor, f"session:{caller.session_id}")
    world.run(sessions.touch, session_id=caller.session_id, rules=RULES, now=at(minutes=2))
    assert who(world, hashed, at(minutes=2)) is None, "a touch brings nothing back"


def test_a_disabled_persons_session_is_nobody(world: World) -> None:
    person = world.person("ada")
    hashed = sign_in(world, account_of(world, person))
    world.write("UPDATE local_users SET disabled = :yes", yes=True)
    assert who(world, hashed, NOW) is None


def test_an_unknown_token_is_nobody(world: World) -> None:
    sign_in(world, account_of(world, world.person("ada")))
    assert who(world, token_hash("x"), NOW) is None


def test_a_changed_password_ends_the_other_sessions(world: World) -> None:
    account = account_of(world, world.person("ada"))
    other = account_of(world, world.person("bob"))
    kept, ended, of_bob = (sign_in(world, who) for who in (account, account, other))
    caller = who(world, kept, NOW)
    assert caller is not None
    values: dict[str, Any] = {"caller": caller, "expected_hash": account.password_hash}
    world.run(users.change_password, **values, new_hash="new", now=at(minutes=1))
    assert who(world, kept, at(minutes=1)) is not None
    assert who(world, ended, at(minutes=1)) is None
    assert who(world, of_bob, at(minutes=1)) is not None
    (event,) = world.events(action="user.password.change")
    assert (event.status, event.metadata) == ("success", {"sessions_ended": 1})
    # The hash that was checked is not the stored one any more.
    world.refuse(WrongPasswordError, users.change_password, **values, new_hash="x", now=NOW)
    assert account_of_id(world, account.id)["password_hash"] == "new"
