"""A transaction-mode pooler, as Supavisor and PgBouncer are: a client has a server connection for a transaction only.

It speaks as much of PostgreSQL's protocol (version 3, no TLS, trust) as a driver needs, simple and extended, pipelined
or not; COPY it doesn't know. The connection goes back when the server is ready and idle, nothing about it is reset, and
the next transaction deliberately gets another one, so whatever a client leaves in a session is not there any more.
"""

import asyncio
import struct
import threading
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

_PROTOCOL = 0x00030000
_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_ANSWERED = b"QSF"  # Query, Sync, FunctionCall: the server ends its answer to them with ReadyForQuery
_GONE = (asyncio.IncompleteReadError, ConnectionError)

_Owner = tuple[str, str]


@dataclass(frozen=True)
class _Message:
    kind: bytes
    body: bytes

    @property
    def wire(self) -> bytes:
        return self.kind + struct.pack("!I", len(self.body) + 4) + self.body


async def _read(reader: asyncio.StreamReader) -> _Message:
    kind, length = struct.unpack("!cI", await reader.readexactly(5))
    return _Message(kind, await reader.readexactly(length - 4))


def _startup(parameters: dict[str, str]) -> bytes:
    text = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items()) + b"\0"
    return struct.pack("!II", len(text) + 8, _PROTOCOL) + text


@dataclass(eq=False)
class _Server:
    """One connection to the database, and what the database said about it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: bytes


class _Pool:
    """The connections of one user to one database, lent in turn."""

    def __init__(self, host: str, port: int, owner: _Owner, size: int) -> None:
        self._address, self._owner = (host, port), owner
        self._idle: deque[_Server] = deque()
        self._slots = asyncio.Semaphore(size)
        self._size = size
        self._unopened = size

    async def take(self) -> _Server:
        """Return the connection that has been idle longest, once there is one; all are opened before one is reused."""
        await self._slots.acquire()
        try:
            if self._unopened:
                self._unopened -= 1
                return await self._open()
            return self._idle.popleft()
        except BaseException:
            self._slots.release()
            raise

    def give_back(self, server: _Server, *, clean: bool) -> None:
        if clean:
            self._idle.append(server)
        else:  # nobody knows what state it is in
            server.writer.close()
            self._unopened += 1
        self._slots.release()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().writer.close()

    async def _open(self) -> _Server:
        reader, writer = await asyncio.open_connection(*self._address)
        user, database = self._owner
        writer.write(_startup({"user": user, "database": database}))
        greeting = b""
        while (message := await _read(reader)).kind != b"Z":
            if message.kind == b"E":
                raise ConnectionRefusedError(message.body.decode(errors="replace"))
            greeting += message.wire
        return _Server(reader, writer, greeting)


@dataclass
class _Session:
    """One client: its messages go to whichever server connection it has for the transaction."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pool: _Pool
    transactions: int = 0
    request: "asyncio.Task[_Message]" = field(init=False)

    async def run(self) -> int:
        """Serve until the client leaves; return the number of its transactions."""
        self._listen()
        with suppress(*_GONE):
            while (await asyncio.shield(self.request)).kind != b"X":
                server, clean = await self.pool.take(), False
                try:
                    await self._transaction(server)
                    clean = True
                finally:
                    self.pool.give_back(server, clean=clean)
                self.transactions += 1
        self.request.cancel()
        return self.transactions

    def _listen(self) -> None:
        self.request = asyncio.create_task(_read(self.reader))

    async def _transaction(self, server: _Server) -> None:
        """Forward both ways until the server is idle and has answered everything."""
        unanswered, unsynced = 0, False
        answer = asyncio.create_task(_read(server.reader))
        try:
            while True:
                await asyncio.wait({self.request, answer}, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    said = answer.result()
                    self.writer.write(said.wire)
                    unanswered -= said.kind == b"Z"
                    if said == _Message(b"Z", b"I") and not unanswered and not unsynced:
                        await self.writer.drain()
                        return
                    answer = asyncio.create_task(_read(server.reader))
                elif self.request.done():
                    asked = self.request.result()
                    if asked.kind == b"X":
                        raise ConnectionResetError("the client left in the middle of a transaction")
                    server.writer.write(asked.wire)
                    unsynced = asked.kind not in _ANSWERED
                    unanswered += not unsynced
                    self._listen()
        finally:
            answer.cancel()


class TransactionPooler:
    """A running pooler, inside a ``with`` block.

    Parameters
    ----------
    url
        ``postgresql://user@host:port/database`` of the database behind it.
    size
        Server connections for each user and database; three or more, so that the next one is surely another.

    Attributes
    ----------
    transactions
        How many it has carried.
    """

    def __init__(self, url: str, *, size: int = 3) -> None:
        self._parts = urlsplit(url)
        self._size = size
        self._pools: dict[_Owner, _Pool] = {}
        self._clients: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pooler", daemon=True)
        self.transactions = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._wait(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The URL with which the same user reaches the same database through the pooler."""
        return f"postgresql://{self._parts.username}@127.0.0.1:{self._port}{self._parts.path}"

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _stop(self) -> None:
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        for pool in self._pools.values():
            pool.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._clients.add(task)
        with suppress(*_GONE, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.close()
        self._clients.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parameters = await self._read_startup(reader, writer)
        owner = parameters["user"], parameters.get("database", parameters["user"])
        pool = self._pools.setdefault(
            owner, _Pool(str(self._parts.hostname), int(self._parts.port or 5432), owner, self._size)
        )
        greeter = await pool.take()
        pool.give_back(greeter, clean=True)
        writer.write(greeter.greeting + _Message(b"Z", b"I").wire)
        self.transactions += await _Session(reader, writer, pool).run()

    async def _read_startup(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, str]:
        while True:
            length, code = struct.unpack("!II", await reader.readexactly(8))
            body = await reader.readexactly(length - 8)
            if code == _PROTOCOL:
                break
            if code not in (_SSL_REQUEST, _GSS_REQUEST):
                raise ConnectionRefusedError("cancelling isn't supported")
            writer.write(b"N")
        words = body.rstrip(b"\0").decode().split("\0")
        return dict(zip(words[::2], words[1::2], strict=True))
