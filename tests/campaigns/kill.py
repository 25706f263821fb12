"""SIGKILL at every boundary between two statements or requests: the next cycles finish what was begun.

The handler runs in a process of its own, which counts the boundaries that it passes and kills itself at number n, for
n = 1, 2, … until a run gets to its end: before a transaction or request is sent, while the server is at work on it
(which then goes on without a client, into the next cycle, and commits), and after its answer has arrived. A
transaction is one message, so there is nothing between its statements. Somebody saves one of the orphans at once, and
cycles follow until one changes nothing. Two passes are made: one that removes batch by batch, whose boundaries are the
same every time, and one in which requests and statements overlap as they do in production.
"""

import logging
import os
import re
import signal
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import NAMESPACE_URL, UUID, uuid5

import httpx
import psycopg
from httpx._transports import default
from psycopg import errors as pg

from local.application import TWO_HOURS, age_jobs
from local.functions import Context, load_function
from local.postgres import Database
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.cleanup.phases import render_jobs, storage_files
from storage_cleanup.postgres import connection as transactions
from storage_cleanup.storage.object_store import ObjectStore
from tests.campaigns.ground import Ground, Project, quiet
from tests.campaigns.report import Figures, missed
from tests.integration.direct import let_time_pass

_TLS = ssl.create_default_context()  # reading the certificates takes long, and nothing here is encrypted
APP = load_function("cleanup")  # … and all of this happens once, before the forks

MOST_CYCLES = 8
PAGE_SIZE = 3
"""So small that a few jobs are many batches."""
_RUN = re.compile("[0-9a-f-]{36}$")  # another one in every run
_SERVER_SECONDS = 0.15  # how long a server goes on with what a dead client has asked for
_CLIENT_SECONDS = 0.04  # … and how much of that the client lives to see


# -- the process that dies ---------------------------------------------------------------------------------------------


class Fuse:
    """Counts boundaries, writes down each, and kills the process at one of them.

    Parameters
    ----------
    at
        Number of that boundary, from 1; None lets the process live.
    log
        File that takes one line a boundary.
    """

    def __init__(self, at: int | None, log: Path) -> None:
        self._at = at
        self._log = log.open("a", buffering=1)
        self._passed = 0
        self._lock = threading.Lock()

    def passes(self, boundary: str) -> None:
        """Pass a boundary, or die at it."""
        if self.burns(boundary):
            die()

    def burns(self, boundary: str) -> bool:
        """Pass a boundary, and tell whether it is the one to die at."""
        with self._lock:
            self._passed += 1
            self._log.write(f"{boundary}\n")
            return self._passed == self._at


def die() -> None:
    """End this process as the kernel would, with nothing closed and nothing said."""
    os.kill(os.getpid(), signal.SIGKILL)


def handle(project: Project, at: int | None, overlapping: bool, log: Path) -> None:
    """Be the process of one invocation of the real handler; it dies at boundary ``at``."""
    logging.disable()
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    os.environ["PARAMETER_PATH"] = "/storage-cleanup/campaign"
    fuse = Fuse(at, log)
    with (
        mock.patch.object(APP, "run_cycle", partial(run_cycle, page_size=PAGE_SIZE)),
        mock.patch.object(APP, "ParameterStore", return_value=_Parameters(project, fuse)),
        mock.patch.object(default, "create_ssl_context", return_value=_TLS),
        mock.patch.object(transactions.Transactions, "run", _mined_statement(fuse)),
        mock.patch.object(httpx.HTTPTransport, "handle_request", _mined_request(fuse, project)),
        mock.patch.object(storage_files, "ThreadPoolExecutor", ThreadPoolExecutor if overlapping else _OneByOne),
        mock.patch.object(render_jobs, "ThreadPoolExecutor", ThreadPoolExecutor if overlapping else _OneByOne),
    ):
        answer = APP.lambda_handler({"action": "cleanup"}, Context())
    sys.exit(0 if answer["status"] == "succeeded" else 3)


def _mined_statement(fuse: Fuse) -> Callable[..., Any]:
    original = transactions.Transactions.run
    # The statement comes after the pause, so it is carried out and committed when the client has long been dead.
    slow = transactions._MESSAGE.replace("{statement}", f"select pg_sleep({_SERVER_SECONDS}); {{statement}}")

    def run(self: transactions.Transactions, row: Any, name: str, statement: str, **parameters: Any) -> Any:
        fuse.passes(f"before {name}")
        if fuse.burns(f"during {name}"):
            self.connected()
            threading.Timer(_CLIENT_SECONDS, die).start()
            with mock.patch.object(transactions, "_MESSAGE", slow):
                original(self, row, name, statement, **parameters)
            raise AssertionError("outlived its death")
        answer = original(self, row, name, statement, **parameters)
        fuse.passes(f"after {name}")
        return answer

    return run


def _mined_request(fuse: Fuse, project: Project) -> Callable[..., httpx.Response]:
    original = httpx.HTTPTransport.handle_request

    def handle_request(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/_control"):
            return original(self, request)
        name = f"{request.method} {_RUN.sub('', request.url.path)}"
        fuse.passes(f"before {name}")
        if fuse.burns(f"during {name}"):
            latency = {"latency_ms": _SERVER_SECONDS * 1000}
            httpx.put(f"{project.origin}/_control/faults", json=latency).raise_for_status()
            threading.Timer(_CLIENT_SECONDS, die).start()
            original(self, request)
            raise AssertionError("outlived its death")
        response = original(self, request)
        response.read()
        fuse.passes(f"after {name}")
        return response

    return handle_request


@dataclass(frozen=True)
class _Parameters:
    """Stands in for Parameter Store. The kill switch is read by the clock and changes nothing: not a boundary."""

    project: Project
    fuse: Fuse

    def tree(self) -> dict[str, str]:
        self.fuse.passes("before the parameters")
        tree = self.project.parameters()
        self.fuse.passes("after the parameters")
        return tree

    def enabled(self) -> bool:
        return True


class _OneByOne:
    """Stands in for a pool of threads: work is done when it is submitted, so the order is always the same."""

    def __init__(self, most: int, name: str) -> None: ...

    def __enter__(self) -> "_OneByOne":
        return self

    def __exit__(self, *error: object) -> None: ...

    def shutdown(self, **options: bool) -> None: ...

    def submit(self, ask: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(ask(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - as a thread would do
            future.set_exception(error)
        return future


# -- the scene ---------------------------------------------------------------------------------------------------------

USER = UUID(int=1)
LATE = "late"
"""The orphan that somebody tries to save right after the kill."""


def job_id(name: str) -> UUID:
    """Return the id of a job by its name."""
    return uuid5(NAMESPACE_URL, name)


def set_the_scene(database: Database, origin: str) -> None:
    """Fill a project with everything that a cycle knows how to deal with, and what a crashed run has left."""
    with database.connect() as connection:
        scene = _Scene(connection, origin)
        for number in range(6):
            scene.render(f"orphan-{number}", "images")
        for number in range(4):
            scene.render(f"orphan-video-{number}", "videos")
        scene.render(LATE, "images")
        for name in ("twin-1", "twin-2"):
            scene.render(name, "images", file="shared-by-orphans.png")
        for number, name in enumerate(("saved-1", "saved-2", "saved-3", "saved-oddly")):
            scene.render(name, "images" if number % 2 else "videos")
            scene.save(name, spelling=str.upper if name == "saved-oddly" else str)
        scene.render("saved-sharer", "videos", file="shared-with-saved.mp4")
        scene.render("orphan-sharer", "videos", file="shared-with-saved.mp4")
        scene.save("saved-sharer")
        for number in range(5):
            scene.add_job(f"fileless-{number}", None if number % 2 else " ")
        scene.add_job("fileless-saved", None)
        scene.save("fileless-saved")
        for name in ("missing-1", "missing-2"):
            scene.render(name, "images", missing=True)
        scene.add_job("foreign", "https://elsewhere.example/x.png")
        scene.render("young-file", "images", age="1 minute")
        scene.crashed_run()
        for name in ("left-1", "left-2", "left-3", "left-4"):
            scene.render(name, "images")
            scene.claim(name, "claimed")
        scene.render("left-removed", "videos", missing=True)
        scene.claim("left-removed", "claimed")
        scene.render("left-confirmed", "videos", missing=True)
        scene.claim("left-confirmed", "file_deleted")
        scene.add_job("left-fileless", None)
        scene.claim("left-fileless", "file_deleted")
        connection.execute("update storage_cleanup.comparison set last_at = now() - interval '2 days'")


@dataclass(frozen=True)
class _Scene:
    connection: psycopg.Connection[Any]
    origin: str

    def render(
        self, name: str, bucket: str, *, file: str | None = None, missing: bool = False, age: str = "2 hours"
    ) -> None:
        file = file or f"{name}.bin"
        if not missing:
            self.connection.execute(
                "insert into storage.objects (bucket_id, name, owner_id, metadata, created_at, updated_at) values "
                "(%s, %s, %s, '{\"size\": 10}', now() - %s::interval, now() - %s::interval) on conflict do nothing",
                (bucket, file, str(USER), age, age),
            )
        self.add_job(name, f"{self.origin}/storage/v1/object/public/{bucket}/{file}")

    def add_job(self, name: str, url: str | None) -> None:
        self.connection.execute(
            "insert into render_jobs (id, user_id, status, output_url) values (%s, %s, 'completed', %s)",
            (job_id(name), USER, url),
        )
        age_jobs(self.connection, [job_id(name)], TWO_HOURS)

    def save(self, name: str, spelling: Callable[[str], str] = str) -> None:
        save(self.connection, name, spelling)

    def crashed_run(self) -> None:
        """Record a run that died an hour ago."""
        self.connection.execute(
            "insert into storage_cleanup.run (id, started_at, trigger, dry_run, options, scope) "
            "values (%s, now() - interval '1 hour', 'schedule', false, '{}', '{}')",
            (job_id("crashed run"),),
        )

    def claim(self, name: str, state: str) -> None:
        """Claim as the crashed run did."""
        self.connection.execute(
            "insert into storage_cleanup.deletion (job_id, run_id, state, bucket_id, object_name, object, bare, job) "
            "select id, %s, %s, split_part(key, '/', 1), substr(key, position('/' in key) + 1), "
            "       storage_cleanup.hash(key), storage_cleanup.hash(storage_cleanup.bare(key)), to_jsonb(job) "
            "from render_jobs as job, nullif(storage_cleanup.object_key(output_url), '') as key where id = %s",
            (job_id("crashed run"), state, job_id(name)),
        )
        self.connection.execute("delete from storage_cleanup.candidate where job_id = %s", (job_id(name),))


def save(connection: psycopg.Connection[Any], name: str, spelling: Callable[[str], str] = str) -> None:
    """Save a job's output, noting in the asset what must last."""
    connection.execute(
        "insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'generated_saved', "
        "  jsonb_build_object('render_job_id', %s::text, 'job', %s::text))",
        (spelling(str(job_id(name))), str(job_id(name))),
    )


# -- the state ---------------------------------------------------------------------------------------------------------

State = dict[str, list[Any]]

_STATE = {
    "jobs": "select id::text from public.render_jobs order by 1",
    "files": "select bucket_id || '/' || name from storage.objects order by 1",
    "assets": "select metadata ->> 'render_job_id' from public.user_assets order by 1",
    "ledger": "select concat_ws(' ', job_id, state, bucket_id, object_name) from storage_cleanup.deletion order by 1",
    "candidates": "select concat_ws(' ', job_id, has_file, reason) from storage_cleanup.candidate order by 1",
    "unfinished runs": "select count(*) from storage_cleanup.run where status = 'running'",
}
# All of them are 0 at any moment, whatever has just died.
_ALWAYS = {
    "lost_saved": """
        select count(*) from public.user_assets as asset
        left join public.render_jobs as job on job.id = (asset.metadata ->> 'job')::uuid
        where job.id is null or storage_cleanup.has_file(output_url)
          and not exists (select from storage.objects
                          where bucket_id || '/' || name = storage_cleanup.object_key(output_url))""",
    # A file that neither a job's row nor the ledger leads to.
    "leaked": """
        select count(*) from storage.objects as stored
        where not exists (select from public.render_jobs
                          where storage_cleanup.object_key(output_url) = bucket_id || '/' || name)
          and not exists (select from storage_cleanup.deletion as ledger where state in ('claimed', 'file_deleted')
                          and ledger.bucket_id = stored.bucket_id and ledger.object_name = stored.name)""",
}
# These are 0 when everything has been finished.
_FINALLY = {
    "rows_without_file": """
        select count(*) from public.render_jobs
        where output_url like '%/storage/v1/%'
          and not exists (select from storage.objects
                          where bucket_id || '/' || name = storage_cleanup.object_key(output_url))""",
    "stuck": """
        select (select count(*) from storage_cleanup.deletion where state in ('claimed', 'file_deleted'))
             + (select count(*) from storage_cleanup.run where status = 'running')""",
}


# -- the campaign ------------------------------------------------------------------------------------------------------


@dataclass
class Killing:
    """One pass over all boundaries."""

    ground: Ground
    scene: Database
    store: ObjectStore
    overlapping: bool
    expected: dict[bool, State] = field(default_factory=dict)
    figures: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    boundaries: list[str] = field(default_factory=list)

    def run(self, first: int = 1, step: int = 1) -> None:
        """Kill at every boundary, or from the first on at every so manieth."""
        if not self.expected:
            self.boundaries = self._undisturbed()
        at, died = first, True
        while died:
            with self._project() as (database, project):
                died = self._kill(database, project, at)
            at += step

    def _undisturbed(self) -> list[str]:
        """See what one run does that nobody kills, and where it leads: with and without a late save."""
        boundaries: list[str] = []
        for late in (False, True):
            with self._project() as (database, project):
                if late:
                    assert _try_to_save_late(database)
                exit_code, boundaries = self._handle(project, None)
                assert exit_code == 0, "the undisturbed run failed"
                self._converge(database, project)
                self.expected[late] = _state(database)
        return boundaries

    def _kill(self, database: Database, project: Project, at: int) -> bool:
        """Kill at a boundary and look what comes of it; return False when the run ended before."""
        exit_code, passed = self._handle(project, at)
        if exit_code != -signal.SIGKILL:
            assert exit_code == 0, f"the run to be killed at {at} ended with {exit_code}"
            return False
        self.ground.storage.heal()
        self.figures["boundaries"] += 1
        if not self.overlapping:
            self.figures["out_of_order"] += passed != self.boundaries[:at]
        where = f"{'overlapping, ' if self.overlapping else ''}{at} ({passed[-1] if passed else '?'})"
        self._count(database, _ALWAYS, f"{where}, at once")
        saved = _try_to_save_late(database)
        self.figures["late_saves"] += saved
        self.figures["late_saves_refused"] += not saved
        cycles = self._converge(database, project)
        self.figures["max_cycles_to_converge"] = max(cycles, self.figures["max_cycles_to_converge"])
        self._count(database, {**_ALWAYS, **_FINALLY}, where)
        if cycles > 2:
            self.findings.append(f"{where}: {cycles} cycles")
        final, expected = _state(database), self.expected[saved]
        if final != expected:
            self.figures["other_ends"] += 1
            difference = {
                part: [sorted(set(final[part]) - set(expected[part])), sorted(set(expected[part]) - set(final[part]))]
                for part in final
                if final[part] != expected[part]
            }
            self.findings.append(f"{where}: {difference}")
        return True

    def _handle(self, project: Project, at: int | None) -> tuple[int | None, list[str]]:
        """Run the handler in a process of its own; return its exit code and the boundaries that it came to."""
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory) / "boundaries"
            log.touch()
            process = _CONTEXT.Process(target=handle, args=(project, at, self.overlapping, log))
            process.start()
            process.join(60)
            exit_code = process.exitcode
            process.close()
            return exit_code, log.read_text().splitlines()

    def _converge(self, database: Database, project: Project) -> int:
        """Run cycles until one changes nothing; return how many did."""
        needed = 0
        for number in range(1, MOST_CYCLES + 1):
            before = _state(database)
            project.cycle(self.store, page_size=PAGE_SIZE)
            _wait_for_servers(database)  # a statement has ended long before the next interval
            let_time_pass(database)  # as have a request and an invocation, one interval later
            if _state(database) != before:
                needed = number
            elif number > 1:  # the first runs beside the dead one's last statement, which it must leave alone
                return needed
        return needed

    def _count(self, database: Database, queries: dict[str, str], where: str) -> None:
        with database.connect("supabase_admin") as connection:
            for name, query in queries.items():
                (count,) = connection.execute(query.encode()).fetchone() or (0,)
                self.figures[name] += count
                if count:
                    self.findings.append(f"{where}: {name} {count}")

    @contextmanager
    def _project(self) -> Iterator[tuple[Database, Project]]:
        """Set up the scene anew, and clear it away afterwards."""
        postgres = self.ground.postgres
        database = Database(postgres, "killed")
        postgres._administer(
            "create database {} template {} owner postgres strategy file_copy", database.name, self.scene.name
        )
        try:
            self.ground.serve(database)
            yield database, self.ground.project(database)
        finally:
            postgres.drop_database(database.name)


_CONTEXT = get_context("forkserver")


def _state(database: Database) -> State:
    with database.connect("supabase_admin") as connection:
        return {part: [value for (value,) in connection.execute(query.encode())] for part, query in _STATE.items()}


def _try_to_save_late(database: Database) -> bool:
    """Save an orphan now; return whether it wasn't too late."""
    with database.connect() as connection, suppress(pg.ForeignKeyViolation):
        save(connection, LATE)
        return True
    return False


def _wait_for_servers(database: Database) -> None:
    """Return when nothing is under way any more that a dead client has asked for."""
    with database.connect() as connection:
        while connection.execute(
            "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() "
            "and (application_name = 'storage-cleanup' or state <> 'idle')"
        ).fetchone():
            time.sleep(0.01)


class KillCampaign:
    """All boundaries, one by one; the short form takes some of them."""

    name = "kill"

    def run(self, seed: int, short: bool) -> Figures:
        _CONTEXT.set_forkserver_preload(["tests.campaigns.kill"])
        figures: Counter[str] = Counter()
        findings = []
        step = 45 if short else 1
        with Ground.prepared("kill") as ground, quiet(), ExitStack() as stack:
            scene = ground.create("scene")
            set_the_scene(scene, ground.storage.url)
            ground.serve(Database(ground.postgres, "postgres"))  # a template must have no visitors
            store = stack.enter_context(ground.project(scene).store())
            expected: dict[bool, State] = {}  # where it leads doesn't depend on the order
            for overlapping in (False, True):
                killing = Killing(ground, scene, store, overlapping, expected)
                killing.run(1 + seed % step, step)
                killing.figures["max_cycles_to_converge"] = max(
                    killing.figures["max_cycles_to_converge"], figures.pop("max_cycles_to_converge", 0)
                )
                figures.update(killing.figures)
                findings += killing.findings
        for finding in findings:
            print(f"  {finding}")
        return {name: figures[name] for name in _FIGURES}

    def goals(self, figures: Figures) -> list[str]:
        return missed(figures, _GOALS)


_FIGURES = (
    *("boundaries", "out_of_order", "lost_saved", "leaked", "rows_without_file", "stuck", "other_ends"),
    *("max_cycles_to_converge", "late_saves", "late_saves_refused"),
)
_GOALS = {
    "boundaries": "> 0",
    "out_of_order": "== 0",
    "lost_saved": "== 0",
    "leaked": "== 0",
    "rows_without_file": "== 0",
    "stuck": "== 0",
    "other_ends": "== 0",
    "max_cycles_to_converge": "<= 2",
    "late_saves": "> 0",
    "late_saves_refused": "> 0",
}

CAMPAIGN = KillCampaign()
