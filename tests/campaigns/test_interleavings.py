"""What the race has found, each as the one interleaving that it takes."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg import errors as pg

from local.application import TWO_HOURS, age_jobs
from local.postgres import Database

KEY = "images/a.png"
USER = UUID(int=1)
START = "select storage_cleanup.start_run(gen_random_uuid(), 'manual', false, '{}', '{}', null)"
Connection = psycopg.Connection[Any]


@pytest.fixture
def cleaner(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        connection.execute("insert into storage.buckets (id, name) values ('images', 'images')")
        connection.execute(
            "insert into storage.objects (bucket_id, name, owner_id, created_at, updated_at) "
            "values ('images', 'a.png', %s, now() - interval '2 hours', now() - interval '2 hours')",
            (str(USER),),
        )
        yield connection


@pytest.fixture
def user(database: Database) -> Iterator[Connection]:
    with database.connect() as connection:
        yield connection


def add_job(connection: Connection) -> UUID:
    """Add an old job whose output is the one file."""
    job = uuid4()
    connection.execute(
        "insert into render_jobs (id, user_id, status, output_url) "
        "values (%s, %s, 'completed', '/storage/v1/object/public/' || %s)",
        (job, USER, KEY),
    )
    age_jobs(connection, [job], TWO_HOURS)
    return job


def save(connection: Connection, job: UUID) -> None:
    connection.execute(
        "insert into user_assets (user_id, asset_type, metadata) "
        "values (gen_random_uuid(), 'generated_saved', jsonb_build_object('render_job_id', %s::text))",
        (str(job),),
    )


def claim(connection: Connection, job: UUID) -> None:
    outcomes = connection.execute(
        "select outcome from storage_cleanup.claim(gen_random_uuid(), %s, %s, interval '1 hour', false, null)",
        ([job], [KEY]),
    ).fetchall()
    assert outcomes == [("claimed",)]


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_snapshot_older_than_the_claim_does_not_hide_it_from_a_new_job_of_the_same_file(
    cleaner: Connection, user: Connection, level: IsolationLevel
) -> None:
    original = add_job(cleaner)
    user.isolation_level = level
    with user.transaction():
        user.execute("select 1")
        claim(cleaner, original)
        with pytest.raises(pg.SerializationFailure):
            save(user, add_job(user))
        raise psycopg.Rollback


def test_a_new_job_of_a_file_that_has_gone_can_not_be_saved(
    cleaner: Connection, user: Connection, database: Database
) -> None:
    original = add_job(cleaner)
    claim(cleaner, original)
    with database.connect("supabase_storage_admin") as storage:
        storage.execute("set storage.allow_delete_query = 'true'")
        storage.execute("delete from storage.objects")
    cleaner.execute("delete from render_jobs")
    cleaner.execute("update storage_cleanup.deletion set state = 'done'")
    with pytest.raises(pg.ForeignKeyViolation, match="can no longer be saved"):
        save(user, add_job(user))


def test_an_unsave_waits_for_nobody_and_is_not_forgotten_with_the_candidate(
    cleaner: Connection, user: Connection
) -> None:
    """A claim still sees the save, and is about to forget the candidate because of it."""
    job = add_job(cleaner)
    save(user, job)
    with cleaner.transaction():
        outcome = cleaner.execute(
            "select outcome from storage_cleanup.claim(gen_random_uuid(), %s, %s, interval '1 hour', false, null)",
            ([job], [KEY]),
        ).fetchone()
        assert outcome == ("saved",)
        user.execute("set lock_timeout = '100ms'")
        user.execute("delete from user_assets")
        with pytest.raises(pg.LockNotAvailable):  # but the run that takes it up waits for the claim
            user.execute(START)
    cleaner.execute(START)
    assert cleaner.execute("select job_id from storage_cleanup.candidate").fetchall() == [(job,)]


def test_two_transactions_that_unsave_the_same_jobs_crosswise_wait_for_nobody(
    cleaner: Connection, user: Connection, database: Database
) -> None:
    jobs = [add_job(cleaner) for _ in range(2)]
    with database.connect(autocommit=False) as other:
        for connection in (user, other):
            connection.execute("set lock_timeout = '100ms'")
            for job in jobs:
                save(connection, job)
        user.execute("begin")
        other.commit()
        mine = "delete from user_assets where metadata ->> 'render_job_id' = %s and ctid = any (array("
        first = f"{mine}select min(ctid) from user_assets where metadata ->> 'render_job_id' = %s))"
        last = f"{mine}select max(ctid) from user_assets where metadata ->> 'render_job_id' = %s))"
        for job in jobs:
            assert user.execute(first.encode(), (str(job), str(job))).rowcount == 1
        for job in reversed(jobs):
            assert other.execute(last.encode(), (str(job), str(job))).rowcount == 1
        user.execute("commit")


@pytest.mark.parametrize(
    "housekeeping",
    ["delete from render_jobs where id = %s", "update render_jobs set output_url = null where id = %s"],
    ids=["its row is deleted", "its URL is taken away"],
)
def test_a_file_outlives_its_job_although_the_save_and_the_url_were_written_at_the_same_time(
    cleaner: Connection, user: Connection, database: Database, housekeeping: str
) -> None:
    """Neither transaction sees what the other notes, so what the asset needs is noted when the job lets go of it."""
    orphan, job = add_job(cleaner), uuid4()
    cleaner.execute("insert into render_jobs (id, user_id, status) values (%s, %s, 'running')", (job, USER))
    with database.connect(autocommit=False) as renderer:
        url = f"/storage/v1/object/public/{KEY}"
        renderer.execute("update render_jobs set status = 'completed', output_url = %s where id = %s", (url, job))
        save(user, job)
    cleaner.execute(housekeeping.encode(), (job,))
    outcome = cleaner.execute(
        "select outcome from storage_cleanup.claim(gen_random_uuid(), %s, %s, interval '1 hour', false, null)",
        ([orphan], [KEY]),
    ).fetchone()
    assert outcome == ("asset_points_at_file",)
