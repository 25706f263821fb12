"""The canary: before anything is deleted, a new object shows that Storage and database are one project."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from local.application import TWO_HOURS, Application, Render, age_jobs
from local.postgres import Postgres
from local.storage_emulator.faults import Fault
from storage_cleanup.storage.paths import OWN_BUCKET
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure, nothing_happened
from tests.integration.direct import cycle, ledger, let_time_pass

ROOT = Path(__file__).resolve().parents[2]
SCHEDULED = json.loads((ROOT / "events" / "scheduled.json").read_text())
DIFFERENT = "supabase/url and database/url belong to different projects"
COUNT = 30
pytestmark = pytest.mark.usefixtures("impatience")


def canaries(servers: Servers) -> list[str]:
    with servers.database.connect() as owner:
        rows = owner.execute("select name from storage.objects where bucket_id = %s", (OWN_BUCKET,)).fetchall()
    return [name for (name,) in rows]


def requests(servers: Servers) -> dict[str, int]:
    return dict(servers.storage.stats()["requests"])


# -- a clone ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def renders(application: Application) -> list[Render]:
    application.had_a_run()
    return application.render_files(COUNT)


@pytest.fixture
def clone(
    renders: list[Render],
    servers: Servers,
    postgres: Postgres,
    configure: Configure,
    cleanup: Cleanup,  # writes the parameters first
) -> Iterator[str]:
    """Restore a copy of the project from before anybody saved, and have ``database/url`` point there."""
    name = f"clone_{uuid4().hex}"
    postgres.create_database(name)
    url = postgres.url("postgres", name)
    tables = ("storage.buckets", "render_jobs", "storage.objects", "storage_cleanup.run")
    with (
        servers.database.connect("supabase_admin") as original,
        psycopg.connect(postgres.url("supabase_admin", name), autocommit=True) as copy,
    ):
        for table in tables:
            rows = original.execute(f"select coalesce(json_agg(t), '[]')::text from {table} as t").fetchone()
            columns = (
                "bucket_id, name, owner_id, metadata, created_at, updated_at, version"
                if table == "storage.objects"
                else "*"
            )
            into = f" ({columns})" if columns != "*" else ""
            copy.execute(
                f"insert into {table}{into} select {columns} from json_populate_recordset(null::{table}, %s) "
                "on conflict do nothing",
                rows,
            )
        age_jobs(copy, [render.job_id for render in renders], TWO_HOURS)
    configure(database__url=url)
    yield url
    postgres.drop_database(name)


@pytest.mark.parametrize("event", [None, SCHEDULED], ids=["by hand", "scheduled"])
def test_a_clone_that_agrees_in_everything_old_deletes_nothing(
    application: Application, cleanup: Cleanup, clone: str, renders: list[Render], event: object
) -> None:
    application.save_many(renders)
    answer = cleanup(event)
    assert len(application.files()) == len(application.jobs()) == COUNT
    assert (answer["status"], DIFFERENT in answer["message"]) == ("failed", True)
    assert [application.download(render) for render in renders] == [render.content for render in renders]
    with psycopg.connect(clone) as connection:
        assert connection.execute("select count(*) from storage_cleanup.deletion").fetchone() == (0,)
        assert connection.execute("select count(*) from render_jobs").fetchone() == (COUNT,)


@pytest.mark.usefixtures("clone")
def test_a_clone_uploads_once_a_run_and_takes_it_back(cleanup: Cleanup, servers: Servers) -> None:
    answer = cleanup()
    assert answer["message"].count(DIFFERENT) == 1
    assert requests(servers) == {**requests(servers), "upload": COUNT + 1, "remove": 1}
    assert canaries(servers) == []


@pytest.mark.usefixtures("clone")
def test_a_dry_run_by_hand_recognises_a_clone_and_makes_no_plan(cleanup: Cleanup) -> None:
    plan = cleanup(dry_run=True)
    assert (plan["status"], DIFFERENT in plan["message"]) == ("failed", True)


# -- what it costs ----------------------------------------------------------------------------------------------------


def test_a_run_that_deletes_sends_one_canary_however_much_it_deletes(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.had_a_run()
    application.render_many(1200)
    application.add_job(output_url=None)
    assert cleanup()["status"] == "succeeded"
    assert requests(servers) == {"list_buckets": 1, "upload": 1, "remove": 1 + 3}
    assert (application.files(), canaries(servers)) == (set(), [])


def test_rows_alone_need_it_as_well(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    application.add_job(output_url=None)
    assert cleanup(SCHEDULED)["phases"]["render_jobs"]["deleted"] == 1
    assert requests(servers) == {"list_buckets": 1, "upload": 1, "remove": 1}


def test_a_scheduled_dry_run_sends_none(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    application.render_many(1)
    configure(dry_run="true")
    assert cleanup(SCHEDULED)["status"] == "succeeded"
    assert requests(servers) == {"list_buckets": 1}


# -- a refused upload -------------------------------------------------------------------------------------------------


def full(servers: Servers) -> None:
    with servers.database.connect("supabase_storage_admin") as connection:
        connection.execute("update storage.buckets set file_size_limit = 1 where id = %s", (OWN_BUCKET,))


def not_permitted(servers: Servers) -> None:
    with servers.database.connect("supabase_storage_admin") as connection:
        connection.execute("revoke insert on storage.objects from service_role")


def broken(servers: Servers) -> None:
    servers.storage.inject({Fault.INTERNAL: 1}, operations=["upload"])


def without_bucket(servers: Servers) -> None:
    with servers.database.connect("supabase_storage_admin") as connection:
        connection.execute("set storage.allow_delete_query = true")
        connection.execute("delete from storage.buckets where id = %s", (OWN_BUCKET,))


REFUSALS: dict[Callable[[Servers], None], str] = {
    full: "The object exceeded the maximum allowed size",
    not_permitted: "row-level security",
    broken: "Internal Server Error",
    without_bucket: "Bucket not found",
}


@pytest.mark.parametrize("refuse", REFUSALS)
def test_a_refused_upload_deletes_nothing_and_says_what_to_do(
    application: Application, cleanup: Cleanup, servers: Servers, refuse: Callable[[Servers], None]
) -> None:
    application.render_many(3)
    refuse(servers)
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert (ledger(servers), canaries(servers)) == ([], [])
    for word in (REFUSALS[refuse], "quota", "permit the service role", "database/install.sql", "override"):
        assert word in answer["message"]


@pytest.mark.parametrize("refuse", REFUSALS)
def test_an_override_goes_on_without_it_and_says_so(
    application: Application,
    cleanup: Cleanup,
    servers: Servers,
    refuse: Callable[[Servers], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    application.render_many(3)
    refuse(servers)
    plan = cleanup(dry_run=True)
    caplog.clear()
    answer = cleanup(override=plan["plan_id"])
    assert answer["phases"]["storage_files"]["deleted"] == answer["phases"]["render_jobs"]["deleted"] == 3
    assert "Nothing proves that Storage and database are one project" in caplog.text
    assert REFUSALS[refuse] in caplog.text


@pytest.mark.parametrize("fault", [Fault.TIMEOUT_BEFORE, Fault.SLOW_DOWN, Fault.TOO_MANY_CONNECTIONS])
@pytest.mark.parametrize("dry_run", [True, False])
def test_an_upload_without_an_answer_to_it_deletes_nothing(
    application: Application, cleanup: Cleanup, servers: Servers, fault: Fault, *, dry_run: bool
) -> None:
    """It wasn't refused, so not even a plan may go on without it."""
    application.render_many(3)
    servers.storage.inject({fault: 1}, operations=["upload"], hang_seconds=1)
    nothing_happened(cleanup(dry_run=dry_run), application, files=3)
    assert (ledger(servers), canaries(servers)) == ([], [])


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.TIMEOUT_AFTER])
def test_an_upload_whose_answer_got_lost_is_made_again(
    application: Application, cleanup: Cleanup, servers: Servers, fault: Fault
) -> None:
    application.render_many(3)
    servers.storage.inject({fault: 0.5}, operations=["upload"], hang_seconds=1, seed=1)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 3
    assert servers.storage.stats()["faults"]
    assert (application.files(), canaries(servers)) == (set(), [])


# -- the look, and the removal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["query_canceled", "lock_not_available", "internal_error"])
def test_a_look_that_fails_deletes_nothing(
    application: Application, cleanup: Cleanup, servers: Servers, state: str
) -> None:
    application.render_many(3)
    with servers.database.connect() as owner:
        owner.execute(
            "create or replace function storage_cleanup.canaries(this_run uuid) returns setof text language plpgsql "
            f"as $$ begin raise {state} using message = 'no look today'; end $$"
        )
    answer = cleanup()
    assert (answer["status"], "no look today" in answer["message"]) == ("failed", True)
    assert (len(application.jobs()), ledger(servers)) == (3, [])


def test_a_canary_that_cannot_be_removed_is_removed_by_the_next_run(
    application: Application, cleanup: Cleanup, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    application.render_many(3)
    servers.storage.inject({Fault.INTERNAL: 1}, operations=["remove"])
    cleanup()
    assert "could not be removed; the next run removes it" in caplog.text
    assert len(canaries(servers)) == 1
    servers.storage.heal()
    assert cleanup()["status"] == "succeeded"
    assert (application.files(), canaries(servers)) == (set(), [])


def test_what_a_run_left_that_was_killed_before_the_removal_goes_with_the_next_one(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render_many(3)
    servers.storage.inject(operations=["remove"], latency_ms=60_000)
    run = get_context("fork").Process(target=cycle, args=(servers,))
    run.start()
    while run.is_alive() and not requests(servers).get("remove"):
        time.sleep(0.02)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    assert len(canaries(servers)) == 1
    assert (len(application.jobs()), ledger(servers)) == (3, [])
    servers.storage.heal()
    let_time_pass(servers.database)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 3
    assert (application.files(), canaries(servers)) == (set(), [])


def test_a_canary_of_a_run_at_work_is_left_to_it(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    application.render_many(3)
    run = uuid4()
    with servers.database.connect() as owner:
        owner.execute("select storage_cleanup.start_run(%s, 'manual', false, '{}', '{}', null)", (run,))
        application.upload(OWN_BUCKET, f"canary/{run}", b"x")
        application.upload(OWN_BUCKET, f"canary/{uuid4()}", b"a run that nobody remembers")
        cleanup()
        assert canaries(servers) == [f"canary/{run}"]


# -- the bucket -------------------------------------------------------------------------------------------------------


def test_the_bucket_is_private_and_no_file_of_it_is_ever_deleted(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.upload(OWN_BUCKET, "canary/mine.png", b"x", age=TWO_HOURS)
    job = application.add_job(output_url=f"/storage/v1/object/public/{OWN_BUCKET}/canary/mine.png")
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"not_a_storage_path": 1}
    assert application.jobs() == {job}
    assert canaries(servers) == ["canary/mine.png"]
    with servers.database.connect() as owner:
        assert owner.execute("select public from storage.buckets where id = %s", (OWN_BUCKET,)).fetchone() == (False,)
