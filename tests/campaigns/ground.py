"""Where campaigns take place: real PostgreSQL, the Storage emulator, and cycles like those that the handler runs."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from local.keys import Keys
from local.postgres import Database, Postgres
from local.stack import create_buckets, own_directory
from local.storage_emulator import StorageServer
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.cleanup.options import resolve
from storage_cleanup.config.parameters import DEFAULTS
from storage_cleanup.config.settings import Settings
from storage_cleanup.events.cleanup import parse_cleanup_event
from storage_cleanup.limits import PAGE_SIZE
from storage_cleanup.model.account import RunResult
from storage_cleanup.postgres import ledger as product
from storage_cleanup.storage.object_store import ObjectStore

INVOCATION_MILLISECONDS = 900_000


@dataclass(frozen=True)
class Project:
    """What a cycle needs to know of a Supabase project; small enough to be handed to other processes.

    Attributes
    ----------
    database_url
        As ``postgres``.
    user_url
        As ``authenticated``, under row-level security.
    """

    database_url: str
    user_url: str
    storage_url: str
    key: str

    def parameters(self) -> dict[str, str]:
        """Return the parameters of a deployment for this project, with no breaker in the way of a campaign."""
        return {
            **DEFAULTS,
            "phases/temp-files": "false",
            "limits/max-saved-drop-percent": "100",
            "limits/max-failure-percent": "100",
            "supabase/url": self.storage_url,
            "supabase/service-role-key": self.key,
            "database/url": self.database_url,
        }

    def store(self) -> ObjectStore:
        """Return a client of the project's Storage."""
        return ObjectStore(self.storage_url, self.key)

    def cycle(self, store: ObjectStore, *, page_size: int = PAGE_SIZE) -> RunResult:
        """Run one cycle, as the scheduled event does."""
        settings = Settings.from_parameters(self.parameters())
        options = resolve(parse_cleanup_event({"action": "cleanup"}), settings)
        watch = Watch(lambda: INVOCATION_MILLISECONDS, lambda: True)
        with product.Database(self.database_url) as database:
            return run_cycle(settings, options, database=database, store=store, watch=watch, page_size=page_size)


@dataclass(frozen=True)
class Ground:
    """Running servers, on which projects come and go."""

    postgres: Postgres
    storage: StorageServer
    keys: Keys

    def create(self, name: str) -> Database:
        """Create a project's database with its buckets, and let the emulator serve it."""
        self.postgres.create_database(name)
        database = Database(self.postgres, name)
        self.serve(database)
        create_buckets(self.storage.url, self.keys.service_role)
        return database

    def serve(self, database: Database) -> None:
        """Let the emulator serve this database from now on, with all counters at zero."""
        self.storage.use(database.url("supabase_storage_admin"))

    def project(self, database: Database) -> Project:
        """Describe the project of a database."""
        return Project(database.url(), database.url("authenticated"), self.storage.url, self.keys.service_role)


@contextmanager
def prepared_ground(purpose: str) -> Iterator[Ground]:
    """Start the servers, and stop them afterwards."""
    directory = own_directory(purpose)
    directory.mkdir(exist_ok=True)
    try:
        with StorageServer(directory / "storage") as storage, Postgres(directory / "postgres") as postgres:
            postgres.prepare_template()
            yield Ground(postgres, storage, Keys())
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of what cycles log."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)
