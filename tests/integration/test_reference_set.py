"""The set of saved assets against its recent best, all through a run; and a first run that sees no save at all."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from local.application import Application, Render
from storage_cleanup.cleanup import preflight
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.postgres.ledger import Database, ReferenceSet
from storage_cleanup.storage.object_store import ObjectStore, Removal
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Health
from tests.integration.direct import ledger

KEPT_UNDER_ANOTHER_KEY = '{"renderJobId": "7d444840-9dc0-11d1-b245-5ffdce74fad2", "width": 1024}'


@pytest.fixture
def execute(servers: Servers) -> Callable[..., None]:
    """Run a statement as the application's owner."""

    def run(statement: str, *values: object) -> None:
        with servers.database.connect() as owner:
            owner.execute(statement.encode(), values)

    return run


@pytest.fixture
def lose(execute: Callable[..., None]) -> Callable[[int], None]:
    """Make so many assets disappear."""
    return partial(execute, "delete from user_assets where id in (select id from user_assets limit %s)")


@pytest.fixture
def saved(application: Application) -> list[Render]:
    """A hundred saved outputs, and an orphan that makes the next run look."""
    renders = application.render_many(100)
    application.save_many(renders)
    application.render_many(1)
    return renders


def left(application: Application, renders: Sequence[Render]) -> int:
    """Count the files of these that are still there."""
    return len(application.files() & {(render.bucket, render.name) for render in renders})


# -- the best of seven days --------------------------------------------------------------------------------------------


def test_a_leak_below_the_limit_before_each_run_is_stopped_at_the_limit(
    application: Application, cleanup: Cleanup, saved: list[Render], lose: Callable[[int], None]
) -> None:
    cleanup()
    for _ in range(6):
        lose(application.saved_assets() * 19 // 100)
        application.render_many(1)
        answer = cleanup()
    assert left(application, saved) == 81
    assert answer["breaker_open"] is True
    assert "saved assets fell from 100 to " in answer["message"]


@pytest.mark.usefixtures("saved")
@pytest.mark.parametrize(("days", "status"), [(6, "failed"), (8, "succeeded")])
def test_the_highest_count_of_seven_days_is_what_counts(
    cleanup: Cleanup, execute: Callable[..., None], lose: Callable[[int], None], days: int, status: str
) -> None:
    cleanup()
    execute("update storage_cleanup.run set started_at = started_at - %s * interval '1 day'", days)
    lose(15)
    assert cleanup()["status"] == "succeeded"
    lose(15)
    assert cleanup()["status"] == status


@pytest.mark.usefixtures("saved")
def test_after_a_pause_of_any_length_the_last_count_is_still_what_counts(
    cleanup: Cleanup, execute: Callable[..., None], lose: Callable[[int], None]
) -> None:
    cleanup()
    execute("update storage_cleanup.run set started_at = started_at - interval '2 years'")
    cleanup()  # has nothing to do, so it counts nothing; it forgets old runs
    lose(50)
    assert cleanup()["breaker_open"] is True


@pytest.mark.usefixtures("saved")
def test_health_judges_by_the_same_number(cleanup: Cleanup, health: Health, lose: Callable[[int], None]) -> None:
    cleanup()
    lose(15)
    cleanup()
    lose(15)
    assert health()["checks"]["saved_assets"]["status"] == "critical"


def test_an_override_sets_what_later_runs_are_judged_by(
    application: Application, cleanup: Cleanup, saved: list[Render], lose: Callable[[int], None]
) -> None:
    cleanup()
    lose(50)
    cleanup(override=cleanup(dry_run=True)["plan_id"])
    lose(5)
    assert cleanup()["status"] == "succeeded"
    assert left(application, saved) == 45
    lose(6)
    assert "saved assets fell from 50 to 39" in cleanup()["message"]


def test_an_override_that_has_nothing_left_to_delete_settles_it_as_well(
    application: Application, cleanup: Cleanup, saved: list[Render], lose: Callable[[int], None]
) -> None:
    cleanup()
    plan = cleanup(dry_run=True)
    lose(50)
    cleanup(override=plan["plan_id"])
    assert left(application, saved) == 100
    assert cleanup()["phases"]["storage_files"]["deleted"] == 50


def test_an_override_that_failed_settles_nothing(
    application: Application,
    cleanup: Cleanup,
    execute: Callable[..., None],
    saved: list[Render],
    lose: Callable[[int], None],
) -> None:
    cleanup()
    lose(50)
    plan = cleanup(dry_run=True)["plan_id"]
    execute("alter table storage_cleanup.plan_job rename to elsewhere")
    assert cleanup(override=plan)["status"] == "failed"
    execute("alter table storage_cleanup.elsewhere rename to plan_job")
    assert cleanup()["breaker_open"] is True
    assert left(application, saved) == 100


def record_calls(monkeypatch: pytest.MonkeyPatch) -> list[ReferenceSet]:
    """Note each count of the reference set."""
    counts: list[ReferenceSet] = []

    def judge_saved(database: Database, run: UUID) -> ReferenceSet:
        counts.append(ask(database, run))
        return counts[-1]

    ask = Database.judge_saved
    monkeypatch.setattr(Database, "judge_saved", judge_saved)
    return counts


# -- while a run is at work --------------------------------------------------------------------------------------------


@pytest.fixture
def loses_all_assets(
    app: ModuleType, execute: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Have all assets deleted as the run asks Storage for the second time, when more pages have been claimed.

    Counts are always too old.
    """

    class Mistake(ObjectStore):
        asked = 0

        def remove(self, bucket: str, names: Sequence[str]) -> Removal:
            self.asked += 1
            if self.asked == 2:
                execute("delete from user_assets")
            return super().remove(bucket, names)

    def prepare() -> None:
        monkeypatch.setattr(preflight, "REFERENCE_SECONDS", 0)
        monkeypatch.setattr(app, "ObjectStore", Mistake)
        monkeypatch.setattr(app, "run_cycle", partial(run_cycle, page_size=2, most_requests=1))

    return prepare


@pytest.mark.parametrize("kind", ["first", "ordinary", "override"])
def test_assets_that_vanish_while_a_run_is_at_work_open_the_breaker_within_it(
    application: Application,
    cleanup: Cleanup,
    servers: Servers,
    loses_all_assets: Callable[[], None],
    kind: str,
) -> None:
    younger = application.render_many(20, age=timedelta(minutes=90))
    application.save_many(younger)
    if kind != "first":
        application.render_many(1)
        cleanup()
    application.render_many(40)
    event = {"override": cleanup(dry_run=True)["plan_id"]} if kind == "override" else {}
    servers.storage.inject(operations=["remove"], latency_ms=100)
    loses_all_assets()
    answer = cleanup(**event)
    assert answer["breaker_open"] is True
    assert "saved assets fell from 20 to 0" in answer["message"]
    assert left(application, younger) == 20
    assert answer["phases"]["storage_files"]["reasons"]["skipped"]["given_back"] > 0
    assert {state for state, _, _ in ledger(servers)} <= {"done", "file_deleted", "released"}


def test_a_short_run_counts_once(
    app: ModuleType, application: Application, cleanup: Cleanup, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "run_cycle", partial(run_cycle, page_size=2))
    monkeypatch.setattr(preflight, "REFERENCE_SECONDS", 600)
    counts = record_calls(monkeypatch)
    application.save_many(application.render_many(3))
    application.render_many(20)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 20
    assert len(counts) == 1


# -- the first run -----------------------------------------------------------------------------------------------------


def assert_refused(answer: dict[str, Any], application: Application, *, files: int) -> None:
    assert answer["status"] == "failed"
    assert sum(phase["deleted"] for phase in answer["phases"].values()) == 0
    assert len(application.files()) == files
    assert "metadata->>'render_job_id'" in answer["message"]
    assert '{"action": "cleanup", "dry_run": true}' in answer["message"]
    assert '{"action": "cleanup", "override": "…"}' in answer["message"]


@pytest.fixture
def saved_under_another_key(application: Application, execute: Callable[..., None]) -> None:
    """Have three outputs, and an asset that names its job in a way that nobody expects."""
    application.render_many(3)
    execute(
        "insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'generated_saved', %s)",
        KEPT_UNDER_ANOTHER_KEY,
    )


@pytest.mark.usefixtures("saved_under_another_key")
def test_a_first_run_that_sees_assets_and_no_reference_refuses_and_names_the_keys(
    application: Application, cleanup: Cleanup
) -> None:
    answer = cleanup()
    assert_refused(answer, application, files=3)
    assert "user_assets has rows (keys of metadata: 'renderJobId', 'width')" in answer["message"]
    assert "completed" not in answer["message"]
    assert_refused(cleanup(), application, files=3)


def test_a_refusal_names_the_ten_most_frequent_keys_and_no_value(
    application: Application, cleanup: Cleanup, execute: Callable[..., None]
) -> None:
    application.render_many(1)
    execute(
        "insert into user_assets (user_id, asset_type, metadata) "
        "select gen_random_uuid(), 'generated_saved', jsonb_object_agg('key_' || key, 'a value') "
        "from generate_series(1, 12) as asset, generate_series(10, 9 + asset) as key group by asset"
    )
    message = cleanup()["message"]
    assert all(f"'key_{key}'" in message for key in range(10, 20))
    assert "key_20" not in message
    assert "a value" not in message


@pytest.mark.parametrize("metadata", ["[]", "3", "{}"])
def test_a_first_run_refuses_whatever_the_metadata_is(
    application: Application, cleanup: Cleanup, execute: Callable[..., None], metadata: str
) -> None:
    application.render_many(1)
    execute("insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'x', %s)", metadata)
    answer = cleanup()
    assert_refused(answer, application, files=1)
    assert "(keys of metadata: none)" in answer["message"]


def test_a_first_run_that_sees_many_jobs_and_no_asset_refuses(application: Application, cleanup: Cleanup) -> None:
    application.render_many(21)
    answer = cleanup()
    assert_refused(answer, application, files=21)
    assert "although more than 20 jobs are completed" in answer["message"]


def test_a_project_that_is_only_tried_out_just_runs(application: Application, cleanup: Cleanup) -> None:
    application.render_many(20)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 20
    application.render_many(30)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 30


def test_a_first_run_that_sees_a_save_just_runs(application: Application, cleanup: Cleanup) -> None:
    saved, _ = application.render_many(1), application.render_many(30)
    application.save_many(saved)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 30


@pytest.mark.usefixtures("saved_under_another_key")
def test_the_dry_run_and_the_override_that_a_refusal_names_settle_it_for_good(
    application: Application, cleanup: Cleanup
) -> None:
    cleanup()
    plan = cleanup(dry_run=True)
    assert (plan["status"], plan["phases"]["storage_files"]["would_delete"]) == ("succeeded", 3)
    assert_refused(cleanup(), application, files=3)
    assert cleanup(override=plan["plan_id"])["phases"]["storage_files"]["deleted"] == 3
    application.render_many(30)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 30


def test_an_override_settles_the_first_run_even_when_its_plan_is_empty(
    application: Application, cleanup: Cleanup
) -> None:
    for _ in range(21):
        application.add_job(output_url="https://elsewhere.example/a.png")
    assert cleanup()["status"] == "failed"
    cleanup(override=cleanup(dry_run=True)["plan_id"])
    assert cleanup()["status"] == "succeeded"


def test_a_dry_run_says_that_a_real_one_would_refuse(
    application: Application, cleanup: Cleanup, caplog: pytest.LogCaptureFixture
) -> None:
    application.render_many(21)
    cleanup(dry_run=True)
    assert "Only an override could delete anything: nothing was ever deleted here" in caplog.text
