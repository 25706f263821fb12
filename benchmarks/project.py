"""The Supabase project that is measured: the embedded stack's, or (``remote.py``) another one."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import httpx
import psycopg

import local.ground
import local.project
from local.keys import Keys
from local.postgres import SUPERUSER, Database
from local.storage import StorageServer

AGE_SECONDS = 7200
"""How old seeded jobs and files are."""

REAL_PACE_MS = 600
"""What makes the emulator as slow as a real server was (6,027 names/s with 500 names and 8 in flight)."""

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
_HOLDERS = f"""
insert into storage_cleanup.holder (job_id, object)
select id, storage_cleanup.hash(%(bucket)s || '/' || {_NAME}) from seed;
"""  # noqa: S608 - no value of anybody's
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
create temporary table noted on commit drop as
select storage_cleanup.source(tableoid, id::text) as source, id, (metadata ->> 'render_job_id')::uuid as job_id
from public.user_assets;
insert into storage_cleanup.mention (source, id, is_save)
select source, job_id, true from noted union all select source, id, false from noted;
insert into storage_cleanup.reference (source, object, job_id) select source, object, job_id
from noted join storage_cleanup.holder using (job_id);
"""
_WITHOUT_TRIGGERS = """
set local session_replication_role = replica;
alter table public.user_assets disable trigger storage_cleanup_asset_applied;
alter table public.render_jobs disable trigger storage_cleanup_job_applied;
"""
_WITH_TRIGGERS = """
alter table public.user_assets enable replica trigger storage_cleanup_asset_applied;
alter table public.render_jobs enable replica trigger storage_cleanup_job_applied;
update storage_cleanup.comparison set fingerprint = storage_cleanup.fingerprint();
"""


@dataclass
class Target(local.project.Project):
    """A project with orphans in a bucket, as it is handed to other processes.

    Attributes
    ----------
    max_age_seconds
        The age from which orphans that ``seed`` has made may go.
    """

    bucket: str
    max_age_seconds: float = 3600.0

    def http(self) -> httpx.Client:
        """Return a client of Storage's own API, which nothing of the product stands between."""
        headers = {"Authorization": f"Bearer {self.key}", "apikey": self.key}
        return httpx.Client(base_url=f"{self.origin}/storage/v1", headers=headers, timeout=60)

    def plan(self, options: Mapping[str, Any], scope: Mapping[str, Any]) -> UUID | None:
        """Return the plan that keeps the next cycle to this project's own orphans; None where there are no others."""
        del options, scope
        return None


class Project(Target, ABC):
    """A project with orphans in a bucket of its own."""

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


class Source(Protocol):
    """Where projects come from.

    Attributes
    ----------
    is_embedded
        Whether it is the embedded stack: then the server can be told to be slow or to push back.
    """

    is_embedded: bool

    def project(self) -> AbstractContextManager[Project]:
        """Yield a project without orphans of the benchmark, which are gone again afterwards."""


class EmbeddedProject(Project):
    """A database of its own on the embedded stack, with Storage bound to it."""

    def __init__(self, database: Database, storage: StorageServer, files: Path) -> None:
        super().__init__(storage.url, Keys().service_role, database.url(), "images")
        self._database = database
        self._files = files
        self.storage = storage

    def connect(self, role: str = SUPERUSER) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to the database, as the superuser unless told otherwise."""
        return self._database.connect(role)

    def seed(self, orphans: int, *, saved: int = 0, stored: bool = True) -> list[str]:
        """See ``Project``; by SQL, and bytes straight to where the emulator keeps them."""
        names: list[str] = []
        with self.connect() as superuser:
            for number, steps in (
                (orphans, (_JOBS, _HOLDERS, _CANDIDATES, _OBJECTS)),
                (saved, (_JOBS, _HOLDERS, _ASSETS)),
            ):
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
            superuser.execute(
                "vacuum (analyze) render_jobs, user_assets, storage.objects, storage_cleanup.candidate, "
                "storage_cleanup.holder, storage_cleanup.mention, storage_cleanup.reference"
            )
            superuser.execute("checkpoint")
        return names

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        with self.connect() as superuser:
            (rows,) = superuser.execute(f"select count(*) from {table}").fetchone() or (0,)  # noqa: S608
        return int(rows)

    def slow_down(self, milliseconds: int) -> None:
        """Make the server take so much longer for each removal."""
        self.storage.inject(operations=["remove"], latency_ms=milliseconds)

    def push_back(self, probability: float) -> None:
        """Make the server refuse so many of the removals, half of them as S3 does and half of them with 429."""
        self.storage.inject(
            {"slow_down": probability / 2, "too_many_connections": probability / 2}, operations=["remove"], seed=7
        )


class Ground(local.ground.Ground):
    """The servers of the embedded stack that benchmarks need."""

    is_embedded = True

    @contextmanager
    def project(self) -> Iterator[EmbeddedProject]:
        """Yield a new project, which is gone afterwards."""
        name = f"bench_{next(_NUMBERS)}"
        files = self.directory / "bytes" / name
        database = self.create(name, files)
        try:
            project = EmbeddedProject(database, self.storage, files)
            project.seed(0, saved=1)  # a first run that sees no save would refuse
            yield project
        finally:
            self.storage.release()
            self.postgres.drop_database(name)
            shutil.rmtree(files, ignore_errors=True)


def embedded() -> AbstractContextManager[Ground]:
    """Start Postgres, with memory enough for the largest backlog, and the emulator."""
    return Ground.prepared("bench", settings={"max_wal_size": "8GB", "shared_buffers": "512MB"})
