"""Whole cycles through a pooler in transaction mode, which keeps nothing of a session."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import psycopg
import pytest
from psycopg import errors as pg

from local.application import Application
from storage_cleanup.errors import DatabaseError
from storage_cleanup.model.vocabulary import Phase, Status
from storage_cleanup.postgres.connection import Transactions
from tests.conftest import Servers
from tests.integration.conftest import Cleanup
from tests.integration.direct import cycle, die_with_claims, let_requests_end
from tests.integration.transaction_pooler import TransactionPooler

Client = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def pooler(servers: Servers) -> Iterator[TransactionPooler]:
    with TransactionPooler(servers.database.url()) as running:
        yield running


@pytest.fixture
def client(pooler: TransactionPooler) -> Iterator[Client]:
    with psycopg.connect(pooler.url, autocommit=True, prepare_threshold=None) as connection:
        yield connection


def pid(client: Client) -> object:
    row = client.execute("select pg_backend_pid()").fetchone()
    assert row
    return row[0]


def test_each_transaction_has_another_server_connection(client: Client) -> None:
    pids = [pid(client) for _ in range(6)]
    assert len(set(pids)) == 3
    assert all(one != next_one for one, next_one in pairwise(pids))


def test_a_transaction_keeps_its_server_connection(client: Client) -> None:
    with client.transaction():
        assert len({pid(client) for _ in range(4)}) == 1


def test_a_setting_of_the_session_is_not_there_in_the_next_transaction(client: Client) -> None:
    client.execute("set storage_cleanup.probe = 'mine'")
    row = client.execute("select current_setting('storage_cleanup.probe', true)").fetchone()
    assert row
    assert not row[0]


def test_an_advisory_lock_of_the_session_is_not_ours_in_the_next_transaction(client: Client) -> None:
    client.execute("select pg_advisory_lock(1)")
    row = client.execute("select pg_advisory_unlock(1)").fetchone()
    assert row == (False,)


def test_a_prepared_statement_is_not_there_in_the_next_transaction(client: Client) -> None:
    client.execute("prepare probe as select 1")
    with pytest.raises(pg.InvalidSqlStatementName):
        client.execute("execute probe")


def test_a_driver_that_prepares_on_the_server_fails(pooler: TransactionPooler) -> None:
    def repeat(connection: Client) -> None:
        for _ in range(4):
            connection.execute("select %s::int", (1,))

    with psycopg.connect(pooler.url, autocommit=True, prepare_threshold=0) as connection:
        with pytest.raises((pg.InvalidSqlStatementName, pg.DuplicatePreparedStatement)):
            repeat(connection)
        connection.prepare_threshold = None
        repeat(connection)


def test_a_client_that_leaves_in_a_transaction_rolls_it_back(pooler: TransactionPooler, client: Client) -> None:
    leaver = psycopg.connect(pooler.url)
    leaver.execute("create table half_done (id int)")
    leaver.close()
    row = client.execute("select to_regclass('half_done')").fetchone()
    assert row == (None,)


def test_each_of_the_products_transactions_has_its_own_limits_and_leaves_nothing(pooler: TransactionPooler) -> None:
    @dataclass
    class Backend:
        pid: int
        timeout: str

    limits = {"statement_timeout": timedelta(milliseconds=1234), "lock_timeout": timedelta(seconds=1)}
    look = "select pg_backend_pid() as pid, current_setting('statement_timeout') as timeout"
    transactions = Transactions(pooler.url)
    found = [transactions.run(Backend, "look", look, **limits)[0]]
    with pytest.raises(DatabaseError, match="fail: division by zero"):
        transactions.run(Backend, "fail", "select 1 / 0", **limits)
    found += [transactions.run(Backend, "look", look, **limits)[0] for _ in range(3)]
    transactions.close()
    assert {backend.timeout for backend in found} == {"1234ms"}
    assert len({backend.pid for backend in found}) > 1
    with psycopg.connect(pooler.url, autocommit=True) as other:
        assert {other.execute("show statement_timeout").fetchone() for _ in range(4)} == {("0",)}


def test_a_quiet_connection_keeps_nobody_waiting(pooler: TransactionPooler) -> None:
    limits = {"statement_timeout": timedelta(seconds=5), "lock_timeout": timedelta(seconds=5)}
    quiet = [Transactions(pooler.url) for _ in range(6)]
    for transactions in quiet:
        assert transactions.run(dict, "look", "select 1 as value", **limits) == [{"value": 1}]
    for transactions in quiet:
        transactions.close()


def test_a_whole_cycle_works(
    application: Application, cleanup: Cleanup, servers: Servers, pooler: TransactionPooler
) -> None:
    saved, _ = application.render_many(50), application.render_many(700)
    application.save_many(saved)
    servers.put_parameters(database__url=pooler.url, temp__directories="/tmp/none-such")
    answer = cleanup()
    assert answer["status"] == "succeeded"
    assert answer["phases"]["storage_files"]["deleted"] == answer["phases"]["render_jobs"]["deleted"] == 700
    assert application.jobs() == {render.job_id for render in saved}


def test_a_claim_of_a_dead_run_is_taken_over(
    application: Application, servers: Servers, pooler: TransactionPooler
) -> None:
    application.render_many(5)
    die_with_claims(servers)
    assert cycle(servers, database_url=pooler.url).status is Status.SUCCEEDED
    assert application.jobs() == set()


def test_claims_of_a_run_that_may_still_be_at_work_are_kept_and_said_so(
    application: Application, servers: Servers, pooler: TransactionPooler, client: Client
) -> None:
    """It was killed; but its server connection lives on in the pooler, and serves others."""
    application.render_many(5)
    client.execute(
        "insert into storage_cleanup.run (id, trigger, dry_run, options, scope) "
        "values ('00000000-0000-0000-0000-000000000001', 'manual', false, '{}', '{}')"
    )
    client.execute(
        "select storage_cleanup.claim('00000000-0000-0000-0000-000000000001', array_agg(id), "
        "array_agg(storage_cleanup.object_key(output_url)), interval '1 hour', false, null) from render_jobs"
    )
    result = cycle(servers, database_url=pooler.url)
    assert (result.status, result.remaining) == (Status.SUCCEEDED, 5)
    assert result.phases[Phase.STORAGE_FILES].kept == {"claimed_by_another_run": 5}
    let_requests_end(servers.database)
    result = cycle(servers, database_url=pooler.url)
    assert (result.phases[Phase.STORAGE_FILES].deleted, result.remaining) == (5, 0)


def test_several_cycles_at_once_delete_each_file_once(
    application: Application, servers: Servers, pooler: TransactionPooler
) -> None:
    saved, _ = application.render_many(50), application.render_many(1500)
    application.save_many(saved)
    with ThreadPoolExecutor(4) as threads:
        results = [run.result() for run in [threads.submit(cycle, servers, database_url=pooler.url) for _ in range(4)]]
    assert all(result.status in (Status.SUCCEEDED, Status.PARTIAL) for result in results), results
    cycle(servers, database_url=pooler.url)
    assert application.jobs() == {render.job_id for render in saved}
    assert set(servers.storage.stats()["removals"].values()) == {1}
    assert sum(name.startswith("images/") for name in servers.storage.stats()["removals"]) == 1500
