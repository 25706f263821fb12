"""One cleanup cycle: the phases in order, each isolated from the others' failure, recorded as a run."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from storage_cleanup.cleanup.circuit_breaker import FailureBreaker, judge_reference_set
from storage_cleanup.cleanup.concurrency import Pace
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.cleanup.options import RunOptions
from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.cleanup.phases.render_jobs import RenderJobs
from storage_cleanup.cleanup.phases.storage_files import clean_storage_files
from storage_cleanup.cleanup.phases.temp_files import clean_temp_files
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import BreakerOpenError, RequestError, StorageCleanupError, UnsafeError
from storage_cleanup.model.account import PhaseResult, RunResult
from storage_cleanup.model.vocabulary import Phase, Status, Trigger
from storage_cleanup.postgres.ledger import Backlog, Bucket, Database, Plan
from storage_cleanup.storage.object_store import ObjectStore
from storage_cleanup.storage.paths import Refusal, StorageObject, parse_storage_url

_log = logging.getLogger(__name__)
KEEP_HISTORY = timedelta(days=90)
_SHORTEST_RECONCILIATION, _LONGEST_RECONCILIATION = timedelta(seconds=10), timedelta(minutes=5)


def run_cycle(
    settings: Settings,
    options: RunOptions,
    *,
    database: Database,
    store: ObjectStore,
    watch: Watch,
    keep_history: timedelta = KEEP_HISTORY,
    now: Callable[[], float] = time.time,
) -> RunResult:
    """Run the phases that the options name, within the time that the watch allows.

    Parameters
    ----------
    settings, options
        What may be done, and what this run was asked to do.
    database, store
        PostgreSQL and Supabase Storage of one project.
    watch
        Time left and kill switch.
    keep_history
        How long finished ledger rows are kept; runs and usage, which are small, stay four times as long.
    now
        Unix seconds, for temporary files; everything else is judged by the database's clock.

    Raises
    ------
    RequestError
        The override doesn't name a plan that may still be carried out.
    """
    run = _Run(settings, options, database, store, watch, keep_history, now)
    if not settings.enabled:
        run.give_back_abandoned()
        return run.skipped("the parameter enabled is false")
    return run.execute()


@dataclass
class _Run:
    settings: Settings
    options: RunOptions
    database: Database
    store: ObjectStore
    watch: Watch
    keep_history: timedelta
    now: Callable[[], float]
    id: UUID = field(default_factory=uuid4)
    results: dict[Phase, PhaseResult] = field(default_factory=dict)
    is_judged: bool = False
    breaker_reason: str | None = None
    given_back: int = 0
    backlog: Backlog | None = None
    _recorded: bool = False
    _is_proved: bool = False

    def skipped(self, why: str) -> RunResult:
        _log.warning("Cleanup cycle skipped: %s", why)
        return self._result(Status.SKIPPED, time.monotonic(), why)

    def give_back_abandoned(self) -> None:
        """Give back what dead runs have left, when no run will finish it; that isn't worth failing for."""
        try:
            self.given_back = self.database.give_back_abandoned()
        except StorageCleanupError as error:
            _log.warning("What dead runs had claimed could not be given back: %s", error, extra={"error": str(error)})
        if self.given_back:
            _log.info("Gave back %d claims of dead runs", self.given_back, extra={"given_back": self.given_back})

    def execute(self) -> RunResult:
        started = time.monotonic()
        _log.info(
            "Starting comprehensive cleanup cycle",
            extra={"run_id": str(self.id), "dry_run": self.options.dry_run, "profile": self.settings.profile.value},
        )
        if Phase.TEMP_FILES in self.options.phases:
            self.results[Phase.TEMP_FILES] = self._temp_files()
        if self.options.phases & {Phase.STORAGE_FILES, Phase.RENDER_JOBS}:
            self._with_database()
        if Phase.STORAGE_FILES not in self.settings.phases:
            self.give_back_abandoned()
        result = self._result(self._status(), started, self._message())
        self._close(result)
        if result.status is Status.FAILED:
            _log.error("Cleanup cycle failed: %s", result.message, extra={"result": result.as_dict()})
        else:
            _log.info("Comprehensive cleanup cycle completed", extra={"result": result.as_dict()})
        return result

    # -- the phases ------------------------------------------------------------------------------------------------

    def _temp_files(self) -> PhaseResult:
        started = time.monotonic()
        try:
            result = clean_temp_files(
                self.settings.temp_directories,
                self.settings.temp_prefixes,
                self.options.max_age,
                now=self.now(),
                budget=self.options.max_deletions,
                dry_run=self.options.dry_run,
                stop=self.watch.stop_reason,
            )
        except OSError as error:
            _log.exception("Phase temp_files failed")
            result = PhaseResult(error=str(error))
        result.seconds = time.monotonic() - started
        return result

    def _with_database(self) -> None:
        phases = [phase for phase in (Phase.STORAGE_FILES, Phase.RENDER_JOBS) if phase in self.options.phases]
        try:
            self._open()
        except RequestError:
            raise
        except StorageCleanupError as error:
            _log.error("Nothing was deleted: %s", error, extra={"error": str(error)})
            self.results.update({phase: PhaseResult(error=str(error)) for phase in phases})
            return
        breaker = FailureBreaker(self.settings.max_failure_percent)
        with self._rows(breaker) as rows:
            if Phase.STORAGE_FILES in phases:
                follow = rows.follow if Phase.RENDER_JOBS in phases else _leave_rows
                self.results[Phase.STORAGE_FILES] = self._storage_files(breaker, follow)
            if Phase.RENDER_JOBS in phases:
                self.results[Phase.RENDER_JOBS] = self._render_jobs(rows)

    def _open(self) -> None:
        """Prove that deleting is safe, then open the run.

        Who asks by hand learns at once whether the key is right. A scheduled run proves it before its first claim: when
        it finds nothing to do, it needs no client for Storage, which would double its time.
        """
        self.database.assert_trust()
        if self.options.trigger is not Trigger.SCHEDULE:
            self._assert_same_project()
        if self.options.override:
            plan = self.database.plan(UUID(self.options.override))
            assert_plan(plan, self._plan_options(), self._scope())
        self.database.start_run(
            self.id,
            trigger=self.options.trigger.value,
            dry_run=self.options.dry_run,
            options=self._plan_options(),
            scope=self._scope(),
            override_of=self._plan_id(),
        )
        self._recorded = True

    def _rows(self, breaker: FailureBreaker) -> RenderJobs:
        return RenderJobs(
            self._order(),
            database=self.database,
            assert_may_delete=self._assert_may_delete,
            stop=lambda: "breaker_open" if self.breaker_reason or breaker.reason else self.watch.stop_reason(),
        )

    def _storage_files(self, breaker: FailureBreaker, follow: Callable[[Sequence[UUID]], None]) -> PhaseResult:
        pace = Pace()
        self.store.on_pushback = pace.slow_down
        result = clean_storage_files(
            self._order(),
            database=self.database,
            store=self.store,
            parse=self._parse,
            assert_may_delete=self._assert_may_delete,
            breaker=breaker,
            pace=pace,
            stop=self.watch.stop_reason,
            on_gone=follow,
        )
        self.breaker_reason = self.breaker_reason or breaker.reason
        if self.options.dry_run:
            _log.info("Would delete %d orphaned files", result.would_delete, extra={"bytes": result.bytes})
        else:
            _log.info("Successfully deleted %d orphaned files", result.deleted, extra={"bytes": result.bytes})
        return result

    def _render_jobs(self, rows: RenderJobs) -> PhaseResult:
        result = rows.finish(self._budget_left())
        if self.breaker_reason:
            result.error = result.error or str(BreakerOpenError(self.breaker_reason))
        if self.options.dry_run:
            _log.info("Would delete %d orphaned render job records", result.would_delete)
        else:
            _log.info("Successfully deleted %d orphaned render job records", result.deleted)
        return result

    def _budget_left(self) -> int:
        used = sum(result.deleted + result.would_delete + result.failed.total() for result in self.results.values())
        return max(0, self.options.max_deletions - used)

    def _order(self) -> Order:
        return Order(
            run=self.id,
            max_age=self.options.max_age,
            budget=self._budget_left(),
            dry_run=self.options.dry_run,
            plan=self._plan_id(),
        )

    def _parse(self, url: str | None) -> StorageObject | Refusal:
        return parse_storage_url(url, origin=self.settings.supabase_url, buckets=self.settings.buckets)

    def _assert_may_delete(self) -> None:
        """Prove key and project, and judge the set of saved assets: once a run, now, and only when there is work."""
        self._assert_same_project()
        if not self.is_judged:
            self._judge_reference_set()
        if self.breaker_reason:
            raise BreakerOpenError(self.breaker_reason)

    def _assert_same_project(self) -> None:
        if not self._is_proved:
            assert_same_project(self.store.buckets(), self.database.buckets(), self.settings.buckets)
            self._is_proved = True

    def _judge_reference_set(self) -> None:
        counted = self.database.judge_saved(self.id)
        self.is_judged = True
        reason = judge_reference_set(counted.saved, counted.before, self.settings.max_saved_drop_percent)
        if reason and (self.options.dry_run or self.options.override):
            _log.warning("The circuit breaker would be open: %s", reason, extra={"override": self.options.override})
        else:
            self.breaker_reason = reason

    # -- the account -----------------------------------------------------------------------------------------------

    def _status(self) -> Status:
        results = self.results.values()
        if any(result.error for result in results):
            return Status.FAILED
        if any(result.failed or result.stopped for result in results):
            return Status.PARTIAL
        return Status.SUCCEEDED

    def _message(self) -> str | None:
        errors = dict.fromkeys(result.error for result in self.results.values() if result.error)
        return "; ".join(errors) or None

    def _close(self, result: RunResult) -> None:
        """Record the answer. A run that can't be recorded has failed, whatever it did."""
        if not self._recorded:
            return
        try:
            self.backlog = self.database.backlog(self.id, self.options.max_age)
            result.remaining, result.stuck = self.backlog.remaining, self.backlog.stuck
            for phase, reason, count in self.backlog.left_alone:
                if account := self.results.get(Phase(phase)):
                    account.kept[reason] += count
            self.database.finish_run(
                self.id,
                status=result.status.value,
                summary=result.as_dict(),
                found_good=self.is_judged and self.breaker_reason is None,
            )
            self._housekeeping()
        except StorageCleanupError as error:
            _log.error("The run could not be recorded: %s", error, extra={"error": str(error)})
            result.status = Status.FAILED
            result.message = "; ".join(filter(None, (result.message, f"the run could not be recorded: {error}")))

    def _housekeeping(self) -> None:
        """Forget old history, and once a day look for what the triggers missed; both may wait for another run."""
        if self.options.dry_run or self.watch.stop_reason():
            return
        self.database.prune(self.keep_history)
        timeout = min(_LONGEST_RECONCILIATION, timedelta(seconds=self.watch.remaining_seconds / 2))
        if timeout >= _SHORTEST_RECONCILIATION and (drift := self.database.reconcile_if_due(timeout)):
            _log.warning(
                "%d orphans had been missed by the triggers; they go when they are old enough from now on", drift
            )

    def _result(self, status: Status, started: float, message: str | None) -> RunResult:
        return RunResult(
            run_id=str(self.id),
            status=status,
            dry_run=self.options.dry_run,
            profile=self.settings.profile.value,
            max_age_minutes=round(self.options.max_age.total_seconds() / 60),
            phases=self.results,
            seconds=time.monotonic() - started,
            given_back=self.given_back,
            slowest_query_seconds=self.database.slowest_seconds,
            breaker_open=self.breaker_reason is not None,
            message=message,
        )

    def _plan_id(self) -> UUID | None:
        return UUID(self.options.override) if self.options.override else None

    def _plan_options(self) -> dict[str, object]:
        return {
            "phases": sorted(phase.value for phase in self.options.phases),
            "max_age_minutes": round(self.options.max_age.total_seconds() / 60),
            "max_deletions": self.options.max_deletions,
        }

    def _scope(self) -> dict[str, object]:
        return {"origin": self.settings.supabase_url, "buckets": sorted(self.settings.buckets)}


def _leave_rows(jobs: Sequence[UUID]) -> None:
    """Phase 3 is off: the rows stay, and a later run finds them."""


def assert_same_project(in_storage: dict[str, datetime], in_database: list[Bucket], listed: tuple[str, ...]) -> None:
    """Prove, before the first claim, that key, Storage and database belong together.

    The service-role key sees the buckets, any other key sees none; and only the database of the same project has the
    buckets that Storage answers, made at the same moment.

    Raises
    ------
    UnsafeError
        With the parameter that is probably wrong.
    """
    if not in_storage:
        raise UnsafeError(
            "supabase/service-role-key sees no buckets at supabase/url: it isn't the service-role key of that project"
        )
    if missing := [bucket for bucket in listed if bucket not in in_storage]:
        raise UnsafeError(
            f"buckets names {', '.join(missing)}, which Storage doesn't have; it has {', '.join(sorted(in_storage))}"
        )
    made = {bucket.id: bucket.created_at for bucket in in_database}
    if any(bucket not in made or abs(made[bucket] - in_storage[bucket]) > timedelta(seconds=1) for bucket in listed):
        raise UnsafeError("supabase/url and database/url belong to different projects: their buckets are not the same")


def assert_plan(plan: Plan | None, options: dict[str, object], scope: dict[str, object]) -> None:
    """Make sure that an override carries out what a dry run has shown, and nothing else.

    Raises
    ------
    RequestError
        There is no such plan, or it is stale, used, or about something else.
    """
    if plan is None:
        raise RequestError(["override names no dry run; it accepts the plan_id of one"])
    faults = []
    if not plan.fresh:
        faults.append("override names a dry run of more than 24 hours ago; make a new one")
    if plan.used:
        faults.append("override names a plan that has been carried out already; make a new dry run")
    if not plan.finished:
        faults.append("override names a dry run that didn't go well; make a new one")
    for name, value in options.items():
        if plan.options.get(name) != value:
            faults.append(f"{name} is {value}, but the plan was made with {plan.options.get(name)}")
    if plan.scope != scope:
        faults.append("supabase/url or buckets have changed since the plan was made; make a new dry run")
    if faults:
        raise RequestError(faults)
