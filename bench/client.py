"""A keep-alive HTTP client that costs little: it must not be what is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio


class UnexpectedAnswerError(Exception):
    """The product answered something the measure does not expect; says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """One connection with one request in flight, opened at first use."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None
        self._head = f"Host: 127.0.0.1:{port}\r\n"
        if token is not None:
            self._head += f"Authorization: Bearer {token}\r\n"

    async def expect(self, status: int, method: str, path: str, body: Any = None) -> Answer:
        """Return the answer to the call, which has this status."""
        answer = await self.call(method, path, body)
        if answer.status != status:
            msg = f"{method} {path}: {status} expected, {answer.status} {answer.body[:300]!r}"
            raise UnexpectedAnswerError(msg)
        return answer

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Return whatever is answered. A cancelled call leaves the connection unusable."""
        if self._stream is None:
            self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n"
        if content:
            head += "Content-Type: application/json\r\n"
        await self._stream.send_all(head.encode() + b"\r\n" + content)
        return await self._receive(self._stream)

    async def _receive(self, stream: trio.SocketStream) -> Answer:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += await self._more(stream)
        status, headers = _parse(data[:end].decode("latin-1"))
        body = data[end + 4 :]
        if "transfer-encoding" in headers:
            msg = "this client reads no chunked bodies"
            raise UnexpectedAnswerError(msg)
        while len(body) < int(headers.get("content-length", 0)):
            body += await self._more(stream)
        if headers.get("connection") == "close":
            await self.aclose()
        return Answer(status=status, headers=headers, body=body)

    async def _more(self, stream: trio.SocketStream) -> bytes:
        received = bytes(await stream.receive_some())
        if not received:
            msg = "the server closed the connection"
            raise UnexpectedAnswerError(msg)
        return received

    async def aclose(self) -> None:
        """Close the connection; the next call opens another."""
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None


def _parse(head: str) -> tuple[int, dict[str, str]]:
    first, *lines = head.split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ")[1]), {
        name.lower(): value.strip().lower() if name.lower() != "link" else value.strip()
        for name, _, value in pairs
    }
