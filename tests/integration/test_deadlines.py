"""Servers that never say no and never answer: the run ends in time, says so, and knows what it doesn't know."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.application import Application
from local.functions import Context, load_function
from local.stack import PARAMETER_PATH
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.errors import DatabaseError, ObjectStoreError
from storage_cleanup.limits import STORAGE
from storage_cleanup.postgres.connection import Transactions
from storage_cleanup.storage.client import StorageClient
from tests.conftest import Servers
from tests.integration.bad_wire import BadWire, Trouble
from tests.integration.conftest import Cleanup, Configure
from tests.integration.direct import ledger

REMOVAL = b"DELETE /storage/v1/object/images"
LIMITS = {"statement_timeout": timedelta(seconds=30), "lock_timeout": timedelta(seconds=5)}


@pytest.fixture
def in_time(configure: Configure) -> Callable[[], dict[str, Any]]:
    """Return the real handler in a short invocation, which it has to end before Lambda would."""
    configure()
    handler = load_function("cleanup").lambda_handler

    def invoke() -> dict[str, Any]:
        context = Context(8)
        answer: dict[str, Any] = handler({"action": "cleanup"}, context)
        assert context.get_remaining_time_in_millis() > 0
        return answer

    return invoke


@pytest.fixture
def through(servers: Servers, configure: Configure) -> Callable[..., Any]:
    """Return what puts a bad wire between the function and its database."""

    @contextmanager
    def wire(trouble: Trouble, **when: Any) -> Iterator[BadWire]:
        url = urlsplit(servers.database.url())
        with BadWire(str(url.hostname), int(url.port or 5432), trouble, **when) as bad:
            configure(database__url=url._replace(netloc=f"{url.username}@127.0.0.1:{bad.port}").geturl())
            yield bad
        configure()

    return wire


@pytest.fixture
def dripping_storage(servers: Servers) -> Iterator[BadWire]:
    """Storage behind a wire on which the answers to removals drip."""
    url = urlsplit(servers.storage.url)
    with BadWire(str(url.hostname), int(url.port or 80), Trouble.DRIPPING, at=REMOVAL) as bad:
        yield bad


@pytest.fixture
def people(servers: Servers, dripping_storage: BadWire) -> Iterator[Application]:
    """People whose project has that address."""
    people = Application(servers.database, f"http://127.0.0.1:{dripping_storage.port}", servers.keys.service_role)
    yield people
    people.close()


@pytest.fixture
def small_batches(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "run_cycle", partial(run_cycle, page_size=10))


# -- the database -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "at"),
    [
        *(
            (Trouble.SWALLOWED, at)
            for at in ("", "schema_version", "start_run", "claim(", "delete_rows(", "finish_run(")
        ),
        *((Trouble.UNANSWERED, at) for at in ("claim(", "settle(")),
        *((Trouble.DRIPPING, at) for at in ("", "claim(")),
    ],
)
def test_a_database_that_acknowledges_and_never_answers_fails_the_run_in_time(
    application: Application,
    in_time: Callable[[], dict[str, Any]],
    through: Callable[..., Any],
    trouble: Trouble,
    at: str,
) -> None:
    saved = application.render()
    application.save(saved)
    application.render_many(5)
    with through(trouble, at=at.encode()):
        answer = in_time()
    assert answer["status"] == "failed"
    assert re.search("no answer came in time|connection timeout|no time left|statement timeout", answer["message"])
    assert application.download(saved) == saved.content
    assert saved.job_id in application.jobs()


def test_an_answer_that_is_lost_once_fails_the_run_which_is_recorded_and_the_next_one_finishes(
    application: Application, servers: Servers, in_time: Callable[[], dict[str, Any]], through: Callable[..., Any]
) -> None:
    application.render_many(5)
    with through(Trouble.UNANSWERED, at=b"storage_cleanup.settle(", once=True):
        answer = in_time()
    account = answer["phases"]["storage_files"]
    recorded = servers.execute("select id::text, status from storage_cleanup.run")
    assert recorded == [(answer["run_id"], "failed")]
    assert (account["deleted"], account["reasons"]["failed"]) == (0, {"unconfirmed": 5})
    in_time()
    assert application.files() == application.jobs() == set()


def test_a_certificate_that_drips_is_a_database_that_cannot_be_reached() -> None:
    """The handshake has begun: neither a timeout of the server nor one of TCP would end it."""
    with _half_of_a_handshake() as port, BadWire("127.0.0.1", port, Trouble.DRIPPING, at=b"", sound=1) as bad:
        url = f"postgresql://me@127.0.0.1:{bad.port}/x?sslmode=require"
        transactions = Transactions(url, seconds_for=lambda _: 2)
        with pytest.raises(DatabaseError, match="look: connection timeout expired"):
            transactions.run(dict, "look", "select 1 as value", **LIMITS)
        assert bad.hits == 1


def test_a_connection_that_was_given_up_answers_nothing_any_more(servers: Servers) -> None:
    """An answer that comes late must not be taken for the next one's."""
    seconds = 2.0
    transactions = Transactions(servers.database.url(), seconds_for=lambda _: seconds)
    transactions.run(dict, "look", "select 'mine' as value", **LIMITS)
    seconds = 0.2
    with pytest.raises(DatabaseError, match="sleep: "):
        transactions.run(dict, "sleep", "select pg_sleep(4)::text as value", **LIMITS)
    seconds = 10.0
    assert transactions.run(dict, "look", "select 'mine' as value", **LIMITS) == [{"value": "mine"}]
    transactions.close()


@contextmanager
def _half_of_a_handshake() -> Iterator[int]:
    """Yield the port of a server that agrees to TLS and says hello at length."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(8)
            self.wfile.write(b"S" + b"\x16\x03\x03\x10\x00" + b"\x02\x00\x0f\xfc" + bytes(4092))
            self.rfile.read()

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


# -- Storage ----------------------------------------------------------------------------------------------------------


def test_storage_that_drips_leaves_its_claims_and_the_run_ends_in_time_and_is_recorded(
    people: Application,
    servers: Servers,
    dripping_storage: BadWire,
    configure: Configure,
    in_time: Callable[[], dict[str, Any]],
) -> None:
    """What was asked without an answer may have been done, or be done later: it is looked up, never guessed."""
    people.render_many(5)
    configure(supabase__url=f"http://127.0.0.1:{dripping_storage.port}")
    answer = in_time()
    recorded = servers.execute("select id::text, status from storage_cleanup.run")
    account = answer["phases"]["storage_files"]
    assert dripping_storage.hits > 0
    assert recorded == [(answer["run_id"], answer["status"])]
    assert account["deleted"] + account["failed"] == 5
    assert {state for state, _, _ in ledger(servers)} <= {"claimed", "done", "file_deleted"}


@pytest.mark.parametrize("sound", [0, 400], ids=["headers", "body"])
def test_no_part_of_an_answer_may_drip_for_longer_than_the_whole_may_take(
    people: Application, servers: Servers, sound: int
) -> None:
    people.render_many(5)
    url = urlsplit(servers.storage.url)
    with BadWire(str(url.hostname), int(url.port or 80), Trouble.DRIPPING, at=REMOVAL, sound=sound) as bad:
        client = StorageClient(f"http://127.0.0.1:{bad.port}", servers.keys.service_role, STORAGE, lambda _: 2)
        client.buckets()
        names = [name for _, name in people.files()]
        with pytest.raises(ObjectStoreError, match="no answer in time") as raised:
            client.remove("images", names)
        client.close()
    assert raised.value.code == "timeout"


@pytest.mark.usefixtures("small_batches", "earlier_run")
def test_the_kill_switch_frees_what_is_unsent_while_requests_hang(
    people: Application,
    servers: Servers,
    dripping_storage: BadWire,
    configure: Configure,
    cleanup: Cleanup,
) -> None:
    people.render_many(300)
    configure(supabase__url=f"http://127.0.0.1:{dripping_storage.port}")
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(cleanup)
        try:
            _wait_until(lambda: dripping_storage.hits == 8 and _claims(servers) > 80)
            servers.aws.put_parameters(PARAMETER_PATH, {"enabled": "false"}, frozenset())
            _wait_until(lambda: _claims(servers) == 80)
            assert not run.done()
        finally:
            dripping_storage.heal()
        answer = run.result()
    account = answer["phases"]["storage_files"]
    assert account["stopped"] == "disabled"
    assert account["reasons"]["skipped"]["given_back"] > 0
    assert dripping_storage.hits == 8
    assert account["deleted"] == 80


def _claims(servers: Servers) -> int:
    return sum(state == "claimed" for state, _, _ in ledger(servers))


def _wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something that must come; the limit is for a broken program only."""
    for _ in range(400):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")
