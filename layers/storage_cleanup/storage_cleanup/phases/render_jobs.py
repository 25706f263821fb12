"""Phase 3: rows of ``render_jobs`` whose file is known to be gone, and of old unsaved jobs that never had one."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from storage_cleanup.database import FIRST_PAGE, Database, RowOutcome
from storage_cleanup.errors import StorageCleanupError
from storage_cleanup.phases.storage_files import Order
from storage_cleanup.result import PhaseResult

_log = logging.getLogger(__name__)
_PAGE = 1000
_FAILURES = frozenset({"refused"})


def clean_render_jobs(
    order: Order,
    *,
    database: Database,
    assert_reference_set: Callable[[], None],
    stop: Callable[[], str | None],
) -> PhaseResult:
    """Delete rows in batches; one that a foreign key protects is reported and stays.

    Parameters
    ----------
    order
        Its budget counts jobs that never had a file; the rows of files follow their files without limit.
    assert_reference_set
        Raises ``BreakerOpenError`` unless the set of saved assets can be trusted; called only when there is work.
    """
    started = time.monotonic()
    phase = _RenderJobs(order, database, assert_reference_set, stop)
    try:
        phase.claim_rows_without_file()
        phase.delete_rows()
    except StorageCleanupError as error:
        phase.result.error = str(error)
        _log.error("Phase render_jobs failed: %s", error, extra={"error": str(error)})
    phase.result.seconds = time.monotonic() - started
    return phase.result


@dataclass
class _RenderJobs:
    order: Order
    database: Database
    assert_reference_set: Callable[[], None]
    stop: Callable[[], str | None]
    result: PhaseResult = field(default_factory=PhaseResult)

    def claim_rows_without_file(self) -> None:
        after, left = FIRST_PAGE, self.order.budget
        while left > 0 and not self._must_stop():
            page = self.database.due(
                with_file=False, max_age=self.order.max_age, after=after, size=min(_PAGE, left), plan=self.order.plan
            )
            if not page:
                return
            self.assert_reference_set()
            after = (page[-1].since, page[-1].job_id)
            verdicts = self.database.claim_fileless(
                self.order.run,
                [candidate.job_id for candidate in page],
                max_age=self.order.max_age,
                dry_run=self.order.dry_run,
                plan=self.order.plan,
            )
            claimed = [verdict for verdict in verdicts if verdict.outcome == "claimed"]
            left -= len(claimed)
            if self.order.dry_run:
                self._plan(len(claimed))
            self._account([verdict for verdict in verdicts if verdict.outcome != "claimed"])
        if left <= 0:
            self.result.stopped = "limit_reached"

    def delete_rows(self) -> None:
        after = UUID(int=0)
        while not self._must_stop():
            rows = self.database.delete_rows(self.order.run, size=_PAGE, after=after, dry_run=self.order.dry_run)
            self._account(rows)
            if not rows:
                return
            after = max(row.job_id for row in rows)

    def _must_stop(self) -> bool:
        self.result.stopped = self.stop() or self.result.stopped
        return self.result.stopped not in (None, "limit_reached")

    def _plan(self, count: int) -> None:
        self.result.would_delete += count
        self.result.skipped["dry_run"] += count

    def _account(self, rows: list[RowOutcome]) -> None:
        for row in rows:
            if row.outcome == "deleted" and self.order.dry_run:
                self._plan(1)
            elif row.outcome == "deleted":
                self.result.deleted += 1
            elif row.outcome == "already_missing":
                self.result.already_missing += 1
            elif row.outcome in _FAILURES:
                self.result.failed[row.outcome] += 1
            else:
                self.result.skipped[row.outcome] += 1
            if row.detail:
                _log.warning("A row stays: %s", row.detail, extra={"job_id": str(row.job_id), "reason": row.outcome})
