"""A first run that sees no save at all: it refuses where there should be some, and says what settles it."""

from typing import Any

import pytest

from local.application import Application
from tests.conftest import Servers
from tests.integration.conftest import Cleanup

KEPT_UNDER_ANOTHER_KEY = '{"renderJobId": "7d444840-9dc0-11d1-b245-5ffdce74fad2", "width": 1024}'


def assert_refused(answer: dict[str, Any], application: Application, *, files: int) -> None:
    assert answer["status"] == "failed"
    assert sum(phase["deleted"] for phase in answer["phases"].values()) == 0
    assert len(application.files()) == files
    assert "metadata->>'render_job_id'" in answer["message"]
    assert '{"action": "cleanup", "dry_run": true}' in answer["message"]
    assert '{"action": "cleanup", "override": "…"}' in answer["message"]


@pytest.fixture
def saved_under_another_key(application: Application, servers: Servers) -> None:
    """Have three outputs, and an asset that names its job in a way that nobody expects."""
    application.render_many(3)
    servers.execute(
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
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render_many(1)
    servers.execute(
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
    application: Application, cleanup: Cleanup, servers: Servers, metadata: str
) -> None:
    application.render_many(1)
    servers.execute(
        "insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'x', %s)", metadata
    )
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
