"""Phase 2: files of completed jobs that are old enough and that nobody saved.

Three stages overlap, each in threads of its own: pages are claimed ahead, requests are under way, and those that have
ended are confirmed. A file is only ever asked for after its claim has been committed, and counts as gone only when
``storage.objects`` says so.

The account counts the objects that are to go, however many jobs share one; what is kept, it counts by job. An object
was deleted by this system when Storage says so, or when it is gone after a request that got no answer: this run's, or
one that a dead run may have made for a claim that this run adopted (the claim saw the object). An object that is gone
although Storage answers that it removed nothing of that name was removed by somebody else: it was missing already.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID

from storage_cleanup.cleanup.circuit_breaker import CircuitBreaker
from storage_cleanup.cleanup.concurrency import Pace
from storage_cleanup.cleanup.deadline import clock
from storage_cleanup.cleanup.log import PhaseLog
from storage_cleanup.cleanup.phases.claims import Claims, Page, one_an_object
from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.errors import BreakerOpenError, ObjectStoreError, StorageCleanupError
from storage_cleanup.limits import PAGES_AHEAD, SWITCH_SECONDS
from storage_cleanup.model.account import PhaseResult
from storage_cleanup.model.reasons import STORAGE_FAMILY, Reason
from storage_cleanup.model.vocabulary import Phase
from storage_cleanup.postgres.ledger import Database
from storage_cleanup.storage.object_store import ObjectStore, Removal
from storage_cleanup.storage.paths import Refusal, StorageObject

_log = PhaseLog(__name__, Phase.STORAGE_FILES)


def clean_storage_files(
    order: Order,
    *,
    database: Database,
    store: ObjectStore,
    parse: Callable[[str | None], StorageObject | Refusal],
    assert_may_delete: Callable[[], None],
    breaker: CircuitBreaker,
    pace: Pace,
    on_gone: Callable[[Sequence[UUID]], None],
) -> PhaseResult:
    """Remove the files of orphans, and account for every candidate that was looked at.

    Parameters
    ----------
    parse
        Tells which object an ``output_url`` means, or why it is left alone.
    assert_may_delete
        Raises unless key, project and the set of saved assets can be trusted; called only when there is work.
    breaker
        Opened when too much fails; an open one ends the phase, and is its error.
    on_gone
        Called with jobs whose file is known to be gone (in a dry run: would be), so that their rows may follow.
    """
    started = time.monotonic()
    claims = Claims(order, database, parse, assert_may_delete, breaker)
    removals = _Removals(order, database, store, breaker, pace, on_gone)
    removals.carry_out(claims)
    result = claims.result + removals.result
    result.seconds = time.monotonic() - started
    return result


@dataclass
class _Removals:
    """The second and the third stage: has files removed, and confirms that they are gone."""

    order: Order
    database: Database
    store: ObjectStore
    breaker: CircuitBreaker
    pace: Pace
    on_gone: Callable[[Sequence[UUID]], None]
    result: PhaseResult = field(default_factory=PhaseResult)
    _ahead: deque[Future[Page | None]] = field(default_factory=deque)
    _in_flight: dict[Future[Removal], Page] = field(default_factory=dict)

    def carry_out(self, claims: Claims) -> None:
        """Remove everything that is claimed; what a stop or an error leaves unsent is given back."""
        pages = claims.pages()
        try:
            first = next(pages, None)  # an idle run needs no threads, and no second connection
        except StorageCleanupError as error:
            self._give_up(error)
            return
        if first is None:
            return
        with ThreadPoolExecutor(1, "claim") as claiming, ThreadPoolExecutor(self.pace.most, "remove") as removing:
            self._ahead.extend(claiming.submit(next, pages, None) for _ in range(PAGES_AHEAD))
            try:
                self._remove(removing, first)
                while (page := self._next_page()) is not None:
                    self._ahead.append(claiming.submit(next, pages, None))
                    self._remove(removing, page)
            except StorageCleanupError as error:
                self._give_up(error)
            finally:
                self._give_back_what_is_ahead()
                self._drain()
        if self.breaker.reason and not self.result.error:
            self._give_up(BreakerOpenError(self.breaker.reason))

    def _next_page(self) -> Page | None:
        """Return the next page of claims, or None to stop; what ends meanwhile is confirmed meanwhile."""
        while not self._ahead[0].done():
            self._confirm_what_has_ended({self._ahead[0], *self._in_flight})
            if reason := self.order.stop():
                self.result.stopped = reason
                return None
        return self._ahead.popleft().result()

    # -- removing --------------------------------------------------------------------------------------------------

    def _remove(self, threads: ThreadPoolExecutor, page: Page) -> None:
        if page.gone:
            self.on_gone(page.gone)
        unsent = list(page.claims)
        try:
            for bucket, claims in groupby(sorted(page.claims, key=attrgetter("bucket_id")), attrgetter("bucket_id")):
                while len(self._in_flight) >= self.pace.limit and not self.order.stop():
                    self._confirm_what_has_ended(self._in_flight)
                self.result.stopped = self.order.stop()
                if self.breaker.reason or self.result.stopped or clock() > page.until:
                    break
                self._send(threads, bucket, replace(page, claims=list(claims)))
                unsent = [claim for claim in unsent if claim.bucket_id != bucket]
        finally:
            self._give_back(replace(page, claims=unsent))

    def _send(self, threads: ThreadPoolExecutor, bucket: str, page: Page) -> None:
        names = [str(claim.object_name) for claim in one_an_object(page.claims)]
        for start in range(0, len(names), self.order.page_size):
            batch = set(names[start : start + self.order.page_size])
            request = threads.submit(self.store.remove, bucket, sorted(batch), is_over=lambda: clock() > page.until)
            claims = [claim for claim in page.claims if claim.object_name in batch]
            self._in_flight[request] = replace(page, claims=claims)

    def _give_back_what_is_ahead(self) -> None:
        for future in self._ahead:
            if future.cancel():
                continue
            with suppress(StorageCleanupError):
                if page := future.result():
                    self._give_back(page)

    def _give_back(self, page: Page) -> None:
        """Release claims that Storage was never asked for; the next run adopts what can't be released."""
        if not page.claims:
            return
        files = len(one_an_object(page.claims))
        if page.is_adopted:
            self.result.skipped[Reason.NOT_ASKED] += files
            return
        try:
            released = self.database.give_back(self.order.run, [claim.job_id for claim in page.claims])
        except StorageCleanupError:
            self.result.skipped[Reason.NOT_ASKED] += files
            return
        given_back = len(one_an_object([claim for claim in page.claims if claim.job_id in released]))
        self.result.skipped += Counter({Reason.GIVEN_BACK: given_back, Reason.TAKEN_OVER: files - given_back})

    # -- confirming ------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        while self._in_flight:
            try:
                self._confirm_what_has_ended(self._in_flight)
            except StorageCleanupError as error:
                self._give_up(error)

    def _confirm_what_has_ended(self, awaited: Collection[Future[Any]]) -> None:
        """Wait a moment for one of these, and look which objects of the requests among them are gone."""
        done, _ = wait(awaited, timeout=SWITCH_SECONDS, return_when=FIRST_COMPLETED)
        for request in done & self._in_flight.keys():
            page = self._in_flight.pop(request)
            try:
                removal, refusal = request.result(), None
            except ObjectStoreError as error:  # the key was refused: nothing of this batch was removed
                removal, refusal = Removal(failed={str(claim.object_name): error for claim in page.claims}), error
            self._confirm(page, removal)
            if refusal:
                raise refusal

    def _confirm(self, page: Page, removal: Removal) -> None:
        if not removal.failed:
            self.pace.speed_up()
        cause = next(iter(removal.failed.values()), None)
        try:
            settled = self.database.settle(
                self.order.run,
                [claim.job_id for claim in page.claims],
                str(cause) if cause else None,
                is_open=removal.is_open,
            )
        except StorageCleanupError:
            self.result.failed[Reason.UNCONFIRMED] += len(one_an_object(page.claims))  # the next run finds out
            raise
        gone = {row.job_id: row.gone for row in settled}
        replaced = {row.job_id for row in settled if row.is_replaced}
        is_perhaps_ours = page.is_adopted or removal.unanswered
        files = {claim.object_name: claim for claim in page.claims if claim.job_id in gone}
        self.result.skipped += Counter({Reason.TAKEN_OVER: len(one_an_object(page.claims)) - len(files)})
        failures = 0
        for name, claim in files.items():
            if claim.job_id in replaced:
                self.result.skipped[Reason.RENDERED_AGAIN] += 1
            elif not gone[claim.job_id]:
                failures += 1
                self.result.failed[_why(removal.failed.get(str(name)))] += 1
            elif name in removal.removed or is_perhaps_ours:
                self.result.deleted += 1
                self.result.bytes += claim.bytes
            else:
                self.result.already_missing += 1
        if failures:
            _log.warning("%d files could not be removed", failures, extra={"error": str(cause), "files": failures})
        self.breaker.failures.record(attempted=len(one_an_object(page.claims)), failed=failures)
        if rows := [job for job, is_gone in gone.items() if is_gone]:
            self.on_gone(rows)

    def _give_up(self, error: StorageCleanupError) -> None:
        self.result.error = self.result.error or str(error)
        _log.error("Phase storage_files failed: %s", error, extra={"error": str(error)})


def _why(error: ObjectStoreError | None) -> str:
    """Name a failure in the words of the account."""
    if error is None:
        return Reason.STILL_THERE
    return f"{STORAGE_FAMILY}{error.code or error.status or 'error'}"
