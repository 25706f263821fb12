"""A run is recorded from its start to its end, whatever comes between."""

from types import ModuleType

import pytest

from local.functions import Context
from storage_cleanup.errors import RequestError
from storage_cleanup.postgres.ledger import Database
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure


@pytest.mark.parametrize(
    ("parameters", "recorded"),
    [
        ({"phases__storage_files": "false", "phases__render_jobs": "false"}, [("succeeded",)]),
        ({"buckets": "images,gifs"}, [("failed",)]),
        ({"enabled": "false"}, []),
    ],
    ids=["temporary files alone", "failed preflight", "switched off"],
)
def test_a_cycle_that_begins_nothing_in_the_project_is_recorded(
    cleanup: Cleanup, configure: Configure, servers: Servers, parameters: dict[str, str], recorded: list[tuple[str]]
) -> None:
    configure(**parameters)
    cleanup()
    assert servers.execute("select status from storage_cleanup.run") == recorded


def test_a_refused_override_is_recorded_and_no_failure(cleanup: Cleanup, servers: Servers) -> None:
    plan = "00000000-0000-0000-0000-000000000001"
    with pytest.raises(RequestError):
        cleanup(override=plan)
    ((status, said, override_of),) = servers.execute(
        "select status, summary ->> 'message', override_of from storage_cleanup.run"
    )
    assert (status, override_of) == ("skipped", None)
    assert "override names no dry run" in said


def test_a_run_that_breaks_off_in_its_preflight_has_started(
    app: ModuleType, configure: Configure, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    monkeypatch.setattr(Database, "assert_trust", _break_off)
    with pytest.raises(MemoryError):
        app.lambda_handler({"action": "cleanup"}, Context())
    assert servers.execute("select status, finished_at from storage_cleanup.run") == [("running", None)]


def _break_off(_: Database) -> None:
    raise MemoryError


def test_temporary_files_alone_go_without_a_database(cleanup: Cleanup, configure: Configure) -> None:
    configure(
        database__url="postgresql://postgres@127.0.0.1:1/postgres",
        phases__storage_files="false",
        phases__render_jobs="false",
    )
    answer = cleanup()
    assert (answer["status"], list(answer["phases"])) == ("succeeded", ["temp_files"])
