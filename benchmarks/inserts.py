"""What the triggers and indexes cost the application's own writes."""

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from uuid import uuid4

import psycopg

from benchmarks.figures import Figure, ratios
from benchmarks.project import Ground
from local.postgres import SUPERUSER, Postgres

Connection = psycopg.Connection[tuple[object, ...]]

_LIFE = (
    "insert into render_jobs (id, user_id, prompt) values (%(job)s, %(user)s, %(prompt)s)",
    "update render_jobs set status = 'running', started_at = now() where id = %(job)s",
    "update render_jobs set status = 'completed', progress = 100, output_url = %(url)s, completed_at = now() "
    "where id = %(job)s",
    "insert into user_assets (user_id, asset_type, metadata, file_size) "
    "values (%(user)s, 'generated_saved', %(metadata)s, 10)",
)
_BULK = """
with job as (
    insert into render_jobs (user_id, status, prompt, output_url)
    select gen_random_uuid(), 'completed', '{"text": "a house by the sea"}',
           'https://abc.supabase.co/storage/v1/object/sign/images/' || gen_random_uuid() || '/scene.png?token='
           || repeat('t', 150)
    from generate_series(1, 2000)
    returning id, user_id
)
insert into user_assets (user_id, asset_type, metadata)
select user_id, 'generated_saved', jsonb_build_object('render_job_id', id) from job
"""


def insert_overhead(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """The life of a render (three writes) and its save (one), each a statement and a commit of its own."""
    pairs, renders = (3, 30) if quick else (15, 150)
    durable = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    with Postgres(ground.directory / "durable", settings=durable) as postgres:
        with_it, without = _databases(postgres)
        yield _single("insert_overhead", (with_it, without), pairs, renders, "each committed to disk")
        yield _bulk(with_it, without, 2 if quick else 7)
        with_it.execute("set synchronous_commit = off")
        without.execute("set synchronous_commit = off")
        kind = "without waiting for the disk at commit"
        yield _single("insert_overhead_async", (with_it, without), pairs, renders, kind)


def _databases(postgres: Postgres) -> tuple[Connection, Connection]:
    """Return connections to a database with install.sql and to one without, both with some history."""
    with_it, without = (_database(postgres, name, product=name == "with_it") for name in ("with_it", "without"))
    return with_it, without


def _database(postgres: Postgres, name: str, *, product: bool) -> Connection:
    with psycopg.connect(postgres.url(SUPERUSER), autocommit=True) as superuser:
        superuser.execute(f"create database {name} owner postgres")
    postgres.install(name, product=product)
    connection = psycopg.connect(postgres.url("postgres", name), autocommit=True)
    for _ in range(10):
        connection.execute(_BULK)
    connection.execute("vacuum analyze")
    return connection


def _single(key: str, sides: tuple[Connection, Connection], pairs: int, renders: int, kind: str) -> Figure:
    """Let both databases live through renders in turn, a few at a time, so that noise meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        spent = [0.0, 0.0]
        for turn in range(renders):
            for side in ((0, 1), (1, 0))[turn % 2]:
                spent[side] += _live(sides[side])
        for side in (0, 1):
            times[side].append(spent[side] / renders / len(_LIFE))
    return _figure(key, times, "write", kind)


def _live(connection: Connection) -> float:
    return sum(live_by_statement(connection))


def live_by_statement(connection: Connection) -> list[float]:
    """Render and save once; return the seconds of each statement, with its commit."""
    job, user = uuid4(), uuid4()
    values = {
        "job": job,
        "user": user,
        "prompt": json.dumps({"text": "a house by the sea, evening light", "steps": 30, "width": 1024}),
        "url": f"https://abc.supabase.co/storage/v1/object/sign/images/{user}/scene_{job}.png?token={'t' * 150}",
        "metadata": json.dumps({"render_job_id": str(job), "width": 1024}),
    }
    times = [time.perf_counter()]
    for statement in _LIFE:
        connection.execute(statement, values)
        times.append(time.perf_counter())
    return [after - before for before, after in pairwise(times)]


def _bulk(with_it: Connection, without: Connection, pairs: int) -> Figure:
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs):
        for connection, spent in zip((with_it, without), times, strict=True):
            started = time.perf_counter()
            connection.execute(_BULK)
            spent.append((time.perf_counter() - started) / 4000)
    return _figure("insert_overhead_bulk", times, "row", "2,000 jobs and 2,000 saves in one statement")


def _figure(key: str, times: tuple[list[float], list[float]], unit: str, kind: str) -> Figure:
    with_it, without = times
    note = f"{median(with_it) * 1e6:.0f} µs a {unit} with, {median(without) * 1e6:.0f} µs without; {kind}"
    return Figure(key, ratios(with_it, without), note)
