"""Log lines: their shape, and what never gets into one."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sb import log as sb_log
from sb.secret import Secret

PLANTED = "planted-value-41c7"
logger = logging.getLogger("tests.log")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    found = io.StringIO()
    sb_log.configure("secrets-bridge-test", "info", found)
    yield found
    root.handlers[:], root.level = handlers, level


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_log_any_record_is_one_json_line(stream: io.StringIO) -> None:
    logger.warning("two\nlines", extra={"fields": {"job_id": "j1", "count": 2}})
    (line,) = lines(stream)
    assert (line["level"], line["msg"]) == ("WARN", "two\nlines")
    assert line["service"] == "secrets-bridge-test"
    assert (line["job_id"], line["count"]) == ("j1", 2)
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", 4), ("info", 3), ("warn", 2), ("WARNING", 2), ("error", 1)]
)
def test_configure_level_drops_what_is_below(stream: io.StringIO, level: str, shown: int) -> None:
    sb_log.configure("s", level, stream)
    for write in (logger.debug, logger.info, logger.warning, logger.error):
        write("x")
    assert len(lines(stream)) == shown


def test_log_denied_field_names_are_struck_out(stream: io.StringIO) -> None:
    fields = dict.fromkeys(
        ("password", "Token", "lease_token", "agent_secret", "value", "key_values"), PLANTED
    )
    fields["nested"] = {"list": [{"cookie": PLANTED}], "kept": "yes"}  # type: ignore[assignment]
    logger.info("m", extra={"fields": fields})
    assert PLANTED not in stream.getvalue()
    assert lines(stream)[0]["nested"]["kept"] == "yes"


def test_log_credential_shapes_are_struck_out_anywhere(stream: io.StringIO) -> None:
    token = "hvs." + "A" * 24
    logger.info("got %s", token, extra={"fields": {"a": [token], "b": (token,), "c": {"d": token}}})
    assert token not in stream.getvalue()


def test_log_secret_or_bytes_in_fields_stay_hidden(stream: io.StringIO) -> None:
    planted = PLANTED.encode()
    logger.info("m", extra={"fields": {"a": Secret(planted), "b": planted, "c": [Secret(planted)]}})
    assert PLANTED not in stream.getvalue()
    assert lines(stream)[0]["a"] == "Secret(redacted)"


def test_log_exception_tells_kind_and_place_but_not_text(stream: io.StringIO) -> None:
    try:
        raise ExceptionGroup("nursery", [ValueError(PLANTED), OSError(PLANTED)])
    except ExceptionGroup:
        logger.exception("failed")
    (line,) = lines(stream)
    assert PLANTED not in stream.getvalue()
    assert line["error_type"] == "OSError, ValueError"
    assert "test_log.py" in line["traceback"][0]


def test_log_fields_never_replace_level_or_service(stream: io.StringIO) -> None:
    logger.error("m", extra={"fields": {"level": "DEBUG", "service": "other", "msg": "x"}})
    (line,) = lines(stream)
    assert (line["level"], line["service"], line["msg"]) == ("ERROR", "secrets-bridge-test", "m")


def test_log_lone_surrogate_is_written(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    sb_log.configure("s", "info", sys.stderr)
    logger.info("bad \udc80 text")
    assert json.loads(capsys.readouterr().err)["msg"] == "bad \udc80 text"


def test_log_request_id_of_the_context_is_on_the_line(stream: io.StringIO) -> None:
    token = sb_log.request_id_var.set("r-1")
    try:
        logger.info("m")
    finally:
        sb_log.request_id_var.reset(token)
    logger.info("n")
    first, second = lines(stream)
    assert first["request_id"] == "r-1"
    assert "request_id" not in second
