"""What an agent does with its jobs, over real HTTP against a control plane the test scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sb.sealing import generate_keypair
from sb.wire import CompleteRequest
from sb_agent.providers.file import FileProvider
from tests.agent import plane_double
from tests.agent.agents import running, settings_for
from tests.agent.plane_double import Call, PlaneDouble
from tests.agent.planted import MARK, NEW, OLD, OTHER

BUNDLE = {"PASSWORD": OLD, "PORT": 5432, "TLS": True, "TAGS": ["a"], "NOTE": None, "EMPTY": ""}


@pytest.fixture
def store(tmp_path: Path) -> FileProvider:
    found = FileProvider(tmp_path / "store.enc", tmp_path / "store.key")
    found.write("app/db", BUNDLE, expected=0, config={})
    return found


@pytest.fixture
async def plane(tmp_path: Path, store: FileProvider) -> AsyncIterator[PlaneDouble]:
    """A control plane with one agent at work on the store."""
    async with (
        plane_double.serving(PlaneDouble()) as found,
        running(settings_for(found, tmp_path), store),
    ):
        yield found


async def failed(plane: PlaneDouble, job_id: str) -> CompleteRequest:
    done = await plane.done(job_id)
    assert done.status == "failed"
    assert done.error
    assert MARK not in done.error
    return done


async def test_read_hands_over_the_wanted_keys_sealed(plane: PlaneDouble) -> None:
    done = await plane.done(plane.read_job(keys=["PASSWORD", "PORT"]))
    assert done.status == "succeeded"
    assert done.result is not None
    assert (done.result.missing_keys, done.result.version) == ([], "1")
    assert plane.posted == {"PASSWORD": OLD.encode(), "PORT": b"5432"}
    for call in plane.heard_of("post_wrap"):
        assert set(call.body) == {"request_id", "key_name", "sealed"}


async def test_read_of_no_named_key_hands_over_all_with_their_json_texts(
    plane: PlaneDouble,
) -> None:
    assert (await plane.done(plane.read_job())).status == "succeeded"
    assert plane.posted == {
        "PASSWORD": OLD.encode(),
        "PORT": b"5432",
        "TLS": b"true",
        "TAGS": b'["a"]',
        "NOTE": b"null",
        "EMPTY": b"",
    }


async def test_read_reports_the_keys_that_are_missing(plane: PlaneDouble) -> None:
    done = await plane.done(plane.read_job(keys=["NOPE", "PASSWORD", "NEITHER"]))
    assert done.status == "succeeded"
    assert done.result is not None
    assert done.result.missing_keys == ["NOPE", "NEITHER"]
    assert plane.posted == {"PASSWORD": OLD.encode()}


async def test_read_of_missing_keys_only_fails_for_good(plane: PlaneDouble) -> None:
    done = await failed(plane, plane.read_job(keys=["NOPE", "NEITHER"]))
    assert (done.error, done.retryable) == ("none of the 2 keys exist in the secret", False)
    assert plane.posted == {}


async def test_read_of_an_absent_secret_fails_for_good(plane: PlaneDouble) -> None:
    done = await failed(plane, plane.read_job(ref="no/such"))
    assert (done.error, done.retryable) == ("file: not_found: the secret does not exist", False)


async def test_patch_merges_and_keeps_the_types_of_other_keys(
    plane: PlaneDouble, store: FileProvider
) -> None:
    done = await plane.done(plane.patch_job({"PASSWORD": NEW, "ADDED": OTHER}))
    assert done.status == "succeeded"
    assert done.result is not None
    assert done.result.version == "2"
    found = store.read("app/db", {})
    assert found.values == {**BUNDLE, "PASSWORD": NEW, "ADDED": OTHER}
    assert [type(found.values[key]) for key in BUNDLE] == [type(v) for v in BUNDLE.values()]


async def test_patch_of_an_absent_secret_creates_it(
    plane: PlaneDouble, store: FileProvider
) -> None:
    assert (await plane.done(plane.patch_job({"A": NEW}, ref="new/one"))).status == "succeeded"
    assert store.read("new/one", {}).values == {"A": NEW}


async def test_patch_fetches_values_under_its_lease_and_in_order(plane: PlaneDouble) -> None:
    job_id = plane.patch_job({"A": NEW, "B": OTHER})
    await plane.done(job_id)
    fetched = plane.heard_of("fetch_wrap")
    assert len(fetched) == 2
    lease = plane.heard_of("complete")[0].body["lease_token"]
    assert {call.headers["x-lease-token"] for call in fetched} == {lease}


def downgraded(plane: PlaneDouble, call: Call) -> dict[str, Any]:
    found = plane.delivery(call.id)
    return {**found, "sealed": None, "value": "cGxhaW4="}


def both(plane: PlaneDouble, call: Call) -> dict[str, Any]:
    return {**plane.delivery(call.id), "value": "cGxhaW4="}


def neither(plane: PlaneDouble, call: Call) -> dict[str, Any]:
    return {**plane.delivery(call.id), "sealed": None}


def for_another(plane: PlaneDouble, call: Call) -> dict[str, Any]:
    return plane.delivery(call.id, key=generate_keypair().public)


def of_another_length(plane: PlaneDouble, call: Call) -> dict[str, Any]:
    return {**plane.delivery(call.id), "byte_length": 3}


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (downgraded, "came unsealed and was refused"),
        (both, "came unsealed and was refused"),
        (neither, "came unsealed and was refused"),
        (for_another, "could not be opened"),
        (of_another_length, "has the wrong length"),
    ],
)
async def test_value_that_is_not_properly_sealed_is_never_written(
    plane: PlaneDouble, store: FileProvider, forge: Any, reason: str
) -> None:
    async def hook(call: Call) -> Any:
        return forge(plane, call)

    plane.hooks["fetch_wrap"] = hook
    done = await failed(plane, plane.patch_job({"PASSWORD": NEW}))
    assert reason in str(done.error)
    assert not done.retryable
    found = store.read("app/db", {})
    assert (found.values, found.version) == (BUNDLE, 1)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"target_provider_type": "vault"}, "serves file only"),
        ({"provider_connection_id": "d0d2b6a4-0000-4000-8000-000000000000"}, "not bound to"),
        ({"provider_connection_id": None}, "not bound to"),
        ({"target_secret_ref": ""}, "names no request or no secret"),
        ({"request_id": None}, "names no request or no secret"),
        ({"target_provider_config": {"path": f"/etc/{MARK}"}}, "'path' is not accepted"),
    ],
)
async def test_job_that_is_not_this_agents_is_refused(
    plane: PlaneDouble, payload: dict[str, Any], reason: str
) -> None:
    correlation = "0d6c5d8e-93f4-4a4e-9f0c-6c2a4e0b7a11"
    for job_id in (
        plane.read_job(payload=payload, correlation_id=correlation),
        plane.patch_job({"A": NEW}, payload=payload, correlation_id=correlation),
    ):
        done = await failed(plane, job_id)
        assert reason in str(done.error)
        assert not done.retryable
    assert plane.heard_of("fetch_wrap") == plane.heard_of("post_wrap") == []


async def test_unknown_job_type_fails_instead_of_succeeding(plane: PlaneDouble) -> None:
    done = await failed(plane, plane.read_job(job_type="discover"))
    assert (done.error, done.retryable) == ("unsupported_job_type: discover", False)


async def test_patch_without_values_fails(plane: PlaneDouble) -> None:
    done = await failed(plane, plane.patch_job({}))
    assert done.error == "the job lists no values to write"


async def test_broken_store_touches_no_value_and_may_be_tried_again(
    plane: PlaneDouble, tmp_path: Path
) -> None:
    (tmp_path / "store.enc").write_bytes(b"\0" * 64)
    for job_id in (plane.patch_job({"A": NEW}), plane.read_job()):
        done = await failed(plane, job_id)
        assert str(done.error).startswith("file: unavailable")
        assert done.retryable
    assert plane.heard_of("fetch_wrap") == []


@pytest.mark.parametrize(("status", "retryable"), [(503, True), (429, True), (410, False)])
async def test_refused_hand_over_fails_the_job_with_its_code(
    plane: PlaneDouble, status: int, retryable: bool
) -> None:
    for route in ("post_wrap", "fetch_wrap"):
        plane.refuse(route, status, "some_code")
    for job_id in (plane.read_job(), plane.patch_job({"A": NEW})):
        done = await failed(plane, job_id)
        assert done.error == f"control plane: {status} some_code"
        assert done.retryable is retryable


async def test_values_of_any_text_travel_unchanged(plane: PlaneDouble, store: FileProvider) -> None:
    text = f'{MARK} ünï \U0001f511 \n\t\0 " \\ ' + "x" * 60_000
    assert (await plane.done(plane.patch_job({"A": text, "B": ""}))).status == "succeeded"
    assert store.read("app/db", {}).values["A"] == text
    assert (await plane.done(plane.read_job(keys=["A", "B"]))).status == "succeeded"
    assert plane.posted == {"A": text.encode(), "B": b""}


async def test_value_that_is_no_text_is_not_written_and_not_shown(
    plane: PlaneDouble, store: FileProvider
) -> None:
    done = await failed(plane, plane.patch_job({"A": b"\xff" + NEW.encode()}))
    assert done.error == "the new value of A is not text"
    assert store.read("app/db", {}).values == BUNDLE
