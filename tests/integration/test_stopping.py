"""What ends a cycle early: the kill switch, its time, its limit; the rest waits for the next one."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from local.application import Application
from local.stack import PARAMETER_PATH
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.storage.object_store import ObjectStore, Removal
from storage_cleanup.storage.paths import OWN_BUCKET
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure

pytestmark = pytest.mark.usefixtures("earlier_run")


@pytest.fixture
def switch_off_in_the_middle(servers: Servers) -> Iterator[Callable[[], None]]:
    """Set the parameter ``enabled`` to false once a removal of files is under way; the result waits for that."""
    with ThreadPoolExecutor(1) as threads:

        def switch() -> None:
            while servers.storage.stats()["requests"].get("remove", 0) < 2:  # the first is the canary's
                time.sleep(0.01)
            servers.aws.put_parameters(PARAMETER_PATH, {"enabled": "false"})

        switched = threads.submit(switch)
        yield lambda: switched.result(timeout=10)


@pytest.mark.usefixtures("small_batches")
def test_the_kill_switch_stops_a_run_in_the_middle(
    application: Application,
    cleanup: Cleanup,
    servers: Servers,
    switch_off_in_the_middle: Callable[[], None],
) -> None:
    application.render_many(400)
    servers.storage.inject(operations=["remove"], latency_ms=750)
    answer = cleanup()
    switch_off_in_the_middle()
    assert answer["status"] == "partial"
    assert answer["phases"]["storage_files"]["stopped"] == "disabled"
    assert 0 < len(application.files()) < 400


@pytest.mark.usefixtures("small_batches")
def test_a_run_that_was_stopped_leaves_rows_as_well_and_the_next_one_finishes(
    application: Application,
    cleanup: Cleanup,
    configure: Configure,
    servers: Servers,
    switch_off_in_the_middle: Callable[[], None],
) -> None:
    application.render_many(400)
    servers.storage.inject(operations=["remove"], latency_ms=750)
    assert cleanup()["phases"]["render_jobs"]["stopped"] == "disabled"
    switch_off_in_the_middle()
    assert len(application.jobs()) > len(application.files())
    servers.storage.heal()
    configure()
    assert cleanup()["status"] == "succeeded"
    assert application.files() == application.jobs() == set()


@pytest.mark.usefixtures("small_batches")
def test_what_a_stopped_run_has_not_removed_can_be_saved(
    application: Application,
    cleanup: Cleanup,
    servers: Servers,
    switch_off_in_the_middle: Callable[[], None],
) -> None:
    renders = application.render_many(400)
    servers.storage.inject(operations=["remove"], latency_ms=750)
    cleanup()
    switch_off_in_the_middle()
    files = application.files()
    left = [render for render in renders if (render.bucket, render.name) in files]
    assert left
    application.save_many(left)


def test_a_switched_off_system_does_not_even_look(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    application.render_many(3)
    configure(enabled="false")
    answer = cleanup()
    assert (answer["status"], answer["phases"]) == ("skipped", {})
    assert servers.storage.stats()["requests"] == {}


@pytest.mark.usefixtures("small_batches")
def test_time_that_runs_out_makes_the_run_partial_and_the_rest_is_done_next_time(
    application: Application, cleanup: Cleanup, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.render_many(400)
    original, removing = ObjectStore.remove, threading.Event()

    def remove(self: ObjectStore, bucket: str, names: Sequence[str], **how: Any) -> Removal:
        if bucket != OWN_BUCKET:
            removing.set()
        return original(self, bucket, names, **how)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "remove", remove)
        patched.setattr(Watch, "remaining_seconds", property(lambda _: 20.0 if removing.is_set() else 900.0))
        answer = cleanup()
    assert answer["status"] == "partial"
    assert answer["phases"]["storage_files"]["stopped"] == "time_is_short"
    assert 0 < len(application.files()) < 400
    assert answer["remaining"] > 0
    assert cleanup()["status"] == "succeeded"
    assert application.files() == application.jobs() == set()


def test_a_limit_ends_the_cycle_early_and_the_rest_waits(
    application: Application, cleanup: Cleanup, configure: Configure
) -> None:
    application.render_many(25)
    configure(limits__max_deletions_per_run="10")
    answers = [cleanup() for _ in range(3)]
    assert [answer["phases"]["storage_files"]["deleted"] for answer in answers] == [10, 10, 5]
    assert [answer["phases"]["render_jobs"]["deleted"] for answer in answers] == [10, 10, 5]
    assert [answer["status"] for answer in answers] == ["partial", "partial", "succeeded"]
    assert [answer["remaining"] for answer in answers] == [15, 5, 0]
    assert answers[0]["phases"]["storage_files"]["stopped"] == "limit_reached"
