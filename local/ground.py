"""Postgres and Storage without AWS, on which projects come and go, and cycles without the handler.

Campaigns, benchmarks and those tests that want several cycles at once, or cycles with other keys, stand on it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from local.keys import Keys
from local.postgres import Database, Postgres
from local.stack import create_buckets, parameter_tree, workspace
from local.storage import StorageServer
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.cleanup.options import resolve
from storage_cleanup.config.settings import Settings
from storage_cleanup.events.cleanup import CleanupRequest
from storage_cleanup.model.account import RunResult
from storage_cleanup.model.vocabulary import Trigger
from storage_cleanup.postgres import ledger
from storage_cleanup.storage.object_store import BACKOFF, Backoff, ObjectStore

VARIABLES = ("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "DATABASE_URL")
"""The environment variables that name somebody else's project."""


@dataclass(frozen=True)
class Project:
    """What a cycle needs to know of a Supabase project; small enough to be handed to other processes."""

    storage_url: str
    key: str
    database_url: str

    def parameters(self, **overrides: str) -> dict[str, str]:
        """Return the parameters of a deployment for this project, without phase 1; see ``parameter_tree``."""
        own = {"phases/temp-files": "false", **overrides}
        return parameter_tree(self.storage_url, self.key, self.database_url, own)

    def settings(self, **overrides: str) -> Settings:
        """Return the settings that the parameters amount to."""
        return Settings.from_parameters(self.parameters(**overrides))

    def store(self) -> ObjectStore:
        """Return a client of the project's Storage."""
        return ObjectStore(self.storage_url, self.key)

    def cycle(
        self,
        store: ObjectStore | None = None,
        *,
        settings: Settings | None = None,
        seconds: float = 900,
        now: Callable[[], float] = time.time,
        backoff: Backoff = BACKOFF,
    ) -> RunResult:
        """Run a cycle as the handler would; with a client of its own, unless one is given that others use as well."""
        settings = settings or self.settings()
        options = resolve(CleanupRequest(Trigger.MANUAL), settings)
        end = time.monotonic() + seconds
        watch = Watch(lambda: max(0, int((end - time.monotonic()) * 1000)), lambda: True)
        client: AbstractContextManager[ObjectStore] = (
            nullcontext(store)
            if store
            else ObjectStore(
                self.storage_url, self.key, give_up=watch.stop_reason, seconds_for=watch.seconds_for, backoff=backoff
            )
        )
        with ledger.Database(self.database_url, watch.seconds_for) as database, client as used:
            return run_cycle(settings, options, database=database, store=used, watch=watch, now=now)


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


@dataclass(frozen=True)
class Ground:
    """Running servers."""

    directory: Path
    postgres: Postgres
    storage: StorageServer
    keys: Keys = field(default_factory=Keys)

    @classmethod
    @contextmanager
    def prepared(cls, purpose: str, *, settings: Mapping[str, str] | None = None) -> Iterator[Self]:
        """Start the servers, Postgres with these settings, and stop them afterwards."""
        with (
            workspace(purpose) as directory,
            StorageServer(directory / "storage") as storage,
            Postgres(directory / "postgres", settings=settings) as postgres,
        ):
            postgres.prepare_template()
            yield cls(directory, postgres, storage)

    def create(self, name: str, files: Path | None = None) -> Database:
        """Create a project's database with its buckets, and let the emulator serve it."""
        self.postgres.create_database(name)
        database = Database(self.postgres, name)
        self.serve(database, files)
        create_buckets(self.storage.url, self.keys.service_role)
        return database

    def serve(self, database: Database, files: Path | None = None) -> None:
        """Let the emulator serve this database from now on, with all counters at zero."""
        self.storage.use(database.url("supabase_storage_admin"), files)
