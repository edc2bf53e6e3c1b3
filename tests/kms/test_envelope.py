"""Wraps at rest: vectors, round trips, and rows that were changed or moved."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb.ids import new_id
from sb.kms import DataKey, KmsKeyUnknownError
from sb.kms.envelope import (
    ALGORITHM,
    SealedWrap,
    WrapIntegrityError,
    decrypt,
    open_wrap,
    seal_wrap,
    seal_wrap_with,
    unwrap_key,
    wrap_aad,
)
from sb.kms.local import LocalKeyRing
from sb.secret import Secret

VECTORS = Path(__file__).parents[1] / "vectors"
LOCAL = json.loads((VECTORS / "local_keys.json").read_text("utf-8"))
WRAPS = json.loads((VECTORS / "wrap_envelope.json").read_text("utf-8"))["wraps"]
RING = LocalKeyRing.parse(Secret.from_text(LOCAL["setting"]))
IDS = {"wrap_id": new_id(), "request_id": new_id(), "key_name": "DATABASE_URL"}


def raw(text: str) -> bytes:
    return base64.b64decode(text)


def from_vector(sealed: dict[str, Any]) -> SealedWrap:
    plain = {"kms_key_id", "algorithm", "byte_length"}
    return SealedWrap(**{k: v if k in plain else raw(v) for k, v in sealed.items()})


def sealed(value: bytes = b"value", **ids: str) -> SealedWrap:
    return seal_wrap(RING, **{**IDS, **ids}, value=Secret(value))


@pytest.fixture(params=WRAPS, ids=lambda vector: vector["name"])
def vector(request: pytest.FixtureRequest) -> Any:
    return request.param


def ids_of(vector: Any) -> dict[str, str]:
    return {name: vector[name] for name in ("wrap_id", "request_id", "key_name")}


def test_vector_aad_is_as_published(vector: Any) -> None:
    aad = wrap_aad(**ids_of(vector), kms_key_id=vector["sealed"]["kms_key_id"])
    assert aad == vector["aad"].encode("ascii")


def test_vector_seals_and_opens_as_published(vector: Any) -> None:
    expected = from_vector(vector["sealed"])
    made = seal_wrap_with(
        DataKey(
            plaintext=Secret(raw(vector["data_key"])),
            ciphertext=expected.data_key_ciphertext,
            key_id=expected.kms_key_id,
        ),
        RING.fingerprint_key(),
        nonce=expected.nonce,
        aad=vector["aad"].encode(),
        value=Secret(raw(vector["plaintext"])),
    )
    assert made == expected
    assert open_wrap(RING, expected, **ids_of(vector)).reveal() == raw(vector["plaintext"])


@given(st.binary(max_size=4096), st.text())
def test_seal_any_value_and_name_opens_again(value: bytes, key_name: str) -> None:
    row = sealed(value, key_name=key_name)
    assert row.algorithm == ALGORITHM
    assert row.byte_length == len(value)
    assert len(row.nonce) == 12
    assert open_wrap(RING, row, **{**IDS, "key_name": key_name}).reveal() == value


def test_open_in_two_steps_needs_the_key_store_only_for_the_first() -> None:
    row = sealed()
    with unwrap_key(RING, row) as data_key:
        assert decrypt(row, data_key, **IDS).reveal() == b"value"
    with pytest.raises(ValueError, match="wiped"):
        decrypt(row, data_key, **IDS)


@given(st.data())
def test_open_any_bit_flipped_refuses(data: st.DataObject) -> None:
    row = sealed()
    field = data.draw(st.sampled_from(["encrypted_value", "nonce", "data_key_ciphertext"]))
    changed = bytearray(getattr(row, field))
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(WrapIntegrityError):
        open_wrap(RING, dataclasses.replace(row, **{field: bytes(changed)}), **IDS)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "AES-256-GCM"},
        {"byte_length": 4},
        {"nonce": b""},
        {"nonce": bytes(16)},
        {"encrypted_value": b""},
        {"encrypted_value": bytes(15)},
        {"data_key_ciphertext": b""},
        {"kms_key_id": LOCAL["key_ids"][1]},
    ],
    ids=str,
)
def test_open_changed_column_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(WrapIntegrityError):
        open_wrap(RING, dataclasses.replace(sealed(), **change), **IDS)


@pytest.mark.parametrize(
    "elsewhere",
    [{"wrap_id": new_id()}, {"request_id": new_id()}, {"key_name": "OTHER"}],
    ids=lambda change: next(iter(change)),
)
def test_open_moved_to_another_row_refuses(elsewhere: dict[str, str]) -> None:
    with pytest.raises(WrapIntegrityError):
        open_wrap(RING, sealed(), **{**IDS, **elsewhere})


def test_open_with_value_and_key_of_different_rows_refuses() -> None:
    one, two = sealed(), sealed()
    mixed = dataclasses.replace(one, data_key_ciphertext=two.data_key_ciphertext)
    with pytest.raises(WrapIntegrityError):
        open_wrap(RING, mixed, **IDS)


def test_open_under_another_spelling_of_the_ids_works() -> None:
    row = sealed(wrap_id=IDS["wrap_id"].upper(), request_id=IDS["request_id"].replace("-", ""))
    assert open_wrap(RING, row, **IDS).reveal() == b"value"


@given(st.lists(st.text(alphabet='a|",[]\\é'), min_size=2, max_size=2, unique=True))
def test_aad_of_two_names_never_collides(names: list[str]) -> None:
    one, other = (
        wrap_aad(**{**IDS, "key_name": name}, kms_key_id=key_id)
        for name, key_id in zip(names, reversed(names), strict=True)
    )
    assert one != other


def test_unknown_master_key_is_an_outage_and_not_damage() -> None:
    older = LocalKeyRing.parse(Secret.from_text(LOCAL["setting"].split(",")[1]))
    row = sealed()
    with pytest.raises(KmsKeyUnknownError):
        unwrap_key(older, row)
    assert open_wrap(RING, row, **IDS).reveal() == b"value"


def test_content_hmac_matches_for_equal_values_under_one_master_only() -> None:
    older = LocalKeyRing.parse(Secret.from_text(LOCAL["setting"].split(",")[1]))
    assert sealed(b"same").content_hmac == sealed(b"same").content_hmac
    assert sealed(b"same").content_hmac != sealed(b"other").content_hmac
    elsewhere = seal_wrap(older, **IDS, value=Secret(b"same"))
    assert sealed(b"same").content_hmac != elsewhere.content_hmac


def test_seal_leaves_the_value_usable_and_shows_nothing_of_it() -> None:
    value = Secret(b"planted-9f2c71")
    row = seal_wrap(RING, **IDS, value=value)
    assert value.reveal() == b"planted-9f2c71"
    assert "planted" not in repr(row)


def test_refusal_carries_nothing() -> None:
    with pytest.raises(WrapIntegrityError) as caught:
        open_wrap(RING, sealed(), **{**IDS, "key_name": "planted"})
    assert caught.value.details == {}
    assert (caught.value.code, caught.value.status) == ("wrap_integrity_failed", 500)
    assert "planted" not in str(caught.value)
