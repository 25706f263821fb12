"""One cycle, end to end: exactly the orphans go."""

import io
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from local.application import TWO_HOURS, Application, Link
from local.functions import Functions
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure
from tests.integration.direct import refer_to


def test_an_unsaved_output_goes_with_its_row(application: Application, cleanup: Cleanup) -> None:
    application.render()
    answer = cleanup()
    assert answer["status"] == "succeeded"
    assert answer["phases"]["storage_files"]["deleted"] == 1
    assert answer["phases"]["render_jobs"]["deleted"] == 1
    assert application.files() == set()
    assert application.jobs() == set()


def test_a_saved_output_stays_byte_for_byte(application: Application, cleanup: Cleanup) -> None:
    render = application.render()
    application.save(render)
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"saved": 1}
    assert application.download(render) == render.content
    assert application.jobs() == {render.job_id}


def test_2500_saved_and_2500_orphans_leaves_exactly_the_saved(application: Application, cleanup: Cleanup) -> None:
    saved, orphans = application.render_many(2500), application.render_many(2500, bucket="videos")
    application.save_many(saved)
    answer = cleanup()
    assert answer["phases"]["storage_files"]["deleted"] == 2500
    assert answer["phases"]["render_jobs"]["deleted"] == 2500
    assert application.jobs() == {render.job_id for render in saved}
    assert {name for _, name in application.files()} == {render.name for render in saved}
    assert not application.jobs() & {render.job_id for render in orphans}


def test_a_second_cycle_finds_nothing(application: Application, cleanup: Cleanup) -> None:
    application.save(application.render())
    application.render()
    application.add_job(output_url="https://elsewhere.example/x.png")
    cleanup()
    answer = cleanup()
    assert [phase["planned"] for phase in answer["phases"].values()] == [0, 0, 0]
    assert answer["remaining"] == 0


def test_every_shape_of_url_is_understood(application: Application, cleanup: Cleanup) -> None:
    for link in Link:
        application.render(link=link)
        application.render(link=link, bucket="videos", name=f"u/a b+c'(d)={link.name}?.png")
    assert cleanup()["phases"]["storage_files"]["deleted"] == 2 * len(Link)
    assert application.files() == set()


def test_young_running_and_failed_jobs_stay(application: Application, cleanup: Cleanup) -> None:
    application.render(age=timedelta(minutes=59))
    application.render(status="running")
    application.render(status="failed")
    answer = cleanup()
    assert answer["phases"]["storage_files"]["deleted"] == 0
    assert len(application.files()) == len(application.jobs()) == 3


def test_a_job_that_completed_late_has_a_young_file_and_stays(application: Application, cleanup: Cleanup) -> None:
    render = application.render(age=timedelta(days=1))
    application.age_file(render.bucket, render.name, timedelta(minutes=1))
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"file_too_young": 1}
    assert len(application.files()) == 1


def test_urls_that_are_not_ours_are_left_alone_and_reported(application: Application, cleanup: Cleanup) -> None:
    urls = {
        "https://elsewhere.example/storage/v1/object/public/images/a.png": "foreign_host",
        "/storage/v1/object/public/private-bucket/a.png": "unlisted_bucket",
        "not a url at all": "not_a_storage_path",
        "/storage/v1/object/public/images/../secrets/a.png": "dot_segment",
    }
    for url in urls:
        application.add_job(output_url=url)
    answer = cleanup()
    assert set(answer["phases"]["storage_files"]["reasons"]["kept"]) == set(urls.values())
    assert len(application.jobs()) == len(urls)


def test_a_job_without_url_goes_without_a_file(application: Application, cleanup: Cleanup) -> None:
    application.add_job(output_url=None)
    application.add_job(output_url="  ")
    answer = cleanup()
    assert answer["phases"]["render_jobs"]["deleted"] == 2
    assert application.jobs() == set()


def test_a_file_that_is_missing_already_is_said_so_and_its_row_goes(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.add_job(output_url=f"{servers.storage.url}/storage/v1/object/public/images/gone.png")
    answer = cleanup()
    assert answer["phases"]["storage_files"]["already_missing"] == 1
    assert answer["phases"]["storage_files"]["deleted"] == 0
    assert answer["phases"]["render_jobs"]["deleted"] == 1


def test_a_file_that_a_saved_job_shares_stays(application: Application, cleanup: Cleanup) -> None:
    first = application.render()
    second = application.add_job(output_url=application.link(first.bucket, first.name, Link.PUBLIC))
    application.save(first)
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"saved": 1, "shared_with_kept_job": 1}
    assert application.jobs() == {first.job_id, second}
    assert application.download(first) == first.content


def test_two_orphans_that_share_a_file_make_one_deleted_file(application: Application, cleanup: Cleanup) -> None:
    first = application.render()
    application.add_job(output_url=application.link(first.bucket, first.name, Link.PUBLIC))
    answer = cleanup()
    assert answer["phases"]["storage_files"]["planned"] == answer["phases"]["storage_files"]["deleted"] == 1
    assert answer["phases"]["render_jobs"]["deleted"] == 2


def test_deleting_a_saved_asset_makes_its_job_an_orphan_again(application: Application, cleanup: Cleanup) -> None:
    application.save_many(application.render_many(5))
    asset = application.save(application.render())
    assert cleanup()["phases"]["storage_files"]["deleted"] == 0
    application.unsave(asset)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 1


def test_a_soft_deleted_asset_still_counts_as_saved(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    asset = application.save(application.render())
    application.soft_delete(asset)
    cleanup()
    assert len(application.files()) == 1


def test_a_row_that_a_foreign_key_protects_stays_and_the_others_go(
    application: Application, cleanup: Cleanup, servers: Servers, configure: Configure
) -> None:
    configure(dependents="delete")
    protected, free = application.render(), application.render()
    refer_to(servers, protected)
    answer = cleanup()
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"foreign_key": 1}
    assert application.jobs() == {protected.job_id}
    assert free.job_id not in application.jobs()


def test_what_is_kept_was_examined_and_not_planned(application: Application, cleanup: Cleanup) -> None:
    renders = application.render_many(3)
    application.save(renders[0])
    application.add_job(output_url="https://elsewhere.example/a.png")
    account = cleanup()["phases"]["storage_files"]
    assert (account["examined"], account["kept"], account["planned"], account["deleted"]) == (4, 2, 2, 2)
    assert account["reasons"]["kept"] == {"foreign_host": 1, "saved": 1}


def test_the_run_is_recorded_with_its_answer(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    application.render()
    answer = cleanup()
    with servers.database.connect() as connection:
        row = connection.execute("select status, summary, saved_assets from storage_cleanup.run").fetchone()
    assert row == ("succeeded", {**answer, "seconds": row[1]["seconds"]} if row else None, 0)


def test_a_dry_run_plans_what_a_real_run_does_and_deletes_nothing(application: Application, cleanup: Cleanup) -> None:
    application.render_many(30)
    application.save(application.render())
    application.add_job(output_url=None)
    plan = cleanup(dry_run=True)
    assert plan["plan_id"] == plan["run_id"]
    assert plan["phases"]["storage_files"]["would_delete"] == 30
    assert plan["phases"]["storage_files"]["bytes"] == 300
    assert plan["phases"]["render_jobs"]["would_delete"] == 31
    assert sum(phase["deleted"] for phase in plan["phases"].values()) == 0
    assert plan["would_save_usd_per_month"] == round(300 / 10**9 * 0.021, 6)
    assert len(application.files()) == 31
    real = cleanup()
    assert real["phases"]["storage_files"]["deleted"] == 30
    assert real["phases"]["render_jobs"]["deleted"] == 31


def test_a_temporary_file_that_was_copied_just_now_with_its_old_time_stays_until_it_is_old(
    cleanup: Cleanup, servers: Servers, tmp_path: Path
) -> None:
    original, copy = tmp_path / "original", tmp_path / "temp" / "storage-copy"
    original.write_text("pixels")
    os.utime(original, (0, 0))
    shutil.copy2(original, copy)
    assert cleanup()["phases"]["temp_files"]["reasons"]["kept"] == {"too_young": 1}
    assert copy.exists()
    in_two_hours = Functions(servers.aws, io.StringIO(), ahead=timedelta(hours=2))
    answer = in_two_hours.invoke("cleanup", {"action": "cleanup"})
    assert answer["phases"]["temp_files"]["deleted"] == 1
    assert not copy.exists()


def test_a_job_that_is_rendered_again_keeps_its_row_and_its_new_file(
    application: Application, cleanup: Cleanup, servers: Servers, configure: Configure
) -> None:
    """Its old file has been removed, but the row couldn't go before the user rendered anew."""
    configure(dependents="delete")
    render = application.render()
    refer_to(servers, render)
    cleanup()
    application.upload("images", "anew.png", b"anew")
    servers.execute("update render_jobs set output_url = '/object/public/images/anew.png' where id = %s", render.job_id)
    servers.execute("drop table favourites")
    answer = cleanup()
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"rendered_again": 1}
    assert application.jobs() == {render.job_id}
    assert application.files() == {("images", "anew.png")}
    application.save(render)


def test_the_ledger_has_the_row_as_it_was(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    render, fileless = application.render(), application.add_job(output_url=None)
    before = dict(servers.execute("select id, to_jsonb(job.*) from render_jobs as job"))
    cleanup()
    ledger = dict(servers.execute("select job_id, job from storage_cleanup.deletion"))
    assert set(ledger) == {render.job_id, fileless}
    assert ledger == before


def test_a_job_that_completes_again_after_its_claim_keeps_its_row(
    application: Application, cleanup: Cleanup, servers: Servers, configure: Configure
) -> None:
    """Under the same URL, and its new file is not there yet."""
    configure(dependents="delete")
    render = application.render()
    refer_to(servers, render)
    cleanup()
    for status in ("running", "completed"):
        servers.execute("update render_jobs set status = %s where id = %s", status, render.job_id)
    servers.execute("drop table favourites")
    answer = cleanup()
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"rendered_again": 1}
    assert application.jobs() == {render.job_id}


# -- age counts from the moment that a job was seen to complete --------------------------------------------------------

STATUS, URL = "status = 'completed'", "output_url = '/object/public/images/a.png'"


@pytest.mark.parametrize("steps", [[STATUS], [STATUS, URL], [URL, STATUS], [f"{STATUS}, {URL}"]], ids=", then ".join)
def test_a_job_that_has_just_completed_is_young_however_old_its_row_is(
    application: Application, cleanup: Cleanup, servers: Servers, steps: list[str]
) -> None:
    job = application.add_job(output_url=None, status="running", age=timedelta(days=1))
    for step in steps:
        servers.execute(f"update render_jobs set {step}")
        cleanup()
    assert application.jobs() == {job}
    application.age_jobs([job], TWO_HOURS)
    cleanup()
    assert application.jobs() == set()


@pytest.mark.parametrize("changes", [["status = 'running'", STATUS], [URL]], ids=["status", "URL"])
def test_a_status_or_url_that_changes_makes_a_job_young_again(
    application: Application, cleanup: Cleanup, servers: Servers, changes: list[str]
) -> None:
    job = application.add_job(output_url="/object/public/images/before.png")
    for change in changes:
        servers.execute(f"update render_jobs set {change}")
    cleanup()
    assert application.jobs() == {job}


def test_other_changes_leave_a_job_as_old_as_it_is(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.add_job(output_url="/object/public/images/a.png")
    servers.execute("update render_jobs set progress = 100, status = status, output_url = output_url")
    cleanup()
    assert application.jobs() == set()


def test_a_claim_asks_for_the_moment_itself(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    """Whatever else has made a candidate due: a plan of before, or somebody who has written to the table."""
    job = application.add_job(output_url=None, age=timedelta(minutes=59))
    servers.execute("update storage_cleanup.candidate set since = since - interval '1 day'")
    answer = cleanup()
    assert answer["phases"]["render_jobs"]["reasons"]["kept"] == {"job_too_young": 1}
    assert application.jobs() == {job}


def test_a_shared_file_waits_for_the_youngest_of_its_jobs(application: Application, cleanup: Cleanup) -> None:
    render = application.render()
    young = application.add_job(
        output_url=application.link(render.bucket, render.name, Link.PUBLIC), age=timedelta(minutes=1)
    )
    cleanup()
    assert application.jobs() == {render.job_id, young}
    assert application.download(render) == render.content


def test_a_young_job_that_was_saved_for_a_moment_keeps_its_moment(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    old = application.render()
    job = application.add_job(output_url=None, status="running", age=timedelta(days=1))
    link = application.link(old.bucket, old.name, Link.PUBLIC)
    servers.execute("update render_jobs set status = 'completed', output_url = %s where id = %s", link, job)
    asset = application.save(replace(old, job_id=job))
    cleanup()
    application.unsave(asset)
    servers.execute("update storage_cleanup.candidate set since = completed_at")
    cleanup()
    assert application.jobs() == {old.job_id, job}


def test_what_the_triggers_missed_is_as_old_as_its_discovery(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    servers.execute("alter table render_jobs disable trigger storage_cleanup_job_inserted")
    job = application.add_job(output_url=None)
    servers.execute("alter table render_jobs enable trigger storage_cleanup_job_inserted")
    cleanup()
    cleanup()
    assert application.jobs() == {job}
    application.age_jobs([job], TWO_HOURS)
    cleanup()
    assert application.jobs() == set()


# -- tables of others that reference render_jobs -----------------------------------------------------------------------


@pytest.mark.parametrize("constraint", ["on delete set null", "on delete cascade", "on delete set null deferrable"])
def test_what_references_a_row_is_changed_with_settings_of_the_server(
    application: Application, cleanup: Cleanup, servers: Servers, constraint: str, configure: Configure
) -> None:
    """The foreign key's statement is planned where the rows are deleted, and the plan is kept for the session."""
    configure(dependents="delete")
    renders = application.render_many(3)
    servers.execute(f"create table notes (job uuid references render_jobs {constraint})")
    servers.execute("create table seen (enable_seqscan text, jit text)")
    servers.execute(
        "create function look() returns trigger language plpgsql as $$ begin "
        "insert into public.seen values (current_setting('enable_seqscan'), current_setting('jit')); "
        "return old; end $$"
    )
    servers.execute("create trigger look after update or delete on notes for each row execute function look()")
    servers.execute("insert into notes select id from render_jobs")
    assert cleanup()["phases"]["render_jobs"]["deleted"] == len(renders)
    assert servers.execute("select * from seen") == [("on", "off")] * len(renders)


def test_finished_history_is_forgotten_after_its_time(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render()
    cleanup()
    servers.execute("update storage_cleanup.deletion set updated_at = now() - interval '89 days'")
    cleanup()
    assert servers.execute("select count(*) from storage_cleanup.deletion") == [(1,)]
    servers.execute("update storage_cleanup.deletion set updated_at = now() - interval '91 days'")
    cleanup()
    assert servers.execute("select count(*) from storage_cleanup.deletion") == [(0,)]
