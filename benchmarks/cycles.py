"""Whole real cycles, as the handler runs them, in this process or in others that start together."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from benchmarks.project import Target
from local.postgres import ROOT
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.cleanup.options import RunOptions
from storage_cleanup.limits import MOST_REQUESTS
from storage_cleanup.model.account import RunResult
from storage_cleanup.model.vocabulary import Phase, Status, Trigger
from storage_cleanup.postgres.ledger import Database
from storage_cleanup.storage.object_store import ObjectStore, Removal

NO_LIMIT = 10_000_000


@dataclass(frozen=True)
class CycleRun:
    """One cycle from outside: how long it took, and what it did."""

    seconds: float
    files: int
    rows: int
    slowest_seconds: float
    slowest_query: str

    @property
    def rate(self) -> float:
        """Files, with their rows and all bookkeeping, a second."""
        return self.files / self.seconds


class _TimedDatabase(Database):
    """The adapter, remembering how long each call took."""

    def __init__(self, url: str) -> None:
        super().__init__(url, statement_timeout=timedelta(minutes=5))
        self.calls: dict[str, list[float]] = {}

    def _run(self, row: Any, name: str, statement: str, **parameters: Any) -> list[Any]:
        started = time.perf_counter()
        try:
            return super()._run(row, name, statement, **parameters)
        finally:
            self.calls.setdefault(name, []).append(time.perf_counter() - started)


class _GuestDatabase(_TimedDatabase):
    """On somebody else's project, old history and what the triggers missed aren't the benchmark's business."""

    def prune(self, keep: timedelta) -> None:
        """Leave it."""

    def compare_if_due(self, timeout: timedelta) -> int | None:  # noqa: ARG002
        """Leave it."""
        return None


class _SlowStore(ObjectStore):
    """Takes longer for each removal, where the server can't be told to."""

    delay = 0.0

    def remove(self, bucket: str, names: Any, **how: Any) -> Removal:
        """Wait, and remove."""
        time.sleep(self.delay)
        return super().remove(bucket, names, **how)


def run(
    target: Target,
    *,
    in_flight: int = MOST_REQUESTS,
    delay: float = 0.0,
    most: int = NO_LIMIT,
    expected: int | None = None,
) -> CycleRun:
    """Run a whole real cycle: connect, prove, claim, remove, confirm, delete rows, record.

    Parameters
    ----------
    in_flight
        Most requests at a time.
    delay
        Seconds to add to every removal, where the server can't be told to.
    most
        Most files to remove.
    expected
        How many files and rows have to go, or the run doesn't count.

    Raises
    ------
    RuntimeError
        The cycle didn't do what was expected.
    """
    # No limit may end a drain.
    settings = target.settings(buckets=target.bucket, limits__max_saved_drop_percent="100")
    phases = frozenset({Phase.STORAGE_FILES, Phase.RENDER_JOBS})
    age = timedelta(seconds=target.max_age_seconds)
    plan = target.plan(
        {
            "phases": sorted(phase.value for phase in phases),
            "max_age_minutes": round(age.total_seconds() / 60),
            "max_deletions": most,
        },
        {"origin": settings.supabase_url, "buckets": sorted(settings.buckets)},
    )
    options = RunOptions(Trigger.MANUAL, False, phases, age, most, str(plan) if plan else None)
    watch = Watch(lambda: 7_200_000, lambda: True)
    adapter = _GuestDatabase if plan else _TimedDatabase
    started = time.perf_counter()
    with (
        adapter(target.database_url) as database,
        _SlowStore(target.origin, target.key, give_up=watch.stop_reason) as store,
    ):
        store.delay = delay
        result = run_cycle(settings, options, database=database, store=store, watch=watch, most_requests=in_flight)
    seconds = time.perf_counter() - started
    slowest_query, times = max(database.calls.items(), key=lambda call: max(call[1]))
    outcome = CycleRun(
        seconds, _deleted(result, Phase.STORAGE_FILES), _deleted(result, Phase.RENDER_JOBS), max(times), slowest_query
    )
    is_whole = most == NO_LIMIT and expected is not None
    if result.status is not (Status.SUCCEEDED if most == NO_LIMIT else Status.PARTIAL) or (
        is_whole and (outcome.files, outcome.rows) != (expected, expected)
    ):
        raise RuntimeError(f"The cycle didn't do what was expected: {result.as_dict()}")
    return outcome


def _deleted(result: RunResult, phase: Phase) -> int:
    return result.phases[phase].deleted


# -- in processes of their own -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerRun:
    """What a worker did; its times are of the machine's clock that all processes share."""

    started: float
    finished: float
    files: int
    rows: int
    peak_mb: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.finished - self.started


def run_together(target: Target, number: int, *, in_flight: int = MOST_REQUESTS) -> list[WorkerRun]:
    """Let processes begin together when each is ready, with everything imported that the function imports."""
    order = json.dumps({"target": asdict(target), "in_flight": in_flight})
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(order)) for _ in range(number)]
        for worker in workers:
            _read(worker)
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [WorkerRun(**json.loads(_read(worker))) for worker in workers]


@contextmanager
def _worker(order: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.worker", order]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def _read(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout
    if not (line := worker.stdout.readline()):
        raise RuntimeError("A worker has failed; its error is above")
    return line
