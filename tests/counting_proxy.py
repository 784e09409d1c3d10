"""Counts the bytes between clients and a coordinator, with HTTP/2 framing and TLS, by a proxy between them."""

import asyncio
import threading
from dataclasses import dataclass

_BLOCK_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class ByteCount:
    """Bytes that passed a proxy: from the clients, and to them."""

    up: int
    down: int

    def __sub__(self, earlier: "ByteCount") -> "ByteCount":
        """Returns what passed after an earlier count."""
        return ByteCount(self.up - earlier.up, self.down - earlier.down)


class CountingProxy:
    """A TCP proxy on a loopback port. It forwards bytes unchanged, so TLS reaches from end to end.

    Use it as a context manager. It has an event loop in a thread of its own.
    """

    def __init__(self, port: int) -> None:
        """`port` is the coordinator's, on this machine."""
        self._target, self._counts = port, [0, 0]
        self._loop = asyncio.new_event_loop()
        self._writers: list[asyncio.StreamWriter] = []
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0
        """The port for the clients."""

    def __enter__(self) -> "CountingProxy":
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result()
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def count(self) -> ByteCount:
        """Returns the bytes that have passed so far, over all connections."""
        return ByteCount(*self._counts)

    async def _serve(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, forth]
        await asyncio.gather(self._forward(reader, forth, 0), self._forward(back, writer, 1))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: int) -> None:
        try:
            while block := await reader.read(_BLOCK_BYTES):
                self._counts[direction] += len(block)
                writer.write(block)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
