"""Whole real cycles, as the handler runs them, in this process or in others that start together."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self
from uuid import UUID

from benchmarks.project import Project
from local.postgres import ROOT
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.cleanup.options import RunOptions
from storage_cleanup.config.parameters import DEFAULTS
from storage_cleanup.config.settings import Settings
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


class TimedDatabase(Database):
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


class _GuestDatabase(TimedDatabase):
    """On somebody else's project, old history and what the triggers missed aren't the benchmark's business."""

    def prune(self, keep: timedelta) -> None:
        """Leave it."""

    def reconcile_if_due(self, timeout: timedelta) -> int | None:  # noqa: ARG002
        """Leave it."""
        return None


class _SlowStore(ObjectStore):
    """Takes longer for each removal, where the server can't be told to."""

    delay = 0.0

    def remove(self, bucket: str, names: Any) -> Removal:
        """Wait, and remove."""
        time.sleep(self.delay)
        return super().remove(bucket, names)


def settings_for(project: Project) -> Settings:
    """Return the default settings for a project, without phase 1 and without limits that would end a drain."""
    return Settings.from_parameters(
        {
            **DEFAULTS,
            "phases/temp-files": "false",
            "buckets": project.bucket,
            "limits/max-saved-drop-percent": "100",
            "supabase/url": project.origin,
            "supabase/service-role-key": project.key,
            "database/url": project.database_url,
        }
    )


def run(
    project: Project,
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
    settings = settings_for(project)
    phases = frozenset({Phase.STORAGE_FILES, Phase.RENDER_JOBS})
    age = timedelta(seconds=project.max_age_seconds)
    plan = project.plan(
        {
            "phases": sorted(phase.value for phase in phases),
            "max_age_minutes": round(age.total_seconds() / 60),
            "max_deletions": most,
        },
        {"origin": settings.supabase_url, "buckets": sorted(settings.buckets)},
    )
    options = RunOptions(Trigger.MANUAL, False, phases, age, most, str(plan) if plan else None)
    watch = Watch(lambda: 7_200_000, lambda: True)
    adapter = TimedDatabase if project.is_embedded else _GuestDatabase
    started = time.perf_counter()
    with (
        adapter(project.database_url) as database,
        _SlowStore(project.origin, project.key, give_up=watch.stop_reason) as store,
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
    slowest_seconds: float


class Worker:
    """A process that is ready to run a cycle, with everything imported that the function imports."""

    def __init__(self, project: Project, *, in_flight: int = MOST_REQUESTS) -> None:
        order = {
            "origin": project.origin, "key": project.key, "bucket": project.bucket,
            "database_url": project.database_url, "in_flight": in_flight,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", json.dumps(order)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def start(self) -> None:
        """Let it begin."""
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> WorkerRun:
        """Wait for its end."""
        return WorkerRun(**json.loads(self._read()))

    def _read(self) -> str:
        assert self._process.stdout
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("A worker has failed; its error is above")
        return line


class WorkerProject(Project):
    """A project as a worker is told about it."""

    def __init__(self, origin: str, key: str, bucket: str, database_url: str) -> None:
        self.origin, self.key, self.bucket, self.database_url = origin, key, bucket, database_url

    def seed(self, orphans: int, *, saved: int = 0, stored: bool = True) -> list[str]:
        """Workers only clean up."""
        raise NotImplementedError

    def plan(self, options: Any, scope: Any) -> UUID | None:
        """Workers run on the embedded stack only."""
        return super().plan(options, scope)
