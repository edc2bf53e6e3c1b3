"""The wire between agent and control plane: its schema is a file, so that changes are visible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sb import wire

GOLDEN = Path(__file__).parent / "golden" / "wire.json"


def messages() -> dict[str, type[wire.Message] | type[wire.Answer]]:
    found = {name: kind for name, kind in vars(wire).items() if isinstance(kind, type)}
    return {
        name: kind
        for name, kind in sorted(found.items())
        if issubclass(kind, wire.Message | wire.Answer) and kind not in (wire.Message, wire.Answer)
    }


def test_wire_schema_is_the_published_one() -> None:
    """To change the wire on purpose, write the schema below into the golden file."""
    current = {name: kind.model_json_schema() for name, kind in messages().items()}
    assert current == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("name", [n for n, k in messages().items() if issubclass(k, wire.Message)])
def test_request_message_unknown_field_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="extra_forbidden"):
        messages()[name].model_validate({"surprise": 1})


def test_answer_unknown_field_is_ignored_so_that_old_agents_live() -> None:
    answer: dict[str, Any] = {"claim_expires_at": "2026-01-02T03:04:05.123456789Z", "new": 1}
    assert wire.RenewResponse.model_validate(answer).claim_expires_at.year == 2026


def test_complete_request_status_outside_the_two_is_refused() -> None:
    with pytest.raises(ValidationError, match="literal_error"):
        wire.CompleteRequest.model_validate({"lease_token": "t", "status": "maybe"})
