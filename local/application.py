"""The sample application: people render images and videos, and save what they like.

It talks to the stack as an application on Supabase does: Storage through the ``supabase`` client, and the database as a
signed-in user under row-level security. Only time is faked: what it makes can be given an age.
"""

import json
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
from psycopg.types.json import Jsonb
from supabase import Client, ClientOptions, create_client

from local.postgres import Database

TWO_HOURS = timedelta(hours=2)


def age_jobs(connection: psycopg.Connection[Any], jobs: Collection[UUID], age: timedelta) -> None:
    """Pretend that jobs were made, and seen to complete, so long ago."""
    with connection.transaction():
        connection.execute(
            "update public.render_jobs set created_at = now() - %s where id = any(%s)", (age, list(jobs))
        )
        connection.execute(
            "update storage_cleanup.candidate set since = now() - %(age)s, completed_at = now() - %(age)s, "
            "unsaved_at = unsaved_at - %(age)s where job_id = any(%(jobs)s)",
            {"age": age, "jobs": list(jobs)},
        )
        connection.execute("update storage_cleanup.unsaved set at = at - %s where job_id = any(%s)", (age, list(jobs)))


class Link(StrEnum):
    """How the application writes down where an output lies."""

    SIGNED = "signed"
    SIGNED_RELATIVE = "signed, relative"
    PUBLIC = "public"
    AUTHENTICATED = "authenticated"


@dataclass(frozen=True)
class Render:
    """A row of ``render_jobs`` and its file."""

    job_id: UUID
    user_id: UUID
    bucket: str
    name: str
    content: bytes


class Application:
    """People who render and save.

    Parameters
    ----------
    database
        The project's database.
    origin
        The project's origin, with Storage below ``/storage/v1``.
    key
        The service-role key, with which the application's backend uploads.
    """

    def __init__(self, database: Database, origin: str, key: str) -> None:
        self._database = database
        self._origin = origin
        self.user = uuid4()
        self._http = httpx.Client(timeout=30)
        self._storage: Client = create_client(origin, key, ClientOptions(httpx_client=self._http))
        self._owner = database.connect()
        self._user = database.connect("authenticated")
        self._storage_owner = database.connect("supabase_storage_admin")
        self._superuser = database.connect("supabase_admin")

    def close(self) -> None:
        """Close all connections."""
        for connection in (self._http, self._owner, self._user, self._storage_owner, self._superuser):
            connection.close()

    # -- rendering -------------------------------------------------------------------------------------------------

    def render(
        self,
        *,
        name: str | None = None,
        user: UUID | None = None,
        bucket: str = "images",
        link: Link = Link.SIGNED,
        age: timedelta = TWO_HOURS,
        status: str = "completed",
        content: bytes | None = None,
    ) -> Render:
        """Render an output: a job, its file, and the URL under which it is shown."""
        user = user or self.user
        name = name or f"{user}/scene_{int(datetime.now(UTC).timestamp() * 1000)}_{uuid4()}.png"
        content = content if content is not None else f"pixels of {name}".encode()
        self.upload(bucket, name, content, age=age, user=user)
        job = self.add_job(user=user, output_url=self.link(bucket, name, link), age=age, status=status)
        return Render(job, user, bucket, name, content)

    def add_job(
        self,
        *,
        output_url: str | None,
        age: timedelta = TWO_HOURS,
        status: str = "completed",
        user: UUID | None = None,
    ) -> UUID:
        """Add a row to ``render_jobs`` whose URL says whatever it is given."""
        with self._owner.transaction():
            inserted = self._owner.execute(
                "insert into render_jobs (user_id, status, output_url) values (%s, %s, %s) returning id",
                (user or self.user, status, output_url),
            )
            job: UUID = _only(inserted)
            self.age_jobs([job], age)
        return job

    def age_jobs(self, jobs: Collection[UUID], age: timedelta) -> None:
        """Pretend that jobs completed so long ago."""
        age_jobs(self._owner, jobs, age)

    def upload(
        self, bucket: str, name: str, content: bytes, *, age: timedelta = timedelta(0), user: UUID | None = None
    ) -> None:
        """Upload a file as a user, and make it look as old as it should be."""
        self._put(bucket, name, content)
        with self._superuser.transaction():
            self._superuser.execute(
                "update storage.objects set owner_id = %s where bucket_id = %s and name = %s",
                (str(user or self.user), bucket, name),
            )
        self.age_file(bucket, name, age)

    def age_file(self, bucket: str, name: str, age: timedelta) -> None:
        """Pretend that a file was uploaded so long ago."""
        self._age_files(bucket, [name], age)

    def render_many(self, count: int, *, age: timedelta = TWO_HOURS, bucket: str = "images") -> list[Render]:
        """Add that many completed jobs with files of ten bytes, by SQL alone: no bytes are stored."""
        with self._superuser.transaction():
            rows = self._superuser.execute(
                """
                with job as (
                    insert into render_jobs (user_id, status, output_url)
                    select u.id, 'completed',
                           format('%%s/storage/v1/object/sign/%%s/%%s/scene_%%s.png?token=t',
                                  %(origin)s::text, %(bucket)s::text, u.id, n)
                    from (select gen_random_uuid() as id, n from generate_series(1, %(count)s) as n) as u
                    returning id, user_id, storage_cleanup.object_key(output_url) as key
                ), file as (
                    insert into storage.objects (bucket_id, name, metadata, created_at, updated_at)
                    select %(bucket)s, substr(key, length(%(bucket)s) + 2), '{"size": 10}',
                           now() - %(age)s, now() - %(age)s
                    from job
                )
                select id, user_id, key from job
                """,
                {"origin": self._origin, "bucket": bucket, "age": age, "count": count},
            ).fetchall()
            age_jobs(self._superuser, [job for job, _, _ in rows], age)
        return [Render(job, user, bucket, key.removeprefix(f"{bucket}/"), b"") for job, user, key in rows]

    def render_files(self, count: int, *, age: timedelta = TWO_HOURS, bucket: str = "images") -> list[Render]:
        """Render that many outputs with bytes of their own; several uploads at a time."""
        renders = [
            replace(render, content=f"pixels of {render.name}".encode())
            for render in self.render_many(count, age=age, bucket=bucket)
        ]
        with ThreadPoolExecutor(4) as workers:
            list(workers.map(lambda render: self._put(bucket, render.name, render.content), renders))
        self._age_files(bucket, [render.name for render in renders], age)
        return renders

    def create_bucket(self, name: str) -> None:
        """Add a bucket for something else than renders."""
        self._storage.storage.create_bucket(name, options={"public": False})

    def link(self, bucket: str, name: str, kind: Link) -> str:
        """Return a URL of a file, in one of the shapes that applications keep."""
        files = self._storage.storage.from_(bucket)
        if kind in (Link.SIGNED, Link.SIGNED_RELATIVE):
            signed = str(files.create_signed_url(name, 3600)["signedURL"])
            return signed if kind is Link.SIGNED else signed.removeprefix(f"{self._origin}/storage/v1")
        public = str(files.get_public_url(name)).removesuffix("?")
        return public if kind is Link.PUBLIC else public.replace("/object/public/", "/object/authenticated/")

    # -- saving ----------------------------------------------------------------------------------------------------

    def save(self, render: Render, *, metadata: dict[str, Any] | None = None) -> UUID:
        """Save an output, as the user whose render it is.

        Raises
        ------
        psycopg.errors.ForeignKeyViolation
            It comes too late: the output is being removed.
        """
        with self._signed_in(render.user_id):
            asset: UUID = _only(
                self._user.execute(
                    "insert into user_assets (user_id, asset_type, metadata, file_size) "
                    "values (%s, 'generated_saved', %s, %s) returning id",
                    (render.user_id, Jsonb(metadata or {"render_job_id": str(render.job_id)}), len(render.content)),
                )
            )
        return asset

    def save_many(self, renders: list[Render]) -> None:
        """Save many outputs in one statement."""
        self._owner.execute(
            "insert into user_assets (user_id, asset_type, metadata) "
            "select user_id, 'generated_saved', jsonb_build_object('render_job_id', id) "
            "from render_jobs where id = any(%s)",
            ([render.job_id for render in renders],),
        )

    def soft_delete(self, asset: UUID) -> None:
        """Mark an asset as deleted, so that its owner can still take that back."""
        self._owner.execute("update user_assets set deleted_at = now() where id = %s", (asset,))

    def unsave(self, asset: UUID) -> None:
        """Delete an asset."""
        self._owner.execute("delete from user_assets where id = %s", (asset,))

    def had_a_run(self) -> None:
        """Pretend that a run was found good while nobody had saved anything, so that the next one isn't the first."""
        self._owner.execute(
            "insert into storage_cleanup.run (trigger, dry_run, options, scope, status, finished_at, saved_assets) "
            "values ('schedule', false, '{}', '{}', 'succeeded', now(), 0)"
        )

    # -- looking ---------------------------------------------------------------------------------------------------

    def jobs(self) -> set[UUID]:
        """Return the ids of all rows of ``render_jobs``."""
        return {job for (job,) in self._owner.execute("select id from render_jobs")}

    def files(self) -> set[tuple[str, str]]:
        """Return bucket and name of all of the application's files."""
        query = "select bucket_id, name from storage.objects where bucket_id <> 'storage-cleanup'"
        return set(self._storage_owner.execute(query).fetchall())

    def download(self, render: Render) -> bytes:
        """Return the bytes of a render's file, as Storage serves them."""
        return self.read(render.bucket, render.name)

    def read(self, bucket: str, name: str) -> bytes:
        """Return the bytes of a file, as Storage serves them."""
        return bytes(self._storage.storage.from_(bucket).download(name))

    def saved_assets(self) -> int:
        """Return how many assets name a job."""
        return int(_only(self._owner.execute("select count(*) from user_assets where metadata ? 'render_job_id'")))

    def _put(self, bucket: str, name: str, content: bytes) -> None:
        self._storage.storage.from_(bucket).upload(name, content, {"content-type": "image/png", "upsert": "true"})

    def _age_files(self, bucket: str, names: Collection[str], age: timedelta) -> None:
        with self._superuser.transaction():
            # Storage's own trigger would write today's date.
            self._superuser.execute("set local session_replication_role = replica")
            self._superuser.execute(
                "update storage.objects set created_at = now() - %(age)s, updated_at = now() - %(age)s "
                "where bucket_id = %(bucket)s and name = any(%(names)s)",
                {"age": age, "bucket": bucket, "names": list(names)},
            )

    @contextmanager
    def _signed_in(self, user: UUID) -> Iterator[None]:
        with self._user.transaction():
            self._user.execute(
                "select set_config('request.jwt.claims', %s, true)",
                (json.dumps({"sub": str(user), "role": "authenticated"}),),
            )
            yield


def _only(cursor: psycopg.Cursor[Any]) -> Any:
    """Return the one value of a statement's one row."""
    row = cursor.fetchone()
    assert row
    return row[0]
