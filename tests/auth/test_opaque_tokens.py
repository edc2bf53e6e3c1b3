"""Opaque tokens: their shape, and that only a hash is needed to know them again."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb.auth.tokens import is_token, new_token, token_hash


def test_new_token_is_32_bytes_in_43_characters_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(200)}
    assert len(tokens) == 200
    for token in tokens:
        assert is_token(token)
        assert len(base64.urlsafe_b64decode(token + "=")) == 32


def test_token_hash_is_sha256_of_the_text() -> None:
    token = new_token()
    assert token_hash(token) == hashlib.sha256(token.encode("ascii")).digest()


@given(st.text(alphabet=st.characters()))
def test_token_hash_takes_any_text(text: str) -> None:
    assert len(token_hash(text)) == 32


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 42,
        "a" * 44,
        "a" * 42 + "=",
        "a" * 42 + "+",
        "a" * 42 + "\n",
        "a" * 43 + "\n",
        "a" * 42 + "é",
        " " + "a" * 42,
    ],
)
def test_is_token_other_shape_is_false(text: str) -> None:
    assert not is_token(text)
