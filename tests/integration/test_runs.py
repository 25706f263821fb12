"""A run is recorded from its start to its end, whatever comes between."""

from types import ModuleType
from uuid import UUID, uuid4

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


def open_run(database: Database) -> UUID:
    """Record that a run has started."""
    run = uuid4()
    database.open_run(run, trigger="manual", dry_run=False, options={}, scope={})
    return run


def start_run(database: Database, run: UUID) -> None:
    """Begin a run that is opened."""
    database.start_run(run, trigger="manual", dry_run=False, options={}, scope={}, override_of=None)


def state(servers: Servers, run: UUID) -> tuple[str, bool]:
    """Return a run's status, and whether others take it for alive."""
    query = "select status, storage_cleanup.is_alive(run) from storage_cleanup.run where id = %s"
    ((status, is_alive),) = servers.execute(query, run)
    return status, is_alive


def test_a_run_that_was_silent_for_so_long_that_it_was_closed_begins_all_the_same(servers: Servers) -> None:
    with Database(servers.database.url()) as database:
        run = open_run(database)
        servers.execute("update storage_cleanup.run set heartbeat_at = heartbeat_at - interval '3 minutes'")
        open_run(database)
        assert state(servers, run) == ("failed", False)
        start_run(database, run)
        assert state(servers, run) == ("running", True)
        assert servers.execute("select finished_at, summary from storage_cleanup.run where id = %s", run) == [
            (None, None)
        ]


def test_a_run_that_begins_on_a_new_connection_is_alive_by_that_one(servers: Servers) -> None:
    with Database(servers.database.url()) as database:
        run = open_run(database)
        database.close()
        assert state(servers, run) == ("running", False)
        start_run(database, run)
        assert state(servers, run) == ("running", True)
