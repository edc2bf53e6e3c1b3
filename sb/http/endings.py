"""How exchanges end: the body is taken in before an early answer, and the last byte is sent whole.

Two things go wrong without this. A refusal sent while the caller is still uploading is lost when
the socket closes over unread bytes. And Quart-Trio cancels a request as soon as its stream reports
the end, which is in the middle of Hypercorn's own closing: the socket then stays open for ever.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import trio

#: What is read and thrown away for a caller who is refused early, before the line is cut.
MAX_DRAINED_BYTES = 8 * 1024 * 1024
MAX_DRAINED_SECONDS = 5.0


class WholeEndings:
    """An ASGI application whose answers arrive, however early they are given."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived = trio.Event()
        drained = 0

        async def counted_receive() -> Any:
            nonlocal drained
            message = await receive()
            drained += len(message.get("body", b""))
            if not message.get("more_body", False) or drained > MAX_DRAINED_BYTES:
                arrived.set()
            return message

        async def whole_send(message: Any) -> None:
            if message["type"] == "http.response.start" and not arrived.is_set():
                # The framework keeps reading meanwhile; a full body it has refused it drops.
                with trio.move_on_after(MAX_DRAINED_SECONDS):
                    await arrived.wait()
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            with trio.CancelScope(shield=last), suppress(trio.BusyResourceError):
                # Busy: the caller hung up and Hypercorn is closing this socket at this moment; it
                # expects a closed or a broken one only. There is nobody left to send to.
                await send(message)

        await self._app(scope, counted_receive, whole_send)
