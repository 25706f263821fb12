"""A Supabase project, and cycles on it without the handler and without AWS."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.cleanup.options import resolve
from storage_cleanup.config.parameters import DEFAULTS, DRY_RUN
from storage_cleanup.config.settings import Settings
from storage_cleanup.events.cleanup import CleanupRequest
from storage_cleanup.limits import LOCK_TIMEOUT, PAGE_SIZE, STORAGE, HttpPatience
from storage_cleanup.model.account import RunResult
from storage_cleanup.model.vocabulary import Trigger
from storage_cleanup.postgres import ledger
from storage_cleanup.storage.object_store import BACKOFF, Backoff, ObjectStore

VARIABLES = ("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "DATABASE_URL")
"""The environment variables that name somebody else's project."""


@dataclass
class Project:
    """What a cycle needs to know of a Supabase project; small enough to be handed to other processes."""

    origin: str
    key: str
    database_url: str

    def parameters(self, **overrides: str) -> dict[str, str]:
        """Return a whole parameter tree: the defaults, where the project is, and the overrides.

        Names of overrides may be written as Python has them, see ``parameter_name``.
        """
        return {
            **DEFAULTS,
            DRY_RUN: "false",
            "supabase/url": self.origin,
            "supabase/service-role-key": self.key,
            "database/url": self.database_url,
            **{parameter_name(name): value for name, value in overrides.items()},
        }

    def settings(self, **overrides: str) -> Settings:
        """Return the settings that the parameters amount to, without phase 1."""
        return Settings.from_parameters(self.parameters(**{"phases/temp-files": "false", **overrides}))

    def store(self) -> ObjectStore:
        """Return a client of the project's Storage."""
        return ObjectStore(self.origin, self.key)

    def cycle(
        self,
        store: ObjectStore | None = None,
        *,
        settings: Settings | None = None,
        seconds: float = 900,
        lock_timeout: timedelta = LOCK_TIMEOUT,
        patience: HttpPatience = STORAGE,
        backoff: Backoff = BACKOFF,
        page_size: int = PAGE_SIZE,
        now: Callable[[], float] = time.time,
    ) -> RunResult:
        """Run a cycle as the handler would; with a client of its own, unless one is given that others use as well."""
        settings = settings or self.settings()
        options = resolve(CleanupRequest(Trigger.MANUAL), settings)
        end = time.monotonic() + seconds
        watch = Watch(lambda: max(0, int((end - time.monotonic()) * 1000)), lambda: True)
        with (
            ledger.Database(self.database_url, watch.seconds_for, lock_timeout=lock_timeout) as database,
            ObjectStore(
                self.origin,
                self.key,
                give_up=watch.stop_reason,
                seconds_for=watch.seconds_for,
                backoff=backoff,
                patience=patience,
            ) as own,
        ):
            return run_cycle(
                settings, options, database=database, store=store or own, watch=watch, page_size=page_size, now=now
            )


def project_in(environment: Mapping[str, str]) -> Project | None:
    """Return the project that the variables name, or None when none of them is set.

    Raises
    ------
    ValueError
        Some are missing.
    """
    missing = [name for name in VARIABLES if not environment.get(name)]
    if len(missing) == len(VARIABLES):
        return None
    if missing:
        raise ValueError(f"{', '.join(VARIABLES)} belong together; missing: {', '.join(missing)}")
    return Project(*(environment[name] for name in VARIABLES))


def parameter_name(name: str) -> str:
    """Return a parameter's name: ``limits__max_deletions_per_run`` is ``limits/max-deletions-per-run`` in Python."""
    return name.replace("__", "/").replace("_", "-")
