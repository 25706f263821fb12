"""Connections to the database, lent for one transaction at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from local.storage_emulator.auth import Caller

Cursor = psycopg.Cursor[tuple[Any, ...]]


class PoolExhaustedError(Exception):
    """No connection to the database came free in time."""


class Pool:
    """A bounded number of connections as ``supabase_storage_admin``, opened when they are needed.

    Parameters
    ----------
    url
        The database.
    size
        How many connections there are at most.
    statement_timeout_ms
        How long the server waits for one statement.
    wait_seconds
        How long a request waits for a connection to come free.
    """

    def __init__(self, url: str, *, size: int, statement_timeout_ms: int, wait_seconds: float = 3.0) -> None:
        self._url = url
        self._options = f"-c statement_timeout={statement_timeout_ms} -c timezone=UTC"
        self._wait_seconds = wait_seconds
        self._slots = threading.BoundedSemaphore(size)
        self._idle: list[psycopg.Connection[tuple[Any, ...]]] = []
        self._closed = False

    @contextmanager
    def transaction(self, caller: Caller) -> Iterator[Cursor]:
        """Run a transaction as the caller's role, as the real server does; commit it when nothing was raised."""
        if not self._slots.acquire(timeout=self._wait_seconds):
            raise PoolExhaustedError
        try:
            connection = self._take()
            try:
                with connection.transaction(), connection.cursor() as cursor:
                    cursor.execute(
                        "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true),"
                        " set_config('storage.allow_delete_query', 'true', true)",
                        (caller.role, caller.claims_json),
                    )
                    yield cursor
            finally:
                self._give_back(connection)
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close the idle connections now, and the lent ones when they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> psycopg.Connection[tuple[Any, ...]]:
        try:
            return self._idle.pop()
        except IndexError:
            return psycopg.connect(self._url, autocommit=True, options=self._options)

    def _give_back(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        if self._closed or connection.closed:
            connection.close()
        else:
            self._idle.append(connection)
