"""The agent's key pair: where it comes from, and that its file is nobody else's."""

from __future__ import annotations

import base64
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from sb.sealing import generate_keypair
from sb.secret import Secret
from sb_agent import keys
from sb_agent.settings import AgentSettings


def settings(**extra: Any) -> AgentSettings:
    return AgentSettings(cp_endpoint="https://bridge.example.com", **extra)


def test_without_settings_the_pair_lasts_for_the_run_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = keys.resolve(settings()), keys.resolve(settings())
    assert first.source == second.source == "ephemeral"
    assert first.pair.public != second.pair.public
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 2
    assert "SB_AGENT_PRIVATE_KEY_FILE" in warned[0]


def test_file_is_made_once_private_and_used_again(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "agent.key"
    made = keys.resolve(settings(private_key_file=path))
    again = keys.resolve(settings(private_key_file=path))
    assert (made.source, again.source) == ("file-generated", "file")
    assert made.pair.public == again.pair.public
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(path.read_bytes()) == 32
    assert list(path.parent.iterdir()) == [path]


def test_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.resolve(settings(private_key_file=tmp_path / "keys" / "agent.key"))
    finally:
        os.umask(before)
    assert (tmp_path / "keys" / "agent.key").stat().st_mode & 0o777 == 0o600


def test_two_agents_that_make_the_file_at_once_share_one_key(tmp_path: Path) -> None:
    path, found, start = tmp_path / "agent.key", [], threading.Barrier(6)

    def make() -> None:
        start.wait()
        found.append(keys.resolve(settings(private_key_file=path)))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.pair.public for each in found}) == 1
    assert [each.source for each in found].count("file-generated") == 1


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33, base64.b64encode(b"x" * 32)])
def test_file_of_another_length_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.key"
    path.write_bytes(content)
    with pytest.raises(keys.KeyFileError, match="exactly 32 bytes"):
        keys.resolve(settings(private_key_file=path))
    assert path.read_bytes() == content


def test_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(keys.KeyFileError, match=r"agent\.key"):
        keys.resolve(settings(private_key_file=tmp_path / "file" / "agent.key"))


def test_file_open_to_others_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "agent.key"
    keys.resolve(settings(private_key_file=path))
    path.chmod(0o640)
    assert keys.resolve(settings(private_key_file=path)).source == "file"
    assert "the private key file is open to others" in caplog.text


def test_key_of_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    pair = generate_keypair()
    text = Secret(base64.b64encode(pair.private.reveal()))
    found = keys.resolve(settings(private_key=text, private_key_file=tmp_path / "agent.key"))
    assert (found.source, found.pair.public) == ("env", pair.public)
    assert not (tmp_path / "agent.key").exists()


@pytest.mark.parametrize("text", [b"", b"???", base64.b64encode(b"x" * 31)])
def test_key_of_the_environment_that_is_none_is_refused_without_its_text(text: bytes) -> None:
    with pytest.raises(keys.KeyFileError) as caught:
        keys.resolve(settings(private_key=Secret(text)))
    assert str(caught.value) == "the private key is not 32 bytes of base64"


def test_private_key_is_never_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = keys.resolve(settings(private_key_file=tmp_path / "agent.key"))
    raw = found.pair.private.reveal()
    shown = " ".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    for form in (raw.hex(), base64.b64encode(raw).decode(), str(raw)):
        assert form not in shown
    assert "fingerprint" in shown
