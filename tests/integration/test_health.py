"""Break each thing that health checks, one at a time: exactly that check turns, and its sentence says what to do."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import boto3
import psycopg
import pytest
from psycopg import errors as pg

from local.application import Application, age_jobs
from local.functions import RULE
from local.postgres import Postgres
from local.stack import PARAMETER_PATH
from storage_cleanup.config.parameters import OWN
from storage_cleanup.errors import RequestError
from storage_cleanup.telemetry import NAMESPACE, SERVICE
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure, Health

WORKER = "storage_cleanup_worker"
SCHEDULED = {"detail-type": "Scheduled Event", "source": "aws.events", "detail": {}}


@pytest.fixture
def configure(configure: Configure, servers: Servers) -> Configure:
    """Write the parameters with the role that production uses, which is the worker."""

    def put(**overrides: str) -> None:
        configure(**{"database__url": servers.database.url(WORKER), **overrides})

    return put


@pytest.fixture
def sound(application: Application, cleanup: Cleanup, servers: Servers) -> Application:
    """A project in which all is well: saved and removed outputs, and a cycle that has just run."""
    renders = application.render_many(6)
    application.save_many(renders[:4])
    cleanup(SCHEDULED)
    with servers.database.connect() as owner:  # yesterday there lay as much as today
        owner.execute("update storage_cleanup.usage set day = day - 1, taken_at = taken_at - interval '1 day'")
        owner.execute("delete from storage_cleanup.usage")
        owner.execute("select storage_cleanup.remember_usage()")
        owner.execute("update storage_cleanup.usage set day = day - 1, taken_at = taken_at - interval '24 hours'")
    return application


def turned(answer: dict[str, Any]) -> dict[str, str]:
    """Return the checks that aren't well, with their status."""
    return {name: check["status"] for name, check in answer["checks"].items() if check["status"] != "ok"}


def sentence(answer: dict[str, Any], name: str) -> str:
    return str(answer["checks"][name]["sentence"])


def sql(servers: Servers, *statements: str, role: str = "postgres") -> None:
    with servers.database.connect(role) as connection:
        for statement in statements:
            connection.execute(statement)


def test_a_sound_project_is_well_in_every_respect(sound: Application, health: Health) -> None:
    answer = health()
    assert turned(answer) == {}
    assert (answer["status"], answer["critical"], answer["warnings"]) == ("ok", 0, 0)
    for check in answer["checks"].values():
        assert set(check) == {"value", "threshold", "status", "sentence"}
        assert check["sentence"].endswith(".")
    assert answer["checks"]["saved_assets"]["value"] == 4
    assert answer["checks"]["stored_bytes"]["value"] == {"bytes": 40, "growth_percent": 0.0}
    assert answer["checks"]["stored_by_bucket"]["value"]["images"] == {"objects": 4, "bytes": 40}
    assert answer["checks"]["orphan_bytes"]["value"] == {"this_month": 20, "last_month": 0}
    assert answer["checks"]["completed_jobs"]["value"] == {"saved": 4, "not_saved": 0}
    assert next(iter(answer["checks"]["cycles_by_day"]["value"].values())) == {
        "succeeded": 1,
        "partial": 0,
        "failed": 0,
    }
    assert next(iter(answer["checks"]["assets_by_day"]["value"].values())) == {
        "generated_saved": {"assets": 4, "bytes": 0}
    }


def test_nothing_is_written(sound: Application, health: Health, servers: Servers) -> None:
    """Every question is asked in a read-only transaction, by a role that may write nothing."""
    with servers.database.connect() as owner:
        tables = [
            f"storage_cleanup.{row[0]}"
            for row in owner.execute("select tablename from pg_tables where schemaname = 'storage_cleanup'")
        ]
        tables += ["public.render_jobs", "public.user_assets", "storage.objects"]
        look = " union all ".join(
            f"select '{table}', count(*), max(xmin::text::bigint) from {table}" for table in tables
        )
        before = owner.execute(look).fetchall()
        health()
        assert owner.execute(look).fetchall() == before


def run(servers: Servers, count: int, status: str, *, minutes_ago: float = 0, summary: str = "{}") -> None:
    """Add runs as cycles record them."""
    servers.execute(
        "insert into storage_cleanup.run "
        "(started_at, finished_at, status, trigger, dry_run, options, scope, summary) "
        "select now() - make_interval(secs => 60 * %s) + n * interval '1 millisecond', now(), "
        "%s, 'manual', false, '{}', '{}', %s from generate_series(1, %s) as n",
        minutes_ago,
        status,
        summary,
        count,
    )


Sabotage = Callable[[Servers, Application], object]
Case = tuple[str, Sabotage, str, str]


def executes(*statements: str) -> Sabotage:
    """Return what breaks a check with SQL."""
    return lambda servers, _: sql(servers, *statements)


def recorded(summary: str, status: str = "succeeded") -> Sabotage:
    """Return what adds a run that has just ended with a summary."""
    return lambda servers, _: run(servers, 1, status, summary=summary)


def _age_objects(servers: Servers, names: str) -> None:
    sql(
        servers,
        "set session_replication_role = replica",
        "update storage.objects set created_at = now() - interval '1 day', updated_at = now() - interval '1 day' "
        f"where name like '{names}'",
        role="supabase_admin",
    )


def _add_unknown_objects(servers: Servers, application: Application) -> None:
    sql(
        servers,
        "insert into storage.objects (bucket_id, name) "
        "select 'images', 'unknown/' || n from generate_series(1, 51) as n",
        role="supabase_storage_admin",
    )
    _age_objects(servers, "unknown/%")


def _remove_object(servers: Servers, condition: str) -> None:
    sql(
        servers,
        "select set_config('storage.allow_delete_query', 'true', false)",
        f"delete from storage.objects where {condition}",
        role="supabase_admin",
    )


def _lose_saved_file(servers: Servers, application: Application) -> None:
    # The smallest of the saved: the sizes of the others make up for it, so that only this check turns.
    _remove_object(servers, "name = (select min(name) from storage.objects)")
    sql(servers, """update storage.objects set metadata = '{"size": 10}'""", role="supabase_admin")


def _lose_row_file(servers: Servers, application: Application) -> None:
    application.add_job(
        output_url=f"{servers.storage.url}/storage/v1/object/public/images/gone.png", age=timedelta(days=1)
    )


def orphans(count: int) -> Sabotage:
    """Return what adds jobs without a file: they are orphans, and nothing else."""

    def add(servers: Servers, application: Application) -> None:
        with servers.database.connect() as owner:
            jobs = owner.execute(
                "insert into render_jobs (user_id, status) "
                "select gen_random_uuid(), 'completed' from generate_series(1, %s) returning id",
                (count,),
            ).fetchall()
            age_jobs(owner, [job for (job,) in jobs], timedelta(days=1))

    return add


CASES: list[Case] = [
    (
        "schedule",
        lambda s, a: s.aws.put_rule(RULE, 3),
        "warning",
        "The rule has rate(3 minutes), the parameters ask for rate(1 hour)",
    ),
    (
        "schedule",
        lambda s, a: s.aws.events.disable_rule(Name=RULE),
        "critical",
        "is disabled, so none start: enable it",
    ),
    (
        "schedule",
        lambda s, a: s.aws.events.delete_rule(Name=RULE),
        "critical",
        "is missing, so none start: deploy the stack",
    ),
    (
        "last_cycle",
        executes("update storage_cleanup.run set started_at = started_at - interval '100 minutes'"),
        "critical",
        "No cycle has started for 100 minutes, and one is due every 60: see docs/emergency.md",
    ),
    (
        "last_run",
        executes("""update storage_cleanup.run set scope = scope || '{"buckets": ["other"]}'"""),
        "warning",
        "buckets was ['other'], now ['images', 'videos']",
    ),
    ("orphans_left", orphans(51), "warning", "51 orphans left that cycles should have taken"),
    ("orphans_left", orphans(101), "critical", "101 orphans left that cycles should have taken"),
    (
        "stuck_claims",
        executes(
            "insert into storage_cleanup.deletion (job_id, state, attempts, run_id) "
            "values (gen_random_uuid(), 'claimed', 3, gen_random_uuid())",
        ),
        "warning",
        "1 claim failed three times or more",
    ),
    (
        "cycle_seconds",
        recorded('{"seconds": 31}'),
        "warning",
        "took 31.0 s: that is normal while",
    ),
    (
        "query_seconds",
        recorded('{"slowest_query_seconds": 5.1}'),
        "warning",
        "took 5.1 s: look at indexes",
    ),
    (
        "breaker",
        recorded('{"breaker_open": true, "message": "saved assets fell"}', "partial"),
        "critical",
        "stopped by the circuit breaker: saved assets fell. Find out why",
    ),
    (
        "saved_assets",
        executes("update storage_cleanup.run set saved_assets = 6"),
        "critical",
        "Saved assets fell from 6, their highest number in 7 days, to 4, so cycles delete nothing",
    ),
    (
        "saved_file_missing",
        _lose_saved_file,
        "critical",
        "1 saved asset lost the file (this system didn't remove them)",
    ),
    ("row_without_file", _lose_row_file, "warning", "1 row of unsaved jobs name a file that is gone"),
    (
        "object_unknown",
        _add_unknown_objects,
        "warning",
        "51 objects in the listed buckets that no job and no asset knows",
    ),
    (
        "url_not_understood",
        lambda s, a: a.add_job(output_url="https://elsewhere.example/storage/v1/object/public/images/a.png"),
        "warning",
        "1 output_url of completed jobs aren't understood",
    ),
    (
        "url_not_understood",
        lambda s, a: a.add_job(output_url="not a url at all"),
        "warning",
        "they are never touched; find out who writes such URLs",
    ),
    (
        "stored_bytes",
        executes("update storage_cleanup.usage set bytes = 36 where bucket_id = 'images'"),
        "warning",
        "Stored bytes changed by +11.1 % in 24 hours: see docs/emergency.md, Storage spike.",
    ),
    (
        "stored_bytes",
        executes("update storage_cleanup.usage set bytes = 33 where bucket_id = 'images'"),
        "critical",
        "Stored bytes changed by +21.2 % in 24 hours",
    ),
    (
        "usage_history",
        executes("update storage_cleanup.usage set day = day - 2, taken_at = taken_at - interval '2 days'"),
        "warning",
        "last remembered 72 hours ago: the trend has a gap",
    ),
    (
        "guard",
        executes("alter table user_assets disable trigger storage_cleanup_asset_updated"),
        "critical",
        "trigger storage_cleanup_asset_updated on public.user_assets is different",
    ),
    (
        "guard",
        executes("drop trigger storage_cleanup_job_inserted on render_jobs"),
        "critical",
        "Cycles delete nothing until this is repaired: trigger storage_cleanup_job_inserted on public.render_jobs",
    ),
    (
        "guard",
        executes("create table public.archived_assets () inherits (user_assets)"),
        "critical",
        "public.user_assets has a child, public.archived_assets, whose rows pass by its triggers",
    ),
    (
        "comparison",
        executes("alter table user_assets add column poster text"),
        "warning",
        "Cycles compare everything before they go on: the triggers or the tables have changed",
    ),
    (
        "indexes",
        executes("drop index storage_cleanup_render_job_id"),
        "critical",
        "storage_cleanup_render_job_id missing, invalid or outdated",
    ),
    (
        "foreign_keys",
        executes("create table notes (id int, job uuid references render_jobs on delete set null)"),
        "warning",
        "Deleting jobs scans every row of what references them: add an index on public.notes (job)",
    ),
    (
        "privileges",
        executes(f"revoke execute on function storage_cleanup.adopt(uuid, integer) from {WORKER}"),
        "critical",
        f"Role {WORKER} may not execute adopt: run database/install.sql",
    ),
    (
        "privileges",
        executes(f"grant delete on render_jobs to {WORKER}"),
        "warning",
        "may delete from the application's tables: put storage_cleanup_worker into database/url",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case[0]}-{case[2]}-{index}" for index, case in enumerate(CASES)])
def test_exactly_the_broken_check_turns(sound: Application, health: Health, servers: Servers, case: Case) -> None:
    name, sabotage, status, words = case
    sabotage(servers, sound)
    answer = health()
    assert turned(answer) == {name: status}
    assert words in sentence(answer, name)
    assert answer["status"] == status


PARAMETERS = [
    ({"enabled": "false"}, "enabled is false"),
    ({"dry_run": "true"}, "dry-run is true"),
    ({"phases__render_jobs": "false"}, "phases/render-jobs is false"),
]


@pytest.mark.parametrize(
    ("index", "status"),
    [("(job)", "ok"), ("(job, id)", "ok"), ("(id, job)", "warning"), ("(job) where id > 1", "warning")],
)
def test_an_index_serves_a_foreign_key_that_it_begins_with(
    sound: Application, health: Health, servers: Servers, index: str, status: str
) -> None:
    sql(
        servers,
        "create table notes (id int, job uuid references render_jobs on delete set null)",
        f"create index on notes {index}",
    )
    assert health()["checks"]["foreign_keys"]["status"] == status


@pytest.mark.parametrize(("parameters", "words"), PARAMETERS)
def test_a_switch_that_is_off_is_a_warning(
    sound: Application, health: Health, configure: Configure, parameters: dict[str, str], words: str
) -> None:
    configure(**parameters)
    answer = health()
    assert turned(answer) == {"switches": "warning"}
    assert words in sentence(answer, "switches")


def test_parameters_that_cannot_be_read_are_named(health: Health, configure: Configure) -> None:
    configure(buckets="images,,videos")
    answer = health()
    assert turned(answer) == {"parameters": "critical"}
    assert "buckets is 'images,,videos': it has an empty item" in sentence(answer, "parameters")
    assert list(answer["checks"]) == ["parameters"]


def test_a_profile_that_changed_shows_in_rule_and_last_run(
    sound: Application, health: Health, configure: Configure
) -> None:
    configure(profile="testing")
    answer = health()
    assert turned(answer) == {"schedule": "warning", "last_run": "warning"}
    assert "max_age_minutes was 60, now 3" in sentence(answer, "last_run")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"postgresql://{WORKER}@127.0.0.1:1/postgres", "The database can't be asked, so cycles don't work either"),
        (None, "is version 0, needed is 1"),
    ],
)
def test_a_database_that_cannot_be_asked_is_critical(
    servers: Servers, health: Health, configure: Configure, url: str | None, words: str
) -> None:
    if url:
        configure(database__url=url)
    else:
        sql(
            servers,
            "create or replace function storage_cleanup.schema_version() returns integer "
            "language sql immutable return 0",
        )
    answer = health()
    assert turned(answer) == {"database": "critical"}
    assert words in sentence(answer, "database")


def test_an_uninstalled_schema_is_critical(servers: Servers, health: Health) -> None:
    sql(servers, "drop schema storage_cleanup cascade")
    assert turned(health()) == {"database": "critical"}


def test_before_the_first_cycle_it_says_so(health: Health) -> None:
    answer = health()
    assert turned(answer) == {"last_cycle": "warning", "usage_history": "warning"}
    assert sentence(answer, "last_cycle") == "Waiting for the first cycle: the schedule starts one every 60 minutes."
    assert "the next cycle does it" in sentence(answer, "usage_history")


def test_a_new_system_with_a_backlog_and_broken_assets_is_not_critical(
    application: Application, health: Health, servers: Servers
) -> None:
    application.render_many(150)
    lost = application.render()
    application.save(lost)
    _remove_object(servers, f"name = '{lost.name}'")
    answer = health()
    assert answer["critical"] == 0
    assert sentence(answer, "orphans_left") == "150 orphans wait for the first cycle that isn't dry."
    assert "before this system has removed anything" in sentence(answer, "saved_file_missing")
    run(servers, 1, "succeeded", summary='{"phases": {"temp_files": {}}}')
    assert health()["critical"] == 0
    run(servers, 1, "succeeded", summary='{"phases": {"storage_files": {}}}')
    assert {name for name, status in turned(health()).items() if status == "critical"} == {
        "orphans_left",
        "saved_file_missing",
    }


# -- what cycles see ---------------------------------------------------------------------------------------------------


def count_failures(count: int, *, minutes_ago: float = 5) -> None:
    """Count failed cycles in CloudWatch, as the function cleanup does."""
    boto3.client("cloudwatch").put_metric_data(
        Namespace=NAMESPACE,
        MetricData=[
            {
                "MetricName": "CycleFailed",
                "Dimensions": [{"Name": "service", "Value": SERVICE}],
                "Timestamp": datetime.now(UTC) - timedelta(minutes=minutes_ago + number),
                "Value": 1,
            }
            for number in range(count)
        ],
    )


@pytest.mark.parametrize("event", [SCHEDULED, {"action": "cleanup"}], ids=["scheduled", "manual"])
def test_cycles_that_fail_on_a_revoked_key_are_seen(
    sound: Application, cleanup: Cleanup, health: Health, configure: Configure, event: object
) -> None:
    sound.render_many(3)
    configure(supabase__service_role_key="sb_secret_revoked")
    assert [cleanup(event)["status"] for _ in range(4)] == ["failed"] * 4
    answer = health()
    found = turned(answer)
    assert (found["storage"], found["failed_cycles"], found["success_rate"]) == ("critical", "critical", "warning")
    assert answer["checks"]["success_rate"]["value"] == 20.0
    assert "unrecorded_cycles" not in found


def test_a_bucket_that_storage_does_not_have_is_seen(sound: Application, health: Health, configure: Configure) -> None:
    configure(buckets="images,videos,gifs")
    answer = health()
    assert turned(answer)["storage"] == "critical"
    assert "buckets names gifs, which Storage doesn't have; it has images, videos" in sentence(answer, "storage")


def test_a_database_of_another_project_is_seen(health: Health, configure: Configure, postgres: Postgres) -> None:
    postgres.create_database("another_project")
    try:
        with psycopg.connect(postgres.url("supabase_storage_admin", "another_project"), autocommit=True) as connection:
            connection.execute(
                "insert into storage.buckets (id, name, created_at) values "
                "('images', 'images', now() - interval '1 day'), ('videos', 'videos', now() - interval '1 day')"
            )
        configure(database__url=postgres.url(WORKER, "another_project"))
        answer = health()
    finally:
        postgres.drop_database("another_project")
    assert turned(answer)["storage"] == "critical"
    assert "supabase/url and database/url belong to different projects" in sentence(answer, "storage")


def test_storage_that_does_not_answer_is_critical_and_nothing_is_advised_but_to_read(
    sound: Application, health: Health, configure: Configure
) -> None:
    configure(supabase__url="http://127.0.0.1:1")
    answer = health()
    assert turned(answer)["storage"] == "critical"
    assert "Storage can't be asked, so cycles remove no file" in sentence(answer, "storage")
    said = " ".join(check["sentence"] for check in answer["checks"].values())
    assert "by hand" not in said


def test_cycles_that_never_reached_the_database_are_counted_from_their_figures(
    sound: Application, cleanup: Cleanup, health: Health, configure: Configure, servers: Servers
) -> None:
    sql(servers, "update storage_cleanup.run set started_at = started_at - interval '30 minutes'")
    count_failures(4)
    answer = health()
    assert turned(answer) == {
        "failed_cycles": "critical",
        "unrecorded_cycles": "warning",
        "success_rate": "warning",
    }
    assert "read the saved query failures" in sentence(answer, "failed_cycles")
    assert sentence(answer, "unrecorded_cycles").startswith("4 cycles of the last seven days failed before")
    assert answer["checks"]["success_rate"]["value"] == 20.0


def test_failures_before_the_last_good_cycle_are_not_in_a_row(sound: Application, health: Health) -> None:
    count_failures(4, minutes_ago=60)
    assert turned(health()) == {"unrecorded_cycles": "warning", "success_rate": "warning"}


def test_a_failure_that_is_recorded_and_counted_is_one(sound: Application, health: Health, servers: Servers) -> None:
    run(servers, 2, "failed")
    count_failures(2, minutes_ago=-1)
    answer = health()
    assert turned(answer) == {"success_rate": "warning"}
    assert answer["checks"]["failed_cycles"]["value"] == 2
    assert answer["checks"]["success_rate"]["value"] == 33.33


def test_a_run_that_started_and_never_ended_is_seen(sound: Application, health: Health, servers: Servers) -> None:
    run(servers, 1, "running", minutes_ago=17)
    answer = health()
    assert turned(answer)["unended_runs"] == "warning"
    ((ended,),) = servers.execute("select id::text from storage_cleanup.run where status = 'running'")
    words = f"1 run of the last seven days started and never ended (such as {ended})"
    assert words in sentence(answer, "unended_runs")


def test_a_run_that_may_still_be_at_work_is_not_missed(sound: Application, health: Health, servers: Servers) -> None:
    run(servers, 1, "running", minutes_ago=15)
    assert turned(health()) == {}


def test_a_run_that_was_closed_for_dead_stays_seen(
    sound: Application, cleanup: Cleanup, health: Health, servers: Servers
) -> None:
    run(servers, 1, "running", minutes_ago=17)
    cleanup(SCHEDULED)
    assert servers.execute("select from storage_cleanup.run where status = 'running'") == []
    assert turned(health()) == {"unended_runs": "warning", "success_rate": "warning"}


def test_a_dry_run_by_schedule_is_a_cycle_and_one_by_hand_is_none(
    cleanup: Cleanup, health: Health, configure: Configure
) -> None:
    cleanup(dry_run=True)
    assert "Waiting for the first cycle" in sentence(health(), "last_cycle")
    configure(dry_run="true")
    cleanup(SCHEDULED)
    answer = health()
    assert "last_cycle" not in turned(answer)
    assert list(answer["checks"]["cycles_by_day"]["value"].values()) == [{"succeeded": 1, "partial": 0, "failed": 0}]


def test_a_refused_override_hides_no_open_breaker_and_no_missing_cycle(
    sound: Application, cleanup: Cleanup, health: Health, servers: Servers
) -> None:
    sql(
        servers,
        "update storage_cleanup.run set started_at = started_at - interval '100 minutes', "
        """summary = summary || '{"breaker_open": true}'""",
    )
    with pytest.raises(RequestError):
        cleanup(override="00000000-0000-0000-0000-000000000001")
    assert turned(health()) == {"last_cycle": "critical", "breaker": "critical"}


@pytest.mark.parametrize("named", ["its job", "its own path", "another job"])
def test_a_saved_file_that_this_system_removed_is_said_to_be_so(
    sound: Application, health: Health, servers: Servers, named: str
) -> None:
    render = sound.render()
    metadata = {"url": f"images/{render.name}"} if named == "its own path" else None
    sound.save(render, metadata=metadata)
    _remove_object(servers, f"name = '{render.name}'")
    job = "gen_random_uuid()" if named == "another job" else f"'{render.job_id}'"
    sql(
        servers,
        "insert into storage_cleanup.deletion (job_id, state, bucket_id, object_name, object) values "
        f"({job}, 'done', 'images', '{render.name}', storage_cleanup.hash('images/{render.name}'))",
    )
    answer = health()
    assert turned(answer)["saved_file_missing"] == "critical"
    assert "1 saved asset lost the file (this system removed 1)" in sentence(answer, "saved_file_missing")


@pytest.mark.parametrize(("failed", "expected"), [(3, "ok"), (4, "critical")])
def test_more_than_three_failed_cycles_in_a_row_are_critical(
    sound: Application, health: Health, servers: Servers, failed: int, expected: str
) -> None:
    run(servers, failed, "failed", summary='{"message": "no connection"}')
    answer = health()
    found = turned(answer)
    assert found.pop("success_rate") == "warning"
    assert found == ({} if expected == "ok" else {"failed_cycles": expected})
    assert f"The last {failed} cycles failed, the last because: no connection" in sentence(answer, "failed_cycles")


def test_a_cycle_that_died_without_a_word_has_failed(sound: Application, health: Health, servers: Servers) -> None:
    run(servers, 4, "running")
    sql(servers, "update storage_cleanup.run set started_at = started_at - interval '16 minutes'")
    assert turned(health())["failed_cycles"] == "critical"


def test_a_saved_asset_whose_job_is_missing(sound: Application, health: Health, servers: Servers) -> None:
    """Somebody else's deletion is a warning; this system's own would be the worst that can happen."""
    sql(servers, "delete from render_jobs where id = (select min(id::text)::uuid from render_jobs)")
    answer = health()
    assert turned(answer) == {"saved_job_missing": "warning"}
    assert "the ledger doesn't know it, so ask who else deletes rows" in sentence(answer, "saved_job_missing")
    sql(
        servers,
        "insert into storage_cleanup.deletion (job_id, state) "
        "select (metadata ->> 'render_job_id')::uuid, 'done' from user_assets "
        "where not exists (select from render_jobs where id::text = metadata ->> 'render_job_id')",
    )
    answer = health()
    assert turned(answer) == {"saved_job_missing": "critical"}
    assert "lost a job that this system removed" in sentence(answer, "saved_job_missing")


def test_an_unusual_spelling_still_counts_as_saved(sound: Application, health: Health) -> None:
    odd = sound.render(age=timedelta(days=1))
    sound.save(odd, metadata={"render_job_id": f"{{{str(odd.job_id).upper()}}}"})
    answer = health()
    assert "orphans_left" not in turned(answer)
    assert answer["checks"]["orphans_left"]["value"] == 0


def test_an_object_that_only_an_asset_points_at_is_known(sound: Application, health: Health, servers: Servers) -> None:
    _add_unknown_objects(servers, sound)
    sql(
        servers,
        "alter table user_assets add column file_path text",
        "insert into user_assets (user_id, asset_type, file_path) values "
        "(gen_random_uuid(), 'upload', 'unknown/1'), (gen_random_uuid(), 'upload', 'images/unknown/2')",
    )
    answer = health()
    assert turned(answer) == {"comparison": "warning"}
    assert answer["checks"]["object_unknown"]["value"]["found"] == 49


def test_a_url_in_a_bucket_that_is_not_listed_is_told(sound: Application, health: Health, servers: Servers) -> None:
    sound.create_bucket("avatars")
    sound.add_job(output_url="/storage/v1/object/public/avatars/a.png")
    answer = health()
    assert turned(answer) == {}
    assert answer["checks"]["url_not_understood"]["value"]["in_other_buckets"] == 1


def test_a_session_that_waits_for_a_lock_is_seen(sound: Application, health: Health, servers: Servers) -> None:
    with servers.database.connect(autocommit=False) as holder, servers.database.connect() as waiter:
        holder.execute("update user_assets set title = 'held'")
        waiting = Thread(target=waiter.execute, args=("update user_assets set title = 'waiting'",))
        waiting.start()
        while not holder.execute("select from pg_locks where not granted").fetchall():
            pass
        answer = health()
        holder.rollback()
        waiting.join()
    assert turned(answer) == {"locks": "warning"}
    assert "1 session wait for a lock" in sentence(answer, "locks")


def test_the_application_role_is_too_much(health: Health, servers: Servers, configure: Configure) -> None:
    configure(database__url=servers.database.url())
    answer = health()
    assert turned(answer)["privileges"] == "warning"
    assert "Role postgres bypasses row-level security" in sentence(answer, "privileges")


def test_a_question_that_fails_leaves_only_its_checks_unanswered(
    sound: Application, health: Health, servers: Servers
) -> None:
    sql(servers, f"revoke execute on function storage_cleanup.lock_trouble() from {WORKER}")
    answer = health()
    assert turned(answer) == {"privileges": "critical", "locks": "warning"}
    assert sentence(answer, "locks").startswith("This couldn't be checked: ")


FIGURES = [
    "OrphansLeft",
    "SavedAssetsMissing",
    "StoredBytes",
    "StoredBytesGrowthPercent",
]


def test_what_alarms_need_is_counted(sound: Application, health: Health, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    health()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    emitted = {name: values for line in lines if "_aws" in line for name, values in line.items()}
    assert {name: emitted[name][0] for name in FIGURES} == {
        "OrphansLeft": 0,
        "SavedAssetsMissing": 0,
        "StoredBytes": 40,
        "StoredBytesGrowthPercent": 0,
    }
    units = {
        metric["Name"]: metric["Unit"]
        for line in lines
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", ())
        for metric in directive["Metrics"]
    }
    assert (units["StoredBytes"], units["StoredBytesGrowthPercent"], units["OrphansLeft"]) == (
        *("Bytes", "Percent"),
        "Count",
    )


@pytest.mark.parametrize(
    "event",
    [
        {"action": "health", "verbose": True},
        {"action": "report"},
        {"action": "report", "period": "yearly"},
        {"action": "report", "period": "daily", "bucket": "x"},
        {"action": "cleanup"},
        {},
        "health",
    ],
)
def test_an_event_that_cannot_be_meant_is_refused(health: Health, event: object) -> None:
    with pytest.raises(RequestError, match="Event refused"):
        health(event)


# -- reports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", ["daily", "weekly", "monthly", "quarterly"])
def test_a_report_without_a_bucket_is_in_the_answer(sound: Application, health: Health, period: str) -> None:
    answer = health({"action": "report", "period": period})
    assert answer["status"] == "succeeded"
    assert answer["places"] == {}
    assert answer["page"].startswith("<!doctype html>")
    figures = answer["figures"]
    assert (figures["work"]["succeeded"], figures["work"]["files"], figures["work"]["bytes"]) == (1, 2, 20)
    assert figures["sentences"][0].endswith("succeeded, and every saved asset has its file.")
    assert figures["stored"] == [
        {"bucket": "images", "objects": 4, "bytes": 40},
        {"bucket": "videos", "objects": 0, "bytes": 0},
    ]


def test_a_report_is_stored_and_announced(
    sound: Application, health: Health, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, sns, sqs = boto3.client("s3"), boto3.client("sns"), boto3.client("sqs")
    s3.create_bucket(Bucket="reports", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    topic = sns.create_topic(Name="reports")["TopicArn"]
    queue = sqs.create_queue(QueueName="readers")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    monkeypatch.setenv("REPORT_BUCKET", "reports")
    monkeypatch.setenv("REPORT_TOPIC_ARN", topic)
    answer = health({"action": "report", "period": "weekly"})
    assert "page" not in answer
    stored = {}
    for kind in ("html", "json"):
        key = answer["places"][kind].removeprefix("s3://reports/")
        assert key.startswith("reports/weekly/")
        stored[kind] = s3.get_object(Bucket="reports", Key=key)
    assert stored["html"]["ContentType"] == "text/html; charset=utf-8"
    assert json.loads(stored["json"]["Body"].read())["sentences"] == answer["figures"]["sentences"]
    message = json.loads(sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"])
    assert message["Subject"] == "Storage Cleanup local: weekly report, ok"
    assert message["Message"].splitlines()[:3] == answer["figures"]["sentences"]


def test_failures_and_incidents_reach_the_report(sound: Application, health: Health, servers: Servers) -> None:
    summary = {
        "status": "partial",
        "phases": {"storage_files": {"failed": 2, "deleted": 0, "bytes": 0, "reasons": {"failed": {"still_there": 2}}}},
    }
    run(servers, 1, "partial", minutes_ago=0.1, summary=json.dumps(summary))
    run(servers, 2, "failed", minutes_ago=0.05, summary='{"message": "no connection"}')
    figures = health({"action": "report", "period": "daily"})["figures"]
    assert figures["failures"] == [{"reason": "Storage answered, but the object is still there", "number": 2}]
    assert [(each["status"], each["cycles"]) for each in figures["incidents"]] == [("failed", 2), ("partial", 1)]


# -- history -----------------------------------------------------------------------------------------------------------


def usage(servers: Servers) -> Iterator[tuple[Any, ...]]:
    yield from servers.execute("select day, bucket_id, objects, bytes from storage_cleanup.usage order by 1, 2")


def test_a_cycle_remembers_once_a_day_what_is_stored(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    sql(servers, "delete from storage_cleanup.usage")
    application.save_many(application.render_many(3))
    cleanup()
    first = list(usage(servers))
    assert [row[1:] for row in first] == [("images", 3, 30), ("videos", 0, 0)]
    application.save_many(application.render_many(1))
    cleanup()
    assert list(usage(servers)) == first


def test_usage_is_kept_for_a_year_and_then_forgotten(servers: Servers) -> None:
    sql(
        servers,
        "delete from storage_cleanup.usage",
        "insert into storage_cleanup.usage "
        "select (now() at time zone 'UTC')::date - n, 'images', 1, 1 from generate_series(0, 400) as n",
        "select storage_cleanup.prune('90 days')",
    )
    assert len(list(usage(servers))) == 360


def test_the_worker_cannot_write_the_history(servers: Servers) -> None:
    for statement in ("select storage_cleanup.remember_usage()", "delete from storage_cleanup.usage"):
        with pytest.raises(pg.InsufficientPrivilege):
            servers.execute(statement, role=WORKER)


def test_an_unknown_parameter_is_a_warning(sound: Application, health: Health, servers: Servers) -> None:
    servers.aws.put_parameters(PARAMETER_PATH, {"limits/max-retries": "3"})
    answer = health()
    assert turned(answer) == {"parameters": "warning"}
    assert "'limits/max-retries' is no parameter" in sentence(answer, "parameters")


def test_a_new_stage_without_secrets_is_not_critical_and_makes_no_report(
    sound: Application, health: Health, servers: Servers
) -> None:
    for name in OWN:
        servers.aws.ssm.delete_parameter(Name=f"{PARAMETER_PATH}/{name}")
    servers.aws.put_parameters(PARAMETER_PATH, {"setup/begun": datetime.now(UTC).isoformat()})
    answer = health()
    assert answer["status"] == "warning"
    assert sentence(answer, "parameters").startswith("No cycle runs yet: not configured yet")
    assert health({"action": "report", "period": "daily"})["status"] == "skipped"


def test_the_daily_report_says_that_cycles_are_dry(sound: Application, health: Health, servers: Servers) -> None:
    servers.aws.put_parameters(PARAMETER_PATH, {"dry-run": "true"})
    said = " ".join(health({"action": "report", "period": "daily"})["figures"]["sentences"])
    assert "Less than everything is cleaned: dry-run is true" in said
    servers.aws.put_parameters(PARAMETER_PATH, {"dry-run": "false"})
    assert "dry-run" not in " ".join(health({"action": "report", "period": "daily"})["figures"]["sentences"])
