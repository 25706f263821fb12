"""The first stage of phase 2: finds candidates, has the database decide, and says what is kept and why."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from storage_cleanup.cleanup.circuit_breaker import CircuitBreaker
from storage_cleanup.cleanup.deadline import clock
from storage_cleanup.cleanup.log import PhaseLog
from storage_cleanup.cleanup.phases.order import Order
from storage_cleanup.model.account import PhaseResult
from storage_cleanup.model.reasons import Reason
from storage_cleanup.model.vocabulary import Outcome, Phase
from storage_cleanup.postgres.ledger import FIRST_PAGE, Candidate, Database, Position, Verdict
from storage_cleanup.storage.paths import Refusal, StorageObject

_log = PhaseLog(__name__, Phase.STORAGE_FILES)
_STAYING = frozenset({Reason.LOCKED, Reason.JOB_CHANGED})
"""Kept, and not parked: the candidate is still due."""


@dataclass(frozen=True)
class Page:
    """What one look at the database has brought.

    Attributes
    ----------
    claims
        Files to remove.
    gone
        Jobs that have been claimed and whose file is gone already.
    is_adopted
        An earlier run made the claims; nobody knows what it has asked Storage for.
    until
        When the claims' lease is over, by ``deadline.clock``.
    """

    claims: Sequence[Verdict] = ()
    gone: Sequence[UUID] = ()
    is_adopted: bool = False
    until: float = math.inf


@dataclass
class Claims:
    """The first stage: finds candidates, has the database decide, and says what is kept and why."""

    order: Order
    database: Database
    parse: Callable[[str | None], StorageObject | Refusal]
    assert_may_delete: Callable[[], None]
    breaker: CircuitBreaker
    result: PhaseResult = field(default_factory=PhaseResult)
    _foreign_urls: list[str] = field(default_factory=list)
    _after: Position = FIRST_PAGE
    _own_share: bool = True
    _taken: int = 0
    _counted: set[UUID] = field(default_factory=set)
    _looked_at: set[UUID] = field(default_factory=set)

    def pages(self) -> Iterator[Page]:
        """Yield claims to carry out, first those that an earlier run left behind; with a plan, its jobs only.

        While several runs are at work, each looks through its own share first, and then for what others have left.
        """
        if not self.order.dry_run and self.order.plan is None:
            while not self._check_stop() and (page := self._adopt()):
                self.assert_may_delete()
                yield page
        for self._own_share in (True, False):
            self._after = FIRST_PAGE
            while not self._check_stop() and (due := self._due(self._page_size())):
                self.assert_may_delete()
                self._after = (due[-1].since, due[-1].job_id)
                until = clock() + self.order.lease_seconds
                claimed = self._claim([candidate for candidate in due if candidate.job_id not in self._looked_at])
                yield replace(claimed, until=until)
            if self.order.dry_run or self.order.plan:  # they see all at once
                return

    def _adopt(self) -> Page | None:
        until = clock() + self.order.lease_seconds
        adopted = self.database.adopt(self.order.run, self._page_size())
        return replace(self._take(adopted, is_adopted=True), until=until) if adopted else None

    def _due(self, size: int) -> list[Candidate]:
        return self.database.due(
            self.order.run,
            with_file=True,
            max_age=self.order.max_age,
            grace=self.order.grace,
            after=self._after,
            size=size,
            own_share=self._own_share and not self.order.dry_run,
            plan=self.order.plan,
        )

    def _page_size(self) -> int:
        return min(self.order.page_size, self.order.budget - self._taken)

    def _check_stop(self) -> bool:
        """Note a reason to stop, where there is one, and return whether no more pages are to be looked at."""
        self.breaker.assert_closed()
        self.result.stopped = self.order.stop()
        is_spent = self._taken >= self.order.budget
        if is_spent and self.result.stopped is None and self._due(1):
            self.result.stopped = Reason.LIMIT_REACHED
        return is_spent or self.result.stopped is not None

    def _claim(self, page: Sequence[Candidate]) -> Page:
        keys: dict[UUID, str] = {}
        gone: dict[UUID, str] = {}
        refused: dict[UUID, str] = {}
        self._foreign_urls = []
        for candidate in page:
            if candidate.gone:
                gone[candidate.job_id] = Reason.JOB_GONE
                continue
            if candidate.too_long:
                refused[candidate.job_id] = Reason.TOO_LONG
                continue
            target = self.parse(candidate.output_url)
            if isinstance(target, Refusal):
                refused[candidate.job_id] = target.reason
                self._note_if_foreign(candidate.output_url, target)
            else:
                keys[candidate.job_id] = target.key
        self._keep(gone, refused)
        if not keys:
            return Page()
        verdicts = {verdict.job_id: verdict for verdict in self._ask_for(keys)}
        if unasked := [verdict for verdict in verdicts.values() if verdict.outcome == Outcome.UNASKED]:
            if more := self._with_those_that_share(keys, unasked):
                self._looked_at.update(more.keys() - keys.keys())
                verdicts.update({verdict.job_id: verdict for verdict in self._ask_for(more)})
            verdicts = {job: verdict for job, verdict in verdicts.items() if verdict.outcome != Outcome.UNASKED}
        return self._take(list(verdicts.values()))

    def _ask_for(self, keys: dict[UUID, str]) -> list[Verdict]:
        return self.database.claim(
            self.order.run,
            keys,
            foreign_urls=self._foreign_urls,
            max_age=self.order.max_age,
            grace=self.order.grace,
            owners_only=self.order.owners_only,
            keep_dependents=self.order.keep_dependents,
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

    def _keep(self, gone: dict[UUID, str], refused: dict[UUID, str]) -> None:
        for job, reason in (gone | refused).items():
            _log.debug("Kept", extra={"job_id": str(job), "reason": reason})
            self.result.kept[reason] += 1
        if gone and not self.order.dry_run:
            self.database.park(gone, self.order.max_age)
        if refused and not self.order.dry_run:
            self.database.set_aside(self.order.run, refused)

    def _take(self, verdicts: Sequence[Verdict], *, is_adopted: bool = False) -> Page:
        """Account for what is kept or gone already, and hand on what is to be done."""
        claimed, gone, stuck = [], [], []
        for verdict in verdicts:
            if verdict.job_id in self._counted:
                continue
            if verdict.outcome == Outcome.CLAIMED:
                claimed.append(verdict)
            elif verdict.outcome == Outcome.ALREADY_MISSING:
                gone.append(verdict)
            elif verdict.outcome == "stuck":
                stuck.append(verdict)
            else:
                self.result.kept[verdict.outcome] += 1
                if verdict.outcome in _STAYING:
                    self._looked_at.add(verdict.job_id)
        files = len(one_an_object(claimed))
        self._taken += files
        self.result.already_missing += len(one_an_object(gone))
        self.result.failed += Counter({Reason.STUCK: len(one_an_object(stuck))})
        rows = [verdict.job_id for verdict in gone]
        if self.order.dry_run:
            return self._plan(claimed, rows)
        if claimed:
            _log.info("Cleaning up %d orphaned Supabase files", files, extra={"files": files})
        return Page(claimed, rows, is_adopted)

    def _plan(self, claimed: Sequence[Verdict], gone: Sequence[UUID]) -> Page:
        """Count what a real run would ask for; the rows of all these jobs would follow.

        Nothing is claimed, so a job that shares its file can turn up on a later page again.
        """
        rows = [claim.job_id for claim in claimed] + list(gone)
        self._counted.update(rows)
        for claim in one_an_object(claimed):
            self.result.skipped[Reason.DRY_RUN] += 1
            self.result.bytes += claim.bytes
        return Page(gone=rows)


def one_an_object(claims: Sequence[Verdict]) -> list[Verdict]:
    """Return one claim for each object: jobs that share a file don't make two files of it."""
    return list({(claim.bucket_id, claim.object_name): claim for claim in reversed(claims)}.values())[::-1]
