"""What others have written into the database, however odd, stops neither a run nor health, and costs nobody much."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from local.application import TWO_HOURS, Application, Render, age_jobs
from local.postgres import ROOT
from storage_cleanup.postgres.ledger import FIRST_PAGE, Database
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Health
from tests.integration.direct import compare

MEGABYTES = "https://abc.supabase.co/storage/v1/object/public/images/" + "a" * 5_000_000
LONGEST = 8192

METADATA: list[object] = [
    *({"size": size} for size in (1.5, -7, "twelve", "12", [1], {"bytes": 1}, None, True, 10**13, 2**63, 10**400)),
    {},
    [],
    "text",
    7,
    None,
]


def write(servers: Servers, statement: str, *values: object) -> None:
    """Write as the superuser, with no trigger to put a value right."""
    with servers.database.connect("supabase_admin", autocommit=False) as superuser:
        superuser.execute("set local session_replication_role = replica")
        superuser.execute(statement, values)


def unanswered(answer: dict[str, Any]) -> list[str]:
    return [each["sentence"] for each in answer["checks"].values() if "couldn't be checked" in each["sentence"]]


@pytest.mark.parametrize("metadata", METADATA, ids=lambda metadata: json.dumps(metadata)[:30])
def test_any_metadata_of_an_object_is_taken_as_it_is(
    application: Application,
    cleanup: Cleanup,
    health: Health,
    servers: Servers,
    metadata: object,
) -> None:
    application.render()
    application.upload("images", "unknown.png", b"x", age=timedelta(days=1))
    write(servers, "update storage.objects set metadata = %s", Jsonb(metadata))
    assert unanswered(health()) == []
    answer = cleanup()
    assert (answer["status"], answer["phases"]["storage_files"]["deleted"]) == ("succeeded", 1)


@pytest.mark.parametrize(
    ("metadata", "size"), [({"size": 12}, 12), ({"size": 10**13}, 0), ({"size": 1.5}, 0), (None, 0)]
)
def test_a_size_that_cannot_be_one_counts_as_nothing(
    application: Application, cleanup: Cleanup, servers: Servers, metadata: object, size: int
) -> None:
    application.render()
    write(servers, "update storage.objects set metadata = %s", Jsonb(metadata))
    assert cleanup()["phases"]["storage_files"]["bytes"] == size


@pytest.mark.parametrize("size", [None, -1, 0, 2**63 - 1])
def test_any_size_of_an_asset_is_taken_as_it_is(
    application: Application, health: Health, servers: Servers, size: int | None
) -> None:
    application.save(application.render())
    application.save(application.render())
    write(servers, "update user_assets set file_size = %s, created_at = now()", size)
    assert unanswered(health()) == []


DATES = ["infinity", "-infinity", "4000-01-01 BC", "20000-01-01", None]


@pytest.mark.parametrize("date", DATES)
@pytest.mark.parametrize("table", ["public.render_jobs", "public.user_assets", "storage.objects"])
def test_any_date_is_taken_as_it_is(
    application: Application,
    cleanup: Cleanup,
    health: Health,
    servers: Servers,
    *,
    table: str,
    date: str | None,
) -> None:
    application.save(application.render())
    odd, other = application.render(), application.render()
    fileless = application.add_job(output_url=None)
    write(servers, f"alter table {table} alter created_at drop not null")
    where = {
        "public.render_jobs": "id = any(%s)",
        "public.user_assets": "%s is not null",
        "storage.objects": "name = %s",
    }
    value: object = odd.name if table == "storage.objects" else [odd.job_id, fileless]
    write(servers, f"update {table} set created_at = %s where {where[table]}", date, value)
    assert unanswered(health()) == []
    assert cleanup()["status"] == "succeeded"
    assert other.job_id not in application.jobs()


def test_jobs_that_had_an_odd_date_before_the_installation_are_read(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    job = application.add_job(output_url=None)
    write(servers, "update render_jobs set created_at = '-infinity'")
    servers.execute("truncate storage_cleanup.candidate")
    with servers.database.connect() as owner:
        compare(owner, as_first=True)
    assert cleanup()["status"] == "succeeded"
    assert job not in application.jobs()


def test_a_bucket_with_an_odd_date_stops_nothing(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    application.render()
    with servers.database.connect("storage_cleanup_worker") as worker:
        write(servers, "insert into storage.buckets (id, name, created_at) values ('odd', 'odd', 'infinity')")
        listed = {row[0] for row in worker.execute("select id, created_at from storage_cleanup.buckets()")}
        assert listed == {"images", "videos", "storage-cleanup"}
        write(servers, "delete from storage.buckets where id = 'odd'")


# -- long values -------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker(servers: Servers) -> Database:
    return Database(servers.database.url("storage_cleanup_worker"))


def test_a_url_over_8_kb_is_left_alone_with_a_reason(application: Application, cleanup: Cleanup) -> None:
    job = application.add_job(output_url=MEGABYTES)
    answer = cleanup()
    assert answer["status"] == "succeeded"
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"too_long": 1}
    assert application.jobs() == {job}


def test_no_url_over_8_kb_leaves_the_database(application: Application, worker: Database) -> None:
    lengths = (LONGEST, LONGEST + 1, 5_000_000)
    jobs = [application.add_job(output_url="é" + "x" * (length - 2)) for length in lengths]
    with worker:
        page = {
            candidate.job_id: candidate
            for candidate in worker.due(
                uuid4(),
                with_file=True,
                max_age=timedelta(hours=1),
                grace=timedelta(0),
                after=FIRST_PAGE,
                size=9,
                own_share=False,
                plan=None,
            )
        }
    assert [len((page[job].output_url or "").encode()) for job in jobs] == [LONGEST, 0, 0]
    assert [page[job].too_long for job in jobs] == [False, True, True]


def test_the_ledger_keeps_rows_without_their_long_values(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    render = application.render()
    with servers.database.connect() as owner:
        owner.execute(
            "update render_jobs set error = 'short', prompt = jsonb_build_object('image', repeat('x', 5000000))"
        )
        age_jobs(owner, [render.job_id], TWO_HOURS)
        cleanup()
        row = owner.execute("select job, pg_column_size(job) from storage_cleanup.deletion").fetchone()
    assert row
    assert (row[0]["error"], "prompt" in row[0]) == ("short", False)
    assert row[1] < LONGEST


def key_of(servers: Servers, url: str) -> str:
    return str(servers.execute("select storage_cleanup.object_key(%s)", url)[0][0])


def test_however_long_a_url_is_only_its_beginning_is_read(servers: Servers) -> None:
    assert key_of(servers, "/object/sign/images/a.png?token=" + "t" * 5_000_000) == "images/a.png"
    assert len(key_of(servers, "%41" * 2_000_000)) < LONGEST


@pytest.mark.parametrize("saver", ["job", "asset"])
def test_a_long_url_still_protects_the_file_that_it_names(
    application: Application, cleanup: Cleanup, servers: Servers, saver: str
) -> None:
    orphan = application.render()
    long_url = f"/object/sign/images/{orphan.name}?token=" + "t" * LONGEST
    if saver == "job":
        job = application.add_job(output_url=long_url)
        application.save(Render(job, uuid4(), "images", orphan.name, b""))
    else:
        save_with_path(servers, long_url)
    cleanup()
    assert application.download(orphan) == orphan.content


def save_with_path(servers: Servers, path: str) -> None:
    """Give the assets a column of paths, and add one."""
    servers.execute("alter table user_assets add storage_path text")
    servers.execute((ROOT / "database" / "install.sql").read_bytes())
    servers.execute(
        "insert into user_assets (user_id, asset_type, storage_path) values (gen_random_uuid(), 'x', %s)", path
    )


def test_an_asset_with_a_path_of_megabytes_is_guarded_by_its_beginning(
    application: Application, servers: Servers
) -> None:
    save_with_path(servers, MEGABYTES)
    servers.execute("update user_assets set title = 'mine'")
    servers.execute("update user_assets set storage_path = storage_path || 'b'")
    assert servers.execute("select octet_length(storage_path) from user_assets") == [(len(MEGABYTES) + 1,)]
