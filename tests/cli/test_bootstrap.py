"""The first administrator from the settings: made once, and later a word that nothing was made."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from sb.ids import new_id
from tests.cli.running import started, until
from tests.stack import MASTER_KEY

PASSWORD = "planted first password"
EMAIL = {"SB_BOOTSTRAP_ADMIN_EMAIL": "root@example.com", "SB_BOOTSTRAP_ADMIN_PASSWORD": PASSWORD}


@pytest.fixture
def api(tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db",
        "SB_ENV": "dev",
        "SB_WRAP_MASTER_KEYS": MASTER_KEY,
        "API_ADDR": "127.0.0.1:0",
        "API_SHUTDOWN_DELAY": "0s",
    }


def unused(home: Path, settings: dict[str, str]) -> list[tuple[str, str]]:
    """Start the API and return what it says of settings it did not use, once it listens."""
    with started("api", home=home, **settings) as process:

        def listening() -> list[dict[str, Any]]:
            records = process.records()
            return records if any(one["msg"] == "listening" for one in records) else []

        records = until(listening)
        process.signal(signal.SIGTERM)
        assert process.end()[0] == 0
        assert PASSWORD not in process.errors()
    found = [one for one in records if one["msg"] == "a setting was not used"]
    assert all(one["level"] == "INFO" for one in found)
    return [(one["setting"], one["reason"]) for one in found]


def test_api_says_that_a_bootstrap_setting_was_not_used(
    tmp_path: Path, api: dict[str, str]
) -> None:
    assert unused(tmp_path, {**api, **EMAIL}) == []
    missing = {"SB_BOOTSTRAP_ADMIN_USER_ID": new_id()}
    assert unused(tmp_path, {**api, **EMAIL, **missing}) == [
        ("SB_BOOTSTRAP_ADMIN_EMAIL", "there are accounts already"),
        (
            "SB_BOOTSTRAP_ADMIN_USER_ID",
            "there is no such account, and somebody administers already",
        ),
    ]
    assert unused(tmp_path, api) == []
