"""Passwords: what is stored, what matches, what is refused, and that the loop keeps running."""

from __future__ import annotations

import statistics
import threading
import time

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from sb.auth import passwords
from sb.auth.passwords import (
    Parameters,
    PasswordHasher,
    PasswordRefusedError,
    SignInBusyError,
    check_new_password,
    dummy_hash,
    hash_password,
    needs_rehash,
    verify,
)
from sb.secret import Secret

CHEAP = Parameters(memory_kib=64, time_cost=1)
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)


def secret(text: str) -> Secret:
    return Secret.from_text(text)


def test_default_cost_is_owasps_and_argon2id() -> None:
    stored = hash_password(secret("correct horse battery"))
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert "correct" not in stored
    assert verify(stored, secret("correct horse battery"))


@settings(max_examples=50)
@given(TEXT, TEXT)
def test_verify_follows_the_password(one: str, other: str) -> None:
    stored = hash_password(secret(one), CHEAP)
    assert verify(stored, secret(one), CHEAP)
    same = passwords._normalised(secret(one)) == passwords._normalised(secret(other))
    assert verify(stored, secret(other), CHEAP) is same


def test_hash_twice_differs_by_salt() -> None:
    assert hash_password(secret("same"), CHEAP) != hash_password(secret("same"), CHEAP)


def test_verify_composed_and_decomposed_letters_are_one_password() -> None:
    stored = hash_password(secret("caf\u00e9 au lait"), CHEAP)
    assert verify(stored, secret("cafe\u0301 au lait"), CHEAP)


def test_bytes_that_are_no_text_are_hashed_as_they_are() -> None:
    stored = hash_password(Secret(b"\xff\xfe"), CHEAP)
    assert verify(stored, Secret(b"\xff\xfe"), CHEAP)
    assert not verify(stored, Secret(b"\xff"), CHEAP)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "x",
        "é",
        "$2b$12$abcdefghijklmnopqrstuv",
        "$argon2id$v=19$m=64,t=1,p=1$aa$bb",
        "$argon2id$v=19$m=64,t=1,p=1$",
        "$argon2d$",
        "\x00",
    ],
)
def test_unreadable_hash_matches_nothing_and_is_to_be_renewed(stored: str) -> None:
    assert not verify(stored, secret("x"), CHEAP)
    assert needs_rehash(stored, CHEAP)


def test_needs_rehash_follows_the_cost() -> None:
    stored = hash_password(secret("x"), CHEAP)
    assert not needs_rehash(stored, CHEAP)
    assert needs_rehash(stored, Parameters(memory_kib=128, time_cost=1))
    assert verify(stored, secret("x"), Parameters(memory_kib=128, time_cost=1))


def test_dummy_hash_costs_the_same_and_matches_nothing() -> None:
    stored = dummy_hash(CHEAP)
    assert not needs_rehash(stored, CHEAP)
    assert not verify(stored, secret(""), CHEAP)


def test_dummy_verification_takes_as_long_as_a_real_one() -> None:
    real, dummy = hash_password(secret("right password")), dummy_hash()

    def cost(stored: str) -> float:
        started = time.thread_time()
        verify(stored, secret("wrong password"))
        return time.thread_time() - started

    pairs = [(cost(real), cost(dummy)) for _ in range(9)]
    ratio = statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)
    assert 0.5 < ratio < 2


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("", "at least 12"),
        ("x" * 11, "at least 12"),
        ("cafe\u0301 cafe\u0301", "at least 12"),
        ("x" * 257, "at most 256"),
        ("é" * 129, "at most 256"),
        ("ada@example.com", "not the address"),
        (" ADA@Example.com ", "not the address"),
    ],
)
def test_check_new_password_refuses_and_names_the_rule_only(password: str, rule: str) -> None:
    with pytest.raises(PasswordRefusedError, match=rule) as caught:
        check_new_password(secret(password), email="ada@example.com")
    assert caught.value.status == 400
    assert not password or password not in str(caught.value)


@pytest.mark.parametrize("password", ["x" * 12, "x" * 256, "é" * 12, "correct horse battery"])
def test_check_new_password_accepts(password: str) -> None:
    check_new_password(secret(password), email="ada@example.com")


async def test_hasher_round_trip_and_one_dummy() -> None:
    hasher = PasswordHasher(CHEAP)
    stored = await hasher.hash(secret("right"))
    assert await hasher.verify(stored, secret("right"))
    assert not await hasher.verify(stored, secret("wrong"))
    assert not hasher.needs_rehash(stored)
    assert await hasher.dummy() == await hasher.dummy()
    assert not hasher.needs_rehash(await hasher.dummy())


async def test_flood_of_sign_ins_leaves_the_loop_and_other_threads_running() -> None:
    hasher = PasswordHasher(slots=1, max_waiting=1000)
    stored = await hasher.dummy()
    answers: list[bool] = []
    turns = 0

    async def sign_in() -> None:
        answers.append(await hasher.verify(stored, secret("wrong")))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(sign_in)
        await trio.testing.wait_all_tasks_blocked()
        # Each turn is a trip through the loop and through a thread of somebody else.
        while len(answers) < 20:
            await trio.to_thread.run_sync(threading.get_ident)
            turns += 1
    assert answers == [False] * 20
    assert turns > 20


async def test_full_queue_refuses_at_once_and_recovers() -> None:
    hasher = PasswordHasher(slots=1, max_waiting=2)
    stored = await hasher.dummy()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hasher.verify, stored, secret("wrong"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(SignInBusyError) as caught:
            await hasher.verify(stored, secret("wrong"))
        assert caught.value.status == 503
        assert "Retry-After" in caught.value.headers
    assert not await hasher.verify(stored, secret("wrong"))
