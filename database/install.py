"""Installs what is missing while the application works: ``python -m database.install``, with ADMIN_DATABASE_URL.

Every step is a short transaction of its own that gives way to the application, so it may be interrupted anywhere and
run again. In this order, because nothing is claimed without each of them: checks, migrations, functions, indexes,
triggers, the first look at what was there before. Where functions change, no claim is made from before the change until
all that the application had begun under the old ones has ended.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from database.bundle import ONE_AT_A_TIME, Room

LOCK_TIMEOUT = "200ms"
"""The longest that the application waits behind a step that waits for a lock, and less than its deadlock_timeout."""
PATIENCE_SECONDS = 600
TELL_SECONDS = 5.0
_TRIES = 3
_TRANSACTION_POOLER = "6543"

_FINGERPRINT = """
select md5(string_agg(line, '' order by line)) from (
    select concat(pg_get_functiondef(oid), proowner, proacl) as line
    from pg_proc where pronamespace = 'storage_cleanup'::regnamespace
    union all
    select concat(relname, relacl) from pg_class where relnamespace = 'storage_cleanup'::regnamespace
    union all
    select concat(nspname, nspacl) from pg_namespace where nspname = 'storage_cleanup') as installed
"""
_NEW, _OLD = "storage_cleanup_new", "storage_cleanup_old"
_IN_THE_WAY = """
select string_agg(distinct format('pid %s of %s, %s since %s', pid, usename, state, xact_start), '; ')
from pg_stat_activity
where pid <> pg_backend_pid() and pid in (
    select pid from pg_locks
    where granted and relation in ('public.render_jobs'::regclass, 'public.user_assets'::regclass,
                                   to_regclass('storage_cleanup.gate')))
"""

_UNPROTECTED = "select storage_cleanup.unprotected_among(%s)"
_IS_LOOKED_AT = "select fingerprint is not distinct from storage_cleanup.fingerprint() from storage_cleanup.comparison"
_HOW_FAR = """
select concat_ws(' ', what, of_table, format('(step %s, block %s)', step, block))
from storage_cleanup.comparison join storage_cleanup.comparison_steps() using (step)
"""
_WRITERS = """
select virtualtransaction from pg_locks
where mode = 'RowExclusiveLock' and relation in ('public.render_jobs'::regclass, 'public.user_assets'::regclass)
  and database = (select oid from pg_database where datname = current_database())
"""
_PROGRESS = """
select concat(phase, ', ' || 100 * blocks_done / nullif(blocks_total, 0) || ' %%', case when holder.pid is not null
              then format(' for pid %%s of %%s, %%s since %%s', holder.pid, usename, state, xact_start) end)
from pg_stat_progress_create_index as progress
left join pg_stat_activity as holder on holder.pid = current_locker_pid
where progress.pid = %s
"""

Connection = psycopg.Connection[tuple[Any, ...]]
_Result = TypeVar("_Result")


class RefusedError(Exception):
    """It can't be installed, or not now; the message says why."""


@contextmanager
def session(url: str) -> Iterator[Connection]:
    """Yield a session of the administrator, without time limits of the role or the server.

    Raises
    ------
    RefusedError
        The address is the transaction pooler's, or nothing answers there.
    """
    try:
        given = conninfo_to_dict(url)
        if _TRANSACTION_POOLER in str(given.get("port") or os.environ.get("PGPORT", "")).split(","):
            raise RefusedError(
                f"port {_TRANSACTION_POOLER} is the pooler's transaction mode, where each transaction may get another "
                "session, and an installation needs one of its own: use the direct address or session mode (port 5432)"
            )
        with psycopg.connect(
            url, autocommit=True, connect_timeout=15, application_name="storage_cleanup"
        ) as connection:
            connection.execute("set statement_timeout = 0")
            connection.execute("set lock_timeout = 0")
            connection.execute("set client_min_messages = warning")
            yield connection
    except psycopg.Error as error:
        raise RefusedError(f"{first_line(error)} (no step is half done: it may be run again)") from error


def first_line(error: psycopg.Error) -> str:
    """Return what the server said, without where it was."""
    return error.diag.message_primary or str(error).strip().partition("\n")[0]


class Installation:
    """What one session installs.

    Parameters
    ----------
    connection
        Of the administrator, see ``session``.
    room
        What is to be installed.
    say
        Takes each line of progress.
    references
        Columns beside the assets (``schema.table.column``) whose files are to be protected, too.
    """

    def __init__(
        self, connection: Connection, room: Room, say: Callable[[str], None], references: Sequence[str] = ()
    ) -> None:
        self._connection = connection
        self._room = room
        self._say = say
        self._references = list(references)

    def run(self) -> bool:
        """Install what is missing; return False when nothing was."""
        self.check()
        if not self._value(f"select pg_try_advisory_lock({ONE_AT_A_TIME})"):
            raise RefusedError("another installation is at work on this database: wait for it")
        made = (
            self._migrate,
            self._make_functions,
            self._make_bucket,
            self._make_indexes,
            self._make_triggers,
            self._protect,
        )
        changed = [step() for step in (*made, self._open, self._look)]
        return any(changed)

    def check(self) -> None:
        """Raise ``RefusedError`` unless this can be installed here. Changes nothing."""
        try:
            self._connection.execute(self._room.checks.encode())
        except pg.RaiseException as error:
            raise RefusedError(first_line(error)) from error

    def _migrate(self) -> bool:
        if self._value("select to_regclass('storage_cleanup.migration')") is None:
            self._briefly("schema", lambda: self._execute(self._room.read("migration_table.sql")))
        applied = {number for (number,) in self._rows("select number from storage_cleanup.migration")}
        missing = [migration for migration in self._room.migrations if migration.number not in applied]
        for migration in missing:
            name = f"migration {migration.number} ({migration.name})"
            self._briefly(name, lambda text=migration.text + migration.record: self._execute(text))  # type: ignore[misc]
            self._say(f"{name}: applied")
        return bool(missing)

    def _make_functions(self) -> bool:
        if not self._briefly("functions", self._differ):
            return False
        self._briefly("claims", lambda: self._execute("update storage_cleanup.gate set opens_at = 'infinity'"))
        self._say("claims: stopped")
        self._briefly("functions", self._exchange)
        self._say("functions and rights: made")
        return True

    def _differ(self) -> bool:
        with self._connection.transaction(force_rollback=True):
            return self.replace_functions()

    def _exchange(self) -> None:
        """Replace the functions when no claim is being made: half of it would be of one release, half of another."""
        self._execute("lock table storage_cleanup.gate in access exclusive mode")
        self.replace_functions()

    def replace_functions(self) -> bool:
        """Make all functions again; return whether anything is other than before."""
        before = self._value(_FINGERPRINT)
        self._execute("".join(self._room.functions.values()))
        return bool(self._value(_FINGERPRINT) != before)

    def _open(self) -> bool:
        """Allow claims again, after all that was being written when there were other functions."""
        if self._value("select opens_at <> 'infinity' from storage_cleanup.gate"):
            return False
        patient_until = time.monotonic() + PATIENCE_SECONDS
        writers = set(self._rows(_WRITERS))
        told = False
        while writers := writers.intersection(self._rows(_WRITERS)):
            if time.monotonic() > patient_until:
                raise RefusedError(f"claims: a transaction doesn't end ({self._value(_IN_THE_WAY)}): run it again")
            if not told:
                self._say(f"claims: wait for {self._value(_IN_THE_WAY)}")
                told = True
            time.sleep(0.1)
        self._briefly("claims", lambda: self._execute("update storage_cleanup.gate set opens_at = clock_timestamp()"))
        self._say("claims: allowed")
        return True

    def _make_bucket(self) -> bool:
        made = self._briefly("bucket", lambda: self._execute(self._room.read("bucket.sql")))
        if made:
            self._say("bucket: made")
        return bool(made)

    def _make_indexes(self) -> bool:
        left_over = self._drop_left_over()
        state = self._rows("select name, definition, fingerprint, fault from storage_cleanup.index_state()")
        wrong = [index for index in state if index[3] is not None]
        for name, definition, fingerprint, fault in wrong:
            self._say(f"index {name}: {fault}, is being built")
            began = time.monotonic()
            self._build(name, definition)
            self._briefly(f"index {name}", lambda: self._put_in_place(name, fingerprint))  # noqa: B023 - called at once
            self._drop_left_over()
            self._say(f"index {name}: built in {time.monotonic() - began:.1f} s")
        return bool(left_over or wrong)

    def _drop_left_over(self) -> bool:
        found = [name for name in (_NEW, _OLD) if self._value("select to_regclass(%s)", f"public.{name}")]
        for name in found:
            self._connection.execute(f"drop index concurrently if exists public.{name}".encode())
        return bool(found)

    def _build(self, name: str, definition: str) -> None:
        """Build an index beside the one that may be there. It waits for open transactions, and nobody waits for it."""
        for _ in range(_TRIES):
            try:
                with self._telling(name):
                    self._connection.execute(f"create index concurrently {_NEW} {definition}".encode())
            except (pg.DeadlockDetected, pg.QueryCanceled) as error:
                self._say(f"index {name}: {first_line(error)}")
            if self._value("select indisvalid from pg_index where indexrelid = to_regclass(%s)", f"public.{_NEW}"):
                return
            self._drop_left_over()
        raise RefusedError(f"index {name} couldn't be built: run it again")

    @contextmanager
    def _telling(self, name: str) -> Iterator[None]:
        """Tell now and then how far an index is, or whose transaction it waits for."""
        done = threading.Event()
        info = self._connection.info

        def tell() -> None:
            with suppress(psycopg.Error), psycopg.connect(info.dsn, password=info.password, autocommit=True) as watch:
                while not done.wait(TELL_SECONDS):
                    for (progress,) in watch.execute(_PROGRESS, (info.backend_pid,)):
                        self._say(f"index {name}: {progress}")

        watcher = threading.Thread(target=tell, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _put_in_place(self, name: str, fingerprint: str) -> None:
        """Let the new index take the name. These locks are on the indexes only."""
        index = sql.Identifier("public", name)
        for statement in (
            sql.SQL("alter index if exists {} rename to {}").format(index, sql.Identifier(_OLD)),
            sql.SQL("alter index {} rename to {}").format(sql.Identifier("public", _NEW), sql.Identifier(name)),
            sql.SQL("comment on index {} is {}").format(index, sql.Literal(fingerprint)),
        ):
            self._connection.execute(statement)

    def _make_triggers(self) -> bool:
        wrong = self._rows("select of_table::text, name, fault from storage_cleanup.trigger_state() where fault <> ''")
        for of_table, name, fault in wrong:
            self._briefly(
                f"trigger {name}",
                lambda: self._value("select storage_cleanup.make_trigger(%s::regclass, %s)", of_table, name),  # noqa: B023
            )
            self._say(f"trigger {name}: {fault}, made")
        return bool(wrong)

    def _protect(self) -> bool:
        missing = [name for (name,) in self._rows(_UNPROTECTED, self._references)]
        for name in missing:
            self._briefly(f"column {name}", lambda: self._value("select storage_cleanup.protect(%s)", name))  # noqa: B023
            self._say(f"column {name}: protected")
        return bool(missing)

    def _look(self) -> bool:
        if self._value(_IS_LOOKED_AT):
            return False
        if reasons := self._value(
            "select string_agg(sentence, '; ') from storage_cleanup.distrust() where code <> 'changed'"
        ):
            raise RefusedError(reasons)
        self._say("first look at what is there")
        told, held_up = time.monotonic(), 0
        while slices := self._rows("select * from storage_cleanup.compare_slice()"):
            is_done, _, is_held_up = slices[0]
            if is_done:
                self._briefly("usage", lambda: self._value("select storage_cleanup.remember_usage()"))
                self._say("first look: done")
                return True
            if is_held_up and (held_up := held_up + 1) in {1, 10, 100}:
                self._say(f"first look: waits for {self._value(_IN_THE_WAY) or 'nobody by now'}")
            if time.monotonic() > told + TELL_SECONDS:
                told = time.monotonic()
                self._say(f"first look: {self._value(_HOW_FAR)}")
        self._say("first look: a cycle is at it")
        return True

    def _briefly(self, what: str, work: Callable[[], _Result]) -> _Result:
        """Do it in a transaction that waits for no lock for long, and again until it gets through."""
        patient_until = time.monotonic() + PATIENCE_SECONDS
        for attempt in count(1):
            try:
                with self._connection.transaction():
                    self._connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'".encode())
                    return work()
            except (pg.LockNotAvailable, pg.DeadlockDetected) as error:
                in_the_way = self._value(_IN_THE_WAY) or "nobody by now"
                if time.monotonic() > patient_until:
                    raise RefusedError(f"{what}: somebody is always in the way ({in_the_way}): run it again") from error
                if attempt in {1, 10, 100}:
                    self._say(f"{what}: waits for {in_the_way}")
                time.sleep(min(0.1 * attempt, 2) * random.uniform(0.5, 1))  # noqa: S311
        raise AssertionError

    def _execute(self, text: str) -> int:
        """Execute statements; return how many rows the last one touched."""
        return self._connection.execute(text.encode()).rowcount

    def _rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values or None).fetchall()

    def _value(self, query: LiteralString, *values: object) -> Any:
        row = self._connection.execute(query, values or None).fetchone()
        return row[0] if row else None


def install(
    url: str, room: Room | None = None, say: Callable[[str], None] = print, references: Sequence[str] = ()
) -> bool:
    """Install what is missing in the database at this address; return False when nothing was."""
    with session(url) as connection:
        return Installation(connection, room or Room(), say, references).run()


def administrator() -> str:
    """Return ADMIN_DATABASE_URL."""
    try:
        return os.environ["ADMIN_DATABASE_URL"]
    except KeyError:
        raise RefusedError(
            "ADMIN_DATABASE_URL isn't set: the URL of the role postgres, direct or in session mode"
        ) from None


def main() -> int:
    """Install, and say so; return 1 when it was refused."""
    try:
        references = [name.strip() for name in os.environ.get("REFERENCES", "").split(",") if name.strip()]
        changed = install(administrator(), say=lambda line: print(line, flush=True), references=references)  # noqa: T201
    except RefusedError as error:
        print(f"Not installed: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("Interrupted: nothing is half done, and running it again goes on from here", file=sys.stderr)  # noqa: T201
        return 130
    print("The installation is complete." if changed else "Nothing to do: all of it is there.")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
