"""Another Supabase project: real uploads into a bucket of its own, nothing else touched, nothing left behind."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from benchmarks.project import AGE_SECONDS, Project
from local.application import age_jobs
from local.project import project_in

_UPLOADS = 8
_NOT_EMPTY = (
    "DATABASE_URL has claims that are not finished, which a cycle would finish: let the cleanup run first, "
    "because the benchmark may touch nothing but its own objects"
)


class NotUsableError(Exception):
    """The project that the variables name can't be measured; the message says why."""


class RemoteProject(Project):
    """A project of somebody else's, whose own orphans must stay as they are.

    Each cycle is given a plan of exactly the benchmark's jobs, so that it looks at no other.
    """

    is_embedded = False

    def __init__(self, origin: str, key: str, database_url: str) -> None:
        # Storage says when a file was made, and nobody can make it older.
        super().__init__(origin.rstrip("/"), key, database_url, f"benchmark-{uuid4().hex[:12]}", max_age_seconds=60.0)
        self._jobs: list[UUID] = []
        self._http = self.http()

    @contextmanager
    def project(self) -> Iterator["RemoteProject"]:
        """Yield the project with a bucket of its own; take back all that was added."""
        with self._connect() as database:
            if database.execute(
                "select 1 from storage_cleanup.deletion where state in ('claimed', 'file_deleted') limit 1"
            ).fetchone():
                raise NotUsableError(_NOT_EMPTY)
        self._http.post("/bucket", json={"id": self.bucket, "name": self.bucket, "public": False}).raise_for_status()
        try:
            yield self
        finally:
            self._clean_up()

    def seed(self, orphans: int, *, saved: int = 0, stored: bool = True) -> list[str]:
        """See ``Project``; the application's own statements, with the guard and all triggers on."""
        del stored
        jobs = [(uuid4(), uuid4()) for _ in range(orphans + saved)]
        names = [f"{user}/scene_{job}.png" for job, user in jobs[:orphans]]
        with ThreadPoolExecutor(_UPLOADS) as threads:
            list(threads.map(self._upload, names))
        prefix = f"{self.origin}/storage/v1/object/sign/{self.bucket}"
        urls = [f"{prefix}/{user}/scene_{job}.png?token=t" for job, user in jobs]
        self._jobs += [job for job, _ in jobs]
        with self._connect() as database:
            database.execute(
                "insert into public.render_jobs (id, user_id, status, output_url) select * from "
                "(select unnest(%s::uuid[]), unnest(%s::uuid[]), 'completed', unnest(%s::text[])) as job",
                ([job for job, _ in jobs], [user for _, user in jobs], urls),
            )
            age_jobs(database, [job for job, _ in jobs], timedelta(seconds=AGE_SECONDS))
            database.execute(
                "insert into public.user_assets (user_id, asset_type, metadata) "
                "select user_id, 'generated_saved', jsonb_build_object('render_job_id', id) "
                "from public.render_jobs where id = any(%s)",
                ([job for job, _ in jobs[orphans:]],),
            )
            database.execute("select pg_sleep(60.1)")
        return names

    def plan(self, options: Mapping[str, Any], scope: Mapping[str, Any]) -> UUID:
        """Write the plan that a dry run over nothing but the benchmark's jobs would have written."""
        plan = uuid4()
        with self._connect() as database, database.transaction():
            # The second row keeps a cycle from looking at everybody's candidates again because buckets have changed.
            for run, is_dry in ((plan, True), (uuid4(), False)):
                database.execute(
                    "insert into storage_cleanup.run (id, trigger, dry_run, options, scope, status, finished_at) "
                    "values (%s, 'manual', %s, %s, %s, 'succeeded', now())",
                    (run, is_dry, json.dumps(dict(options)), json.dumps(dict(scope))),
                )
            database.execute(
                "insert into storage_cleanup.plan_job (run_id, job_id, has_file) "
                "select %s, id, true from public.render_jobs where id = any(%s)",
                (plan, self._jobs),
            )
        return plan

    def _upload(self, name: str) -> None:
        self._http.post(
            f"/object/{self.bucket}/{name}", content=b"0123456789", headers={"content-type": "image/png"}
        ).raise_for_status()

    def _clean_up(self) -> None:
        with self._connect() as database, database.transaction():
            for statement in (
                "delete from public.user_assets where metadata ->> 'render_job_id' = any(%(texts)s)",
                "delete from public.render_jobs where id = any(%(jobs)s)",
                "delete from storage_cleanup.candidate where job_id = any(%(jobs)s)",
                "delete from storage_cleanup.deletion where job_id = any(%(jobs)s)",
                "delete from storage_cleanup.run where scope -> 'buckets' = to_jsonb(array[%(bucket)s])",
            ):
                database.execute(
                    statement, {"jobs": self._jobs, "texts": [str(job) for job in self._jobs], "bucket": self.bucket}
                )
        self._jobs = []
        with self._connect() as database:
            while names := [
                name
                for (name,) in database.execute(
                    "select name from storage.objects where bucket_id = %s limit 500", (self.bucket,)
                )
            ]:
                self._http.request("DELETE", f"/object/{self.bucket}", json={"prefixes": names}).raise_for_status()
        self._http.delete(f"/bucket/{self.bucket}").raise_for_status()

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.database_url, autocommit=True, prepare_threshold=None)


def from_environment(environment: Mapping[str, str]) -> RemoteProject | None:
    """Return the project that the variables name, or None when none of them is set.

    Raises
    ------
    NotUsableError
        Some are missing, or the project isn't ready.
    """
    try:
        named = project_in(environment)
    except ValueError as error:
        raise NotUsableError(error) from error
    if named is None:
        return None
    project = RemoteProject(named.origin, named.key, named.database_url)
    try:
        with psycopg.connect(project.database_url, connect_timeout=10, prepare_threshold=None) as database:
            database.execute("select id from public.render_jobs limit 0")
            database.execute("select job_id from storage_cleanup.plan_job limit 0")
    except psycopg.Error as error:
        raise NotUsableError(f"DATABASE_URL isn't ready; run database/install.sql there first: {error}") from error
    return project
