"""One cleanup cycle: the phases in order, each isolated from the others' failure, recorded as a run."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from storage_cleanup.cleanup.circuit_breaker import CircuitBreaker, FailureBreaker
from storage_cleanup.cleanup.concurrency import Pace
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.cleanup.log import log_end, log_phase, log_reason, log_start
from storage_cleanup.cleanup.options import RunOptions
from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.cleanup.phases.render_jobs import RowDeletions, clean_render_jobs
from storage_cleanup.cleanup.phases.storage_files import clean_storage_files
from storage_cleanup.cleanup.phases.temp_files import clean_temp_files
from storage_cleanup.cleanup.preflight import Preflight, scope_of
from storage_cleanup.config.parameters import ENABLED
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import RequestError, StorageCleanupError
from storage_cleanup.limits import (
    KEEP_HISTORY,
    LEASE_SECONDS,
    LONGEST_COMPARISON,
    MOST_REQUESTS,
    PAGE_SIZE,
    SHORTEST_COMPARISON,
)
from storage_cleanup.model.account import PhaseResult, RunResult
from storage_cleanup.model.reasons import Kind, Reason
from storage_cleanup.model.vocabulary import Phase, Status
from storage_cleanup.postgres.ledger import Database
from storage_cleanup.storage.object_store import ObjectStore
from storage_cleanup.storage.paths import parse_storage_url

_log = logging.getLogger(__name__)
_Phases = Mapping[Phase, PhaseResult]


def run_cycle(
    settings: Settings,
    options: RunOptions,
    *,
    run: UUID | None = None,
    database: Database,
    store: ObjectStore,
    watch: Watch,
    keep_history: timedelta = KEEP_HISTORY,
    page_size: int = PAGE_SIZE,
    most_requests: int = MOST_REQUESTS,
    lease_seconds: float = LEASE_SECONDS,
    now: Callable[[], float] = time.time,
) -> RunResult:
    """Run the phases that the options name, within the time that the watch allows.

    Parameters
    ----------
    settings, options
        What may be done, and what this run was asked to do.
    run
        Its id; a new one unless given.
    database, store
        PostgreSQL and Supabase Storage of one project.
    watch
        Time left and kill switch.
    keep_history
        How long finished ledger rows are kept; runs and usage, which are small, stay four times as long.
    page_size
        How many candidates are looked at together, and removed by one request.
    most_requests
        How many requests to Storage may be under way together.
    lease_seconds
        How long after it was asked for a claim may be acted on.
    now
        Unix seconds, for temporary files; everything else is judged by the database's clock.

    Raises
    ------
    RequestError
        The override doesn't name a plan that may still be carried out.
    """
    run, breaker = run or uuid4(), CircuitBreaker(FailureBreaker(settings.max_failure_percent))
    preflight = Preflight(run, settings, options, database=database, store=store, breaker=breaker)
    cycle = _Cycle(
        run, settings, options, database, store, watch, breaker, preflight, page_size, most_requests, lease_seconds
    )
    result = _run_phases(cycle, now, keep_history) if settings.enabled else _skip(cycle)
    log_end(result)
    return result


@dataclass(frozen=True)
class _Cycle:
    """What a cycle works with; what its steps find out is handed from one to the next."""

    run: UUID
    settings: Settings
    options: RunOptions
    database: Database
    store: ObjectStore
    watch: Watch
    breaker: CircuitBreaker
    preflight: Preflight
    page_size: int
    most_requests: int
    lease_seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def orders(self) -> dict[str, Any]:
        """What is recorded of what this run was told."""
        return {
            "trigger": self.options.trigger.value,
            "dry_run": self.options.dry_run,
            "options": self.options.as_dict(),
            "scope": scope_of(self.settings),
        }

    def order(self, budget: int, *, heeds_breaker: bool = False) -> Order:
        """Return what a phase may do with this budget."""
        stop = self._stop_reason if heeds_breaker else self.watch.stop_reason
        return Order(
            run=self.run,
            max_age=self.options.max_age,
            budget=budget,
            page_size=self.page_size,
            dry_run=self.options.dry_run,
            plan=self.options.plan,
            stop=stop,
            lease_seconds=self.lease_seconds,
            grace=timedelta(minutes=self.settings.active.unsaved_grace_minutes),
            owners_only=self.settings.owners_only,
            keep_dependents=self.settings.keep_dependents,
        )

    def result(self, status: Status, phases: _Phases, *, message: str | None, given_back: int) -> RunResult:
        """Return the answer, as far as it is known before the run is recorded."""
        return RunResult(
            run_id=str(self.run),
            status=status,
            dry_run=self.options.dry_run,
            profile=self.settings.profile.value,
            max_age_minutes=self.options.max_age_minutes,
            phases=dict(phases),
            seconds=time.monotonic() - self.started,
            given_back=given_back,
            slowest_query_seconds=self.database.slowest_seconds,
            breaker_open=self.breaker.reason is not None,
            message=message,
        )

    def _stop_reason(self) -> str | None:
        return Reason.BREAKER_OPEN if self.breaker.reason else self.watch.stop_reason()


# -- steps -------------------------------------------------------------------------------------------------------------


def _skip(cycle: _Cycle) -> RunResult:
    why = f"the parameter {cycle.settings.switched_off[ENABLED]}"
    return cycle.result(Status.SKIPPED, {}, message=why, given_back=_give_back_abandoned(cycle.database))


def _run_phases(cycle: _Cycle, now: Callable[[], float], keep_history: timedelta) -> RunResult:
    options = cycle.options
    log_start(dry_run=options.dry_run, why_dry=options.why_dry, profile=cycle.settings.profile.value)
    unrecorded = _open_run(cycle)
    temp_files = _clean_temp_files(cycle, now())
    is_begun, files_and_rows = _clean_project(cycle, max(0, options.max_deletions - _used(temp_files)), unrecorded)
    given_back = 0 if Phase.STORAGE_FILES in cycle.settings.phases else _give_back_abandoned(cycle.database)

    phases = {**temp_files, **files_and_rows}
    message = _errors(phases) or _why_dry(options)
    result = cycle.result(_status(phases), phases, message=message, given_back=given_back)
    if is_begun:
        return _record(cycle, result, keep_history)
    if unrecorded is None:
        _close_run(cycle, result)
    return result


def _give_back_abandoned(database: Database) -> int:
    """Give back what dead runs have left, when no run will finish it; that isn't worth failing for."""
    try:
        given_back = database.give_back_abandoned()
    except StorageCleanupError as error:
        _log.warning("What dead runs had claimed could not be given back: %s", error, extra={"error": str(error)})
        return 0
    if given_back:
        _log.info("Gave back %d claims of dead runs", given_back, extra={"given_back": given_back})
    return given_back


def _open_run(cycle: _Cycle) -> StorageCleanupError | None:
    """Record that a run has started, as early as that can be; return why it can't."""
    try:
        cycle.database.open_run(cycle.run, **cycle.orders)
    except StorageCleanupError as error:
        return error
    return None


def _clean_temp_files(cycle: _Cycle, now: float) -> _Phases:
    if Phase.TEMP_FILES not in cycle.options.phases:
        return {}
    settings, order = cycle.settings, cycle.order(cycle.options.max_deletions)
    result = clean_temp_files(order, settings.temp_directories, settings.temp_prefixes, now=now)
    log_phase(Phase.TEMP_FILES, result, dry_run=cycle.options.dry_run)
    return {Phase.TEMP_FILES: result}


def _clean_project(cycle: _Cycle, budget: int, unrecorded: StorageCleanupError | None) -> tuple[bool, _Phases]:
    """Clean Storage and ``render_jobs``; return whether that was begun as well.

    A run that can't be recorded doesn't begin.
    """
    wanted = [phase for phase in (Phase.STORAGE_FILES, Phase.RENDER_JOBS) if phase in cycle.options.phases]
    if not wanted:
        return False, {}
    try:
        if unrecorded:
            raise unrecorded
        cycle.preflight.assert_may_begin()
        cycle.database.start_run(cycle.run, **cycle.orders, override_of=cycle.options.plan)
    except RequestError as refusal:
        _close_run(cycle, cycle.result(Status.SKIPPED, {}, message=str(refusal), given_back=0))
        raise
    except StorageCleanupError as error:
        _log.error("Nothing was deleted: %s", error, extra={"error": str(error), "code": getattr(error, "code", None)})
        return False, {phase: PhaseResult(error=str(error)) for phase in wanted}
    return True, _clean_files_and_rows(cycle, wanted, budget)


def _clean_files_and_rows(cycle: _Cycle, wanted: Sequence[Phase], budget: int) -> _Phases:
    """Remove files, while the rows of those that are gone follow them in a thread of their own."""
    settings, database, may_delete = cycle.settings, cycle.database, cycle.preflight.assert_may_delete
    phases: dict[Phase, PhaseResult] = {}
    with RowDeletions(cycle.order(budget, heeds_breaker=True), database) as rows:
        if Phase.STORAGE_FILES in wanted:
            pace = Pace(cycle.most_requests)
            cycle.store.on_pushback = pace.slow_down
            phases[Phase.STORAGE_FILES] = clean_storage_files(
                cycle.order(budget),
                database=database,
                store=cycle.store,
                parse=partial(parse_storage_url, origin=settings.supabase_url, buckets=settings.buckets),
                assert_may_delete=may_delete,
                breaker=cycle.breaker,
                pace=pace,
                on_gone=rows.follow if Phase.RENDER_JOBS in wanted else _leave_rows,
            )
            log_phase(Phase.STORAGE_FILES, phases[Phase.STORAGE_FILES], dry_run=cycle.options.dry_run)
        if Phase.RENDER_JOBS in wanted:
            left = max(0, budget - _used(phases))
            phases[Phase.RENDER_JOBS] = clean_render_jobs(
                cycle.order(left, heeds_breaker=True),
                database=database,
                rows=rows,
                assert_may_delete=may_delete,
                breaker=cycle.breaker,
            )
            log_phase(Phase.RENDER_JOBS, phases[Phase.RENDER_JOBS], dry_run=cycle.options.dry_run)
    return phases


def _leave_rows(jobs: Sequence[UUID]) -> None:
    """Phase 3 is off: the rows stay, and a later run finds them."""


def _record(cycle: _Cycle, result: RunResult, keep_history: timedelta) -> RunResult:
    """Record the answer, with what the run leaves. A run that can't be recorded has failed, whatever it did."""
    try:
        backlog = cycle.database.backlog(
            cycle.run, cycle.options.max_age, timedelta(minutes=cycle.settings.active.unsaved_grace_minutes)
        )
        for phase, reason, count in backlog.left_alone:
            if account := result.phases.get(Phase(phase)):
                account.kept[reason] += count
                log_reason(Phase(phase), Kind.KEPT, reason, count)
        result = replace(result, remaining=backlog.remaining, stuck=backlog.stuck)
        cycle.database.finish_run(
            cycle.run,
            status=result.status.value,
            summary=result.as_dict(),
            found_good=cycle.preflight.found_good,
        )
        _keep_house(cycle, keep_history)
    except StorageCleanupError as error:
        _log.error("The run could not be recorded: %s", error, extra={"error": str(error)})
        message = "; ".join(filter(None, (result.message, f"the run could not be recorded: {error}")))
        return replace(result, status=Status.FAILED, message=message)
    return result


def _close_run(cycle: _Cycle, result: RunResult) -> None:
    """Record how a run ended that has begun nothing in the project; that isn't worth failing for."""
    try:
        cycle.database.finish_run(cycle.run, status=result.status.value, summary=result.as_dict(), found_good=False)
    except StorageCleanupError as error:
        _log.warning("The run's end could not be recorded: %s", error, extra={"error": str(error)})


def _keep_house(cycle: _Cycle, keep_history: timedelta) -> None:
    """Forget old history, and once a day look for what the triggers missed; both may wait for another run."""
    if cycle.options.dry_run or cycle.watch.stop_reason():
        return
    cycle.database.prune(keep_history)
    timeout = min(LONGEST_COMPARISON, timedelta(seconds=cycle.watch.remaining_seconds / 2))
    if timeout >= SHORTEST_COMPARISON and (drift := cycle.database.compare_if_due(timeout)):
        _log.warning("%d orphans had been missed by the triggers; they go when they are old enough from now on", drift)


# -- values ------------------------------------------------------------------------------------------------------------


def _used(phases: _Phases) -> int:
    """Return how much of a run's budget the phases have used."""
    return sum(phase.deleted + phase.would_delete + phase.failed.total() for phase in phases.values())


def _status(phases: _Phases) -> Status:
    if any(phase.error for phase in phases.values()):
        return Status.FAILED
    if any(phase.failed or phase.stopped for phase in phases.values()):
        return Status.PARTIAL
    return Status.SUCCEEDED


def _errors(phases: _Phases) -> str | None:
    return "; ".join(dict.fromkeys(phase.error for phase in phases.values() if phase.error)) or None


def _why_dry(options: RunOptions) -> str | None:
    return f"nothing was deleted: the parameter {options.why_dry}" if options.why_dry else None
