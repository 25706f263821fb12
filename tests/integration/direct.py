"""Cycles without the handler and without AWS: for several at once, for other keys and databases, and for campaigns."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from local import project as projects
from local.keys import Keys
from local.postgres import Database
from local.storage import StorageServer
from storage_cleanup.limits import LOCK_TIMEOUT, PAGE_SIZE, STORAGE, HttpPatience
from storage_cleanup.model.account import RunResult
from storage_cleanup.storage.object_store import Backoff

IMPATIENT = Backoff(first_seconds=0.002, longest_seconds=0.01)
"""What takes seconds elsewhere takes a moment."""


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
        settings=own.settings(**overrides),
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


def let_time_pass(project: Project, age: timedelta) -> None:
    """Make the ledger's attempts look as if they had been so long ago."""
    with project.database.connect() as connection:
        connection.execute("update storage_cleanup.deletion set attempted_at = attempted_at - %s", (age,))
