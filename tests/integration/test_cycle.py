"""One cycle, end to end: exactly the orphans go."""

from datetime import timedelta

from local.application import Application, Link
from tests.conftest import Servers
from tests.integration.conftest import Cleanup


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
    with servers.database.connect() as connection:
        connection.execute("update user_assets set deleted_at = now() where id = %s", (asset,))
    cleanup()
    assert len(application.files()) == 1


def test_a_row_that_a_foreign_key_protects_stays_and_the_others_go(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    protected, free = application.render(), application.render()
    with servers.database.connect() as connection:
        connection.execute("create table favourites (job uuid references render_jobs)")
        connection.execute("insert into favourites values (%s)", (protected.job_id,))
    answer = cleanup()
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"foreign_key": 1}
    assert application.jobs() == {protected.job_id}
    assert free.job_id not in application.jobs()


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


def test_a_job_that_is_rendered_again_keeps_its_row_and_its_new_file(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    """Its old file has been removed, but the row couldn't go before the user rendered anew."""
    render = application.render()
    with servers.database.connect() as connection:
        connection.execute("create table favourites (job uuid references render_jobs)")
        connection.execute("insert into favourites values (%s)", (render.job_id,))
        cleanup()
        application.upload("images", "anew.png", b"anew")
        connection.execute(
            "update render_jobs set output_url = '/object/public/images/anew.png' where id = %s", (render.job_id,)
        )
        connection.execute("drop table favourites")
    answer = cleanup()
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"rendered_again": 1}
    assert application.jobs() == {render.job_id}
    assert application.files() == {("images", "anew.png")}
    application.save(render)


def test_finished_history_is_forgotten_after_its_time(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render()
    cleanup()
    with servers.database.connect() as owner:
        owner.execute("update storage_cleanup.deletion set updated_at = now() - interval '89 days'")
        cleanup()
        assert owner.execute("select count(*) from storage_cleanup.deletion").fetchone() == (1,)
        owner.execute("update storage_cleanup.deletion set updated_at = now() - interval '91 days'")
        cleanup()
        assert owner.execute("select count(*) from storage_cleanup.deletion").fetchone() == (0,)
