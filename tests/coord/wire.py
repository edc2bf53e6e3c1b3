"""A proxy between a coordinator and its Redis that loses and delays what a network may."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio


class Wire:
    """Forwards connections to a port; some bytes may be swallowed or kept waiting."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._silenced: list[trio.Event] = []
        self._held: tuple[bytes, trio.Event, trio.Event] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def silence(self) -> None:
        """Swallow everything on the connections of now; neither end is told."""
        for silent in self._silenced:
            silent.set()

    def hold(self, word: bytes) -> tuple[trio.Event, trio.Event]:
        """Keep what carries this word waiting; return what is set on arrival, and what lets go."""
        arrived, let_go = trio.Event(), trio.Event()
        self._held = (word, arrived, let_go)
        return arrived, let_go

    async def serve(self, client: trio.SocketStream) -> None:
        silent = trio.Event()
        self._silenced.append(silent)
        server = await trio.open_tcp_stream("127.0.0.1", self._target)
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, server, silent)
            await self._pump(server, client, silent)
            nursery.cancel_scope.cancel()

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, silent: trio.Event
    ) -> None:
        try:
            async for data in source:
                if self._held is not None and self._held[0] in bytes(data):
                    _, arrived, let_go = self._held
                    self._held = None
                    arrived.set()
                    await let_go.wait()
                if not silent.is_set():
                    await sink.send_all(data)
            if silent.is_set():
                await trio.sleep_forever()
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if silent.is_set():
                await trio.sleep_forever()


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """Forward a free port to this one for as long as the context lasts."""
    wire = Wire(port)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, wire.serve, 0, host="127.0.0.1", handler_nursery=nursery)
        )
        wire.port = listeners[0].socket.getsockname()[1]
        yield wire
        nursery.cancel_scope.cancel()
