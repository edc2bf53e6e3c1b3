"""The local key ring: vectors, rotation, and what it refuses."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb.kms import DataKeyRefusedError, KeyManagement, KmsKeyUnknownError
from sb.kms.local import WRAPPED_BYTES, LocalKeyRing
from sb.sealing import WRAP_TO_CONTROL_PLANE, open_sealed_with_any, seal
from sb.secret import Secret

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "local_keys.json").read_text("utf-8"))
NEW, OLD = VECTORS["setting"].split(",")


def raw(text: str) -> bytes:
    return base64.b64decode(text)


def ring(*keys: str) -> LocalKeyRing:
    return LocalKeyRing.parse(Secret.from_text(",".join(keys)))


def test_ring_is_a_key_store() -> None:
    store: KeyManagement = ring(NEW, OLD)
    assert store.current_key_id == VECTORS["key_ids"][0]


@pytest.mark.parametrize("case", VECTORS["data_keys"], ids=lambda case: case["kms_key_id"])
def test_data_key_wraps_and_unwraps_as_published(case: dict[str, str]) -> None:
    wrapped, key_id = raw(case["wrapped"]), case["kms_key_id"]
    assert ring(NEW, OLD).unwrap_data_key(wrapped, key_id).reveal() == raw(case["data_key"])
    newest = ring([NEW, OLD][VECTORS["key_ids"].index(key_id)])
    made = newest.wrap_data_key(Secret(raw(case["data_key"])), nonce=raw(case["nonce"]))
    assert (made.ciphertext, made.key_id) == (wrapped, key_id)


def test_derived_keys_are_those_published() -> None:
    keys = ring(NEW, OLD)
    assert keys.fingerprint_key().reveal() == raw(VECTORS["content_hmac_key"])
    pairs = [
        {
            "private_key": base64.b64encode(pair.private.reveal()).decode(),
            "public_key": base64.b64encode(pair.public).decode(),
        }
        for pair in keys.control_plane_keys()
    ]
    assert pairs == VECTORS["control_plane_keys"]


def test_generate_uses_the_newest_and_never_repeats() -> None:
    keys = ring(NEW, OLD)
    made = [keys.generate_data_key() for _ in range(50)]
    assert {key.key_id for key in made} == {keys.current_key_id}
    assert {len(key.ciphertext) for key in made} == {WRAPPED_BYTES} == {60}
    assert len({key.plaintext.reveal() for key in made}) == len(made)
    assert len({key.ciphertext[:12] for key in made}) == len(made)
    for key in made:
        assert keys.unwrap_data_key(key.ciphertext, key.key_id) == key.plaintext


def test_rotation_keeps_old_data_keys_readable_until_the_master_is_dropped() -> None:
    before = ring(OLD).generate_data_key()
    rotated = ring(NEW, OLD)
    assert rotated.unwrap_data_key(before.ciphertext, before.key_id) == before.plaintext
    with pytest.raises(KmsKeyUnknownError) as caught:
        ring(NEW).unwrap_data_key(before.ciphertext, before.key_id)
    assert caught.value.status == 503


def test_rotation_still_opens_what_agents_seal_to_the_older_key() -> None:
    pinned = ring(OLD).control_plane_keys()[0].public
    box = seal(Secret(b"value"), pinned, info=WRAP_TO_CONTROL_PLANE)
    keys = [pair.private for pair in ring(NEW, OLD).control_plane_keys()]
    assert open_sealed_with_any(box, keys, info=WRAP_TO_CONTROL_PLANE).reveal() == b"value"


def test_unwrap_under_another_masters_id_refuses() -> None:
    keys = ring(NEW, OLD)
    made = keys.generate_data_key()
    with pytest.raises(DataKeyRefusedError):
        keys.unwrap_data_key(made.ciphertext, VECTORS["key_ids"][1])


@given(st.integers(0, 60 * 8 - 1))
def test_unwrap_any_bit_flipped_refuses(bit: int) -> None:
    keys = ring(NEW)
    made = keys.generate_data_key()
    changed = bytearray(made.ciphertext)
    changed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(DataKeyRefusedError):
        keys.unwrap_data_key(bytes(changed), made.key_id)


@pytest.mark.parametrize("length", [0, 11, 59, 61])
def test_unwrap_wrong_length_refuses(length: int) -> None:
    with pytest.raises(DataKeyRefusedError):
        ring(NEW).unwrap_data_key(bytes(length), VECTORS["key_ids"][0])


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("", "master key 1 does not have 32 bytes"),
        (f"{NEW},", "master key 2 does not have 32 bytes"),
        (f"{NEW},planted!", "master key 2 is not standard base64"),
        (f"{NEW},cGxhbnRlZA==", "master key 2 does not have 32 bytes"),
        (f"{NEW},{OLD},{NEW}", "master key 3 is there twice"),
        (NEW[:-1], "master key 1 is not standard base64"),
    ],
)
def test_parse_bad_entry_names_its_position_and_not_its_text(setting: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        ring(setting)
    assert str(caught.value) == problem


def test_parse_ignores_blanks_around_entries() -> None:
    assert ring(f" {NEW} ", f"\n{OLD}\n").current_key_id == VECTORS["key_ids"][0]


def test_empty_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        LocalKeyRing([])
