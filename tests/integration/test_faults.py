"""What goes wrong around a cycle, and what its answer, the ledger and the log say then."""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg import sql

from local.application import Application
from local.postgres import Postgres
from local.stack import PARAMETER_PATH
from local.storage_emulator.faults import Fault
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.errors import ConfigurationError, ObjectStoreError, RequestError
from storage_cleanup.limits import HttpPatience
from storage_cleanup.model.account import RunResult
from storage_cleanup.model.vocabulary import Status
from storage_cleanup.postgres.connection import Transactions
from storage_cleanup.postgres.ledger import Database
from storage_cleanup.storage.client import StorageClient
from storage_cleanup.storage.object_store import ObjectStore, Removal
from tests.conftest import Servers
from tests.integration.conftest import Cleanup
from tests.integration.direct import IMPATIENT, cycle, ledger, let_time_pass

ROOT = Path(__file__).resolve().parents[2]
A_WHILE = timedelta(minutes=16)
SCHEDULED = json.loads((ROOT / "events" / "scheduled.json").read_text())

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def impatience(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes seconds elsewhere takes a moment here."""
    patience = HttpPatience(connect_seconds=2, read_seconds=0.5, total_seconds=30)
    monkeypatch.setattr(app, "ObjectStore", partial(ObjectStore, backoff=IMPATIENT, patience=patience))


@pytest.fixture
def small_batches(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "run_cycle", partial(run_cycle, page_size=10))


def nothing_happened(answer: dict[str, Any], application: Application, *, files: int) -> None:
    """Assert that a run has failed without claiming or deleting anything."""
    assert answer["status"] == "failed"
    assert sum(phase["planned"] for phase in answer["phases"].values()) == 0
    assert len(application.files()) == len(application.jobs()) == files


# -- Storage ----------------------------------------------------------------------------------------------------------

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
    assert answer["phases"]["render_jobs"]["deleted"] == 5


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
    monkeypatch.setattr(httpx.Client, "request", lambda _, method, url, **__: answer_of(method, url, body))
    with ObjectStore("http://127.0.0.1", "key", backoff=IMPATIENT) as store:
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


def test_few_failures_do_not_open_the_breaker(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    poisoned = application.render_many(40)[7]
    servers.storage.inject(poisoned_names=[poisoned.name])
    answer = cleanup()
    assert answer["status"] == "partial"
    assert "breaker_open" not in answer


# -- one name that Storage can't stomach ------------------------------------------------------------------------------


@pytest.fixture
def poisoned(application: Application, servers: Servers) -> UUID:
    """Make forty orphans, one of which breaks every batch that it is in; return its job."""
    job = application.render_many(40)[7]
    servers.storage.inject(poisoned_names=[job.name])
    return job.job_id


def test_a_poisoned_name_is_isolated_and_the_rest_goes(
    application: Application, cleanup: Cleanup, servers: Servers, poisoned: UUID
) -> None:
    answer = cleanup()
    assert answer["phases"]["storage_files"]["deleted"] == 39
    assert answer["phases"]["storage_files"]["reasons"]["failed"] == {"storage_internal": 1}
    assert application.jobs() == {poisoned}
    assert ("claimed", 1, "Internal Server Error") in ledger(servers)


def test_its_attempts_are_counted_and_it_is_reported_as_stuck(
    cleanup: Cleanup, servers: Servers, poisoned: UUID
) -> None:
    answers = [cleanup() for _ in range(5)]
    assert [answer["stuck"] for answer in answers] == [0, 0, 1, 1, 1]
    assert ("claimed", 5, "Internal Server Error") in ledger(servers)


def test_after_five_attempts_it_is_left_in_peace(cleanup: Cleanup, servers: Servers, poisoned: UUID) -> None:
    for _ in range(5):
        cleanup()
    servers.storage.reset_stats()
    answer = cleanup()
    assert "remove" not in servers.storage.stats()["requests"]
    assert (answer["remaining"], answer["stuck"]) == (1, 1)
    assert ("claimed", 5, "Internal Server Error") in ledger(servers)


def test_it_is_given_up_once_no_request_for_it_can_be_under_way(
    application: Application, cleanup: Cleanup, servers: Servers, poisoned: UUID
) -> None:
    for _ in range(5):
        cleanup()
    let_time_pass(servers, A_WHILE)
    servers.storage.reset_stats()
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["failed"] == {"stuck": 1}
    assert "remove" not in servers.storage.stats()["requests"]
    assert ("released", 5, "Internal Server Error") in ledger(servers)
    assert application.jobs() == {poisoned}


def test_what_was_given_up_can_be_saved_again_and_then_stays(
    application: Application, cleanup: Cleanup, servers: Servers, poisoned: UUID
) -> None:
    for _ in range(5):
        cleanup()
    with servers.database.connect() as connection, pytest.raises(psycopg.errors.ForeignKeyViolation):
        save(connection, poisoned)
    let_time_pass(servers, A_WHILE)
    cleanup()
    servers.storage.heal()
    with servers.database.connect() as connection:
        save(connection, poisoned)
        connection.execute("update storage_cleanup.candidate set since = now() - interval '1 day'")
    answer = cleanup()
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"saved": 1}
    assert application.jobs() == {poisoned}
    assert len(application.files()) == 1


def save(connection: psycopg.Connection[Any], job: UUID) -> None:
    connection.execute(
        "insert into user_assets (user_id, asset_type, metadata) values (%s, 'generated_saved', %s)",
        (uuid4(), f'{{"render_job_id": "{job}"}}'),
    )


# -- keys and projects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["anon", "authenticated", "expired", "without_role"])
def test_a_key_that_shows_its_fault_refuses_the_configuration(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers, kind: str
) -> None:
    application.render_many(3)
    key = getattr(servers.keys, kind)
    configure(supabase__service_role_key=key() if callable(key) else key)
    with pytest.raises(ConfigurationError, match="supabase/service-role-key"):
        cleanup()
    assert (len(application.files()), ledger(servers)) == (3, [])


@pytest.mark.parametrize("kind", ["foreign", "garbage"])
def test_a_key_that_the_server_refuses_deletes_nothing_and_is_named(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers, kind: str
) -> None:
    application.render_many(3)
    configure(supabase__service_role_key=servers.keys.foreign if kind == "foreign" else "sb_secret_of_nobody")
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert "supabase/service-role-key" in answer["message"]
    assert ledger(servers) == []


def test_a_scheduled_run_proves_the_key_before_its_first_claim(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    application.render_many(3)
    configure(supabase__service_role_key="sb_secret_of_nobody")
    nothing_happened(cleanup(SCHEDULED), application, files=3)
    assert ledger(servers) == []


def test_a_scheduled_run_that_finds_nothing_does_not_ask_storage(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.save(application.render())
    assert cleanup()["status"] == "succeeded"
    asked = servers.storage.stats()["requests"]
    assert cleanup(SCHEDULED)["status"] == "succeeded"
    assert servers.storage.stats()["requests"] == asked


def test_a_wrong_key_is_told_to_who_asks_by_hand_even_when_there_is_nothing_to_do(
    cleanup: Cleanup, configure: Configure
) -> None:
    configure(supabase__service_role_key="sb_secret_of_nobody")
    assert "supabase/service-role-key" in cleanup()["message"]


@pytest.mark.parametrize("kind", ["anon", "without_role"])
def test_a_key_that_sees_no_buckets_is_recognised_whatever_it_looks_like(
    application: Application, servers: Servers, kind: str
) -> None:
    application.render_many(3)
    result = cycle(servers, key=getattr(servers.keys, kind))
    nothing_happened(result.as_dict(), application, files=3)
    assert "supabase/service-role-key sees no buckets" in str(result.message)
    assert ledger(servers) == []


def test_a_key_that_stops_working_in_the_middle_of_a_run_fails_it(
    application: Application, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.render_many(3)

    def refuse(*_: object) -> None:
        raise ObjectStoreError('"exp" claim timestamp check failed', status=403, code="unauthorized")

    monkeypatch.setattr(StorageClient, "remove", refuse)
    result = cycle(servers)
    assert result.status is Status.FAILED
    assert len(application.files()) == len(application.jobs()) == 3
    assert [state for state, _, _ in ledger(servers)] == ["claimed"] * 3


def test_a_database_of_another_project_is_recognised(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers, postgres: Postgres
) -> None:
    application.render_many(3)
    postgres.create_database("another_project")
    try:
        url = postgres.url("postgres", "another_project")
        with psycopg.connect(postgres.url("supabase_storage_admin", "another_project"), autocommit=True) as connection:
            connection.execute(
                "insert into storage.buckets (id, name, created_at) values "
                "('images', 'images', now() - interval '1 day'), ('videos', 'videos', now() - interval '1 day')"
            )
        configure(database__url=url)
        answer = cleanup()
    finally:
        postgres.drop_database("another_project")
    nothing_happened(answer, application, files=3)
    assert "supabase/url and database/url belong to different projects" in answer["message"]


def test_a_bucket_that_storage_does_not_have_is_named(
    application: Application, cleanup: Cleanup, configure: Configure
) -> None:
    application.render_many(3)
    configure(buckets="images,vidoes")
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert "buckets names vidoes" in answer["message"]


# -- a database that isn't what it should be --------------------------------------------------------------------------


@pytest.fixture
def blind(servers: Servers) -> str:
    """Make a role with every right that can be granted, which row-level security keeps from seeing anything."""
    role = "a_blind_role"
    with servers.database.connect("supabase_admin") as connection:
        if connection.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone() is None:
            connection.execute(f"create role {role} login")
        connection.execute(f"grant usage, create on schema storage_cleanup to {role}")
        connection.execute(f"grant usage on schema storage, public to {role}")
        for schema in ("storage_cleanup", "storage", "public"):
            connection.execute(f"grant all on all tables in schema {schema} to {role}")
        connection.execute(f"grant execute on all functions in schema storage_cleanup to {role}")
    return role


def give_away(servers: Servers, role: str, functions: str = "%") -> None:
    with servers.database.connect("supabase_admin") as connection:
        for (function,) in connection.execute(
            "select oid::regprocedure::text from pg_proc "
            "where pronamespace = 'storage_cleanup'::regnamespace and proname like %s",
            (functions,),
        ).fetchall():
            connection.execute(f"alter function {function} owner to {role}")
            connection.execute(f"grant execute on function {function} to postgres")


def test_a_blind_owner_of_the_functions_deletes_nothing(
    application: Application, cleanup: Cleanup, servers: Servers, blind: str
) -> None:
    application.save(application.render())
    application.render_many(3)
    give_away(servers, blind)
    answer = cleanup()
    nothing_happened(answer, application, files=4)
    assert f"role {blind} is subject to row-level security on storage.objects" in answer["message"]
    assert ledger(servers) == []


@pytest.mark.parametrize("function", ["claim", "settle", "saved_among"])
def test_one_function_that_is_blind_is_enough_to_delete_nothing(
    application: Application, cleanup: Cleanup, servers: Servers, blind: str, function: str
) -> None:
    application.render_many(3)
    give_away(servers, blind, function)
    servers.storage.inject({Fault.INTERNAL: 1}, operations=["remove"])
    answer = cleanup()
    assert answer["status"] == "failed"
    assert "belong to several roles" in answer["message"]
    assert len(application.files()) == len(application.jobs()) == 3


def test_a_blind_role_that_calls_functions_with_sight_works(
    application: Application, servers: Servers, blind: str
) -> None:
    application.save(application.render())
    application.render_many(3)
    result = cycle(servers, database_url=servers.database.url(blind))
    assert result.status is Status.SUCCEEDED
    assert len(application.files()) == 1


def test_the_workers_role_is_enough(application: Application, servers: Servers) -> None:
    application.save(application.render())
    application.render_many(3)
    with servers.database.connect("supabase_admin") as connection:
        connection.execute("alter role storage_cleanup_worker login")
    result = cycle(servers, database_url=servers.database.url("storage_cleanup_worker"))
    assert (result.status, len(application.files())) == (Status.SUCCEEDED, 1)


def test_a_role_without_rights_is_told_which_to_use(application: Application, servers: Servers) -> None:
    application.render_many(3)
    result = cycle(servers, database_url=servers.database.url("supabase_auth_admin"))
    nothing_happened(result.as_dict(), application, files=3)
    assert "use postgres or storage_cleanup_worker" in str(result.message)


@pytest.mark.parametrize(
    "damage",
    [
        (ROOT / "database" / "uninstall.sql").read_text(),
        "create or replace function storage_cleanup.schema_version() returns integer language sql return 0",
        "drop trigger storage_cleanup_guard on user_assets",
        "alter table user_assets disable trigger storage_cleanup_guard",
        "alter table user_assets enable trigger storage_cleanup_guard",
        "drop index storage_cleanup_render_job_id",
    ],
    ids=["uninstalled", "older", "no guard", "guard disabled", "guard off for replication", "no index"],
)
def test_a_schema_that_is_not_whole_deletes_nothing_and_says_what_to_run(
    application: Application, cleanup: Cleanup, servers: Servers, damage: str
) -> None:
    application.render_many(3)
    with servers.database.connect() as connection:
        connection.execute(damage.encode())
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert "run database/install.sql" in answer["message"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("create table old_assets () inherits (user_assets)", "public.user_assets has a child, public.old_assets"),
        ("create table old_jobs () inherits (render_jobs)", "public.render_jobs has a child, public.old_jobs"),
        (
            "create table all_jobs (like render_jobs) partition by range (created_at);"
            "alter table all_jobs attach partition render_jobs default",
            "public.render_jobs is a child or partition of public.all_jobs",
        ),
        (
            "alter table render_jobs drop constraint render_jobs_pkey",
            "public.render_jobs.id has neither a primary key nor a unique index",
        ),
    ],
)
def test_a_table_that_can_no_longer_be_guarded_stops_cycles(
    application: Application, cleanup: Cleanup, servers: Servers, change: str, sentence: str
) -> None:
    """A child's rows pass by the triggers: what they save would look like an orphan."""
    application.render_many(3)
    with servers.database.connect() as connection:
        connection.execute(change.encode())
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert sentence in answer["message"]


def test_a_database_that_cannot_be_reached_fails_the_run_and_keeps_its_password(
    application: Application, cleanup: Cleanup, configure: Configure
) -> None:
    application.render_many(3)
    configure(database__url="postgresql://worker:hushhush@127.0.0.1:9/postgres")
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert "127.0.0.1" in answer["message"]
    assert "hushhush" not in str(answer)


def test_a_read_only_database_fails_the_run_and_says_why(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render_many(3)
    with servers.database.connect("supabase_admin") as connection:
        name = sql.Identifier(servers.database.name)
        connection.execute(sql.SQL("alter database {} set default_transaction_read_only = on").format(name))
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert "the database is read-only: use the primary's address in database/url" in answer["message"]


def test_a_role_whose_transactions_are_repeatable_read_claims_safely_all_the_same(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render_many(3)
    with servers.database.connect("supabase_admin") as connection:
        name = sql.Identifier(servers.database.name)
        connection.execute(
            sql.SQL("alter database {} set default_transaction_isolation = 'repeatable read'").format(name)
        )
    assert cleanup()["phases"]["storage_files"]["deleted"] == 3


# -- a database that gets in the way ----------------------------------------------------------------------------------


def test_a_row_that_somebody_has_locked_is_skipped_and_done_next_time(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    busy = application.render_many(3)[0]
    with servers.database.connect(autocommit=False) as other:
        other.execute("select from render_jobs where id = %s for update", (busy.job_id,))
        answer = cleanup()
        assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"locked": 1}
        assert application.jobs() == {busy.job_id}
    assert cleanup()["phases"]["storage_files"]["deleted"] == 1
    assert application.jobs() == set()


def test_a_table_that_somebody_has_locked_fails_the_run_and_is_done_next_time(
    app: ModuleType, application: Application, cleanup: Cleanup, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.render_many(3)
    monkeypatch.setattr(app, "Database", partial(Database, lock_timeout=timedelta(milliseconds=200)))
    with servers.database.connect(autocommit=False) as other:
        other.execute("lock table render_jobs")
        answer = cleanup()
        assert answer["status"] == "failed"
        assert "lock timeout" in answer["message"]
    assert len(application.files()) == 3
    assert cleanup()["phases"]["storage_files"]["deleted"] == 3


def test_a_statement_that_takes_too_long_fails_the_run_and_is_done_next_time(
    app: ModuleType, application: Application, cleanup: Cleanup, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.render_many(3)
    with servers.database.connect(autocommit=False) as other, monkeypatch.context() as patched:
        patched.setattr(app, "Database", partial(Database, statement_timeout=timedelta(milliseconds=200)))
        other.execute("lock table render_jobs")
        answer = cleanup()
        assert answer["status"] == "failed"
        assert "statement timeout" in answer["message"]
    assert cleanup()["phases"]["storage_files"]["deleted"] == 3


@pytest.mark.parametrize("call", ["start_run", "claim", "settle", "delete_rows", "finish_run"])
def test_a_connection_that_is_lost_in_a_call_fails_the_run_and_the_next_one_finishes(
    application: Application, servers: Servers, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    saved = application.render()
    application.save(saved)
    application.render_many(3)
    original = Transactions.run

    def cut(transactions: Transactions, row: Any, name: str, *arguments: Any, **named: Any) -> Any:
        if name == call:
            backend = transactions.connected().info.backend_pid
            with servers.database.connect("supabase_admin") as superuser:
                superuser.execute("select pg_terminate_backend(%s, 5000)", (backend,))
        return original(transactions, row, name, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Transactions, "run", cut)
        assert cycle(servers).status is Status.FAILED
    assert cycle(servers).status is Status.SUCCEEDED
    assert application.jobs() == {saved.job_id}
    assert application.download(saved) == saved.content
    assert "claimed" not in {state for state, _, _ in ledger(servers)}


@pytest.mark.parametrize("skew", [timedelta(days=-1), timedelta(days=1)], ids=["behind", "ahead"])
def test_age_is_judged_by_the_databases_clock(
    application: Application, servers: Servers, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    young = application.render(age=timedelta(minutes=59))
    application.render(age=timedelta(minutes=61))
    key, real = servers.keys.service_role, time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew.total_seconds())
    assert cycle(servers, key=key, now=time.time).status is Status.SUCCEEDED
    assert application.jobs() == {young.job_id}


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def switch_off_in_the_middle(servers: Servers) -> Iterator[Callable[[], None]]:
    """Set the parameter ``enabled`` to false once a removal is under way; the result waits for that."""
    with ThreadPoolExecutor(1) as threads:

        def switch() -> None:
            while not servers.storage.stats()["requests"].get("remove"):
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
    servers.storage.inject(operations=["remove"], latency_ms=250)
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
    servers.storage.inject(operations=["remove"], latency_ms=250)
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
    servers.storage.inject(operations=["remove"], latency_ms=250)
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

    def remove(*arguments: Any) -> Removal:
        removing.set()
        return original(*arguments)

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


def test_several_cycles_at_once_delete_each_file_once(application: Application, servers: Servers) -> None:
    saved, _ = application.render_many(50), application.render_many(2000)
    application.save_many(saved)
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(cycle, servers) for _ in range(4)]
    results: list[RunResult] = [run.result() for run in runs]
    assert not [result.message for result in results if result.status is Status.FAILED]
    results.append(cycle(servers))
    assert application.jobs() == {render.job_id for render in saved}
    assert set(servers.storage.stats()["removals"].values()) == {1}
    assert sum(phase.deleted for result in results for phase in result.phases.values()) == 2 * 2000


# -- the set of saved assets ------------------------------------------------------------------------------------------


@pytest.fixture
def shrunk(application: Application, cleanup: Cleanup, servers: Servers) -> Callable[[int], None]:
    """Have ten saved outputs and a good run behind them; the result makes so many of the assets disappear."""
    application.save_many(application.render_many(10))
    application.render_many(1)
    assert cleanup()["status"] == "succeeded"

    def lose(count: int) -> None:
        with servers.database.connect() as connection:
            connection.execute("delete from user_assets where id in (select id from user_assets limit %s)", (count,))

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
    with servers.database.connect() as connection:
        connection.execute("delete from user_assets")
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


# -- overrides --------------------------------------------------------------------------------------------------------


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
    with servers.database.connect() as connection:
        connection.execute("update storage_cleanup.run set started_at = started_at - interval '24 hours'")
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
    with servers.database.connect() as connection:
        connection.execute("update storage_cleanup.run set status = 'failed'")
    refused(application, cleanup, "didn't go well", override=plan)


def test_the_log_says_in_order_what_a_cycle_did(
    application: Application, cleanup: Cleanup, caplog: pytest.LogCaptureFixture
) -> None:
    application.render_many(3)
    with caplog.at_level(logging.INFO, "storage_cleanup"):
        cleanup()
    assert messages(caplog) == [
        "Starting comprehensive cleanup cycle",
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
        "Would delete 3 orphaned files",
        "Would delete 3 orphaned render job records",
        "Comprehensive cleanup cycle completed",
    ]


def test_the_log_of_a_failed_run_ends_in_an_error_and_never_says_completed(
    application: Application, cleanup: Cleanup, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    application.render_many(3)
    with servers.database.connect() as connection:
        connection.execute("alter table user_assets disable trigger storage_cleanup_guard")
    with caplog.at_level(logging.INFO, "storage_cleanup"):
        answer = cleanup()
    assert answer["status"] == "failed"
    assert messages(caplog)[-1] == f"Cleanup cycle failed: {answer['message']}"
    assert caplog.records[-1].levelno == logging.ERROR
    assert "Comprehensive cleanup cycle completed" not in messages(caplog)


def test_a_dry_run_that_failed_offers_no_plan(application: Application, cleanup: Cleanup, servers: Servers) -> None:
    application.render_many(3)
    with servers.database.connect() as connection:
        connection.execute("alter table user_assets disable trigger storage_cleanup_guard")
    answer = cleanup(dry_run=True)
    assert answer["status"] == "failed"
    assert "plan_id" not in answer


def test_what_is_kept_was_examined_and_not_planned(application: Application, cleanup: Cleanup) -> None:
    renders = application.render_many(3)
    application.save(renders[0])
    application.add_job(output_url="https://elsewhere.example/a.png")
    account = cleanup()["phases"]["storage_files"]
    assert (account["examined"], account["kept"], account["planned"], account["deleted"]) == (4, 2, 2, 2)
    assert account["reasons"]["kept"] == {"foreign_host": 1, "saved": 1}
