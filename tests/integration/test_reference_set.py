"""The set of saved assets against its recent best, before a run and all through it."""

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
from storage_cleanup.storage.paths import OWN_BUCKET
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure, Health, nothing_happened
from tests.integration.direct import ledger

Lose = Callable[[int], object]


@pytest.fixture
def lose(servers: Servers) -> Lose:
    """Make so many assets disappear."""
    return partial(servers.execute, "delete from user_assets where id in (select id from user_assets limit %s)")


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


# -- a drop since the last run -----------------------------------------------------------------------------------------


@pytest.fixture
def shrunk(application: Application, cleanup: Cleanup, lose: Lose) -> Lose:
    """Have ten saved outputs and a good run behind them; the result makes so many of the assets disappear."""
    application.save_many(application.render_many(10))
    application.render_many(1)
    assert cleanup()["status"] == "succeeded"
    return lose


def test_a_drop_within_the_limit_is_accepted(cleanup: Cleanup, shrunk: Lose) -> None:
    shrunk(2)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 2


@pytest.mark.parametrize("lost", [3, 10])
def test_a_drop_above_the_limit_deletes_nothing_and_fails_loudly(
    application: Application,
    cleanup: Cleanup,
    shrunk: Lose,
    lost: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shrunk(lost)
    answer = cleanup()
    assert answer["breaker_open"] is True
    nothing_happened(answer, application, files=10)
    assert f"saved assets fell from 10 to {10 - lost}" in answer["message"]
    assert "limits/max-saved-drop-percent" in caplog.text


def test_an_open_breaker_claims_nothing(cleanup: Cleanup, servers: Servers, shrunk: Lose) -> None:
    shrunk(3)
    cleanup()
    assert [state for state, _, _ in ledger(servers)] == ["done"]


def test_an_empty_set_is_never_accepted_where_it_was_not_empty(
    application: Application, cleanup: Cleanup, configure: Configure, shrunk: Lose
) -> None:
    shrunk(10)
    configure(limits__max_saved_drop_percent="100")
    nothing_happened(cleanup(), application, files=10)


def test_the_breaker_stays_open_as_long_as_its_cause_lasts(
    application: Application, cleanup: Cleanup, shrunk: Lose
) -> None:
    shrunk(5)
    for _ in range(3):
        nothing_happened(cleanup(), application, files=10)


def test_the_breaker_closes_by_itself_when_its_cause_is_gone(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    saved = application.render_many(10)
    application.save_many(saved)
    application.render_many(1)
    cleanup()
    servers.execute("delete from user_assets")
    assert cleanup()["breaker_open"] is True
    application.save_many(saved)
    application.render_many(1)
    answer = cleanup()
    assert (answer["status"], answer["phases"]["storage_files"]["deleted"]) == ("succeeded", 1)
    assert application.jobs() == {render.job_id for render in saved}


def test_a_dry_run_still_plans_while_the_breaker_is_open(
    application: Application, cleanup: Cleanup, shrunk: Lose
) -> None:
    shrunk(5)
    plan = cleanup(dry_run=True)
    assert (plan["status"], plan["phases"]["storage_files"]["would_delete"]) == ("succeeded", 5)
    assert len(application.files()) == 10


def test_an_override_with_a_plan_gets_past_the_breaker_and_closes_it(
    application: Application, cleanup: Cleanup, shrunk: Lose
) -> None:
    shrunk(5)
    plan = cleanup(dry_run=True)["plan_id"]
    answer = cleanup(override=plan, dry_run=False)
    assert (answer["status"], answer["phases"]["storage_files"]["deleted"]) == ("succeeded", 5)
    application.render_many(1)
    assert cleanup()["status"] == "succeeded"


# -- the best of seven days --------------------------------------------------------------------------------------------


def test_a_leak_below_the_limit_before_each_run_is_stopped_at_the_limit(
    application: Application, cleanup: Cleanup, saved: list[Render], lose: Lose
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
    cleanup: Cleanup, servers: Servers, lose: Lose, days: int, status: str
) -> None:
    cleanup()
    servers.execute("update storage_cleanup.run set started_at = started_at - %s * interval '1 day'", days)
    lose(15)
    assert cleanup()["status"] == "succeeded"
    lose(15)
    assert cleanup()["status"] == status


@pytest.mark.usefixtures("saved")
def test_after_a_pause_of_any_length_the_last_count_is_still_what_counts(
    cleanup: Cleanup, servers: Servers, lose: Lose
) -> None:
    cleanup()
    servers.execute("update storage_cleanup.run set started_at = started_at - interval '2 years'")
    cleanup()  # has nothing to do, so it counts nothing; it forgets old runs
    lose(50)
    assert cleanup()["breaker_open"] is True


@pytest.mark.usefixtures("saved")
def test_health_judges_by_the_same_number(cleanup: Cleanup, health: Health, lose: Lose) -> None:
    cleanup()
    lose(15)
    cleanup()
    lose(15)
    assert health()["checks"]["saved_assets"]["status"] == "critical"


def test_an_override_sets_what_later_runs_are_judged_by(
    application: Application, cleanup: Cleanup, saved: list[Render], lose: Lose
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
    application: Application, cleanup: Cleanup, saved: list[Render], lose: Lose
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
    servers: Servers,
    saved: list[Render],
    lose: Lose,
) -> None:
    cleanup()
    lose(50)
    plan = cleanup(dry_run=True)["plan_id"]
    servers.execute("alter table storage_cleanup.plan_job rename to elsewhere")
    assert cleanup(override=plan)["status"] == "failed"
    servers.execute("alter table storage_cleanup.elsewhere rename to plan_job")
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
def loses_all_assets(app: ModuleType, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have all assets deleted as the run asks Storage for the second time, when more pages have been claimed.

    Counts are always too old.
    """

    class Mistake(ObjectStore):
        asked = 0

        def remove(self, bucket: str, names: Sequence[str], **how: Any) -> Removal:
            self.asked += bucket != OWN_BUCKET
            if self.asked == 2:
                servers.execute("delete from user_assets")
            return super().remove(bucket, names, **how)

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
