"""An override carries out the plan of a dry run, and nothing else."""

import re
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from local.application import Application
from local.storage_emulator.faults import Fault
from storage_cleanup.errors import RequestError
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure


def test_an_override_deletes_what_was_planned_and_nothing_that_came_later(
    application: Application, cleanup: Cleanup
) -> None:
    planned = application.render_many(5)
    plan = cleanup(dry_run=True)["plan_id"]
    later = application.render_many(5)
    answer = cleanup(override=plan)
    assert answer["phases"]["storage_files"]["deleted"] == answer["phases"]["render_jobs"]["deleted"] == 5
    assert application.jobs() == {render.job_id for render in later}
    assert not application.jobs() & {render.job_id for render in planned}


@pytest.mark.usefixtures("impatience")
def test_an_override_leaves_the_claims_of_earlier_runs_alone(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    left_over = application.render_many(3)
    servers.storage.inject({Fault.INTERNAL: 1}, operations=["remove"])
    cleanup()
    servers.storage.heal()
    application.render_many(5)
    plan = cleanup(dry_run=True)
    assert plan["phases"]["storage_files"]["would_delete"] == 5
    assert cleanup(override=plan["plan_id"])["phases"]["storage_files"]["deleted"] == 5
    assert application.jobs() == {render.job_id for render in left_over}


def test_an_override_spares_what_was_saved_since_the_plan(application: Application, cleanup: Cleanup) -> None:
    renders = application.render_many(5)
    plan = cleanup(dry_run=True)["plan_id"]
    application.save_many(renders[:1])
    cleanup(override=plan)
    assert application.jobs() == {renders[0].job_id}


def test_an_override_may_be_bolder_than_the_parameters(application: Application, cleanup: Cleanup) -> None:
    application.render_many(2, age=timedelta(minutes=10))
    plan = cleanup(dry_run=True, max_age_minutes=5)["plan_id"]
    cleanup()
    assert len(application.files()) == 2
    assert cleanup(override=plan, max_age_minutes=5)["phases"]["storage_files"]["deleted"] == 2


def refused(application: Application, cleanup: Cleanup, message: str, **event: Any) -> None:
    files = len(application.files())
    with pytest.raises(RequestError, match=re.escape(message)):
        cleanup(**event)
    assert len(application.files()) == files


def test_an_override_that_names_no_plan_is_refused(application: Application, cleanup: Cleanup) -> None:
    application.render_many(2)
    refused(application, cleanup, "override names no dry run", override=str(uuid4()))


def test_an_override_that_names_a_real_run_is_refused(application: Application, cleanup: Cleanup) -> None:
    application.render_many(2)
    run = cleanup()["run_id"]
    application.render_many(2)
    refused(application, cleanup, "override names no dry run", override=run)


def test_a_stale_override_is_refused(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    application.render_many(2)
    plan = cleanup(dry_run=True)["plan_id"]
    servers.execute("update storage_cleanup.run set started_at = started_at - interval '24 hours'")
    refused(application, cleanup, "more than 24 hours ago", override=plan)


def test_a_used_override_is_refused(application: Application, cleanup: Cleanup) -> None:
    application.render_many(2)
    plan = cleanup(dry_run=True)["plan_id"]
    cleanup(override=plan)
    application.render_many(2)
    refused(application, cleanup, "carried out already", override=plan)


@pytest.mark.parametrize(
    "event", [{"max_age_minutes": 5}, {"max_deletions": 100_000}, {"phases": ["storage_files"]}], ids=str
)
def test_an_override_that_asks_for_something_else_is_refused(
    application: Application, cleanup: Cleanup, event: dict[str, object]
) -> None:
    application.render_many(2)
    plan = cleanup(dry_run=True)["plan_id"]
    refused(application, cleanup, "but the plan was made with", override=plan, **event)


def test_an_override_for_other_buckets_is_refused(
    application: Application, cleanup: Cleanup, configure: Configure
) -> None:
    application.render_many(2)
    plan = cleanup(dry_run=True)["plan_id"]
    configure(buckets="images")
    refused(application, cleanup, "supabase/url or buckets have changed", override=plan)


def test_an_override_of_a_plan_that_failed_is_refused(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render_many(2)
    plan = cleanup(dry_run=True)["plan_id"]
    servers.execute("update storage_cleanup.run set status = 'failed'")
    refused(application, cleanup, "didn't go well", override=plan)


def test_a_dry_run_that_failed_offers_no_plan(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    application.render_many(3)
    servers.execute("alter table user_assets disable trigger storage_cleanup_guard")
    answer = cleanup(dry_run=True)
    assert answer["status"] == "failed"
    assert "plan_id" not in answer
