"""What an installation costs the application that works meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import psycopg

from benchmarks.figures import Figure
from benchmarks.inserts import live_by_statement
from benchmarks.project import Ground
from database.install import install
from local.postgres import Postgres

_PEOPLE = 4
_ROWS = """
insert into render_jobs (user_id, status, prompt, output_url, created_at)
select gen_random_uuid(), 'completed', '{"text": "a house by the sea"}',
       'https://abc.supabase.co/storage/v1/object/sign/images/' || n || '/scene.png?token=' || repeat('t', 150),
       now() - n * interval '1 second'
from generate_series(1, %s) as n;
insert into user_assets (user_id, asset_type, metadata)
select user_id, 'generated_saved', jsonb_build_object('render_job_id', id, 'width', 1024)
from render_jobs where hashtext(id::text) %% 10 <> 0;
"""


def installation(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Install into a large database in use: the slowest statement of the application, and again when all is there."""
    rows = 20_000 if quick else 1_000_000
    with Postgres(ground.directory / "installation", settings={"fsync": "on", "synchronous_commit": "on"}) as postgres:
        postgres.install(product=False)
        with psycopg.connect(postgres.url(), autocommit=True) as owner:
            with psycopg.ClientCursor(owner) as cursor:
                cursor.execute(_ROWS, (rows,))
            owner.execute("vacuum analyze")
        usual, _ = _beside(postgres, lambda: time.sleep(1 if quick else 10))
        for key in ("install_slowest_s", "install_again_slowest_s"):
            times, seconds = _beside(postgres, lambda: install(postgres.url(), say=lambda _: None))
            note = (
                f"{seconds:.1f} s at {rows:,} jobs; {len(times):,} statements of {_PEOPLE} sessions, median "
                f"{median(times) * 1000:.1f} ms; undisturbed {median(usual) * 1000:.1f} ms, "
                f"slowest {max(usual) * 1000:.0f} ms"
            )
            yield Figure(key, (max(times),), note)


def _beside(postgres: Postgres, work: Callable[[], object]) -> tuple[list[float], float]:
    """Do it while people render and save; return the seconds of each of their statements, and of the work.

    Raises
    ------
    psycopg.Error
        One of them met an error: then there is no figure.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(_PEOPLE) as pool:
        people = [pool.submit(_work, postgres.url(), stop) for _ in range(_PEOPLE)]
        try:
            began = time.monotonic()
            work()
            seconds = time.monotonic() - began
        finally:
            stop.set()
        return [each for person in people for each in person.result()], seconds


def _work(url: str, stop: threading.Event) -> list[float]:
    times: list[float] = []
    with psycopg.connect(url, autocommit=True) as connection:
        while not stop.is_set():
            times += live_by_statement(connection)
    return times
