"""The wire to PostgreSQL: statements, each in a transaction of its own that travels as one message.

One message has no middle that a client could die in, costs one round trip, and nothing depends on a session: no
prepared statements, no session settings, no session locks. So it works through a pooler in transaction mode. (Pipelines
do not: psycopg ends them with a Flush, which may make a pooler keep a server for a client that has gone quiet.)

Timeouts on the server don't help against one that acknowledges and never answers, nor does TCP, for which all is well.
So each call, from connecting to the roll-back, has a deadline on this side as well.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.resources import as_file, files
from typing import Any, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row

from storage_cleanup.errors import DatabaseError, UnsafeError
from storage_cleanup.limits import CONNECT_SECONDS, SHORTEST_TO_CONNECT_SECONDS, STATEMENT_GRACE_SECONDS
from storage_cleanup.model.origin import is_loopback

INSTALL = "run database/install.sql of this release as postgres"
# The level is said each time: a role or database may default to another, and the claim relies on this one.
_MESSAGE = """begin isolation level read committed {access};
set local statement_timeout = {statement_ms}; set local lock_timeout = {lock_ms};
{statement};
commit"""
_Row = TypeVar("_Row")
_Answer = TypeVar("_Answer")


class _Connection(psycopg.Connection[Any]):
    """A connection that waits for the server until ``deadline`` (of ``time.monotonic``), and is closed then."""

    deadline = 0.0

    def wait(self, gen: PQGen[_Answer], interval: float = 0.1, timeout: float | None = None) -> _Answer:  # noqa: ARG002
        """Wait for an answer; psycopg does all of its waiting here, but for that in connecting."""
        try:
            return super().wait(gen, interval, max(0.0, self.deadline - time.monotonic()))
        except psycopg.OperationalError as error:
            if time.monotonic() < self.deadline:
                raise
            self.close()  # whose answer comes late must not be taken for the next one's; closing never waits
            raise pg.ConnectionTimeout("no answer came in time, and the connection was given up") from error


def call(function: str, arguments: Iterable[str]) -> str:
    """Return the statement that calls a function of schema ``storage_cleanup`` with arguments of these names.

    A function that returns one value has it in a column ``value``.

    Examples
    --------
    >>> call("settle", ["this_run", "jobs"])
    'select * from storage_cleanup.settle(this_run => %(this_run)s, jobs => %(jobs)s) as value'
    """
    passed = ", ".join(f"{name} => %({name})s" for name in arguments)
    return f"select * from storage_cleanup.{function}({passed}) as value"  # noqa: S608  (names of this package's own)


class Transactions:
    """Runs statements. Safe to use from several threads at once: each has a connection of its own.

    A lost connection fails the call that noticed; the next call makes a new one. No call is repeated by itself, because
    nobody knows whether the lost one was committed.

    Parameters
    ----------
    url
        ``postgresql://…``
    read_only
        Whether PostgreSQL refuses whatever would write.
    seconds_for
        Returns how long a call may take that would be allowed so many seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        read_only: bool = False,
        seconds_for: Callable[[float], float] = lambda most: most,
    ) -> None:
        self._url = url
        self._access = "read only" if read_only else ""  # a database that is read-only by default stays so
        self._seconds_for = seconds_for
        self._of_thread = threading.local()
        self._connections: list[_Connection] = []

    def close(self) -> None:
        """Close the connections of all threads; a later call would make a new one."""
        while self._connections:
            self._connections.pop().close()

    def run(
        self,
        row: type[_Row],
        name: str,
        statement: str,
        *,
        statement_timeout: timedelta,
        lock_timeout: timedelta,
        **parameters: Any,
    ) -> list[_Row]:
        """Run a statement in a transaction of its own; return its rows as ``row(**columns)``.

        Errors call it ``name``. It ends a few seconds after ``statement_timeout`` at the latest, whatever the server
        does.

        Raises
        ------
        UnsafeError
            The schema, the role or the server isn't one that anything may be deleted with; the message says what to do.
        DatabaseError
            Anything else: no connection, a timeout, a failed statement.
        """
        most = statement_timeout.total_seconds() + STATEMENT_GRACE_SECONDS
        seconds = self._seconds_for(most)
        deadline = time.monotonic() + seconds
        message = _MESSAGE.format(
            access=self._access,
            statement_ms=_milliseconds(statement_timeout * min(1.0, seconds / most)),
            lock_ms=_milliseconds(lock_timeout),
            statement=statement,
        )
        with _translated(name):
            connection = self.connected(seconds)
            connection.deadline = deadline
            try:
                cursor = connection.cursor(row_factory=class_row(row))
                cursor.execute(message.encode(), parameters)
                return _rows(cursor)
            finally:
                _end_transaction(connection)

    def connected(self, seconds: float = CONNECT_SECONDS) -> _Connection:
        """Return this thread's connection, a new one where it was lost."""
        connection: _Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None or connection.closed or connection.broken:
            connection = self._of_thread.connection = _connect(self._url, seconds)
            self._connections.append(connection)
        return connection


def _rows(cursor: psycopg.Cursor[_Row]) -> list[_Row]:
    """Return the rows of the one statement that has some."""
    rows: list[_Row] = []
    while True:
        if cursor.description is not None:
            rows = cursor.fetchall()
        if not cursor.nextset():
            return rows


def _end_transaction(connection: psycopg.Connection[Any]) -> None:
    """Roll back what an error has left open; a connection that can't even do that is of no use any more."""
    if connection.info.transaction_status is TransactionStatus.IDLE:
        return
    with suppress(psycopg.Error):
        connection.rollback()
        return
    connection.close()


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Turn what the driver raises into the package's errors, in this one place."""
    try:
        yield
    except (pg.UndefinedFunction, pg.InvalidSchemaName, pg.UndefinedTable, pg.UndefinedColumn) as error:
        raise UnsafeError(
            f"schema storage_cleanup is missing or another version ({_first_line(error)}): {INSTALL}", code="schema"
        ) from error
    except pg.ObjectNotInPrerequisiteState as error:
        raise UnsafeError(_first_line(error), code="distrust") from error
    except pg.InsufficientPrivilege as error:
        raise UnsafeError(
            f"the role of database/url lacks a right ({_first_line(error)}): use postgres or storage_cleanup_worker",
            code="role",
        ) from error
    except pg.ReadOnlySqlTransaction as error:
        raise UnsafeError(
            "the database is read-only: use the primary's address in database/url", code="replica"
        ) from error
    except psycopg.Error as error:
        raise DatabaseError(f"{name}: {_first_line(error)}") from error


def _connect(url: str, seconds: float) -> _Connection:
    """Connect with TLS verified, short timeouts, nothing prepared on the server and parameters sent in the text.

    Without an ``sslmode`` of its own, and always unless the host is this machine, the server's certificate and name are
    verified (``verify-full``) against Supabase's root certificate, or against ``sslrootcert`` where the URL names one.
    The certificate is "Supabase Root 2021 CA", SHA-256 80:70:25:AD…72:E6:CA:FA, valid to April 2031; it is the one that
    the dashboard offers under Database → SSL Configuration.
    """
    if seconds < SHORTEST_TO_CONNECT_SECONDS:
        raise pg.ConnectionTimeout("there was no time left to connect")
    given = conninfo_to_dict(url)
    hosts = str(given.get("host")).count(",") + 1
    with as_file(files(__package__) / "supabase-root-2021-ca.crt") as root:
        tls: dict[str, Any] = {}
        if not (is_loopback(str(given.get("host") or "")) and "sslmode" in given):
            tls = {"sslmode": "verify-full", "sslrootcert": given.get("sslrootcert", str(root))}
        if is_loopback(str(given.get("host") or "")) and "sslmode" not in given:
            tls = {"sslmode": "prefer"}
        return _Connection.connect(
            url,
            autocommit=True,  # each message says itself where its transaction begins and ends
            cursor_factory=psycopg.ClientCursor,
            prepare_threshold=None,
            connect_timeout=int(min(CONNECT_SECONDS, seconds) / hosts) or 1,  # it is each host's
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
            application_name="storage-cleanup",
            **tls,
        )


def _milliseconds(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
