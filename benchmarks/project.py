"""The Supabase project that is measured: the embedded stack's, or (``remote.py``) another one."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from local.keys import Keys
from local.postgres import SUPERUSER, Database, Postgres
from local.stack import own_directory
from local.storage_emulator import StorageServer

AGE_SECONDS = 7200
"""How old seeded jobs and files are."""

_NUMBERS = count(1)

# Jobs of the usual size, oldest first; the triggers are off, because a backlog has long been tracked.
_SEED = """
create temporary table seed on commit drop as
select n, gen_random_uuid() as id, gen_random_uuid() as user_id, gen_random_uuid() as version,
       now() - %(age)s * interval '1 second' - (%(count)s - n) * interval '1 millisecond' as made
from generate_series(1, %(count)s) as n;
"""
_NAME = "format('%%s/scene_%%s_%%s.png', user_id, n, id)"
_JOBS = f"""
insert into public.render_jobs
    (id, user_id, status, prompt, model, progress, output_url, created_at, started_at, completed_at)
select id, user_id, 'completed',
       jsonb_build_object('text', 'a house by the sea, evening light, wide angle', 'seed', n, 'steps', 30,
                          'width', 1024, 'height', 1024),
       'scene-xl-2', 100,
       format('%%s/storage/v1/object/sign/%%s/%%s?token=%%s',
              %(origin)s::text, %(bucket)s::text, {_NAME}, repeat('t', 150)),
       made, made, made
from seed;
"""  # noqa: S608 - no value of anybody's
_CANDIDATES = """
insert into storage_cleanup.candidate (job_id, since, completed_at, has_file) select id, made, made, true from seed;
"""
_OBJECTS = f"""
insert into storage.objects (bucket_id, name, version, created_at, updated_at, metadata)
select %(bucket)s, {_NAME}, version, made, made,
       '{{"size": 10, "mimetype": "image/png", "eTag": "\\"0\\"", "cacheControl": "max-age=3600"}}'
from seed;
"""  # noqa: S608 - no value of anybody's
_ASSETS = """
insert into public.user_assets (user_id, asset_type, title, metadata, file_size, created_at)
select user_id, 'generated_saved', 'A house by the sea', jsonb_build_object('render_job_id', id, 'width', 1024),
       10, made
from seed;
"""
_WITHOUT_TRIGGERS = """
set local session_replication_role = replica;
alter table public.user_assets disable trigger storage_cleanup_guard;
"""
_WITH_TRIGGERS = "alter table public.user_assets enable always trigger storage_cleanup_guard;"


class Project(ABC):
    """A project with orphans in a bucket of its own.

    Attributes
    ----------
    is_embedded
        Whether it is the embedded stack's: then the server can be told to be slow or to push back.
    max_age_seconds
        The age from which orphans that ``seed`` has made may go.
    """

    is_embedded = True
    max_age_seconds = 3600.0
    origin: str
    key: str
    bucket: str
    database_url: str

    @abstractmethod
    def seed(self, orphans: int, *, saved: int = 0, stored: bool = True) -> list[str]:
        """Add jobs with files; return the names of the orphans' files.

        Parameters
        ----------
        orphans, saved
            How many that nobody saved, and how many that somebody did.
        stored
            Whether files have bytes, and not only rows; those of the saved never have.
        """

    def plan(self, options: Mapping[str, Any], scope: Mapping[str, Any]) -> UUID | None:
        """Return the plan that keeps the next cycle to this project's own orphans; None where there are no others."""
        del options, scope
        return None


class EmbeddedProject(Project):
    """A database of its own on the embedded stack, with Storage bound to it."""

    def __init__(self, database: Database, storage: StorageServer, files: Path) -> None:
        self._database = database
        self._files = files
        self.storage = storage
        self.origin = storage.url
        self.key = Keys().service_role
        self.bucket = "images"
        self.database_url = database.url()

    def connect(self, role: str = SUPERUSER) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to the database, as the superuser unless told otherwise."""
        return self._database.connect(role)

    def seed(self, orphans: int, *, saved: int = 0, stored: bool = True) -> list[str]:
        """See ``Project``; by SQL, and bytes straight to where the emulator keeps them."""
        names: list[str] = []
        with self.connect() as superuser:
            for number, steps in ((orphans, (_JOBS, _CANDIDATES, _OBJECTS)), (saved, (_JOBS, _ASSETS))):
                if not number:
                    continue
                with superuser.transaction():
                    values = {"count": number, "age": AGE_SECONDS, "origin": self.origin, "bucket": self.bucket}
                    superuser.execute(_WITHOUT_TRIGGERS)
                    for step in (_SEED, *steps):
                        superuser.execute(step, values)
                    superuser.execute(_WITH_TRIGGERS)
            rows = superuser.execute(
                "select name, version from storage.objects" if stored or orphans <= 100_000 else "select 1 limit 0"
            )
            for name, version in rows:
                names.append(name)
                if stored:
                    (self._files / version).write_bytes(b"0123456789")
            # What autovacuum does within minutes.
            superuser.execute("vacuum (analyze) render_jobs, user_assets, storage_cleanup.candidate, storage.objects")
            superuser.execute("checkpoint")
        return names

    def slow_down(self, milliseconds: int) -> None:
        """Make the server take so much longer for each removal."""
        self.storage.inject(operations=["remove"], latency_ms=milliseconds)

    def push_back(self, probability: float) -> None:
        """Make the server refuse so many of the removals, half of them as S3 does and half of them with 429."""
        self.storage.inject(
            {"slow_down": probability / 2, "too_many_connections": probability / 2}, operations=["remove"], seed=7
        )


class Ground:
    """The servers of the embedded stack that benchmarks need."""

    def __init__(self, directory: Path, postgres: Postgres, storage: StorageServer) -> None:
        self.directory = directory
        self.postgres = postgres
        self._storage = storage

    @contextmanager
    def project(self) -> Iterator[EmbeddedProject]:
        """Yield a new project, which is gone afterwards."""
        name = f"bench_{next(_NUMBERS)}"
        self.postgres.create_database(name)
        database = Database(self.postgres, name)
        with database.connect(SUPERUSER) as superuser:
            superuser.execute("insert into storage.buckets (id, name) values ('images', 'images')")
        files = self.directory / "bytes" / name
        self._storage.use(database.url("supabase_storage_admin"), files)
        try:
            project = EmbeddedProject(database, self._storage, files)
            project.seed(0, saved=1)  # a first run that sees no save would refuse
            yield project
        finally:
            self._storage.release()
            self.postgres.drop_database(name)
            shutil.rmtree(files, ignore_errors=True)


@contextmanager
def embedded() -> Iterator[Ground]:
    """Start Postgres and the emulator, without what the machine doesn't need for this."""
    directory = own_directory("bench")
    directory.mkdir(exist_ok=True)
    try:
        with (
            Postgres(directory / "postgres", settings={"max_wal_size": "8GB", "shared_buffers": "512MB"}) as postgres,
            StorageServer(directory / "storage") as storage,
        ):
            postgres.prepare_template()
            yield Ground(directory, postgres, storage)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
