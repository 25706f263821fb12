"""The flow of claims: whatever happens to a candidate, it has exactly one outcome, and nobody else's is touched."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from types import ModuleType
from uuid import UUID

import psycopg
import pytest

from local.application import Application, Link, Render, age_jobs
from local.storage_emulator.faults import Fault
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.errors import ObjectStoreError
from storage_cleanup.model.vocabulary import Status
from storage_cleanup.postgres.ledger import Database
from storage_cleanup.storage.client import StorageClient
from storage_cleanup.storage.object_store import ObjectStore
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure
from tests.integration.direct import DEAD, IMPATIENT, cycle, die_with_claims, ledger, let_time_pass, refer_to

pytestmark = pytest.mark.usefixtures("earlier_run")

# -- look-alikes: URLs whose path is that of an orphan of ours ------------------------------------------------------

FOREIGN = (
    "https://elsewhere.example/storage/v1/object/public/{key}",
    "https://elsewhere.example/storage/v1/object/sign/{key}?token=t",
    "https://elsewhere.example/storage/v1/object/authenticated/{key}",
    "https://elsewhere.example/object/public/{key}",
    "https://elsewhere.example/storage/v1/render/image/public/{key}",
    "https://elsewhere.example/storage/v1/s3/{key}",
    "https://elsewhere.example/storage/v1/object/public/{key}#fragment",
    "  https://elsewhere.example/storage/v1/object/public/{key}\n",
    "http://elsewhere.example/storage/v1/object/public/{key}",
    "//elsewhere.example/storage/v1/object/public/{key}",
    "HTTPS://ELSEWHERE.EXAMPLE/storage/v1/object/public/{key}",
    "https://abc.supabase.co/storage/v1/object/public/{key}",
    "https://abc.storage.supabase.co/storage/v1/object/public/{key}",
    "https://{host}/storage/v1/object/public/{key}",
    "https://{host}:443/storage/v1/object/public/{key}",
    "http://{host}:1/storage/v1/object/public/{key}",
    "http://{host}/storage/v1/object/public/{key}",
    "//{host}/storage/v1/object/public/{key}",
    "http://{host}.elsewhere.example/storage/v1/object/public/{key}",
    "http://localhost:1/storage/v1/object/public/{key}",
    "http://[::1]/storage/v1/object/public/{key}",
)
DOUBTFUL = (
    "{key}",
    "/{key}",
    "{origin}/{key}",
    "ftp://{host}/storage/v1/object/public/{key}",
    "s3://{host}/{key}",
    "http://user:secret@{authority}/storage/v1/object/public/{key}",
    "http://user@{authority}/storage/v1/object/public/{key}",
    "//user@{authority}/storage/v1/object/public/{key}",
    "http://user:secret@elsewhere.example/storage/v1/object/public/{key}",
    "{origin}/storage/v1/object/public/{key}?a?b",
    "{origin}/storage/v1/object/public/{key} ",
    "{origin}/storage/v1/{key}",
)


def look_alike(url: str, render: Render, servers: Servers) -> str:
    authority = servers.storage.url.removeprefix("http://")
    return url.format(
        key=f"{render.bucket}/{render.name}",
        origin=servers.storage.url,
        authority=authority,
        host=authority.partition(":")[0],
    )


@pytest.fixture(params=[False, True], ids=["on one page", "on a page each"])
def pages(request: pytest.FixtureRequest) -> None:
    """Have jobs that share a file meet on one page, or never."""
    if request.param:
        request.getfixturevalue("one_at_a_time")


@pytest.fixture
def one_at_a_time(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every page one candidate, so that jobs which share a file never meet on one."""
    monkeypatch.setattr(app, "run_cycle", partial(run_cycle, page_size=1))


@pytest.mark.parametrize("age", [timedelta(hours=1.5), timedelta(hours=3)], ids=["younger", "older"])
@pytest.mark.usefixtures("pages")
def test_a_look_alike_on_another_host_is_never_touched_and_counted_once_and_its_twin_goes(
    application: Application,
    cleanup: Cleanup,
    servers: Servers,
    age: timedelta,
) -> None:
    twins = [application.render() for _ in FOREIGN]
    others = {
        application.add_job(output_url=look_alike(url, twin, servers), age=age)
        for url, twin in zip(FOREIGN, twins, strict=True)
    }
    account = cleanup()["phases"]["storage_files"]
    assert account["deleted"] == account["planned"] == len(twins)
    assert account["reasons"]["kept"] == {"foreign_host": len(others)}
    assert application.jobs() == others
    assert application.files() == set()


@pytest.mark.parametrize("age", [timedelta(hours=1.5), timedelta(hours=3)], ids=["younger", "older"])
@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("dry_run", [False, True], ids=["real", "dry"])
def test_a_look_alike_that_may_be_ours_is_never_touched_and_keeps_its_twin(
    application: Application,
    cleanup: Cleanup,
    servers: Servers,
    age: timedelta,
    dry_run: bool,
) -> None:
    twins = [application.render() for _ in DOUBTFUL]
    for url, twin in zip(DOUBTFUL, twins, strict=True):
        application.add_job(output_url=look_alike(url, twin, servers), age=age)
    account = cleanup(dry_run=dry_run)["phases"]["storage_files"]
    assert account["planned"] == 0
    assert account["reasons"]["kept"]["shared_with_kept_job"] == len(twins)
    assert account["examined"] == 2 * len(twins)
    assert len(application.jobs()) == 2 * len(application.files()) == 2 * len(twins)


def test_a_saved_look_alike_on_another_host_keeps_the_file_for_the_host_may_be_ours_all_the_same(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    twin = application.render()
    other = application.add_job(output_url=look_alike(FOREIGN[0], twin, servers), user=twin.user_id)
    application.save(Render(other, twin.user_id, twin.bucket, twin.name, twin.content))
    account = cleanup()["phases"]["storage_files"]
    assert account["reasons"]["kept"] == {"foreign_host": 1, "shared_with_kept_job": 1}
    assert application.download(twin) == twin.content


# -- files are counted as files, rows as rows -----------------------------------------------------------------------


def share(application: Application, render: Render, times: int) -> None:
    for hours in range(times):
        link = application.link(render.bucket, render.name, Link.PUBLIC)
        application.add_job(output_url=link, age=timedelta(hours=3 + hours))


@pytest.mark.usefixtures("pages")
def test_three_jobs_that_share_a_file_are_one_file_and_three_rows(application: Application, cleanup: Cleanup) -> None:
    shared = application.render()
    share(application, shared, 2)
    plan = cleanup(dry_run=True)["phases"]
    assert [plan[phase]["would_delete"] for phase in ("storage_files", "render_jobs")] == [1, 3]
    answer = cleanup()
    files, rows = answer["phases"]["storage_files"], answer["phases"]["render_jobs"]
    assert (files["examined"], files["deleted"], files["bytes"]) == (1, 1, len(shared.content))
    assert (rows["planned"], rows["deleted"]) == (3, 3)
    assert answer["remaining"] == 0


def test_three_jobs_that_share_a_missing_file_are_one_file_that_is_missing(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    for _ in range(3):
        application.add_job(output_url=f"{servers.storage.url}/storage/v1/object/public/images/gone.png")
    answer = cleanup()
    assert answer["phases"]["storage_files"]["examined"] == answer["phases"]["storage_files"]["already_missing"] == 1
    assert answer["phases"]["render_jobs"]["deleted"] == 3


def test_three_jobs_that_share_a_file_which_cannot_be_removed_are_one_failure(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    share(application, shared := application.render(), 2)
    servers.storage.inject(poisoned_names=[shared.name])
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["failed"] == {"storage_internal": 1}
    assert answer["phases"]["storage_files"]["planned"] == 1
    assert answer["remaining"] == 3


@pytest.fixture
def late_answer(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the answer to the first request get lost; the second finds nothing to remove."""
    monkeypatch.setattr(app, "ObjectStore", partial(ObjectStore, backoff=IMPATIENT))
    original, asked = StorageClient.remove, []

    def remove(client: StorageClient, bucket: str, names: Sequence[str]) -> set[str]:
        removed = original(client, bucket, names)
        asked.append(removed)
        if len(asked) == 1:
            raise ObjectStoreError("no answer in time", code="timeout")
        return removed

    monkeypatch.setattr(StorageClient, "remove", remove)


@pytest.mark.usefixtures("late_answer")
def test_what_the_first_request_removed_is_deleted_although_the_second_found_nothing(
    application: Application, cleanup: Cleanup
) -> None:
    application.render_many(5)
    account = cleanup()["phases"]["storage_files"]
    assert (account["deleted"], account["already_missing"], account["bytes"]) == (5, 0, 50)


# -- what a dead run has left ---------------------------------------------------------------------------------------


def remove_past_the_system(servers: Servers, *renders: Render) -> None:
    with servers.database.connect("supabase_admin") as superuser:
        superuser.execute("set storage.allow_delete_query = 'true'")
        names = [render.name for render in renders]
        superuser.execute("delete from storage.objects where name = any (%s)", (names,))


def test_what_the_request_of_a_dead_run_removed_is_deleted(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    """Nobody heard the answer; but the claim saw the file, and only the run that claimed it was to remove it."""
    renders = application.render_many(5)
    die_with_claims(servers)
    remove_past_the_system(servers, *renders[:3])
    account = cleanup()["phases"]["storage_files"]
    assert (account["planned"], account["deleted"], account["bytes"]) == (5, 5, 50)


@pytest.mark.usefixtures("one_at_a_time")
def test_a_shared_file_that_a_dead_run_claimed_is_one_file(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    share(application, application.render(), 2)
    die_with_claims(servers)
    answer = cleanup()
    assert answer["phases"]["storage_files"]["planned"] == answer["phases"]["storage_files"]["deleted"] == 1
    assert answer["phases"]["render_jobs"]["deleted"] == 3


@pytest.mark.parametrize("saved", ["the claimed job", "a job that shares its file", "a job that came later"])
def test_a_file_that_was_saved_past_the_guard_stays_when_its_claim_is_taken_over(
    application: Application, cleanup: Cleanup, servers: Servers, saved: str
) -> None:
    render = application.render()
    link = application.link(render.bucket, render.name, Link.PUBLIC)
    jobs = {"the claimed job": render.job_id, "a job that shares its file": application.add_job(output_url=link)}
    die_with_claims(servers)
    jobs["a job that came later"] = application.add_job(output_url=link)
    servers.execute("alter table user_assets disable trigger storage_cleanup_asset_inserted")
    application.save(Render(jobs[saved], render.user_id, render.bucket, render.name, render.content))
    servers.execute("alter table user_assets enable trigger storage_cleanup_asset_inserted")
    assert cleanup()["phases"]["storage_files"]["planned"] == 0
    assert application.download(render) == render.content
    assert application.jobs() == set(jobs.values())


def test_a_switched_off_system_gives_back_what_a_dead_run_has_claimed(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    renders = application.render_many(5)
    die_with_claims(servers)
    let_time_pass(servers.database)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        application.save(renders[0])
    configure(enabled="false")
    answer = cleanup()
    assert (answer["status"], answer["phases"], answer["given_back"]) == ("skipped", {}, 5)
    application.save_many(renders)
    assert servers.storage.stats()["requests"] == {}
    configure()
    assert cleanup()["phases"]["storage_files"]["deleted"] == 0


def test_a_system_whose_phase_is_off_gives_back_what_a_dead_run_has_claimed(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    renders = application.render_many(5)
    die_with_claims(servers)
    let_time_pass(servers.database)
    configure(phases__storage_files="false")
    answer = cleanup()
    assert (answer["status"], answer["given_back"]) == ("succeeded", 5)
    application.save_many(renders)


def test_a_claim_is_not_given_back_while_a_request_for_it_may_be_under_way(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    renders = application.render_many(5)
    die_with_claims(servers)
    configure(enabled="false")
    assert "given_back" not in cleanup()
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        application.save(renders[0])


def test_a_claim_whose_file_is_gone_is_not_given_back(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    renders = application.render_many(2)
    die_with_claims(servers)
    remove_past_the_system(servers, renders[0])
    let_time_pass(servers.database)
    configure(enabled="false")
    assert cleanup()["given_back"] == 1
    application.save(renders[1])
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        application.save(renders[0])


def test_a_switched_off_system_that_cannot_reach_its_database_is_skipped_with_a_warning(
    cleanup: Cleanup, configure: Configure, caplog: pytest.LogCaptureFixture
) -> None:
    configure(enabled="false", database__url="postgresql://worker:hushhush@127.0.0.1:9/postgres")
    assert cleanup()["status"] == "skipped"
    assert [record.levelno for record in caplog.records if "could not be given back" in record.message] == [
        logging.WARNING
    ]


def test_every_file_that_was_claimed_is_accounted_for_when_the_breaker_opens(
    app: ModuleType,
    application: Application,
    cleanup: Cleanup,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "run_cycle", partial(run_cycle, page_size=2))
    application.render_many(40)
    servers.storage.inject({Fault.INTERNAL: 1}, operations=["remove"])
    monkeypatch.setattr(app, "ObjectStore", partial(ObjectStore, backoff=IMPATIENT))
    answer = cleanup()
    assert answer["breaker_open"] is True
    account = answer["phases"]["storage_files"]
    claimed = sum(state in ("claimed", "released") for state, _, _ in ledger(servers))
    assert account["planned"] == claimed


# -- rows that the application keeps --------------------------------------------------------------------------------

SWALLOWING = {
    "a trigger": """
        create function keep() returns trigger language plpgsql as $$ begin
            insert into fired values (old.id); return null; end $$;
        create trigger keep before delete on render_jobs for each row execute function keep()""",
    "a trigger that marks the row": """
        alter table render_jobs add deleted_at timestamptz;
        create function keep() returns trigger language plpgsql as $$ begin
            insert into fired values (old.id);
            update render_jobs set deleted_at = now() where id = old.id; return null; end $$;
        create trigger keep before delete on render_jobs for each row execute function keep()""",
    "a trigger that changes the status": """
        create function keep() returns trigger language plpgsql as $$ begin
            insert into fired values (old.id);
            update render_jobs set status = 'deleted' where id = old.id; return null; end $$;
        create trigger keep before delete on render_jobs for each row execute function keep()""",
    "a trigger that takes the URL": """
        create function keep() returns trigger language plpgsql as $$ begin
            insert into fired values (old.id);
            update render_jobs set output_url = null where id = old.id; return null; end $$;
        create trigger keep before delete on render_jobs for each row execute function keep()""",
    "a rule": """
        create rule keep as on delete to render_jobs do instead nothing""",
}


def soft_delete(servers: Servers, how: str) -> None:
    servers.execute("create table fired (job uuid)")
    servers.execute(SWALLOWING[how])


@pytest.mark.parametrize("how", SWALLOWING)
@pytest.mark.parametrize("with_file", [True, False], ids=["with a file", "without"])
def test_a_row_that_the_application_keeps_is_said_so_and_comes_to_an_end(
    application: Application, cleanup: Cleanup, servers: Servers, how: str, with_file: bool
) -> None:
    if with_file:
        application.render_many(5)
    else:
        for _ in range(5):
            application.add_job(output_url=None)
    soft_delete(servers, how)
    answers = [cleanup() for _ in range(4)]
    first = answers[0]["phases"]["render_jobs"]
    assert (first["deleted"], first["reasons"]["skipped"]) == (0, {"kept_by_trigger": 5})
    assert answers[0]["phases"]["storage_files"]["deleted"] == (5 if with_file else 0)
    assert {reason for answer in answers for reason in answer["phases"]["render_jobs"]["reasons"]["skipped"]} == {
        "kept_by_trigger"
    }
    assert (answers[-1]["remaining"], answers[-1]["phases"]["render_jobs"]["examined"]) == (0, 0)
    assert len(application.jobs()) == 5
    assert servers.execute("select 1 from fired group by job having count(*) > 3") == []


def test_a_row_that_stayed_can_be_rendered_again_and_saved_and_goes_through_it_all_again(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.save_many(application.render_many(10))
    render = application.render()
    soft_delete(servers, "a trigger")
    for _ in range(4):
        cleanup()
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        application.save(render)
    application.upload("images", "anew.png", b"anew", age=timedelta(hours=2))
    with servers.database.connect() as owner:
        owner.execute(
            "update render_jobs set output_url = '/object/public/images/anew.png' where id = %s", (render.job_id,)
        )
        age_jobs(owner, [render.job_id], timedelta(hours=2))
    asset = application.save(render)
    assert cleanup()["phases"]["storage_files"]["reasons"]["kept"] == {"saved": 1}
    application.unsave(asset)
    answer = cleanup()
    assert answer["phases"]["storage_files"]["deleted"] == 1
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"kept_by_trigger": 1}
    assert [state for state, _, _ in ledger(servers)] == ["done", "file_deleted"]


# -- overrides ------------------------------------------------------------------------------------------------------


def test_an_override_counts_each_of_the_plans_rows_once(application: Application, cleanup: Cleanup) -> None:
    application.render_many(3)
    application.add_job(output_url=None)
    plan = cleanup(dry_run=True)["plan_id"]
    phases = cleanup(override=plan)["phases"]
    assert (phases["storage_files"]["examined"], phases["storage_files"]["deleted"]) == (3, 3)
    assert (phases["render_jobs"]["examined"], phases["render_jobs"]["deleted"]) == (4, 4)


def test_an_override_leaves_the_rows_of_other_runs_to_the_next_ordinary_one(
    application: Application, cleanup: Cleanup, servers: Servers, configure: Configure
) -> None:
    configure(dependents="delete")
    left = application.render_many(2)
    refer_to(servers, *left)
    cleanup()
    application.render_many(3)
    plan = cleanup(dry_run=True)["plan_id"]
    servers.execute("drop table favourites")
    phases = cleanup(override=plan)["phases"]
    assert (phases["render_jobs"]["examined"], phases["render_jobs"]["deleted"]) == (3, 3)
    assert application.jobs() == {render.job_id for render in left}
    assert cleanup()["phases"]["render_jobs"]["deleted"] == 2


def test_a_planned_job_that_has_gone_meanwhile_is_counted_once(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    with_file, without = application.render(), application.add_job(output_url=None)
    plan = cleanup(dry_run=True)["plan_id"]
    servers.execute("delete from render_jobs where id = any (%s)", [with_file.job_id, without])
    phases = cleanup(override=plan)["phases"]
    assert phases["storage_files"]["reasons"]["kept"] == {"job_gone": 1}
    assert phases["render_jobs"]["reasons"]["kept"] == {"job_gone": 1}


# -- each candidate once --------------------------------------------------------------------------------------------


def test_a_row_that_another_run_has_taken_is_counted_there(application: Application, servers: Servers) -> None:
    renders = application.render_many(2)
    with Database(servers.database.url()) as database:
        jobs = sorted(application.jobs())
        die_with_claims(servers)
        servers.execute("update storage_cleanup.deletion set state = 'file_deleted'")
        remove_past_the_system(servers, *renders)
        assert {row.outcome for row in database.delete_rows(DEAD, jobs, keep_dependents=True)} == {"deleted"}
        assert {row.outcome for row in database.delete_rows(UUID(int=2), jobs, keep_dependents=True)} == {"taken_over"}


def test_several_cycles_at_once_delete_each_file_once(application: Application, servers: Servers) -> None:
    saved, _ = application.render_many(50), application.render_many(2000)
    application.save_many(saved)
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(cycle, servers) for _ in range(4)]
    results = [run.result() for run in runs]
    assert not [result.message for result in results if result.status is Status.FAILED]
    results.append(cycle(servers))
    assert application.jobs() == {render.job_id for render in saved}
    assert set(servers.storage.stats()["removals"].values()) == {1}
    assert sum(phase.deleted for result in results for phase in result.phases.values()) == 2 * 2000
