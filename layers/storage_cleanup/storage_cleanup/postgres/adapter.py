"""What both adapters to PostgreSQL have in common: connections that are closed, and calls that return rows."""

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from storage_cleanup.errors import UnsafeError
from storage_cleanup.limits import LOCK_TIMEOUT
from storage_cleanup.postgres.connection import INSTALL, Transactions, call

SCHEMA_VERSION = 1
"""The version of ``database/install.sql`` that this code was written for."""

_Row = TypeVar("_Row")
_Column = TypeVar("_Column")


@dataclass(frozen=True)
class Value(Generic[_Column]):
    """A row of one column, which the statement names ``value``."""

    value: _Column


@dataclass(frozen=True)
class Bucket:
    """A bucket as the database knows it."""

    id: str
    created_at: datetime


@dataclass(frozen=True)
class Distrust:
    """Why nothing may be deleted, as a word and as a sentence."""

    code: str
    sentence: str


class Adapter(AbstractContextManager["Adapter"]):
    """Calls the functions of schema ``storage_cleanup``: the name of an argument here is its name there.

    Parameters
    ----------
    transactions
        Where the calls are made; closed with the adapter.
    lock_timeout
        How long a call may wait for a lock.

    Raises
    ------
    DatabaseError
        From every method: no connection, a timeout, a failed statement.
    UnsafeError
        From every method: the schema is missing or another version, or the role lacks a right.
    """

    def __init__(self, transactions: Transactions, *, lock_timeout: timedelta = LOCK_TIMEOUT) -> None:
        self._transactions = transactions
        self._lock_timeout = lock_timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; a later call would make a new one."""
        self._transactions.close()

    def assert_schema(self) -> None:
        """Raise ``UnsafeError`` unless the schema is the one that this code was written for."""
        version = self._value(Value[int], "schema_version")
        if version != SCHEMA_VERSION:
            raise UnsafeError(
                f"schema storage_cleanup is version {version}, needed is {SCHEMA_VERSION}: {INSTALL}", code="schema"
            )

    def distrust(self) -> list[Distrust]:
        """Return why nothing may be deleted: nothing, when all is well."""
        return self._rows(Distrust, "distrust")

    def buckets(self) -> list[Bucket]:
        """Return the buckets of the Supabase project that this database belongs to."""
        return self._rows(Bucket, "buckets")

    @abstractmethod
    def _time_for(self, name: str) -> timedelta:
        """Return how long a statement may take; raise ``DatabaseError`` when there is no time left for it."""

    def _rows(
        self, row: type[_Row], function: str, *, timeout: timedelta | None = None, **arguments: Any
    ) -> list[_Row]:
        return self._run(row, function, call(function, arguments), timeout=timeout, **arguments)

    def _run(
        self, row: type[_Row], name: str, statement: str, *, timeout: timedelta | None = None, **parameters: Any
    ) -> list[_Row]:
        return self._transactions.run(
            row,
            name,
            statement,
            statement_timeout=timeout or self._time_for(name),
            lock_timeout=self._lock_timeout,
            **parameters,
        )

    def _value(self, row: type[Value[_Column]], function: str, **arguments: Any) -> _Column:
        return self._rows(row, function, **arguments)[0].value
