"""Sealing: published vectors, round trips, and everything that must not open."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sb import sealing
from sb.sealing import (
    WRAP_TO_AGENT,
    WRAP_TO_CONTROL_PLANE,
    KeyPair,
    SealedBox,
    SealingError,
    agent_to_control_plane_aad,
    generate_keypair,
    keypair_from_private,
    open_sealed,
    open_sealed_with_any,
    seal,
    seal_with,
)
from sb.secret import Secret

VECTORS = Path(__file__).parent / "vectors"
SEALING = json.loads((VECTORS / "sealing.json").read_text("utf-8"))
RFC = json.loads((VECTORS / "rfc.json").read_text("utf-8"))
INFO = {"to_agent": WRAP_TO_AGENT, "to_control_plane": WRAP_TO_CONTROL_PLANE}
RECIPIENT = keypair_from_private(Secret(bytes(range(32))))

#: Points of low order (RFC 7748 section 7): with them the shared secret is all zeros.
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def raw(text: str) -> bytes:
    return base64.b64decode(text)


def pair(text: str) -> KeyPair:
    return keypair_from_private(Secret(raw(text)))


@pytest.fixture(params=SEALING["boxes"], ids=lambda vector: vector["name"])
def vector(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_vector_keys_are_those_published(vector: Any) -> None:
    ephemeral, recipient = (
        pair(vector["ephemeral_private_key"]),
        pair(vector["recipient_private_key"]),
    )
    assert recipient.public == raw(vector["recipient_public_key"])
    shared = sealing._agree(ephemeral.private, recipient.public)
    assert shared.reveal() == raw(vector["shared_secret"])
    salt = ephemeral.public + recipient.public
    derived = sealing._derive(shared, salt=salt, info=vector["info"].encode())
    assert derived.reveal() == raw(vector["derived_key"])


def test_vector_context_is_that_of_its_direction(vector: Any) -> None:
    assert vector["info"].encode() == INFO[vector["direction"]]
    aad = b""
    if vector["direction"] == "to_control_plane":
        aad = agent_to_control_plane_aad(
            request_id=SEALING["request_id"],
            key_name=vector["key_name"],
            agent_id=SEALING["agent_id"],
        )
    assert aad == raw(vector["aad"])


def test_vector_seals_and_opens_as_published(vector: Any) -> None:
    info, aad = vector["info"].encode(), raw(vector["aad"])
    box = seal_with(
        Secret(raw(vector["plaintext"])),
        raw(vector["recipient_public_key"]),
        info=info,
        aad=aad,
        ephemeral=pair(vector["ephemeral_private_key"]),
        nonce=raw(vector["sealed"]["nonce"]),
    )
    assert box.to_json() == vector["sealed"]
    opened = open_sealed(
        SealedBox.from_json(vector["sealed"]),
        Secret(raw(vector["recipient_private_key"])),
        info=info,
        aad=aad,
    )
    assert opened.reveal() == raw(vector["plaintext"])


def test_x25519_agrees_with_rfc_7748() -> None:
    values = {name: bytes.fromhex(text) for name, text in RFC["x25519"].items()}
    alice = keypair_from_private(Secret(values["alice_private"]))
    bob = keypair_from_private(Secret(values["bob_private"]))
    assert (alice.public, bob.public) == (values["alice_public"], values["bob_public"])
    assert sealing._agree(alice.private, bob.public).reveal() == values["shared_secret"]
    assert sealing._agree(bob.private, alice.public).reveal() == values["shared_secret"]


@pytest.mark.parametrize("case", RFC["hkdf_sha256"], ids=lambda case: case["name"])
def test_hkdf_agrees_with_rfc_5869(case: dict[str, str]) -> None:
    ikm, salt, info, okm = (bytes.fromhex(case[name]) for name in ("ikm", "salt", "info", "okm"))
    # A shorter output is a prefix of a longer one.
    assert sealing._derive(Secret(ikm), salt=salt, info=info).reveal() == okm[:32]


@given(st.binary(max_size=2048), st.binary(max_size=64), st.binary(max_size=64))
def test_seal_any_value_opens_again(value: bytes, info: bytes, aad: bytes) -> None:
    recipient = generate_keypair()
    box = seal(Secret(value), recipient.public, info=info, aad=aad)
    wired = SealedBox.from_json(json.loads(json.dumps(box.to_json())))
    assert wired == box
    assert open_sealed(wired, recipient.private, info=info, aad=aad).reveal() == value


@given(st.data())
def test_open_any_bit_flipped_refuses(data: st.DataObject) -> None:
    box = seal(Secret(b"value"), RECIPIENT.public, info=WRAP_TO_AGENT, aad=b"context")
    field = data.draw(st.sampled_from(["ciphertext", "nonce", "ephemeral_public_key"]))
    changed = bytearray(getattr(box, field))
    bit = data.draw(st.integers(0, 8 * len(changed) - 1))
    changed[bit // 8] ^= 1 << (bit % 8)
    bad = dataclasses.replace(box, **{field: bytes(changed)})
    with pytest.raises(SealingError):
        open_sealed(bad, RECIPIENT.private, info=WRAP_TO_AGENT, aad=b"context")


def test_seal_twice_shares_no_key_and_no_nonce() -> None:
    boxes = [seal(Secret(b"v"), RECIPIENT.public, info=WRAP_TO_AGENT) for _ in range(50)]
    for field in ("ciphertext", "nonce", "ephemeral_public_key"):
        assert len({getattr(box, field) for box in boxes}) == len(boxes)


@pytest.mark.parametrize(
    ("info", "aad"),
    [(WRAP_TO_CONTROL_PLANE, b"a"), (WRAP_TO_AGENT, b"b"), (WRAP_TO_AGENT, b"")],
)
def test_open_in_another_context_refuses(info: bytes, aad: bytes) -> None:
    box = seal(Secret(b"value"), RECIPIENT.public, info=WRAP_TO_AGENT, aad=b"a")
    with pytest.raises(SealingError):
        open_sealed(box, RECIPIENT.private, info=info, aad=aad)


def test_open_with_another_key_refuses() -> None:
    box = seal(Secret(b"value"), RECIPIENT.public, info=WRAP_TO_AGENT)
    with pytest.raises(SealingError):
        open_sealed(box, generate_keypair().private, info=WRAP_TO_AGENT)


@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_point_is_refused_on_both_ends(point: str) -> None:
    with pytest.raises(SealingError):
        seal(Secret(b"value"), bytes.fromhex(point), info=WRAP_TO_AGENT)
    box = seal(Secret(b"value"), RECIPIENT.public, info=WRAP_TO_AGENT)
    bad = dataclasses.replace(box, ephemeral_public_key=bytes.fromhex(point))
    with pytest.raises(SealingError):
        open_sealed(bad, RECIPIENT.private, info=WRAP_TO_AGENT)


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "aes-256-gcm"},
        {"algorithm": ""},
        {"nonce": bytes(11)},
        {"nonce": bytes(16)},
        {"nonce": b""},
        {"ephemeral_public_key": bytes(31)},
        {"ephemeral_public_key": bytes(33)},
        {"ciphertext": bytes(15)},
        {"ciphertext": b""},
    ],
    ids=str,
)
def test_open_wrong_shape_refuses(change: dict[str, Any]) -> None:
    box = seal(Secret(b"value"), RECIPIENT.public, info=WRAP_TO_AGENT)
    bad = dataclasses.replace(box, **change)
    with pytest.raises(SealingError):
        open_sealed(bad, RECIPIENT.private, info=WRAP_TO_AGENT)
    with pytest.raises(SealingError):
        SealedBox.from_json(bad.to_json())


@pytest.mark.parametrize(
    "change",
    [
        lambda wire: wire.pop("nonce"),
        lambda wire: wire.update(value="AAAA"),
        lambda wire: wire.update(nonce="not base64!"),
        lambda wire: wire.update(nonce="_-_-_-_-_-_-_-_-"),
        lambda wire: wire.update(ciphertext=None),
        lambda wire: wire.update(ciphertext=[1]),
        lambda wire: wire.update(algorithm=None),
        lambda wire: wire.update(nonce="ä"),
    ],
)
def test_from_json_malformed_refuses(change: Callable[[dict[str, Any]], object]) -> None:
    wire: dict[str, Any] = dict(SEALING["boxes"][0]["sealed"])
    change(wire)
    with pytest.raises(SealingError):
        SealedBox.from_json(wire)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_key_of_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(SealingError):
        seal(Secret(b"value"), bytes(length), info=WRAP_TO_AGENT)
    with pytest.raises(SealingError):
        keypair_from_private(Secret(bytes(length)))


def test_open_with_any_finds_the_key_of_an_older_pin() -> None:
    newer = generate_keypair()
    box = seal(Secret(b"value"), RECIPIENT.public, info=WRAP_TO_CONTROL_PLANE)
    keys = [newer.private, RECIPIENT.private]
    assert open_sealed_with_any(box, keys, info=WRAP_TO_CONTROL_PLANE).reveal() == b"value"
    for too_few in ([newer.private], []):
        with pytest.raises(SealingError):
            open_sealed_with_any(box, too_few, info=WRAP_TO_CONTROL_PLANE)


def test_refusal_carries_nothing_of_the_box() -> None:
    box = seal(Secret(b"value"), RECIPIENT.public, info=WRAP_TO_AGENT)
    with pytest.raises(SealingError) as caught:
        open_sealed(box, RECIPIENT.private, info=WRAP_TO_AGENT, aad=b"planted")
    assert caught.value.details == {}
    assert caught.value.args == (SealingError.message,)


def test_keypair_and_box_show_no_private_part() -> None:
    assert "Secret(redacted)" in repr(RECIPIENT)
    assert RECIPIENT.private.reveal().hex() not in repr(RECIPIENT)
    assert repr(RECIPIENT.private.reveal()) not in repr(RECIPIENT)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.text(alphabet="a|-"))
def test_uplink_aad_is_unambiguous(one: str, other: str) -> None:
    request, agent = SEALING["request_id"], SEALING["agent_id"]
    texts = {
        agent_to_control_plane_aad(request_id=request, key_name=name, agent_id=agent)
        for name in (one, other, f"{one}|{other}")
    }
    assert len(texts) == len({one, other, f"{one}|{other}"})


@pytest.mark.parametrize("bad", ["", "a|b"])
def test_uplink_aad_without_plain_ids_refuses(bad: str) -> None:
    with pytest.raises(SealingError):
        agent_to_control_plane_aad(request_id=bad, key_name="k", agent_id="a")
    with pytest.raises(SealingError):
        agent_to_control_plane_aad(request_id="r", key_name="k", agent_id=bad)


def test_fingerprint_is_short_and_stable() -> None:
    name = sealing.fingerprint(bytes.fromhex(RFC["x25519"]["alice_public"]))
    assert name == "MAyclgO5Kks"
