"""One address for a server that may move: what a virtual IP is to the clients of a database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

_CHUNK = 1 << 16

_R = TypeVar("_R")


class Forwarder:
    """Forwards every connection to a loopback port that can be changed, or to nobody.

    One thread, whatever the number of connections.
    """

    def __init__(self, target: int | None = None) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0

    @contextmanager
    def running(self) -> Iterator[Forwarder]:
        """Listen on a loopback port for the block."""
        thread = threading.Thread(target=self._loop.run_forever, name="forwarder", daemon=True)
        thread.start()
        server = self._call(self._listen())
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def cut(self) -> None:
        """Drop every connection, and take none until `lead_to`."""
        self._target = None
        self._call(self._drop())

    def lead_to(self, port: int) -> None:
        """Drop every connection; new ones lead to `port`."""
        self.cut()
        self._target = port

    def _call(self, deed: Coroutine[Any, Any, _R]) -> _R:
        return asyncio.run_coroutine_threadsafe(deed, self._loop).result(20)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._forward, "127.0.0.1", 0)

    async def _drop(self) -> None:
        going = list(self._open)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._both_ways(reader, writer)
        finally:
            self._open.discard(task)
            # Not an orderly end: whoever hangs on a dead server is told so at once.
            writer.transport.abort()

    async def _both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target is None:
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        ways = {
            asyncio.create_task(_pump(reader, back)),
            asyncio.create_task(_pump(there, writer)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            with suppress(OSError):
                await writer.drain()
            back.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
