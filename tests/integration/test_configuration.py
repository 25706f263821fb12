"""Bad, missing or half-changed configuration deletes nothing and names the parameter."""

from collections.abc import Callable
from typing import Any

import pytest

from local.application import Application
from local.keys import mint
from local.stack import PARAMETER_PATH
from storage_cleanup.config.parameters import PARAMETERS
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


def test_missing_parameters(put: Put, cleanup: Cleanup, application: Application, servers: Servers) -> None:
    missing = PARAMETERS.keys() - {"enabled"}
    for name in missing:
        servers.aws.ssm.delete_parameter(Name=f"{PARAMETER_PATH}/{name}")
    assert_refused(cleanup, application, *(f"{name} is missing" for name in missing))


def test_every_fault_is_named_at_once(put: Put, cleanup: Cleanup, application: Application) -> None:
    put("profile", "staging")
    put("buckets", "images,,videos")
    put("limits/max-failure-percent", "110")
    put("profilex", "1")
    expected = ("profile is", "buckets is", "limits/max-failure-percent is", "'profilex' is no parameter")
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
