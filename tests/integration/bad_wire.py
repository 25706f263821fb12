"""A TCP proxy that is sound until something is said, and then falls silent or drips."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

_GONE = (asyncio.IncompleteReadError, ConnectionError)


class Trouble(Enum):
    """What becomes of a connection."""

    SWALLOWED = auto()
    """Everything is acknowledged, nothing arrives, and nothing comes back."""
    UNANSWERED = auto()
    """What the client says arrives, and no answer comes back."""
    DRIPPING = auto()
    """What the client says arrives, and the answer comes back a byte at a time."""


class BadWire:
    """A running proxy, inside a ``with`` block.

    Parameters
    ----------
    host, port
        The server behind it.
    trouble
        What becomes of a connection.
    at
        From when on: what the client says then. Nothing said (``b""``) is from the beginning.
    once
        Whether only one connection suffers; otherwise all do, new ones from their beginning.
    sound
        Bytes of the answer that come at once before the others drip.

    Attributes
    ----------
    hits
        How many connections suffer.
    """

    def __init__(
        self, host: str, port: int, trouble: Trouble, *, at: bytes, once: bool = False, sound: int = 0
    ) -> None:
        self._address = host, port
        self._trouble, self._at, self._once, self._sound = trouble, at, once, sound
        self._lasting = False
        self._healed = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self.hits = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._wait(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def heal(self) -> None:
        """Let what drips come at once from now on."""
        self._loop.call_soon_threadsafe(self._healed.set)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _stop(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        with suppress(*_GONE, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()
        self._connections.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._address)
        suffers = asyncio.Event()
        answers = asyncio.create_task(self._answer(server_reader, writer, suffers))
        try:
            if self._lasting or not self._at:
                self._hit(suffers)
            while said := await reader.read(65_536):
                if self._at and self._at in said and not suffers.is_set() and not (self._once and self.hits):
                    self._hit(suffers)
                if not (suffers.is_set() and self._trouble is Trouble.SWALLOWED):
                    server_writer.write(said)
        finally:
            answers.cancel()
            server_writer.close()

    def _hit(self, suffers: asyncio.Event) -> None:
        self.hits += 1
        self._lasting = not self._once and self._trouble is not Trouble.DRIPPING
        suffers.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, suffers: asyncio.Event) -> None:
        with suppress(*_GONE):
            while said := await reader.read(65_536):
                if not suffers.is_set():
                    writer.write(said)
                elif self._trouble is Trouble.DRIPPING:
                    await self._drip(said, writer)
        writer.close()

    async def _drip(self, said: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said[: self._sound])
        for start in range(self._sound, len(said)):
            writer.write(said[start : start + 1])
            await writer.drain()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._healed.wait(), timeout=0.3)
