"""Phase 3: rows of ``render_jobs`` whose file is known to be gone, and of old unsaved jobs that never had one.

Rows of files go beside phase 2, in a thread of their own, as soon as a file is known to be gone; the rest follows when
phase 2 has ended.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self
from uuid import UUID

from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.errors import StorageCleanupError
from storage_cleanup.model.account import PhaseResult
from storage_cleanup.postgres.ledger import FIRST_PAGE, Candidate, Database, Position, RowOutcome

_log = logging.getLogger(__name__)
_PAGE = 1000
_MOST_WAITING = 8
"""Batches that may wait for their rows to be deleted, so that memory doesn't grow with the backlog."""

_FAILURES = frozenset({"refused"})


class RenderJobs(AbstractContextManager["RenderJobs"]):
    """Deletes rows in batches; one that a foreign key protects is reported and stays.

    An error ends the phase and is in its result; nothing is raised.

    Parameters
    ----------
    order
        What the run may do.
    assert_may_delete
        Raises unless key, project and the set of saved assets can be trusted; called only when there is work.
    stop
        Returns a reason to take no more work, or None.
    """

    def __init__(
        self,
        order: Order,
        *,
        database: Database,
        assert_may_delete: Callable[[], None],
        stop: Callable[[], str | None],
    ) -> None:
        self._order = order
        self._database = database
        self._assert_may_delete = assert_may_delete
        self._stop = stop
        self._thread = ThreadPoolExecutor(1, "rows")
        self._waiting: deque[Future[None]] = deque()
        self._result = PhaseResult()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)

    def follow(self, jobs: Sequence[UUID]) -> None:
        """Delete the rows of these jobs soon: this run has found their files gone (in a dry run: would remove them)."""
        if self._order.dry_run:
            self._plan(len(jobs))
            return
        self._wait_for_all_but(_MOST_WAITING - 1)
        self._waiting.append(self._thread.submit(self._do, lambda: self._delete(jobs)))

    def finish(self, budget: int) -> PhaseResult:
        """Wait for the rows that follow, take what other runs left, and up to ``budget`` jobs that never had a file.

        Rows of files follow them without limit: the files have been counted. A plan has no rows that other runs left.
        """
        self._wait_for_all_but(0)
        if self._order.plan is None:
            self._do(self._take_leftovers)
        self._do(lambda: self._take_jobs_without_file(budget))
        return self._result

    def _wait_for_all_but(self, most: int) -> None:
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    # -- one of these at a time, so the account needs no lock --------------------------------------------------------

    def _do(self, work: Callable[[], None]) -> None:
        if self._result.error:
            return
        started = time.monotonic()
        try:
            work()
        except StorageCleanupError as error:
            self._result.error = str(error)
            _log.error("Phase render_jobs failed: %s", error, extra={"error": str(error)})
        self._result.seconds += time.monotonic() - started

    def _take_leftovers(self) -> None:
        after = UUID(int=0)
        while not self._must_stop():
            jobs = self._database.leftover_rows(self._order.run, size=_PAGE, after=after)
            if not jobs:
                return
            self._assert_may_delete()
            after = jobs[-1]
            if self._order.dry_run:
                self._plan(len(jobs))
            else:
                self._account(self._database.delete_rows(self._order.run, jobs))

    def _take_jobs_without_file(self, budget: int) -> None:
        after, left = FIRST_PAGE, budget
        while left > 0 and not self._must_stop():
            page = self._due(after, min(_PAGE, left))
            if not page:
                return
            self._assert_may_delete()
            after = (page[-1].since, page[-1].job_id)
            verdicts = self._database.claim_fileless(
                self._order.run,
                [candidate.job_id for candidate in page],
                max_age=self._order.max_age,
                dry_run=self._order.dry_run,
                plan=self._order.plan,
            )
            claimed = [verdict.job_id for verdict in verdicts if verdict.outcome == "claimed"]
            left -= len(claimed)
            self._result.kept.update(verdict.outcome for verdict in verdicts if verdict.outcome != "claimed")
            if self._order.dry_run:
                self._plan(len(claimed))
            elif claimed:
                self._delete(claimed)
        if left <= 0 and not self._must_stop() and self._due(after, 1):
            self._result.stopped = "limit_reached"

    def _due(self, after: Position, size: int) -> list[Candidate]:
        return self._database.due(
            self._order.run,
            with_file=False,
            max_age=self._order.max_age,
            after=after,
            size=size,
            own_share=False,  # nothing is removed over HTTP here, so there is too little to share
            plan=self._order.plan,
        )

    def _delete(self, jobs: Sequence[UUID]) -> None:
        if not self._must_stop():
            self._account(self._database.delete_rows(self._order.run, jobs))

    def _must_stop(self) -> bool:
        self._result.stopped = self._result.stopped or self._stop()
        return self._result.stopped is not None

    def _plan(self, count: int) -> None:
        self._result.skipped["dry_run"] += count

    def _account(self, rows: Sequence[RowOutcome]) -> None:
        for row in rows:
            if row.outcome == "deleted":
                self._result.deleted += 1
            elif row.outcome == "already_missing":
                self._result.already_missing += 1
            elif row.outcome in _FAILURES:
                self._result.failed[row.outcome] += 1
            else:
                self._result.skipped[row.outcome] += 1
            if row.detail:
                _log.warning("A row stays: %s", row.detail, extra={"job_id": str(row.job_id), "reason": row.outcome})
