"""The search for planted values: in every table, in Redis, in files, in whatever is handed over."""

from __future__ import annotations

import base64
import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis

from tests.http.hostile import dump


def new_mark() -> str:
    """Return what stands at both ends of every value planted in one run.

    Letters and digits only, so that it survives URL, JSON and SQL quoting as it is.
    """
    return f"planted{secrets.token_hex(12)}"


def new_value(mark: str, name: str) -> str:
    """Return a long value that is told apart from all others, with characters that get quoted."""
    return f'{mark} {name} {secrets.token_urlsafe(32)} "é"/+&%\\ {mark}'


def forms(value: str) -> dict[str, str]:
    """Return the value as it would look in the encodings programs use."""
    raw = value.encode()
    return {
        "clear": value,
        "upper case": value.upper(),
        "base64": base64.b64encode(raw).decode(),
        "base64 within more": base64.b64encode(b"x" + raw).decode(),
        "base64 within yet more": base64.b64encode(b"xx" + raw).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(raw).decode(),
        "base64 twice": base64.b64encode(base64.b64encode(raw)).decode(),
        "hex": raw.hex(),
        "hex in upper case": raw.hex().upper(),
        "URL": quote(value),
        "repr": repr(value),
        "repr of bytes": repr(raw),
        "only its beginning": value[: len(value) // 2],
        "only its end": value[len(value) // 2 :],
    }


def needles(mark: str) -> list[bytes]:
    """Return byte strings of which one is in any form of any value with this mark."""
    raw = mark.encode()
    found = {raw, mark.upper().encode(), raw.hex().encode(), raw.hex().upper().encode()}
    once = set(_inside_base64(raw))
    return sorted(found | once | {twice for part in once for twice in _inside_base64(part)})


def _inside_base64(raw: bytes) -> Iterator[bytes]:
    """Yield what base64 makes of the bytes, wherever they begin, less what neighbours decide."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + raw)
        yield encoded[-(-8 * before // 6) : 8 * (before + len(raw)) // 6]


def hits(mark: str, places: dict[str, bytes]) -> list[str]:
    """Return the places that hold any form of a value with this mark, with what stands there."""
    found = []
    for place, content in places.items():
        for needle in needles(mark):
            at = content.find(needle)
            if at >= 0:
                around = content[max(0, at - 200) : at + 60]
                found.append(f"{place}: {around!r}")
                break
    return found


def tables(url: str) -> dict[str, bytes]:
    """Return every table twice: as Python sees its rows, and as the database prints them."""
    found = {
        f"table {name}": "\n".join(rows).encode() for name, rows in dump(url, without=()).items()
    }
    with psycopg.connect(url) as connection:
        for name in [place.removeprefix("table ") for place in found]:
            rows = connection.execute(f'SELECT t::text FROM "{name}" AS t'.encode()).fetchall()
            found[f"printed table {name}"] = "\n".join(row for (row,) in rows).encode()
    return found


def redis_contents(url: str) -> dict[str, bytes]:
    """Return every key of a Redis with its value, read by its type and dumped."""
    client = redis.Redis.from_url(url)
    found: dict[str, bytes] = {}
    try:
        for key in client.scan_iter(count=1000):
            found[f"redis {key!r}"] = b"\n".join((key, *_values(client, key)))
    finally:
        client.close()
    return found


def _values(client: redis.Redis, key: bytes) -> Iterator[bytes]:
    dumped = client.dump(key)
    if dumped is None:
        return  # It ended since it was listed.
    yield bytes(dumped)
    reading = {
        b"string": ("GET", key),
        b"hash": ("HGETALL", key),
        b"list": ("LRANGE", key, 0, -1),
        b"set": ("SMEMBERS", key),
        b"zset": ("ZRANGE", key, 0, -1),
        b"stream": ("XRANGE", key, "-", "+"),
    }
    kind = client.type(key)
    if kind != b"none":
        yield repr(client.execute_command(*reading[kind])).encode()  # type: ignore[no-untyped-call,index]


def files(root: Path) -> dict[str, bytes]:
    """Return every regular file below a folder."""
    found = {}
    for path in root.rglob("*"):
        # A server at work removes files meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(root.parent))] = path.read_bytes()
    return found


class RedisTap:
    """Everything a Redis is told, written to a file; it comes back when the Redis does."""

    def __init__(self, port: int, path: Path) -> None:
        self._port = port
        self._path = path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._path.open("ab") as file:
            while not self._ended.is_set():
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", self._port), timeout=1) as tap,
                ):
                    tap.sendall(b"MONITOR\r\n")
                    self._copy(tap, file)
                self._ended.wait(0.1)

    def _copy(self, tap: socket.socket, file: object) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                piece = tap.recv(65536)
                if not piece:
                    return
                file.write(piece)  # type: ignore[attr-defined]
                file.flush()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Stop listening."""
        self._ended.set()
        self._thread.join(5)
