"""Phase 3: rows of ``render_jobs`` whose file is known to be gone, and of old unsaved jobs that never had one.

Rows of files go beside phase 2, in a thread of their own, as soon as a file is known to be gone; the rest follows when
phase 2 has ended.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self
from uuid import UUID

from storage_cleanup.cleanup.circuit_breaker import CircuitBreaker
from storage_cleanup.cleanup.log import PhaseLog
from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.errors import BreakerOpenError, StorageCleanupError
from storage_cleanup.limits import MOST_BATCHES_OF_ROWS
from storage_cleanup.model.account import PhaseResult
from storage_cleanup.model.reasons import Kind, Reason
from storage_cleanup.model.vocabulary import Outcome, Phase
from storage_cleanup.postgres.ledger import FIRST_PAGE, Candidate, Database, Position, RowOutcome

_log = PhaseLog(__name__, Phase.RENDER_JOBS)


def clean_render_jobs(
    order: Order,
    *,
    database: Database,
    rows: "RowDeletions",
    assert_may_delete: Callable[[], None],
    breaker: CircuitBreaker,
) -> PhaseResult:
    """Wait for the rows that follow their files, take what other runs left, and the jobs that never had a file.

    Rows of files follow them without limit: the files have been counted. A plan has no rows that other runs left.

    Parameters
    ----------
    order
        Its budget is for the jobs that never had a file.
    rows
        Has deleted the rows of files so far.
    assert_may_delete
        Raises unless key, project and the set of saved assets can be trusted; called only when there is work.
    breaker
        An open one ends the phase, and is its error.
    """
    rows.wait()
    if order.plan is None:
        rows.do(lambda: _take_leftovers(order, database, rows, assert_may_delete))
    rows.do(lambda: _take_jobs_without_file(order, database, rows, assert_may_delete))
    result = rows.result
    if breaker.reason:
        result.error = result.error or str(BreakerOpenError(breaker.reason))
    return result


def _take_leftovers(
    order: Order, database: Database, rows: "RowDeletions", assert_may_delete: Callable[[], None]
) -> None:
    after = UUID(int=0)
    while not rows.check_stop() and (jobs := database.leftover_rows(order.run, size=order.page_size, after=after)):
        assert_may_delete()
        after = jobs[-1]
        rows.delete(jobs)


def _take_jobs_without_file(
    order: Order, database: Database, rows: "RowDeletions", assert_may_delete: Callable[[], None]
) -> None:
    after, left = FIRST_PAGE, order.budget
    while left > 0 and not rows.check_stop():
        page = _due_without_file(order, database, after, min(order.page_size, left))
        if not page:
            return
        assert_may_delete()
        after = (page[-1].since, page[-1].job_id)
        verdicts = database.claim_fileless(
            order.run,
            [candidate.job_id for candidate in page],
            max_age=order.max_age,
            grace=order.grace,
            keep_dependents=order.keep_dependents,
            dry_run=order.dry_run,
            plan=order.plan,
        )
        claimed = [verdict.job_id for verdict in verdicts if verdict.outcome == Outcome.CLAIMED]
        left -= len(claimed)
        rows.result.kept.update(verdict.outcome for verdict in verdicts if verdict.outcome != Outcome.CLAIMED)
        rows.delete(claimed)
    if left <= 0 and not rows.check_stop() and _due_without_file(order, database, after, 1):
        rows.result.stopped = Reason.LIMIT_REACHED


def _due_without_file(order: Order, database: Database, after: Position, size: int) -> list[Candidate]:
    return database.due(
        order.run,
        with_file=False,
        max_age=order.max_age,
        grace=order.grace,
        after=after,
        size=size,
        own_share=False,  # nothing is removed over HTTP here, so there is too little to share
        plan=order.plan,
    )


class RowDeletions(AbstractContextManager["RowDeletions"]):
    """Deletes rows in batches, one batch at a time; one that a foreign key protects is reported and stays.

    An error ends the work and is in the account; nothing is raised.

    Attributes
    ----------
    result
        The account so far. Only one batch is at work at a time, so it needs no lock.
    """

    def __init__(self, order: Order, database: Database) -> None:
        self._order = order
        self._database = database
        self._thread = ThreadPoolExecutor(1, "rows")
        self._waiting: deque[Future[None]] = deque()
        self.result = PhaseResult()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)

    def follow(self, jobs: Sequence[UUID]) -> None:
        """Delete the rows of these jobs soon: this run has found their files gone (in a dry run: would remove them)."""
        self._wait_for_all_but(MOST_BATCHES_OF_ROWS - 1)
        self._waiting.append(self._thread.submit(self.do, lambda: self.delete(jobs)))

    def wait(self) -> None:
        """Wait for the rows that follow."""
        self._wait_for_all_but(0)

    def do(self, work: Callable[[], None]) -> None:
        """Do a piece of work that deletes rows, and account for its time and its error."""
        if self.result.error:
            return
        started = time.monotonic()
        try:
            work()
        except StorageCleanupError as error:
            self.result.error = str(error)
            _log.error("Phase render_jobs failed: %s", error, extra={"error": str(error)})
        self.result.seconds += time.monotonic() - started

    def check_stop(self) -> bool:
        """Note a reason to stop, where there is one, and return whether the phase has ended."""
        self.result.stopped = self.result.stopped or self._order.stop()
        return self.result.stopped is not None

    def delete(self, jobs: Sequence[UUID]) -> None:
        """Delete the rows of these jobs now; a dry run only counts them."""
        if self._order.dry_run:
            self.result.skipped[Reason.DRY_RUN] += len(jobs)
        elif jobs and not self.check_stop():
            self._account(
                self._database.delete_rows(self._order.run, jobs, keep_dependents=self._order.keep_dependents)
            )

    def _wait_for_all_but(self, most: int) -> None:
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def _account(self, rows: Sequence[RowOutcome]) -> None:
        for row in rows:
            if row.outcome == Outcome.DELETED:
                self.result.deleted += 1
            elif row.outcome == Outcome.ALREADY_MISSING:
                self.result.already_missing += 1
            elif Reason[row.outcome.upper()].kind is Kind.FAILED:
                self.result.failed[row.outcome] += 1
            else:
                self.result.skipped[row.outcome] += 1
            if row.detail:
                _log.warning("A row stays: %s", row.detail, extra={"job_id": str(row.job_id), "reason": row.outcome})
