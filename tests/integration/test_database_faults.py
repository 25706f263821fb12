"""A database that isn't what it should be, or gets in the way: nothing goes in doubt, and the next run goes on."""

import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from local.application import Application
from local.storage_emulator.faults import Fault
from storage_cleanup.model.vocabulary import Status
from storage_cleanup.postgres.connection import Transactions
from storage_cleanup.postgres.ledger import Database
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure, nothing_happened
from tests.integration.direct import cycle, ledger, let_requests_end

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.usefixtures("impatience")
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
    servers.execute("alter role storage_cleanup_worker login", role="supabase_admin")
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
        "drop trigger storage_cleanup_asset_inserted on user_assets",
        "alter table user_assets disable trigger storage_cleanup_asset_inserted",
        "alter table user_assets enable trigger storage_cleanup_asset_applied",
        "drop index storage_cleanup_render_job_id",
    ],
    ids=["uninstalled", "older", "no guard", "guard disabled", "guard off for replication", "no index"],
)
def test_a_schema_that_is_not_whole_deletes_nothing_and_says_what_to_run(
    application: Application, cleanup: Cleanup, servers: Servers, damage: str
) -> None:
    application.render_many(3)
    servers.execute(damage)
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
    servers.execute(change)
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
    servers.execute(
        f"alter database {servers.database.name} set default_transaction_read_only = on", role="supabase_admin"
    )
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert "the database is read-only: use the primary's address in database/url" in answer["message"]


def test_a_role_whose_transactions_are_repeatable_read_claims_safely_all_the_same(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.render_many(3)
    servers.execute(
        f"alter database {servers.database.name} set default_transaction_isolation = 'repeatable read'",
        role="supabase_admin",
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
            servers.execute("select pg_terminate_backend(%s, 5000)", backend, role="supabase_admin")
        return original(transactions, row, name, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Transactions, "run", cut)
        assert cycle(servers).status is Status.FAILED
    let_requests_end(servers.database)
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
