"""The wheel, installed the way an agent's host has it: base packages only, in a venv of its own."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.agent.test_footprint import FORBIDDEN
from tests.cli.running import environment
from tests.guards.source import ROOT

pytestmark = pytest.mark.xdist_group("cli-install")

AGENT = {
    "SB_CP_ENDPOINT": "https://127.0.0.1:1",
    "SB_PROVIDER_TYPE": "file",
    "SB_FILE_STORE_PATH": "/nonexistent/store",
    "SB_LOCAL_ADDR": "",
    "SB_IDENTITY_FILE": "/nonexistent/identity.json",
}
LOAD = f"""
import importlib.util, json, sys
import sb_agent.daemon
there = [name for name in {FORBIDDEN!r} if name.partition(".")[0] not in ("sb", "sb_worker")]
there = [name for name in there if "sqlite3" not in name and importlib.util.find_spec(name)]
loaded = [name for name in sys.modules if name.startswith(tuple({FORBIDDEN!r}))]
print(json.dumps([there, loaded, sb_agent.daemon.__file__]))
"""
SQL = """
from sb.db.sqlfiles import sql_root
print(sorted(str(path.relative_to(sql_root())) for path in sql_root().rglob("*.sql")))
"""


def pip(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Installed:
    """A wheel and a virtual environment that holds it."""

    wheel: Path
    venv: Path

    def run(self, program: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.venv / "bin" / program, *arguments],
            env=environment(self.venv, **more),
            cwd=self.venv,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def python(self, code: str) -> str:
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Workers share one: the group keeps the tests together only with `--dist loadgroup`, and
        # not with pytest 9.2 (https://github.com/pytest-dev/pytest-xdist/issues/1386).
        root = root.parent
    with (root / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root /= "install"
        if not (root / "complete").exists():
            _install(root)
            (root / "complete").touch()
    (wheel,) = (root / "wheels").glob("*.whl")
    return Installed(wheel, root / "venv")


def _install(root: Path) -> None:
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", root / "wheels", ROOT)
    (wheel,) = (root / "wheels").glob("*.whl")
    venv.create(root / "venv", system_site_packages=False, with_pip=False, symlinks=True)
    # Compiling what is hardly run would take longer than everything else.
    install = ("install", "--quiet", "--no-compile", "--constraint", ROOT / "requirements/all.txt")
    pip("--python", root / "venv" / "bin" / "python", *install, wheel)


def test_wheel_holds_every_sql_file_and_nothing_of_the_tests(installed: Installed) -> None:
    names = set(zipfile.ZipFile(installed.wheel).namelist())
    ours = {f"sb/_sql/{path.relative_to(ROOT / 'sql')}" for path in (ROOT / "sql").rglob("*.sql")}
    assert len(ours) > 20
    assert {name for name in names if name.endswith(".sql")} == ours
    assert "sb/cli/demo_org.yaml" in names
    top = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"sb", "sb_agent", "sb_worker"}
    listed = sorted(name.removeprefix("sb/_sql/") for name in ours)
    assert installed.python(SQL).strip() == str(listed)


def test_agent_has_its_command_line(installed: Installed) -> None:
    done = installed.run("sb", "agent", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--check-config" in done.stdout
    store = {"SB_FILE_STORE_PATH": str(installed.venv / "s")}
    fixed = {"SB_AGENT_ID": "0b7b4a52-6d5c-4f0e-8f6a-0d7b1c2e3f40", "SB_AGENT_SECRET": "s"}
    done = installed.run("sb", "check", "agent", **{**AGENT, **store, **fixed})
    assert (done.returncode, done.stdout, done.stderr) == (0, "the settings are usable\n", "")


def test_agent_starts_with_base_packages_as_far_as_its_identity(installed: Installed) -> None:
    done = installed.run(
        "sb", "agent", **{**AGENT, "SB_FILE_STORE_PATH": str(installed.venv / "s")}
    )
    assert done.returncode == 1
    assert "no identity" in done.stderr
    assert "Traceback" not in done.stderr


def test_agent_carries_no_database_redis_or_web_framework(installed: Installed) -> None:
    there, loaded, where = json.loads(installed.python(LOAD))
    assert there == []
    assert loaded == []
    assert where.startswith(str(installed.venv))


@pytest.mark.parametrize(
    ("words", "settings", "extra"),
    [
        (["api"], {}, "server"),
        (["worker"], {}, "server"),
        (["dev"], {}, "server"),
        (["check", "api"], {}, "server"),
        (
            ["migrate"],
            {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"},
            "server",
        ),
        (
            ["agent"],
            {
                **AGENT,
                "SB_PROVIDER_TYPE": "vault",
                "SB_VAULT_ADDR": "https://127.0.0.1:1",
                "SB_VAULT_TOKEN": "t",
            },
            "(vault|agent)",
        ),
    ],
    ids=["api", "worker", "dev", "check-api", "migrate", "agent-vault"],
)
def test_command_that_needs_an_extra_names_it(
    installed: Installed, words: list[str], settings: dict[str, str], extra: str
) -> None:
    done = installed.run("sb", *words, **settings)
    assert done.returncode == 1
    assert re.search(rf"secrets-bridge\[{extra}\]", done.stderr)
    assert "Traceback" not in done.stderr
