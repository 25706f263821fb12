"""Cycles without the handler and without AWS: for several at once, for other keys and databases, and for campaigns."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import psycopg

from local import project as projects
from local.application import Render
from local.keys import Keys
from local.postgres import Database
from local.storage import StorageServer
from storage_cleanup.limits import LOCK_TIMEOUT, PAGE_SIZE, STORAGE, HttpPatience
from storage_cleanup.model.account import RunResult
from storage_cleanup.storage.object_store import Backoff

IMPATIENT = Backoff(first_seconds=0.002, longest_seconds=0.01)
"""What takes seconds elsewhere takes a moment."""
DEAD = UUID(int=1)
"""The run that has died."""


class Project(Protocol):
    """A Supabase project of the embedded stack."""

    @property
    def database(self) -> Database: ...
    @property
    def storage(self) -> StorageServer: ...
    @property
    def keys(self) -> Keys: ...


def cycle(
    project: Project,
    *,
    database_url: str | None = None,
    key: str | None = None,
    seconds: float = 900,
    lock_timeout: timedelta = LOCK_TIMEOUT,
    patience: HttpPatience = STORAGE,
    page_size: int = PAGE_SIZE,
    now: Callable[[], float] = time.time,
    **overrides: str,
) -> RunResult:
    """Run a cycle as the handler would; ``database_url`` and ``key`` stand in for the settings' own."""
    own = projects.Project(project.storage.url, project.keys.service_role, project.database.url())
    reached = replace(own, key=key or own.key, database_url=database_url or own.database_url)
    return reached.cycle(
        settings=own.settings(**{"production__unsaved_grace_minutes": "0", **overrides}),
        seconds=seconds,
        lock_timeout=lock_timeout,
        patience=patience,
        backoff=IMPATIENT,
        page_size=page_size,
        now=now,
    )


def ledger(project: Project) -> list[tuple[str, int, str | None]]:
    """Return state, attempts and last error of every claim there ever was, oldest job first."""
    with project.database.connect() as connection:
        return [
            (state, attempts, error)
            for state, attempts, error in connection.execute(
                "select state, attempts, last_error from storage_cleanup.deletion order by claimed_at, job_id"
            )
        ]


def let_time_pass(database: Database) -> None:
    """Make runs, claims and attempts look so old that no request can be under way any more."""
    age = timedelta(minutes=17)
    with database.connect() as connection:
        connection.execute("update storage_cleanup.run set started_at = started_at - %s", (age,))
        connection.execute(
            "update storage_cleanup.deletion "
            "set claimed_at = claimed_at - %(age)s, attempted_at = attempted_at - %(age)s",
            {"age": age},
        )
    let_requests_end(database)


def let_requests_end(database: Database) -> None:
    """Pretend that no request can be at work any more, whatever has become of whoever sent it."""
    with database.connect() as connection:
        connection.execute("update storage_cleanup.deletion set quiet_at = now()")


def compare(connection: psycopg.Connection[Any], *, as_first: bool = False) -> int:
    """Compare everything that is noted with what there is now; return how many jobs the triggers had missed."""
    connection.execute("update storage_cleanup.comparison set fingerprint = null, at_work_on = null")
    if as_first:
        connection.execute("update storage_cleanup.comparison set last_at = null")
    while True:
        is_done, jobs = next(connection.execute("select is_done, jobs from storage_cleanup.compare_slice()"))
        if is_done:
            return int(jobs)


def die_with_claims(project: Project) -> None:
    """Claim every job for a run that dies before anybody hears of it again, and be long dead."""
    with project.database.connect() as connection:
        connection.execute(
            "insert into storage_cleanup.run (id, trigger, dry_run, options, scope) "
            "values (%s, 'manual', false, '{}', '{}')",
            (DEAD,),
        )
        connection.execute(
            "select storage_cleanup.claim(%s, array_agg(id), array_agg(storage_cleanup.object_key(output_url)), "
            "interval '1 hour', false, null) from render_jobs",
            (DEAD,),
        )
    let_requests_end(project.database)


def refer_to(project: Project, *renders: Render) -> None:
    """Let a table of the application's, ``favourites``, reference jobs, so that their rows can't be deleted."""
    with project.database.connect() as connection:
        connection.execute("create table favourites (job uuid references render_jobs)")
        connection.execute("insert into favourites select unnest(%s::uuid[])", ([render.job_id for render in renders],))
