"""What the log says of a cycle, in order."""

import logging

import pytest

from local.application import Application
from tests.conftest import Servers
from tests.integration.conftest import Cleanup


def test_the_log_says_in_order_what_a_cycle_did(
    application: Application, cleanup: Cleanup, caplog: pytest.LogCaptureFixture
) -> None:
    application.render_many(3)
    with caplog.at_level(logging.INFO, "storage_cleanup"):
        cleanup()
    assert messages(caplog) == [
        "Starting comprehensive cleanup cycle",
        "Successfully deleted 0 temporary files",
        "Cleaning up 3 orphaned Supabase files",
        "Successfully deleted 3 orphaned files",
        "Successfully deleted 3 orphaned render job records",
        "Comprehensive cleanup cycle completed",
    ]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the package has logged, in order."""
    return [record.message for record in caplog.records if record.name.startswith("storage_cleanup")]


def test_the_log_of_a_dry_run_says_would_delete_and_never_deleted(
    application: Application, cleanup: Cleanup, caplog: pytest.LogCaptureFixture
) -> None:
    application.render_many(3)
    with caplog.at_level(logging.INFO, "storage_cleanup"):
        cleanup(dry_run=True)
    assert messages(caplog) == [
        "Starting comprehensive cleanup cycle",
        "Would delete 0 temporary files",
        "Would delete 3 orphaned files",
        "Would delete 3 orphaned render job records",
        "Comprehensive cleanup cycle completed",
    ]


def test_the_log_of_a_failed_run_ends_in_an_error_and_never_says_completed(
    application: Application, cleanup: Cleanup, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    application.render_many(3)
    servers.execute("alter table user_assets disable trigger storage_cleanup_asset_inserted")
    with caplog.at_level(logging.INFO, "storage_cleanup"):
        answer = cleanup()
    assert answer["status"] == "failed"
    assert messages(caplog)[-1] == f"Cleanup cycle failed: {answer['message']}"
    assert caplog.records[-1].levelno == logging.ERROR
    assert "Comprehensive cleanup cycle completed" not in messages(caplog)
