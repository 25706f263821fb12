"""Postgres and Storage without AWS, on which projects come and go: where campaigns and benchmarks take place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from local.keys import Keys
from local.postgres import Database, Postgres
from local.stack import create_buckets, workspace
from local.storage import StorageServer


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
