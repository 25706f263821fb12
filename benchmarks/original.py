"""The baseline: the algorithm of the original, the first version of this system, written fairly.

It reads all completed jobs and all saved ids, deletes one file a request, one after the other, and then the rows.
Where the original leaves room, the faster way was taken: rows are read and deleted over SQL and not over PostgREST, all
in one statement each, saved ids are looked up in a set, and the connection to Storage is kept alive.
"""

import time

import psycopg

from benchmarks.project import Project
from storage_cleanup.storage.paths import StorageObject, parse_storage_url

_COMPLETED = """
select id::text, output_url from public.render_jobs
where status = 'completed' and output_url is not null and created_at < now() - %s * interval '1 second'
"""
_SAVED = "select metadata ->> 'render_job_id' from public.user_assets where metadata ->> 'render_job_id' is not null"
_DELETE = "delete from public.render_jobs where id = any(%s::uuid[])"


def run(project: Project, *, sample: int | None = None, delay: float = 0.0) -> float:
    """Clean a project up as the original does; return how many objects went a second.

    Parameters
    ----------
    sample
        Delete only so many files, and count their time for each of the others; reading and deleting rows is done for
        all of them and counted as it is.
    delay
        Seconds to add to every request, where the server can't be told to.
    """
    with psycopg.connect(project.database_url, autocommit=True) as database, project.http() as storage:
        started = time.perf_counter()
        jobs = database.execute(_COMPLETED, (project.max_age_seconds,)).fetchall()
        saved = {job for (job,) in database.execute(_SAVED)}
        orphans: list[tuple[str, StorageObject]] = []
        for job, url in jobs:
            target = parse_storage_url(url, origin=project.origin, buckets=(project.bucket,))
            if job not in saved and isinstance(target, StorageObject):
                orphans.append((job, target))
        read = time.perf_counter()
        for _, target in orphans[:sample]:
            time.sleep(delay)
            answer = storage.request("DELETE", f"/object/{target.bucket}", json={"prefixes": [target.name]})
            if len(answer.raise_for_status().json()) != 1:
                raise RuntimeError(f"The baseline couldn't remove {target.name}: {answer.text}")
        removed = time.perf_counter()
        database.execute(_DELETE, ([job for job, _ in orphans],))
        finished = time.perf_counter()
    asked = min(len(orphans), sample or len(orphans))
    return len(orphans) / ((read - started) + (removed - read) / asked * len(orphans) + (finished - removed))
