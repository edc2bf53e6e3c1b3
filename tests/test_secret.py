"""The secret type: the value leaves through one door and shows up nowhere else."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb.secret import Secret

PLANTED = b"planted-9f2c71"


@dataclasses.dataclass
class Holder:
    secret: Secret


@given(st.binary())
def test_reveal_any_bytes_returns_them(value: bytes) -> None:
    assert Secret(value).reveal() == value
    assert Secret(bytearray(value)).byte_length == len(value)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_from_text_any_text_is_utf8(text: str) -> None:
    assert Secret.from_text(text).reveal() == text.encode()


def test_from_text_lone_surrogate_refuses_without_the_text() -> None:
    with pytest.raises(ValueError) as caught:
        Secret.from_text("planted-9f2c71\ud800")
    assert caught.value.__context__ is None
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "leak",
    [
        str,
        print,
        format,
        "{}".format,
        lambda secret: f"{secret!s}",
        lambda secret: f"{secret:>20}",
        lambda secret: "%s" % secret,  # noqa: UP031 - this way of formatting is the case
        bytes,
        list,
        len,
        hash,
        pickle.dumps,
        json.dumps,
        lambda secret: json.dumps(secret, default=vars),
        copy.copy,
        copy.deepcopy,
        lambda secret: dataclasses.asdict(Holder(secret)),
        lambda secret: b"".join([secret]),
        lambda secret: secret[0],
        lambda secret: b"p" in secret,
        lambda secret: {secret: 1},
        memoryview,
    ],
)
def test_every_other_way_out_raises_without_the_value(leak: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        leak(Secret(PLANTED))
    shown = "".join(traceback.TracebackException.from_exception(caught.value).format())
    assert PLANTED.decode() not in shown


def test_repr_alone_and_nested_is_redacted() -> None:
    secret = Secret(PLANTED)
    assert repr([secret, Holder(secret), ValueError(secret)]).count("Secret(redacted)") == 3


def test_traceback_with_locals_shows_no_value() -> None:
    secret = Secret(PLANTED)
    try:
        raise ValueError(secret)
    except ValueError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        text = "".join(shown.format())
    assert PLANTED.decode() not in text
    assert repr(PLANTED) not in text
    assert secret.byte_length == len(PLANTED)


def test_log_of_the_repr_is_redacted(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("sb").warning("got %r", Secret(PLANTED))
    assert caplog.messages == ["got Secret(redacted)"]


def test_construct_from_anything_else_raises_without_it() -> None:
    for wrong in (PLANTED.decode(), 7, memoryview(PLANTED), None):
        with pytest.raises(TypeError, match="made of bytes"):
            Secret(wrong)  # type: ignore[arg-type]


@given(st.binary(), st.binary())
def test_equality_follows_the_value(left: bytes, right: bytes) -> None:
    assert (Secret(left) == Secret(right)) is (left == right)
    assert Secret(left) == Secret(left)
    assert Secret(left) != left


def test_wipe_zeroes_and_the_value_never_comes_back() -> None:
    secret = Secret(PLANTED)
    secret.wipe()
    secret.wipe()
    assert bytes(secret._value) == bytes(len(PLANTED))
    assert secret.byte_length == len(PLANTED)
    assert secret != Secret(bytes(len(PLANTED)))
    with pytest.raises(ValueError, match="wiped"):
        secret.reveal()


def test_wipe_leaves_the_callers_buffer_alone() -> None:
    mine = bytearray(PLANTED)
    with Secret(mine) as secret:
        assert secret.reveal() == PLANTED
    assert mine == PLANTED
    with pytest.raises(ValueError, match="wiped"):
        secret.reveal()
