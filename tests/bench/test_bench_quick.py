"""The benchmark runs from a clean start and prints one JSON document of the published shape."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
METRIC = {"value", "unit", "goal", "met", "runs"}
WANTED = "chains,heartbeats,audit"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def metrics(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every metric at any depth."""
    if "value" in found:
        return [found]
    return [m for part in found.values() if isinstance(part, dict) for m in metrics(part)]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="./scripts/bench installs wrk")
def test_bench_quick_on_sqlite_prints_one_document() -> None:
    done = bench("--quick", "--sqlite", "--only", WANTED)

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"mode", "quick", "machine", "sizes", "seconds", "missed", "measures"}
    assert document["mode"] == "sqlite"
    assert {"cores", "python"} <= set(document["machine"])
    assert document["sizes"]["repeats"] == 1
    assert set(document["measures"]) == set(WANTED.split(","))
    for found in metrics(document["measures"]):
        assert set(found) == METRIC
        assert (found["goal"] is None) == (found["met"] is None)
    chains = document["measures"]["chains"]["waiting"]
    assert chains["rate"]["value"] > 0
    assert chains["rate"]["goal"] == ">= 25"


def test_bench_quick_of_governance_prints_every_goal() -> None:
    done = bench("--quick", "--only", "governance")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["sizes"]["organisation"]["projects"] == 50
    found = document["measures"]["governance"]
    goals = {
        name: found[name]["p99"]["goal"]
        for name in ("permission_check", "policy_decision", "explain_http")
    }
    assert goals == {
        "permission_check": "<= 5",
        "policy_decision": "<= 10",
        "explain_http": "<= 50",
    }
    assert {queue["p99"]["goal"] for queue in found["queue"].values()} == {"<= 30"}
    assert {"root_team", "project", "prefix", "everywhere"} <= set(found["queue"])
    for measured in metrics(found):
        assert set(measured) == METRIC
        assert measured["value"] > 0


def test_bench_of_governance_on_sqlite_says_why_not() -> None:
    done = bench("--quick", "--sqlite", "--only", "governance")

    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["measures"]["governance"]) == {"skipped"}


def test_bench_with_an_unknown_measure_is_refused() -> None:
    done = bench("--quick", "--only", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no measure nothing" in done.stderr
