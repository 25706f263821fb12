"""The set of saved assets shrinks: a run deletes nothing until its cause is gone or somebody overrides with a plan."""

from collections.abc import Callable

import pytest

from local.application import Application
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure, nothing_happened
from tests.integration.direct import ledger


@pytest.fixture
def shrunk(application: Application, cleanup: Cleanup, servers: Servers) -> Callable[[int], None]:
    """Have ten saved outputs and a good run behind them; the result makes so many of the assets disappear."""
    application.save_many(application.render_many(10))
    application.render_many(1)
    assert cleanup()["status"] == "succeeded"

    def lose(count: int) -> None:
        servers.execute("delete from user_assets where id in (select id from user_assets limit %s)", count)

    return lose


def test_a_drop_within_the_limit_is_accepted(cleanup: Cleanup, shrunk: Callable[[int], None]) -> None:
    shrunk(2)
    assert cleanup()["phases"]["storage_files"]["deleted"] == 2


@pytest.mark.parametrize("lost", [3, 10])
def test_a_drop_above_the_limit_deletes_nothing_and_fails_loudly(
    application: Application,
    cleanup: Cleanup,
    shrunk: Callable[[int], None],
    lost: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shrunk(lost)
    answer = cleanup()
    assert answer["breaker_open"] is True
    nothing_happened(answer, application, files=10)
    assert f"saved assets fell from 10 to {10 - lost}" in answer["message"]
    assert "limits/max-saved-drop-percent" in caplog.text


def test_an_open_breaker_claims_nothing(cleanup: Cleanup, servers: Servers, shrunk: Callable[[int], None]) -> None:
    shrunk(3)
    cleanup()
    assert [state for state, _, _ in ledger(servers)] == ["done"]


def test_an_empty_set_is_never_accepted_where_it_was_not_empty(
    application: Application, cleanup: Cleanup, configure: Configure, shrunk: Callable[[int], None]
) -> None:
    shrunk(10)
    configure(limits__max_saved_drop_percent="100")
    nothing_happened(cleanup(), application, files=10)


def test_the_breaker_stays_open_as_long_as_its_cause_lasts(
    application: Application, cleanup: Cleanup, shrunk: Callable[[int], None]
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
    application: Application, cleanup: Cleanup, shrunk: Callable[[int], None]
) -> None:
    shrunk(5)
    plan = cleanup(dry_run=True)
    assert (plan["status"], plan["phases"]["storage_files"]["would_delete"]) == ("succeeded", 5)
    assert len(application.files()) == 10


def test_an_override_with_a_plan_gets_past_the_breaker_and_closes_it(
    application: Application, cleanup: Cleanup, shrunk: Callable[[int], None]
) -> None:
    shrunk(5)
    plan = cleanup(dry_run=True)["plan_id"]
    answer = cleanup(override=plan, dry_run=False)
    assert (answer["status"], answer["phases"]["storage_files"]["deleted"]) == ("succeeded", 5)
    application.render_many(1)
    assert cleanup()["status"] == "succeeded"
