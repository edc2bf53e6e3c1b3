"""One process for one SQLite file: the second is told so, a killed one leaves nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from sb.db.engine import Database
from sb.db.errors import DatabaseLockedError

HOLD = """
import sys
from sb.db.engine import Database
db = Database.open(sys.argv[1], exclusive=True)
print("held", flush=True)
sys.stdin.readline()
"""


@contextmanager
def holder(url: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def open_and_close(url: str) -> None:
    with closing(Database.open(url, exclusive=True)) as db:
        assert db.run_sync(lambda tx: tx.one("role_find_by_name", name="admin")) is not None


def test_the_lock_ends_with_its_process_even_when_killed(sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    open_and_close(sqlite_url)
    with holder(sqlite_url) as process:
        assert says(process) == "held"

        with pytest.raises(DatabaseLockedError) as caught:
            open_and_close(sqlite_url)
        message = str(caught.value)
        assert message.startswith(f"{path} is open in another process.")
        assert "Postgres (DATABASE_URL)" in message

        process.kill()
        process.wait()
        open_and_close(sqlite_url)


@pytest.fixture(scope="module")
def refused(
    sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """What a second process said about a file that the first one holds."""
    path = shutil.copy(sqlite_template, tmp_path_factory.mktemp("held") / "test.db")
    url = f"sqlite:///{path}"
    with closing(Database.open(url, exclusive=True)) as db:
        found = subprocess.run(
            [sys.executable, "-m", "sb.cli.main", "migrate"],
            env={"DATABASE_URL": url, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        # The one who holds it is not disturbed.
        assert db.schema_version_sync() == db.expected_version
    return found


def test_a_second_process_is_refused_in_words(
    refused: subprocess.CompletedProcess[str],
) -> None:
    assert refused.returncode == 1
    assert "is open in another process" in refused.stderr
    assert refused.stdout == ""


def test_a_second_process_is_refused_without_a_traceback(
    refused: subprocess.CompletedProcess[str],
) -> None:
    assert "Traceback" not in refused.stderr


def test_a_second_handle_of_the_same_process_is_refused(sqlite_url: str) -> None:
    with (
        closing(Database.open(sqlite_url, exclusive=True)),
        pytest.raises(DatabaseLockedError),
    ):
        Database.open(sqlite_url, exclusive=True)

    open_and_close(sqlite_url)


def test_another_file_in_the_same_folder_is_free(sqlite_url: str, tmp_path: Path) -> None:
    with (
        closing(Database.open(sqlite_url, exclusive=True)),
        closing(Database.open(f"sqlite:///{tmp_path}/other.db", exclusive=True)) as other,
    ):
        assert other.migrate_sync() != []


def test_the_same_file_under_a_relative_name_is_refused(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    monkeypatch.chdir(path.parent)
    with closing(Database.open(sqlite_url, exclusive=True)), pytest.raises(DatabaseLockedError):
        Database.open(f"sqlite:///{path.name}", exclusive=True)


def test_the_same_file_behind_a_link_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(sqlite_url.removeprefix("sqlite:///"))
    with closing(Database.open(sqlite_url, exclusive=True)), pytest.raises(DatabaseLockedError):
        Database.open(f"sqlite:///{link}", exclusive=True)


def test_without_being_asked_nobody_is_kept_out(sqlite_url: str) -> None:
    # Backups and shells: the lock is for processes of the product that would serve.
    with (
        closing(Database.open(sqlite_url, exclusive=True)),
        closing(Database.open(sqlite_url)) as reader,
    ):
        assert reader.schema_version_sync() == reader.expected_version
