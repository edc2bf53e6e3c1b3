"""Error text: no credential survives, no long body, no more than 280 characters."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb.sanitize import MAX_LENGTH, redact_credentials, sanitize_error

BODY = "{...body redacted...}"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"

CREDENTIALS = [
    "AKIA" + "Q7" * 8,
    "ASIA" + "Q7" * 8,
    "hvs.CAESIJ" + "x1_-" * 6,
    "hvb.AAAAAQ" + "x1_-" * 6,
    "hvr.AAAAAQ" + "x1_-" * 6,
    "s." + "iyNUhq8Ov4hIAx6snw5mB2nL",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.",
    "ya29.a0AfH6SMB-x_y",
    *(f"gh{kind}_" + "a1B2" * 9 for kind in "pousr"),
    "github_pat_" + "a1B2_" * 6,
    PEM,
]

#: Pieces from which hostile texts are built: parts of credentials, braces, long runs, ends.
PIECES = st.sampled_from(
    [
        *CREDENTIALS,
        "{",
        "}",
        "x" * 100,
        "x" * 199,
        "x" * 200,
        " ",
        "\n",
        "\x00",
        "://",
        "@",
        "/",
        ".",
        "s.",
        "eyJ",
        "AKIA",
        "-----BEGIN A-----",
        "-----END A-----",
        "...",
        "é🔑",
        "[REDACTED]",
        BODY,
    ]
)
HOSTILE = st.lists(PIECES | st.text(max_size=5), max_size=12).map("".join)


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda text: text[:11].strip("-"))
@pytest.mark.parametrize("frame", ["{}", "denied: {}", 'token="{}", retry', "({})", "x {}\nmore"])
def test_credential_is_redacted_where_it_stands(credential: str, frame: str) -> None:
    assert sanitize_error(frame.format(credential)) == frame.format("[REDACTED]")


def test_credential_split_by_a_nul_is_redacted() -> None:
    assert sanitize_error("AKIA" + "Q7" * 4 + "\0" + "Q7" * 4) == "[REDACTED]"


def test_pem_cut_off_is_redacted_to_the_end() -> None:
    assert sanitize_error("bad key " + PEM[:45]) == "bad key [REDACTED]"


@pytest.mark.parametrize("userinfo", ["user:hunter2", "hunter2", "user:a@b:c@d"])
def test_user_and_password_in_a_url_are_redacted(userinfo: str) -> None:
    text = f"GET https://{userinfo}@vault.example/v1 failed"
    assert sanitize_error(text) == "GET https://[REDACTED]vault.example/v1 failed"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "permission denied",
        "vault.example:8200 refused {code: 403}",
        "arn:aws:iam::123456789012:role/reader",
        "mail to ops@example.com, see https://docs.example/a@b",
        "values.yaml",
        "eyJust.a.word",
    ],
)
def test_plain_text_is_left_alone(text: str) -> None:
    assert sanitize_error(text) == text


def test_body_of_200_characters_is_replaced_and_of_199_is_not() -> None:
    assert sanitize_error("a {" + "x" * 200 + "} b") == f"a {BODY} b"
    assert sanitize_error("a {" + "x" * 199 + "} b") == "a {" + "x" * 199 + "} b"


def test_nested_and_cut_off_bodies_are_replaced() -> None:
    nested = '{"errors": {"data": "' + "x" * 150 + '"}, "more": {"k": "' + "y" * 50 + '"}}'
    assert sanitize_error(f"got {nested} from it") == f"got {BODY} from it"
    assert sanitize_error("got {" + "x" * 5000) == f"got {BODY}"


def test_two_short_bodies_far_apart_are_kept() -> None:
    text = "{a}" + "-" * 220 + "{b}"
    assert sanitize_error(text) == text


def test_long_text_is_cut_by_characters_not_bytes() -> None:
    assert sanitize_error("é" * 280) == "é" * 280
    assert sanitize_error("é" * 281) == "é" * 277 + "..."


def test_order_a_credential_across_the_cut_is_redacted_first() -> None:
    cut = sanitize_error("x" * 270 + " AKIA" + "Q7" * 8)
    assert "AKIA" not in cut
    assert len(cut) == MAX_LENGTH


def test_order_a_credential_in_a_body_shortens_it_first() -> None:
    text = "{" + "x" * 190 + " AKIA" + "Q7" * 8 + "}"
    assert sanitize_error(text) == BODY
    text = "{" + "x" * 180 + " AKIA" + "Q7" * 8 + "}"
    assert sanitize_error(text) == "{" + "x" * 180 + " [REDACTED]}"


def test_second_call_does_not_take_our_own_cut_for_a_part_of_a_token() -> None:
    vault, jwt = CREDENTIALS[2], CREDENTIALS[6]
    clean = sanitize_error(" ".join(CREDENTIALS[:2] * 3) + vault + jwt + "x" * 200)
    assert sanitize_error(clean) == clean


@pytest.mark.parametrize(
    "piece",
    ["eyJ", "{", "}", "://", "-----BEGIN A-----", "-----BEGIN ", "s.", "gh", "hvs.", "AKIA", "@"],
)
def test_hostile_repetition_takes_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    started = time.thread_time()
    assert len(sanitize_error(text)) <= MAX_LENGTH
    # Quadratic patterns take minutes.
    assert time.thread_time() - started < 5


@given(HOSTILE)
def test_any_text_comes_out_short_and_clean(text: str) -> None:
    clean = sanitize_error(text)
    assert len(clean) <= MAX_LENGTH
    assert redact_credentials(clean) == clean
    assert "\0" not in clean


@given(HOSTILE)
def test_second_call_changes_nothing(text: str) -> None:
    clean = sanitize_error(text)
    assert sanitize_error(clean) == clean
