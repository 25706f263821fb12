"""What a table that references render_jobs costs when rows are deleted."""

import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from uuid import UUID

from benchmarks.figures import Figure, in_turn, ratios
from benchmarks.project import Ground

_ROWS = 1500
_RUN = UUID(int=1)


def unindexed_reference(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Delete rows while a table of three rows references them, without an index and with one."""
    pairs = 1 if quick else 7
    without, with_it = in_turn(
        pairs, *(partial(_delete, ground, is_indexed=is_indexed) for is_indexed in (False, True))
    )
    note = f"{median(without) * 1e3:.0f} ms without the index, {median(with_it) * 1e3:.0f} ms with; {_ROWS} rows"
    yield Figure("unindexed_reference", ratios(without, with_it), note)


def _delete(ground: Ground, *, is_indexed: bool) -> float:
    """Return the seconds that a new session needs to delete rows whose files are gone."""
    with ground.project() as project:
        project.seed(_ROWS, stored=False)
        with project.connect("postgres") as owner:
            owner.execute("create table notes (job uuid references render_jobs on delete set null)")
            owner.execute("insert into notes select job_id from storage_cleanup.candidate limit 3")
            if is_indexed:
                owner.execute("create index on notes (job)")
            owner.execute("analyze notes")
            owner.execute(
                "insert into storage_cleanup.deletion (job_id, run_id, state, bucket_id, object_name) "
                "select id, %s, 'file_deleted', 'images', substr(storage_cleanup.object_key(output_url), 8) "
                "from render_jobs where id not in (select id from storage_cleanup.mention)",
                (_RUN,),
            )
        with project.connect() as superuser:
            superuser.execute("truncate storage.objects")
        with project.connect("storage_cleanup_worker") as worker:
            worker.execute("set jit = on")  # as a server has it that nobody has configured
            jobs = [job for (job,) in worker.execute("select job_id from storage_cleanup.deletion")]
            started = time.perf_counter()
            rows = worker.execute(
                "select outcome from storage_cleanup.delete_rows(%s, %s, false)", (_RUN, jobs)
            ).fetchall()
            seconds = time.perf_counter() - started
    if rows != [("deleted",)] * _ROWS:
        raise RuntimeError(f"{_ROWS} rows should have been deleted, and it was {rows[:3]}")
    return seconds
