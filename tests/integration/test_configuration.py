"""Bad, missing or half-changed configuration deletes nothing and names the parameter."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from local.application import Application
from local.keys import mint
from local.stack import PARAMETER_PATH
from storage_cleanup.config.parameters import DEFAULTS, OWN
from storage_cleanup.errors import ConfigurationError, RequestError
from tests.conftest import Servers
from tests.integration.conftest import Cleanup

Put = Callable[[str, str], None]


@pytest.fixture
def put(servers: Servers, cleanup: Cleanup, application: Application) -> Put:
    """Change one parameter, while an orphan waits."""
    application.render()

    def change(name: str, value: str) -> None:
        servers.aws.put_parameters(PARAMETER_PATH, {name: value})

    return change


def assert_refused(cleanup: Cleanup, application: Application, *names: str) -> str:
    with pytest.raises(ConfigurationError) as refusal:
        cleanup()
    for name in names:
        assert name in str(refusal.value)
    assert "nothing was deleted" in str(refusal.value)
    assert len(application.files()) == len(application.jobs()) == 1
    return str(refusal.value)


Remove = Callable[..., None]
SCHEDULED = {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


@pytest.fixture
def remove(put: Put, servers: Servers) -> Remove:
    """Delete parameters, while an orphan waits."""

    def delete(*names: str) -> None:
        for name in names:
            servers.aws.ssm.delete_parameter(Name=f"{PARAMETER_PATH}/{name}")

    return delete


def test_missing_secrets_are_an_error_on_a_stage_that_had_them(
    remove: Remove, cleanup: Cleanup, application: Application
) -> None:
    remove(*OWN)
    assert_refused(cleanup, application, *(f"{name} is missing" for name in OWN))


def test_a_new_stage_without_secrets_is_skipped_and_nothing_fails(
    remove: Remove, put: Put, cleanup: Cleanup, application: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    remove(*OWN)
    put("setup/begun", datetime.now(UTC).isoformat())
    answer = cleanup(SCHEDULED)
    assert answer["status"] == "skipped"
    assert "not configured yet" in answer["message"]
    emitted = [line for line in capsys.readouterr().out.splitlines() if "CycleFailed" in line]
    assert json.loads(emitted[-1])["CycleFailed"] == [0]
    assert json.loads(emitted[-1])["CycleFailed"] == json.loads(emitted[-1])["ConfigurationError"] == [0]
    assert len(application.files()) == 1


def test_half_of_the_secrets_is_an_error_on_a_new_stage_too(
    remove: Remove, put: Put, cleanup: Cleanup, application: Application
) -> None:
    remove("database/url")
    put("setup/begun", datetime.now(UTC).isoformat())
    assert_refused(cleanup, application, "database/url is missing")


def test_without_enabled_a_cycle_is_skipped_and_names_it_in_full(
    remove: Remove, cleanup: Cleanup, application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    remove("enabled")
    answer = cleanup(SCHEDULED)
    assert (answer["status"], answer["phases"]) == ("skipped", {})
    assert answer["message"] == f"the parameter {PARAMETER_PATH}/enabled is absent"
    assert f"Cleanup cycle skipped: {answer['message']}" in [record.message for record in caplog.records]
    assert len(application.files()) == 1


def test_without_dry_run_a_cycle_is_dry_and_says_why(
    remove: Remove, cleanup: Cleanup, application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    remove("dry-run")
    answer = cleanup(SCHEDULED)
    assert (answer["status"], answer["dry_run"]) == ("succeeded", True)
    assert answer["message"] == f"nothing was deleted: the parameter {PARAMETER_PATH}/dry-run is absent"
    assert any("This cycle deletes nothing" in record.message for record in caplog.records)
    assert len(application.files()) == 1


def test_without_dry_run_an_event_cannot_make_a_real_run(
    remove: Remove, cleanup: Cleanup, application: Application
) -> None:
    remove("dry-run")
    with pytest.raises(RequestError, match=f"the parameter {PARAMETER_PATH}/dry-run is absent"):
        cleanup(dry_run=False)
    assert len(application.files()) == 1


def test_other_absent_parameters_mean_their_defaults(
    remove: Remove, cleanup: Cleanup, application: Application
) -> None:
    remove(*(DEFAULTS.keys() - {"enabled", "dry-run", "temp/directories"}))
    assert cleanup()["phases"]["storage_files"]["deleted"] == 1
    assert not application.files()


def test_an_unknown_parameter_is_told_and_stops_nothing(
    put: Put, cleanup: Cleanup, application: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    put("limits/max-retries", "3")
    assert cleanup()["phases"]["storage_files"]["deleted"] == 1
    (emitted,) = [line for line in capsys.readouterr().out.splitlines() if '"UnknownParameters":[' in line]
    assert json.loads(emitted)["UnknownParameters"] == [1]


def test_every_fault_is_named_at_once(put: Put, remove: Remove, cleanup: Cleanup, application: Application) -> None:
    remove("dependents")
    put("profile", "staging")
    put("buckets", "images,,videos")
    put("limits/max-failure-percent", "110")
    put("dependant", "keep")
    expected = ("profile is", "buckets is", "limits/max-failure-percent is", "'dependant' is no parameter")
    assert_refused(cleanup, application, *expected)


def test_no_secret_is_shown(put: Put, cleanup: Cleanup, application: Application, servers: Servers) -> None:
    secret = mint("another-secret-that-is-long-enough-for-it", role="anon")
    put("supabase/service-role-key", secret)
    put("database/url", "postgresql://postgres:hunter2@")
    message = assert_refused(cleanup, application, "supabase/service-role-key", "database/url")
    assert secret not in message
    assert "hunter2" not in message


def test_the_parameter_dry_run_deletes_nothing(put: Put, cleanup: Cleanup, application: Application) -> None:
    put("dry-run", "true")
    answer = cleanup({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})
    assert answer["dry_run"] is True
    assert answer["phases"]["storage_files"]["would_delete"] == 1
    assert len(application.files()) == 1


@pytest.mark.parametrize("phase", ["temp_files", "storage_files", "render_jobs"])
def test_a_phase_that_is_switched_off_does_not_run(
    put: Put, cleanup: Cleanup, application: Application, phase: str
) -> None:
    put(f"phases/{phase.replace('_', '-')}", "false")
    answer = cleanup()
    assert phase not in answer["phases"]
    assert len(application.files()) == (1 if phase == "storage_files" else 0)
    assert len(application.jobs()) == (0 if phase == "temp_files" else 1)


def test_the_testing_profile_lowers_the_age(put: Put, cleanup: Cleanup, application: Application) -> None:
    put("testing/max-age-minutes", "180")
    put("profile", "testing")
    answer = cleanup()
    assert answer["profile"] == "testing"
    assert answer["phases"]["storage_files"]["planned"] == 0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_age_minutes": 59}, "max_age_minutes"),
        ({"dryrun": True}, "dryrun"),
    ],
)
def test_an_event_that_is_wrong_or_too_bold_is_refused(
    put: Put, cleanup: Cleanup, application: Application, fields: dict[str, Any], named: str
) -> None:
    with pytest.raises(RequestError, match=named):
        cleanup(**fields)
    assert len(application.files()) == 1
