"""Everything that Storage and the database can do to a request, at 1 %, 20 % and 100 %: nothing saved is ever lost.

Each scenario has a project of its own with orphans and saved outputs, and a user who goes on saving between the
cycles. After every cycle three things must hold: what was saved is there, row, file and asset; no file has lost its
row; and what the cycles say they deleted is no more than what the Storage server really removed. Faults of 20 % must
not keep the backlog from draining. At 100 % nothing may happen at all, or at least nothing wrong; healed, it drains.
"""

import contextlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import psycopg

from local.application import Application, Render
from local.keys import Keys
from local.postgres import Database as LocalDatabase
from local.storage import StorageServer
from local.storage_emulator.faults import Fault
from storage_cleanup.errors import DatabaseError
from storage_cleanup.limits import LOCK_TIMEOUT, PAGE_SIZE, HttpPatience
from storage_cleanup.model.account import RunResult
from storage_cleanup.model.vocabulary import Phase
from storage_cleanup.postgres.connection import Transactions
from storage_cleanup.storage.paths import OWN_BUCKET
from tests.campaigns.ground import Ground
from tests.campaigns.report import Figures, missed
from tests.integration.direct import cycle, let_requests_end

IMPATIENT = HttpPatience(connect_seconds=2, read_seconds=0.25, total_seconds=30)
PROBABILITIES = (0.01, 0.2, 1.0)
MOST_CYCLES = 12
MOST_CYCLES_WITHOUT_DATABASE = 120
"""A call that fails ends its phase, so where one call in five fails, few cycles get past the eight before a claim."""
NAMES_A_REQUEST, NAMES_A_REQUEST_WITHOUT_DATABASE = 10, 100
CYCLES_OF_TOTAL_FAILURE = 6
"""More than a claim has attempts: some are given up and released before everything heals."""

Injection = Callable[["Scene", float], contextlib.AbstractContextManager[None]]


@dataclass
class Scene:
    """A project in the middle of a scenario, and what is known about it without asking the product."""

    database: LocalDatabase
    storage: StorageServer
    keys: Keys
    key: str
    application: Application
    random: random.Random
    saved: dict[UUID, Render] = field(default_factory=dict)
    orphans: dict[UUID, Render] = field(default_factory=dict)
    protected: set[UUID] = field(default_factory=set)
    skew: float = 0.0
    lock_timeout: timedelta = LOCK_TIMEOUT
    deleted: int = 0
    already_missing: int = 0
    refused_saves: int = 0

    def populate(self, orphans: int, saved: int) -> None:
        """Render outputs, save some of them, and have a first good run judge them."""
        for render in self.application.render_many(orphans):
            self.orphans[render.job_id] = render
        keep = self.application.render_many(saved, bucket="videos")
        self.application.save_many(keep)
        self.saved.update({render.job_id: render for render in keep})

    def save_some(self, count: int) -> None:
        """Save a few orphans; the guard may say that it is too late."""
        left = sorted(self.application.jobs() & self.orphans.keys() - self.protected)
        for job in self.random.sample(left, min(count, len(left))):
            try:
                self.application.save(self.orphans[job])
            except (psycopg.errors.ForeignKeyViolation, psycopg.errors.LockNotAvailable):
                self.refused_saves += 1
            else:
                self.saved[job] = self.orphans.pop(job)

    def count(self, result: RunResult) -> None:
        """Add a run's claims to the account."""
        account = result.phases.get(Phase.STORAGE_FILES)
        if account:
            self.deleted += account.deleted
            self.already_missing += account.already_missing

    def let_time_pass(self) -> None:
        """Make quiet periods end and parked candidates due."""
        with self.database.connect() as connection:
            connection.execute(
                "update storage_cleanup.deletion set attempted_at = attempted_at - interval '16 minutes', "
                "updated_at = updated_at - interval '61 minutes'"
            )
            connection.execute("update storage_cleanup.candidate set since = since - interval '25 hours'")

    def drained(self) -> bool:
        """Tell whether all orphans are gone that can go."""
        return not self.application.jobs() & self.orphans.keys() - self.protected

    def violations(self, *, exact: bool) -> Counter[str]:
        """Hold the project against what must never happen; ``exact``: no answer of the database got lost."""
        jobs, files = self.application.jobs(), self.application.files()
        with self.database.connect() as connection:
            rows = connection.execute("select metadata ->> 'render_job_id' from user_assets").fetchall()
        assets = {UUID(row[0]) for row in rows}
        gone = sum((render.bucket, render.name) not in files for render in self.orphans.values())
        removals = self.storage.stats()["removals"].items()
        times_removed = [times for name, times in removals if not name.startswith(f"{OWN_BUCKET}/")]
        return Counter(
            lost_saved=sum(
                job not in jobs or job not in assets or (render.bucket, render.name) not in files
                for job, render in self.saved.items()
            ),
            files_without_row=sum(
                job not in jobs and (render.bucket, render.name) in files for job, render in self.orphans.items()
            ),
            removed_twice=sum(times > 1 for times in times_removed),
            overclaimed=max(0, self.deleted - sum(times_removed))
            + max(0, self.deleted + self.already_missing - gone)
            + (abs(self.deleted + self.already_missing - gone) if exact else 0),
        )


# -- faults of Storage -------------------------------------------------------------------------------------------------


def storage_fault(fault: Fault, operation: str) -> Injection:
    """Return the injection of one of the emulator's faults into one kind of request."""

    @contextmanager
    def inject(scene: Scene, probability: float) -> Iterator[None]:
        scene.storage.inject(
            {fault: probability}, operations=[operation], hang_seconds=0.5, seed=scene.random.randrange(1 << 30)
        )
        yield
        scene.storage.heal()

    return inject


@contextmanager
def poisoned_names(scene: Scene, probability: float) -> Iterator[None]:
    """Make so many names break every batch that they are in, but one at least."""
    names = [render.name for render in scene.orphans.values()]
    poisoned = scene.random.sample(names, max(1, round(len(names) * probability)))
    scene.storage.inject(poisoned_names=poisoned)
    scene.protected |= {job for job, render in scene.orphans.items() if render.name in set(poisoned)}
    yield
    scene.storage.heal()
    scene.protected.clear()


# -- faults of the database --------------------------------------------------------------------------------------------

_Call = Callable[..., list[Any]]


def _wrapping(scene: Scene, probability: float, suffer: Callable[[_Call, Transactions, Any, Any], Any]) -> Any:
    """Return a patch that makes so many of the product's calls to the database suffer."""
    original, lock = Transactions.run, threading.Lock()

    def run(transactions: Transactions, *arguments: Any, **named: Any) -> Any:
        with lock:
            hit = scene.random.random() < probability
        return suffer(original, transactions, arguments, named) if hit else original(transactions, *arguments, **named)

    return patch.object(Transactions, "run", run)


def _backend(transactions: Transactions) -> int:
    """Return the process that serves this thread's connection, or 0 where there is no server."""
    try:
        return transactions.connected().info.backend_pid
    except psycopg.Error:
        return 0


def _terminate(scene: Scene, backend: int) -> None:
    with scene.database.connect("supabase_admin") as superuser:
        superuser.execute("select pg_terminate_backend(%s, 5000)", (backend,))


@contextmanager
def connection_lost_before(scene: Scene, probability: float) -> Iterator[None]:
    """End the connection before a statement."""

    def suffer(original: _Call, transactions: Transactions, arguments: Any, named: Any) -> Any:
        _terminate(scene, _backend(transactions))
        return original(transactions, *arguments, **named)

    with _wrapping(scene, probability, suffer):
        yield


@contextmanager
def connection_lost_within(scene: Scene, probability: float) -> Iterator[None]:
    """End the connection some milliseconds after a statement was sent, wherever it is by then."""

    def suffer(original: _Call, transactions: Transactions, arguments: Any, named: Any) -> Any:
        killer = threading.Timer(scene.random.uniform(0, 0.02), _terminate, (scene, _backend(transactions)))
        killer.start()
        try:
            return original(transactions, *arguments, **named)
        finally:
            killer.join()

    with _wrapping(scene, probability, suffer):
        yield


@contextmanager
def connection_lost_after(scene: Scene, probability: float) -> Iterator[None]:
    """End the connection when a statement is committed and its answer is on its way."""

    def suffer(original: _Call, transactions: Transactions, arguments: Any, named: Any) -> Any:
        original(transactions, *arguments, **named)
        _terminate(scene, _backend(transactions))
        raise DatabaseError("server closed the connection unexpectedly")

    with _wrapping(scene, probability, suffer):
        yield


@contextmanager
def statement_timeout(scene: Scene, probability: float) -> Iterator[None]:
    """Give statements one millisecond."""

    def suffer(original: _Call, transactions: Transactions, arguments: Any, named: Any) -> Any:
        return original(transactions, *arguments, **{**named, "statement_timeout": timedelta(milliseconds=1)})

    with _wrapping(scene, probability, suffer):
        yield


@contextmanager
def lock_timeout(scene: Scene, probability: float) -> Iterator[None]:
    """Have another session lock some rows of every table, other ones every now and then."""
    stop = threading.Event()
    tables = ("public.render_jobs", "storage_cleanup.deletion", "storage_cleanup.candidate", "storage_cleanup.run")
    seeds = [scene.random.random() for _ in range(1000)]

    def hold() -> None:
        with scene.database.connect("supabase_admin") as session:
            for seed in seeds:
                with session.transaction():
                    session.execute("select setseed(%s)", (seed,))
                    for table in tables:
                        chosen = f"select ctid from {table} where random() < %s"
                        session.execute(
                            f"select from {table} where ctid = any (array({chosen})) for update skip locked",
                            (probability,),
                        )
                    held.set()
                    if stop.wait(3600 if probability == 1 else 0.1):
                        return

    held = threading.Event()
    holder = threading.Thread(target=hold)
    scene.lock_timeout = timedelta(milliseconds=30)
    holder.start()
    held.wait(10)
    try:
        yield
    finally:
        scene.lock_timeout = LOCK_TIMEOUT
        stop.set()
        holder.join()


@contextmanager
def protected_rows(scene: Scene, probability: float) -> Iterator[None]:
    """Have another table's foreign key protect so many rows."""
    jobs = scene.random.sample(sorted(scene.orphans), max(1, round(len(scene.orphans) * probability)))
    scene.protected |= set(jobs)
    with scene.database.connect() as owner:
        owner.execute("create table favourites (job uuid references render_jobs)")
        owner.execute("insert into favourites select unnest(%s::uuid[])", (jobs,))
        yield
        owner.execute("drop table favourites")
    scene.protected.clear()


@contextmanager
def clock_skew(scene: Scene, probability: float) -> Iterator[None]:
    """Set this machine's clock ahead or behind, up to a hundred days."""
    scene.skew = scene.random.choice([-1, 1]) * probability * 8_640_000
    real = time.time
    with patch.object(time, "time", lambda: real() + scene.skew):
        yield
    scene.skew = 0.0


# -- scenarios ---------------------------------------------------------------------------------------------------------

_REMOVAL_ONLY = (Fault.EMPTY_ANSWER, Fault.HALF)
STORAGE: dict[str, Injection] = {
    f"{fault} on {operation}": storage_fault(fault, operation)
    for operation in ("remove", "list_buckets", "upload")
    for fault in Fault
    if operation == "remove" or fault not in _REMOVAL_ONLY
} | {"poisoned names": poisoned_names}
DATABASE: dict[str, Injection] = {
    injection.__name__.replace("_", " "): injection
    for injection in (
        connection_lost_before,
        connection_lost_within,
        connection_lost_after,
        statement_timeout,
        lock_timeout,
        protected_rows,
        clock_skew,
    )
}
_ANSWERS_GET_LOST = frozenset(
    {"connection lost before", "connection lost within", "connection lost after", "statement timeout", "lock timeout"}
)


@dataclass
class Tally:
    """What all scenarios together came to."""

    figures: Counter[str] = field(default_factory=Counter)
    cycles: dict[str, int | float | str] = field(default_factory=dict)
    wrong: dict[str, int | float | str] = field(default_factory=dict)


class Scenario:
    """One fault at one probability, on a project of its own."""

    def __init__(self, name: str, injection: Injection, probability: float, tally: Tally) -> None:
        self.name = f"{name} at {probability:.0%}"
        self._injection, self._probability, self._tally = injection, probability, tally
        self._exact = name not in _ANSWERS_GET_LOST
        self._most_cycles = MOST_CYCLES if self._exact else MOST_CYCLES_WITHOUT_DATABASE

    def play(self, scene: Scene) -> None:
        """Inject the fault for some cycles, heal, and see to it that the backlog drains."""
        total = self._probability == 1 and self._injection is not clock_skew
        limit = CYCLES_OF_TOTAL_FAILURE if total else self._most_cycles
        size = NAMES_A_REQUEST if self._exact else NAMES_A_REQUEST_WITHOUT_DATABASE
        with self._injection(scene, self._probability):
            self._tally.cycles[self.name] = self._cycles(scene, limit, page_size=size, until_drained=not total)
            if not total and not scene.drained():
                self._note("undrained", "not drained while the fault lasted")
        for _ in range(MOST_CYCLES):  # a claim that was given up is released first, and due a day later
            if scene.drained():
                return
            scene.let_time_pass()
            self._cycles(scene, 1)
        if not scene.drained():
            self._note("undrained_when_healed", "not drained after it healed")

    def _cycles(self, scene: Scene, limit: int, *, page_size: int = PAGE_SIZE, until_drained: bool = True) -> int:
        for number in range(1, limit + 1):
            scene.save_some(1)
            try:
                scene.count(
                    cycle(
                        scene,
                        key=scene.key,
                        lock_timeout=scene.lock_timeout,
                        patience=IMPATIENT,
                        page_size=page_size,
                        now=time.time,
                    )
                )
            except Exception as error:  # noqa: BLE001 (that is what the campaign looks for)
                self._note("unhandled", repr(error))
            self._tally.figures["cycles"] += 1
            for kind, count in scene.violations(exact=self._exact).items():
                if count:
                    self._note(kind, f"{count} {kind}", count)
            if not self._exact:  # claims that nobody heard of are leases, which end before the next interval does
                let_requests_end(scene.database)
            if until_drained and scene.drained():
                return number
        return limit

    def _note(self, kind: str, what: str, count: int = 1) -> None:
        self._tally.figures[kind] += count
        self._tally.wrong.setdefault(self.name, what)


@contextmanager
def silence() -> Iterator[None]:
    """Keep quiet about the errors that are expected here by the thousand."""
    with contextlib.ExitStack() as stack:
        for name in ("storage_cleanup", "psycopg"):
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        yield


@contextmanager
def scene_on(ground: Ground, seed: int) -> Iterator[Scene]:
    """Set up a project, and take it down afterwards."""
    name = f"faults_{uuid4().hex[:12]}"
    database = ground.create(name)
    ground.storage.use(database.url("supabase_storage_admin"), statement_timeout_ms=200)
    with database.connect("supabase_admin") as administrator:
        administrator.execute(f"alter database {name} set lock_timeout = '200ms'")  # for the user who saves
    application = Application(database, ground.storage.url, ground.keys.service_role)
    try:
        # The key is as old as the project, however wrong this machine's clock goes later.
        key = ground.keys.service_role
        yield Scene(database, ground.storage, ground.keys, key, application, random.Random(seed))
    finally:
        application.close()
        ground.postgres.drop_database(name)


@dataclass(frozen=True)
class Faults:
    """The campaign."""

    name: str = "faults"

    def run(self, seed: int, short: bool) -> Figures:
        """Play every fault at every probability; in the short form, each fault once."""
        tally, chooser = Tally(), random.Random(seed)
        with silence(), Ground.prepared("faults") as ground:
            for index, (name, injection) in enumerate({**STORAGE, **DATABASE}.items()):
                if short and index % 4 != seed % 4:
                    continue
                for probability in (0.2,) if short else PROBABILITIES:
                    with scene_on(ground, chooser.randrange(1 << 30)) as scene:
                        # Enough requests for a fault of one percent to come up.
                        scene.populate(60 if short else 1000 if probability == PROBABILITIES[0] else 250, 40)
                        Scenario(name, injection, probability, tally).play(scene)
                        print(f"  … {name} at {probability:.0%}", flush=True)
                        tally.figures.update(
                            scenarios=1,
                            injected=sum(scene.storage.stats()["faults"].values()),
                            saves_between=len(scene.saved) - 40,
                            saves_refused=scene.refused_saves,
                            orphans=len(scene.orphans),
                            deleted=scene.deleted,
                            already_missing=scene.already_missing,
                        )
        return self._figures(tally)

    def goals(self, figures: Figures) -> list[str]:
        """Nothing lost, nothing stranded, nothing overclaimed, nothing unhandled; and it drains."""
        return missed(figures, {**dict.fromkeys(_BAD, "== 0"), "scenarios": "> 0"})

    @staticmethod
    def _figures(tally: Tally) -> Figures:
        good = ("scenarios", "cycles", "injected", "orphans", "saves_between", "saves_refused")
        return {
            **{name: tally.figures[name] for name in (*good, "deleted", "already_missing", *_BAD)},
            "cycles_to_drain": tally.cycles,
            "wrong": tally.wrong,
        }


_BAD = (
    *("lost_saved", "files_without_row", "removed_twice", "overclaimed"),
    *("unhandled", "undrained", "undrained_when_healed"),
)
CAMPAIGN = Faults()
