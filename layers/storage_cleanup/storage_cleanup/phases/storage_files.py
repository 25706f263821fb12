"""Phase 2: files of completed jobs that are old enough and that nobody saved.

Three stages overlap: the next batch is claimed and finished ones are settled while requests are under way. A file is
only ever asked for after its claim has been committed, and counts as gone only when ``storage.objects`` says so.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from uuid import UUID

from storage_cleanup.breaker import FailureBreaker
from storage_cleanup.database import FIRST_PAGE, Candidate, Database, Position, Verdict
from storage_cleanup.errors import BreakerOpenError, DatabaseError, ObjectStoreError, StorageCleanupError
from storage_cleanup.object_store import BATCH_SIZE, ObjectStore, Removal
from storage_cleanup.result import PhaseResult
from storage_cleanup.storage_url import Refusal, StorageObject
from storage_cleanup.watch import Pace

_log = logging.getLogger(__name__)
_GOING = frozenset({"claimed", "already_missing"})


@dataclass(frozen=True)
class Order:
    """What the run may do in this phase.

    Attributes
    ----------
    budget
        Most objects to delete.
    plan
        Only the jobs of this dry run, or None for all.
    """

    run: UUID
    max_age: timedelta
    budget: int
    dry_run: bool
    plan: UUID | None


def clean_storage_files(
    order: Order,
    *,
    database: Database,
    store: ObjectStore,
    parse: Callable[[str | None], StorageObject | Refusal],
    assert_reference_set: Callable[[], None],
    breaker: FailureBreaker,
    pace: Pace,
    stop: Callable[[], str | None],
) -> PhaseResult:
    """Remove the files of orphans, and account for every candidate that was looked at.

    Parameters
    ----------
    parse
        Tells which object an ``output_url`` means, or why it is left alone.
    assert_reference_set
        Raises ``BreakerOpenError`` unless the set of saved assets can be trusted; called only when there is work.
    stop
        Returns a reason to take no more work, or None.
    """
    started = time.monotonic()
    phase = _StorageFiles(order, database, store, parse, assert_reference_set, breaker, pace, stop)
    phase.run()
    phase.result.seconds = time.monotonic() - started
    return phase.result


@dataclass
class _StorageFiles:
    order: Order
    database: Database
    store: ObjectStore
    parse: Callable[[str | None], StorageObject | Refusal]
    assert_reference_set: Callable[[], None]
    breaker: FailureBreaker
    pace: Pace
    stop: Callable[[], str | None]
    result: PhaseResult = field(default_factory=PhaseResult)
    _after: Position = FIRST_PAGE
    _taken: int = 0
    _counted: set[UUID] = field(default_factory=set)
    _in_flight: dict[Future[Removal], Sequence[Verdict]] = field(default_factory=dict)

    def run(self) -> None:
        with ThreadPoolExecutor(self.pace.most, "remove") as threads:
            try:
                for batch in self._batches():
                    for bucket, claims in groupby(sorted(batch, key=attrgetter("bucket_id")), attrgetter("bucket_id")):
                        self._make_room()
                        self._send(threads, bucket, list(claims))
            except StorageCleanupError as error:
                self._give_up(error)
            finally:
                self._drain()
        if self.breaker.reason and not self.result.error:
            self._give_up(BreakerOpenError(self.breaker.reason))

    # -- what to remove --------------------------------------------------------------------------------------------

    def _batches(self) -> Iterator[list[Verdict]]:
        """Yield claims to carry out, first those that an earlier run left behind; with a plan, its jobs only."""
        if not self.order.dry_run and self.order.plan is None:
            while not self._must_stop() and (adopted := self.database.adopt(self.order.run, self._page_size())):
                self.assert_reference_set()
                yield self._take(adopted)
        while not self._must_stop() and (page := self._due(self._page_size())):
            self.assert_reference_set()
            self._after = (page[-1].since, page[-1].job_id)
            yield self._claim(page)

    def _due(self, size: int) -> list[Candidate]:
        return self.database.due(
            with_file=True, max_age=self.order.max_age, after=self._after, size=size, plan=self.order.plan
        )

    def _page_size(self) -> int:
        return min(BATCH_SIZE, self.order.budget - self._taken)

    def _must_stop(self) -> bool:
        if self.breaker.reason:
            raise BreakerOpenError(self.breaker.reason)
        self.result.stopped = self.stop()
        if self.result.stopped is None and self._taken >= self.order.budget:
            self.result.stopped = "limit_reached" if self._due(1) else None
            return True
        return self.result.stopped is not None

    def _claim(self, page: Sequence[Candidate]) -> list[Verdict]:
        keys: dict[UUID, str] = {}
        kept: dict[UUID, str] = {}
        for candidate in page:
            if candidate.gone:
                kept[candidate.job_id] = "job_gone"
                continue
            target = self.parse(candidate.output_url)
            if isinstance(target, Refusal):
                kept[candidate.job_id] = target.reason.value
            else:
                keys[candidate.job_id] = target.key
        self._keep(kept)
        if not keys:
            return []
        return self._take(
            self.database.claim(
                self.order.run, keys, max_age=self.order.max_age, dry_run=self.order.dry_run, plan=self.order.plan
            )
        )

    def _keep(self, kept: dict[UUID, str]) -> None:
        for job, reason in kept.items():
            _log.debug("Kept", extra={"job_id": str(job), "reason": reason})
        self.result.skipped.update(kept.values())
        if kept and not self.order.dry_run:
            self.database.park(kept, self.order.max_age)

    def _take(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Account for what is kept or gone already, and return the claims whose file is to be removed."""
        claimed = []
        for verdict in verdicts:
            if verdict.job_id in self._counted:
                continue
            if verdict.outcome == "claimed":
                claimed.append(verdict)
            elif verdict.outcome == "already_missing" and not self.order.dry_run:
                self.result.already_missing += 1
            elif verdict.outcome == "already_missing":
                self.result.skipped["dry_run"] += 1
            elif verdict.outcome == "stuck":
                self.result.failed["stuck"] += 1
            else:
                self.result.skipped[verdict.outcome] += 1
        files = len(_one_an_object(claimed))
        self._taken += files
        if self.order.dry_run:
            self._plan(claimed)
            return []
        if claimed:
            _log.info("Cleaning up %d orphaned Supabase files", files, extra={"files": files})
        return claimed

    def _plan(self, claimed: Sequence[Verdict]) -> None:
        """Count what a real run would ask for. A job that shares its file can turn up on a later page again."""
        self._counted.update(claim.job_id for claim in claimed)
        for claim in _one_an_object(claimed):
            self.result.would_delete += 1
            self.result.bytes += claim.bytes
        self.result.skipped["dry_run"] += len(claimed)

    # -- removing --------------------------------------------------------------------------------------------------

    def _make_room(self) -> None:
        while len(self._in_flight) >= self.pace.limit:
            self._settle_next()

    def _send(self, threads: ThreadPoolExecutor, bucket: str, claims: Sequence[Verdict]) -> None:
        names = [str(claim.object_name) for claim in _one_an_object(claims)]
        for start in range(0, len(names), BATCH_SIZE):
            batch = set(names[start : start + BATCH_SIZE])
            request = threads.submit(self.store.remove, bucket, sorted(batch))
            self._in_flight[request] = [claim for claim in claims if claim.object_name in batch]

    def _drain(self) -> None:
        while self._in_flight:
            try:
                self._settle_next()
            except StorageCleanupError as error:
                self._give_up(error)

    def _settle_next(self) -> None:
        """Wait for a request and look which of its objects are gone."""
        done, _ = wait(self._in_flight, return_when=FIRST_COMPLETED)
        for request in done:
            claims = self._in_flight.pop(request)
            try:
                removal, refusal = request.result(), None
            except ObjectStoreError as error:  # the key was refused: nothing of this batch was removed
                removal, refusal = Removal(failed={str(claim.object_name): error for claim in claims}), error
            self._settle(claims, removal)
            if refusal:
                raise refusal

    def _settle(self, claims: Sequence[Verdict], removal: Removal) -> None:
        if not removal.failed:
            self.pace.speed_up()
        cause = next(iter(removal.failed.values()), None)
        try:
            settled = self.database.settle(
                self.order.run, [claim.job_id for claim in claims], str(cause) if cause else None
            )
        except DatabaseError:
            self.result.failed["unconfirmed"] += len(claims)  # the next run finds out
            raise
        gone = {row.job_id: row.gone for row in settled}
        credited = {claim.job_id for claim in _one_an_object(claims) if claim.object_name in removal.removed}
        failures = 0
        for claim in claims:
            if claim.job_id not in gone:
                self.result.skipped["taken_over"] += 1
            elif gone[claim.job_id] and claim.job_id in credited:
                self.result.deleted += 1
                self.result.bytes += claim.bytes
            elif gone[claim.job_id]:
                self.result.already_missing += 1
            else:
                failures += 1
                self.result.failed[_why(removal.failed.get(str(claim.object_name)))] += 1
        if failures:
            _log.warning("%d files could not be removed", failures, extra={"error": str(cause), "files": failures})
        self.breaker.record(attempted=len(claims), failed=failures)

    def _give_up(self, error: StorageCleanupError) -> None:
        self.result.error = self.result.error or str(error)
        _log.error("Phase storage_files failed: %s", error, extra={"error": str(error)})


def _one_an_object(claims: Sequence[Verdict]) -> list[Verdict]:
    """Return one claim for each object: jobs that share a file don't make two files of it."""
    return list({(claim.bucket_id, claim.object_name): claim for claim in reversed(claims)}.values())[::-1]


def _why(error: ObjectStoreError | None) -> str:
    """Name a failure in the words of the account."""
    if error is None:
        return "still_there"
    return f"storage_{error.code or error.status or 'error'}"
