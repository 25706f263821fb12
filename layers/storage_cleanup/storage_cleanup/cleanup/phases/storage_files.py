"""Phase 2: files of completed jobs that are old enough and that nobody saved.

Three stages overlap, each in threads of its own: pages are claimed ahead, requests are under way, and those that have
ended are confirmed. A file is only ever asked for after its claim has been committed, and counts as gone only when
``storage.objects`` says so.

The account counts the objects that are to go, however many jobs share one; what is kept, it counts by job. An object
was deleted by this system when Storage says so, or when it is gone after a request that got no answer: this run's, or
one that a dead run may have made for a claim that this run adopted (the claim saw the object). An object that is gone
although Storage answers that it removed nothing of that name was removed by somebody else: it was missing already.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import UUID

from storage_cleanup.cleanup.circuit_breaker import FailureBreaker
from storage_cleanup.cleanup.concurrency import Pace
from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.errors import BreakerOpenError, ObjectStoreError, StorageCleanupError
from storage_cleanup.model.account import PhaseResult
from storage_cleanup.model.reasons import Reason
from storage_cleanup.postgres.ledger import FIRST_PAGE, Candidate, Database, Position, Verdict
from storage_cleanup.storage.object_store import BATCH_SIZE, ObjectStore, Removal
from storage_cleanup.storage.paths import Refusal, StorageObject

_log = logging.getLogger(__name__)
_PAGES_AHEAD = 2
"""Pages that are claimed while others are removed: enough for requests that end together."""

_MOMENT_SECONDS = 1.0
"""How long a wait may take before the kill switch is looked at: till then, saves of what is unsent are refused."""

_STAYING = frozenset({"locked", "job_changed"})
"""Kept, and not parked: the candidate is still due."""


def clean_storage_files(
    order: Order,
    *,
    database: Database,
    store: ObjectStore,
    parse: Callable[[str | None], StorageObject | Refusal],
    assert_may_delete: Callable[[], None],
    breaker: FailureBreaker,
    pace: Pace,
    stop: Callable[[], str | None],
    on_gone: Callable[[Sequence[UUID]], None],
) -> PhaseResult:
    """Remove the files of orphans, and account for every candidate that was looked at.

    Parameters
    ----------
    parse
        Tells which object an ``output_url`` means, or why it is left alone.
    assert_may_delete
        Raises unless key, project and the set of saved assets can be trusted; called only when there is work.
    stop
        Returns a reason to take no more work, or None.
    on_gone
        Called with jobs whose file is known to be gone (in a dry run: would be), so that their rows may follow.
    """
    started = time.monotonic()
    claims = _Claims(order, database, parse, assert_may_delete, breaker, stop)
    removals = _Removals(order, database, store, breaker, pace, stop, on_gone)
    removals.carry_out(claims)
    result = claims.result + removals.result
    result.seconds = time.monotonic() - started
    return result


@dataclass(frozen=True)
class _Page:
    """What one look at the database has brought.

    Attributes
    ----------
    claims
        Files to remove.
    gone
        Jobs that have been claimed and whose file is gone already.
    is_adopted
        An earlier run made the claims; nobody knows what it has asked Storage for.
    """

    claims: Sequence[Verdict] = ()
    gone: Sequence[UUID] = ()
    is_adopted: bool = False


@dataclass
class _Claims:
    """The first stage: finds candidates, has the database decide, and says what is kept and why."""

    order: Order
    database: Database
    parse: Callable[[str | None], StorageObject | Refusal]
    assert_may_delete: Callable[[], None]
    breaker: FailureBreaker
    stop: Callable[[], str | None]
    result: PhaseResult = field(default_factory=PhaseResult)
    _foreign_urls: list[str] = field(default_factory=list)
    _after: Position = FIRST_PAGE
    _own_share: bool = True
    _taken: int = 0
    _counted: set[UUID] = field(default_factory=set)
    _looked_at: set[UUID] = field(default_factory=set)

    def pages(self) -> Iterator[_Page]:
        """Yield claims to carry out, first those that an earlier run left behind; with a plan, its jobs only.

        While several runs are at work, each looks through its own share first, and then for what others have left.
        """
        if not self.order.dry_run and self.order.plan is None:
            while not self._must_stop() and (adopted := self.database.adopt(self.order.run, self._page_size())):
                self.assert_may_delete()
                yield self._take(adopted, is_adopted=True)
        for self._own_share in (True, False):
            self._after = FIRST_PAGE
            while not self._must_stop() and (page := self._due(self._page_size())):
                self.assert_may_delete()
                self._after = (page[-1].since, page[-1].job_id)
                yield self._claim([candidate for candidate in page if candidate.job_id not in self._looked_at])
            if self.order.dry_run or self.order.plan:  # they see all at once
                return

    def _due(self, size: int) -> list[Candidate]:
        return self.database.due(
            self.order.run,
            with_file=True,
            max_age=self.order.max_age,
            after=self._after,
            size=size,
            own_share=self._own_share and not self.order.dry_run,
            plan=self.order.plan,
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

    def _claim(self, page: Sequence[Candidate]) -> _Page:
        keys: dict[UUID, str] = {}
        kept: dict[UUID, str] = {}
        self._foreign_urls = []
        for candidate in page:
            if candidate.gone:
                kept[candidate.job_id] = "job_gone"
                continue
            if candidate.too_long:
                kept[candidate.job_id] = Reason.TOO_LONG.value
                continue
            target = self.parse(candidate.output_url)
            if isinstance(target, Refusal):
                kept[candidate.job_id] = target.reason.value
                self._note_if_foreign(candidate.output_url, target)
            else:
                keys[candidate.job_id] = target.key
        self._keep(kept)
        if not keys:
            return _Page()
        verdicts = {verdict.job_id: verdict for verdict in self._ask_for(keys)}
        if unasked := [verdict for verdict in verdicts.values() if verdict.outcome == "unasked"]:
            if more := self._with_those_that_share(keys, unasked):
                self._looked_at.update(more.keys() - keys.keys())
                verdicts.update({verdict.job_id: verdict for verdict in self._ask_for(more)})
            verdicts = {job: verdict for job, verdict in verdicts.items() if verdict.outcome != "unasked"}
        return self._take(list(verdicts.values()))

    def _ask_for(self, keys: dict[UUID, str]) -> list[Verdict]:
        return self.database.claim(
            self.order.run,
            keys,
            foreign_urls=self._foreign_urls,
            max_age=self.order.max_age,
            dry_run=self.order.dry_run,
            plan=self.order.plan,
        )

    def _with_those_that_share(self, keys: dict[UUID, str], unasked: Sequence[Verdict]) -> dict[UUID, str]:
        """Return what to ask for again, together with jobs of other pages that share its objects.

        What a URL means is for the parser to say. Where it can't say that another job means the object, or doesn't, the
        object stays.
        """
        sharing: dict[UUID, str] = {}
        doubtful: set[str] = set()
        for verdict in unasked:
            key = f"{verdict.bucket_id}/{verdict.object_name}"
            target = self.parse(verdict.output_url)
            if isinstance(target, StorageObject) and target.key == key:
                sharing[verdict.job_id] = key
            elif not self._note_if_foreign(verdict.output_url, target):
                doubtful.add(key)
        again = {f"{verdict.bucket_id}/{verdict.object_name}" for verdict in unasked} - doubtful
        return {job: key for job, key in (keys | sharing).items() if key in again}

    def _note_if_foreign(self, url: str | None, target: StorageObject | Refusal) -> bool:
        is_foreign = isinstance(target, Refusal) and target.reason is Reason.FOREIGN_HOST
        if is_foreign and url:
            self._foreign_urls.append(url)
        return is_foreign

    def _keep(self, kept: dict[UUID, str]) -> None:
        for job, reason in kept.items():
            _log.debug("Kept", extra={"job_id": str(job), "reason": reason})
        self.result.kept.update(kept.values())
        if kept and not self.order.dry_run:
            self.database.park(kept, self.order.max_age)

    def _take(self, verdicts: Sequence[Verdict], *, is_adopted: bool = False) -> _Page:
        """Account for what is kept or gone already, and hand on what is to be done."""
        claimed, gone, stuck = [], [], []
        for verdict in verdicts:
            if verdict.job_id in self._counted:
                continue
            if verdict.outcome == "claimed":
                claimed.append(verdict)
            elif verdict.outcome == "already_missing":
                gone.append(verdict)
            elif verdict.outcome == "stuck":
                stuck.append(verdict)
            else:
                self.result.kept[verdict.outcome] += 1
                if verdict.outcome in _STAYING:
                    self._looked_at.add(verdict.job_id)
        files = len(_one_an_object(claimed))
        self._taken += files
        self.result.already_missing += len(_one_an_object(gone))
        self.result.failed += Counter(stuck=len(_one_an_object(stuck)))
        rows = [verdict.job_id for verdict in gone]
        if self.order.dry_run:
            return self._plan(claimed, rows)
        if claimed:
            _log.info("Cleaning up %d orphaned Supabase files", files, extra={"files": files})
        return _Page(claimed, rows, is_adopted)

    def _plan(self, claimed: Sequence[Verdict], gone: Sequence[UUID]) -> _Page:
        """Count what a real run would ask for; the rows of all these jobs would follow.

        Nothing is claimed, so a job that shares its file can turn up on a later page again.
        """
        rows = [claim.job_id for claim in claimed] + list(gone)
        self._counted.update(rows)
        for claim in _one_an_object(claimed):
            self.result.skipped["dry_run"] += 1
            self.result.bytes += claim.bytes
        return _Page(gone=rows)


@dataclass
class _Removals:
    """The second and the third stage: has files removed, and confirms that they are gone."""

    order: Order
    database: Database
    store: ObjectStore
    breaker: FailureBreaker
    pace: Pace
    stop: Callable[[], str | None]
    on_gone: Callable[[Sequence[UUID]], None]
    result: PhaseResult = field(default_factory=PhaseResult)
    _ahead: deque[Future[_Page | None]] = field(default_factory=deque)
    _in_flight: dict[Future[Removal], _Page] = field(default_factory=dict)

    def carry_out(self, claims: _Claims) -> None:
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
            self._ahead.extend(claiming.submit(next, pages, None) for _ in range(_PAGES_AHEAD))
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

    def _next_page(self) -> _Page | None:
        """Return the next page of claims, or None to stop; what ends meanwhile is confirmed meanwhile."""
        while not self._ahead[0].done():
            self._confirm_what_has_ended({self._ahead[0], *self._in_flight})
            if reason := self.stop():
                self.result.stopped = reason
                return None
        return self._ahead.popleft().result()

    # -- removing --------------------------------------------------------------------------------------------------

    def _remove(self, threads: ThreadPoolExecutor, page: _Page) -> None:
        if page.gone:
            self.on_gone(page.gone)
        unsent = list(page.claims)
        try:
            for bucket, claims in groupby(sorted(page.claims, key=attrgetter("bucket_id")), attrgetter("bucket_id")):
                while len(self._in_flight) >= self.pace.limit and not self.stop():
                    self._confirm_what_has_ended(self._in_flight)
                self.result.stopped = self.stop()
                if self.breaker.reason or self.result.stopped:
                    break
                self._send(threads, bucket, _Page(list(claims), is_adopted=page.is_adopted))
                unsent = [claim for claim in unsent if claim.bucket_id != bucket]
        finally:
            self._give_back(_Page(unsent, is_adopted=page.is_adopted))

    def _send(self, threads: ThreadPoolExecutor, bucket: str, page: _Page) -> None:
        names = [str(claim.object_name) for claim in _one_an_object(page.claims)]
        for start in range(0, len(names), BATCH_SIZE):
            batch = set(names[start : start + BATCH_SIZE])
            request = threads.submit(self.store.remove, bucket, sorted(batch))
            claims = [claim for claim in page.claims if claim.object_name in batch]
            self._in_flight[request] = _Page(claims, is_adopted=page.is_adopted)

    def _give_back_what_is_ahead(self) -> None:
        for future in self._ahead:
            if future.cancel():
                continue
            with suppress(StorageCleanupError):
                if page := future.result():
                    self._give_back(page)

    def _give_back(self, page: _Page) -> None:
        """Release claims that Storage was never asked for; the next run adopts what can't be released."""
        if not page.claims:
            return
        files = len(_one_an_object(page.claims))
        if page.is_adopted:
            self.result.skipped["not_asked"] += files
            return
        try:
            released = self.database.give_back(self.order.run, [claim.job_id for claim in page.claims])
        except StorageCleanupError:
            self.result.skipped["not_asked"] += files
            return
        given_back = len(_one_an_object([claim for claim in page.claims if claim.job_id in released]))
        self.result.skipped += Counter(given_back=given_back, taken_over=files - given_back)

    # -- confirming ------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        while self._in_flight:
            try:
                self._confirm_what_has_ended(self._in_flight)
            except StorageCleanupError as error:
                self._give_up(error)

    def _confirm_what_has_ended(self, awaited: Collection[Future[Any]]) -> None:
        """Wait a moment for one of these, and look which objects of the requests among them are gone."""
        done, _ = wait(awaited, timeout=_MOMENT_SECONDS, return_when=FIRST_COMPLETED)
        for request in done & self._in_flight.keys():
            page = self._in_flight.pop(request)
            try:
                removal, refusal = request.result(), None
            except ObjectStoreError as error:  # the key was refused: nothing of this batch was removed
                removal, refusal = Removal(failed={str(claim.object_name): error for claim in page.claims}), error
            self._confirm(page, removal)
            if refusal:
                raise refusal

    def _confirm(self, page: _Page, removal: Removal) -> None:
        if not removal.failed:
            self.pace.speed_up()
        cause = next(iter(removal.failed.values()), None)
        try:
            settled = self.database.settle(
                self.order.run, [claim.job_id for claim in page.claims], str(cause) if cause else None
            )
        except StorageCleanupError:
            self.result.failed["unconfirmed"] += len(_one_an_object(page.claims))  # the next run finds out
            raise
        gone = {row.job_id: row.gone for row in settled}
        is_perhaps_ours = page.is_adopted or removal.unanswered
        files = {claim.object_name: claim for claim in page.claims if claim.job_id in gone}
        self.result.skipped += Counter(taken_over=len(_one_an_object(page.claims)) - len(files))
        failures = 0
        for name, claim in files.items():
            if not gone[claim.job_id]:
                failures += 1
                self.result.failed[_why(removal.failed.get(str(name)))] += 1
            elif name in removal.removed or is_perhaps_ours:
                self.result.deleted += 1
                self.result.bytes += claim.bytes
            else:
                self.result.already_missing += 1
        if failures:
            _log.warning("%d files could not be removed", failures, extra={"error": str(cause), "files": failures})
        self.breaker.record(attempted=len(_one_an_object(page.claims)), failed=failures)
        if rows := [job for job, is_gone in gone.items() if is_gone]:
            self.on_gone(rows)

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
