"""Storage that refuses, is late, answers nonsense or can't stomach one name; what a run says and leaves then."""

import httpx
import psycopg
import pytest

from local.application import Application, Render
from local.storage_emulator.faults import Fault
from storage_cleanup.errors import ObjectStoreError
from storage_cleanup.storage.object_store import ObjectStore
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure, nothing_happened
from tests.integration.direct import IMPATIENT, ledger, let_requests_end, let_time_pass

pytestmark = pytest.mark.usefixtures("impatience", "earlier_run")


REFUSED = {
    Fault.TIMEOUT_BEFORE: ("storage_timeout", "no answer in time"),
    Fault.TOO_MANY_CONNECTIONS: ("storage_too_many_connections", "Too many connections"),
    Fault.INTERNAL: ("storage_internal", "Internal Server Error"),
    Fault.DATABASE_TIMEOUT: ("storage_database_timeout", "connection to the database timed out"),
    Fault.SLOW_DOWN: ("storage_please_reduce_your_request_rate", "SlowDown"),
    Fault.BAD_GATEWAY: ("storage_internal_error", "502 Bad Gateway"),
}
DONE_ALL_THE_SAME = (Fault.TIMEOUT_AFTER, Fault.CUT)


@pytest.mark.parametrize("fault", REFUSED)
def test_what_storage_refuses_stays_with_its_row_and_says_why(
    application: Application, cleanup: Cleanup, servers: Servers, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    renders = application.render_many(5)
    reason, message = REFUSED[fault]
    servers.storage.inject({fault: 1}, operations=["remove"], hang_seconds=1)
    answer = cleanup()
    assert answer["status"] == "partial"
    assert answer["phases"]["storage_files"]["reasons"]["failed"] == {reason: 5}
    assert answer["phases"]["render_jobs"]["planned"] == 0
    assert answer["remaining"] == 5
    assert application.jobs() == {render.job_id for render in renders}
    assert [(state, attempts) for state, attempts, _ in ledger(servers)] == [("claimed", 1)] * 5
    assert all(error and message in error for _, _, error in ledger(servers))
    assert "5 files could not be removed" in caplog.text


@pytest.mark.parametrize("fault", [Fault.TIMEOUT_BEFORE, Fault.INTERNAL])
def test_once_storage_works_again_the_next_cycle_does_the_rest(
    application: Application, cleanup: Cleanup, servers: Servers, fault: Fault
) -> None:
    application.render_many(5)
    servers.storage.inject({fault: 1}, operations=["remove"], hang_seconds=1)
    cleanup()
    servers.storage.heal()
    let_requests_end(servers.database)
    answer = cleanup()
    assert answer["status"] == "succeeded"
    assert answer["phases"]["storage_files"]["deleted"] == answer["phases"]["render_jobs"]["deleted"] == 5
    assert application.files() == application.jobs() == set()


@pytest.mark.parametrize("fault", DONE_ALL_THE_SAME)
def test_what_a_request_removed_is_deleted_although_its_answer_got_lost(
    application: Application, cleanup: Cleanup, servers: Servers, fault: Fault
) -> None:
    application.render_many(5)
    servers.storage.inject({fault: 1}, operations=["remove"], hang_seconds=1)
    answer = cleanup()
    assert answer["status"] == "succeeded"
    assert answer["phases"]["storage_files"]["deleted"] == answer["phases"]["storage_files"]["planned"] == 5
    assert answer["phases"]["storage_files"]["bytes"] == 50
    assert answer["phases"]["render_jobs"]["reasons"]["skipped"] == {"request_at_work": 5}
    let_requests_end(servers.database)
    assert cleanup()["phases"]["render_jobs"]["deleted"] == 5


def test_what_is_gone_although_storage_removed_nothing_was_missing_already(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render_many(5)
    servers.storage.inject({Fault.EMPTY_ANSWER: 1}, operations=["remove"])
    account = cleanup()["phases"]["storage_files"]
    assert (account["deleted"], account["already_missing"], account["bytes"]) == (0, 5, 0)


def test_half_of_a_batch_gone_is_told_apart_from_the_other_half(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render_many(8)
    servers.storage.inject({Fault.HALF: 1}, operations=["remove"])
    account = cleanup()["phases"]["storage_files"]
    left = len(application.files())
    assert account["already_missing"] == 0
    assert (account["deleted"], account["reasons"]["failed"]) == (8 - left, {"storage_internal": left})
    assert 0 < left < 8
    assert len(application.jobs()) == left


def test_an_error_that_passes_is_not_even_noticed(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    application.render_many(200)
    servers.storage.inject({Fault.INTERNAL: 0.3, Fault.SLOW_DOWN: 0.3}, seed=3)
    answer = cleanup()
    assert servers.storage.stats()["faults"]
    assert (answer["status"], answer["phases"]["storage_files"]["deleted"]) == ("succeeded", 200)


@pytest.mark.parametrize("fault", [Fault.TIMEOUT_BEFORE, Fault.SLOW_DOWN, Fault.BAD_GATEWAY, Fault.CUT])
def test_nothing_is_claimed_while_storage_cannot_even_list_its_buckets(
    application: Application, cleanup: Cleanup, servers: Servers, fault: Fault
) -> None:
    application.render_many(3)
    servers.storage.inject({fault: 1}, operations=["list_buckets"], hang_seconds=1)
    nothing_happened(cleanup(), application, files=3)
    assert ledger(servers) == []


def test_nothing_is_claimed_while_storage_is_away(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    application.render_many(3)
    configure(supabase__url="http://127.0.0.1:9")
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert ledger(servers) == []


@pytest.mark.parametrize(
    "body", ["null", "{}", '{"message": "no such route"}', '[{"id": "images"}]', "[1]", '"images"', "<html>"]
)
def test_an_answer_that_is_not_storages_is_an_error_like_any_other(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched, ObjectStore("http://127.0.0.1", "key", backoff=IMPATIENT) as store:
        patched.setattr(httpx.Client, "request", lambda _, method, url, **__: answer_of(method, url, body))
        if body != "{}":  # no buckets at all
            with pytest.raises(ObjectStoreError):
                store.buckets()
        if body not in ("[1]", '[{"id": "images"}]'):
            assert set(store.remove("images", ["a"]).failed) == {"a"}
        assert not store.remove("images", ["a"]).removed & {"a"}


def answer_of(method: str, url: str, body: str) -> httpx.Response:
    return httpx.Response(200, text=body, request=httpx.Request(method, url))


@pytest.mark.usefixtures("small_batches")
def test_failures_above_the_limit_open_the_breaker_and_stop_the_run(
    application: Application, cleanup: Cleanup, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    renders = application.render_many(400)
    servers.storage.inject({Fault.INTERNAL: 1}, operations=["remove"])
    answer = cleanup()
    assert answer["status"] == "failed"
    assert answer["breaker_open"] is True
    assert "limits/max-failure-percent allows 10 %" in answer["message"]
    assert 20 <= answer["phases"]["storage_files"]["failed"] < 400
    assert answer["phases"]["render_jobs"]["deleted"] == 0
    assert application.jobs() == {render.job_id for render in renders}
    assert "circuit breaker open" in caplog.text


# -- one name that Storage can't stomach ------------------------------------------------------------------------------


@pytest.fixture
def poisoned(application: Application, servers: Servers) -> Render:
    """Make forty orphans, and return the one that breaks every batch that it is in."""
    render = application.render_many(40)[7]
    servers.storage.inject(poisoned_names=[render.name])
    return render


def test_a_poisoned_name_is_isolated_and_the_rest_goes(
    application: Application, cleanup: Cleanup, servers: Servers, poisoned: Render
) -> None:
    answer = cleanup()
    assert answer["phases"]["storage_files"]["deleted"] == 39
    assert answer["phases"]["storage_files"]["reasons"]["failed"] == {"storage_internal": 1}
    assert application.jobs() == {poisoned.job_id}
    assert ("claimed", 1, "Internal Server Error") in ledger(servers)


def test_few_failures_do_not_open_the_breaker(cleanup: Cleanup, poisoned: Render) -> None:
    answer = cleanup()
    assert answer["status"] == "partial"
    assert "breaker_open" not in answer


def test_its_attempts_are_counted_and_it_is_reported_as_stuck(
    cleanup: Cleanup, servers: Servers, poisoned: Render
) -> None:
    answers = [cleanup() for _ in range(5)]
    assert [answer["stuck"] for answer in answers] == [0, 0, 1, 1, 1]
    assert ("claimed", 5, "Internal Server Error") in ledger(servers)


def test_after_five_attempts_it_is_left_in_peace(cleanup: Cleanup, servers: Servers, poisoned: Render) -> None:
    for _ in range(5):
        cleanup()
    servers.storage.reset_stats()
    answer = cleanup()
    assert "remove" not in servers.storage.stats()["requests"]
    assert (answer["remaining"], answer["stuck"]) == (1, 1)
    assert ("claimed", 5, "Internal Server Error") in ledger(servers)


def test_it_is_given_up_once_no_request_for_it_can_be_under_way(
    application: Application, cleanup: Cleanup, servers: Servers, poisoned: Render
) -> None:
    for _ in range(5):
        cleanup()
    let_time_pass(servers.database)
    servers.storage.reset_stats()
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["failed"] == {"stuck": 1}
    assert "poisoned" not in servers.storage.stats()["faults"]
    assert ("released", 5, "Internal Server Error") in ledger(servers)
    assert application.jobs() == {poisoned.job_id}


def test_what_was_given_up_can_be_saved_again_and_then_stays(
    application: Application, cleanup: Cleanup, servers: Servers, poisoned: Render
) -> None:
    for _ in range(5):
        cleanup()
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        application.save(poisoned)
    let_time_pass(servers.database)
    cleanup()
    servers.storage.heal()
    application.save(poisoned)
    servers.execute("update storage_cleanup.candidate set since = now() - interval '1 day'")
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"saved": 1}
    assert application.jobs() == {poisoned.job_id}
    assert len(application.files()) == 1
