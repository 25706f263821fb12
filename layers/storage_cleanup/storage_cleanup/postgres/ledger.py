"""The adapter to PostgreSQL for cycles: what a run asks, each call a short transaction."""

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from storage_cleanup.errors import UnsafeError
from storage_cleanup.limits import LOCK_TIMEOUT, LONGEST_COMPARISON, STATEMENT_TIMEOUT
from storage_cleanup.postgres.adapter import Adapter, Value
from storage_cleanup.postgres.connection import Transactions

CHANGED = "changed"
"""The code of a distrust that a comparison of everything settles."""

Position = tuple[datetime, UUID]
"""Where a page of candidates ended: its last age and job."""

FIRST_PAGE: Position = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
"""A position before every candidate."""

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Candidate:
    """A completed job past its age: worth a look.

    ``gone`` means that the job's row no longer exists, ``too_long`` that its URL is longer than any object's: then
    ``output_url`` is None.
    """

    job_id: UUID
    since: datetime
    output_url: str | None
    too_long: bool
    gone: bool


@dataclass(frozen=True)
class Verdict:
    """What the database decided about one job; ``outcome`` is ``claimed``, ``already_missing`` or why it is kept.

    ``output_url`` is for the outcome ``unasked`` only: a job that nobody has asked for, which may mean the same object.
    """

    job_id: UUID
    outcome: str
    bucket_id: str | None
    object_name: str | None
    bytes: int
    output_url: str | None = None


@dataclass(frozen=True)
class Settled:
    """Whether ``storage.objects`` still has the object of a claim, or another one under its name."""

    job_id: UUID
    gone: bool
    is_replaced: bool


@dataclass(frozen=True)
class RowOutcome:
    """What became of one row of ``render_jobs``."""

    job_id: UUID
    outcome: str
    detail: str | None


@dataclass(frozen=True)
class Comparison:
    """How far the comparison of what is noted with everything has come; ``jobs`` are those that it has found."""

    is_done: bool
    jobs: int
    is_held_up: bool


@dataclass(frozen=True)
class ReferenceSet:
    """How many assets name a job now, and how many it is judged by; None if none were ever counted."""

    saved: int
    before: int | None


@dataclass(frozen=True)
class FirstRunFacts:
    """What a first run that sees no reference goes by; ``keys`` are the usual ones of the assets' metadata."""

    has_assets: bool
    has_jobs: bool
    keys: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """A dry run that an override refers to."""

    options: dict[str, Any]
    scope: dict[str, Any]
    finished: bool
    fresh: bool
    used: bool


@dataclass(frozen=True)
class Backlog:
    """What a run leaves: candidates past their age and unfinished claims, and how many claims keep failing.

    ``left_alone`` has what is unfinished and wasn't this run's to finish: phase, reason, how many.
    """

    remaining: int
    stuck: int
    left_alone: Sequence[tuple[str, str, int]]


class Database(Adapter):
    """What a run asks of PostgreSQL. Safe to use from several threads at once.

    Whatever a call leaves that got lost is picked up by the next run.

    Parameters
    ----------
    url
        ``postgresql://…`` of a role that may call the functions of schema ``storage_cleanup``.
    seconds_for
        Returns how long a call may take that would be allowed so many seconds; `Watch.seconds_for`.
    statement_timeout, lock_timeout
        How long a statement may take, and wait for a lock.

    Attributes
    ----------
    slowest_seconds
        Duration of the slowest call so far.

    Raises
    ------
    DatabaseError
        From every method: no connection, a timeout, a failed statement.
    UnsafeError
        From every method: the schema is missing or another version, or the database says why nothing may be deleted.
    """

    def __init__(
        self,
        url: str,
        seconds_for: Callable[[float], float] = lambda most: most,
        *,
        statement_timeout: timedelta = STATEMENT_TIMEOUT,
        lock_timeout: timedelta = LOCK_TIMEOUT,
    ) -> None:
        super().__init__(Transactions(url, seconds_for=seconds_for), lock_timeout=lock_timeout)
        self._seconds_for = seconds_for
        self._statement_timeout = statement_timeout
        self.slowest_seconds = 0.0

    # -- may anything be deleted? ----------------------------------------------------------------------------------

    def assert_trust(self) -> None:
        """Raise ``UnsafeError`` unless schema, guard and visibility are as they must be before anything is deleted.

        Where the triggers or the tables have changed since everything was last compared, it is compared now.
        """
        self.assert_schema()
        reasons = self.distrust()
        if [reason.code for reason in reasons] == [CHANGED]:
            self.compare_if_due(timedelta(seconds=self._seconds_for(LONGEST_COMPARISON.total_seconds())))
            reasons = self.distrust()
        if reasons := [reason for reason in reasons if reason.code != CHANGED] or reasons:
            raise UnsafeError(
                "; ".join(reason.sentence for reason in reasons), code=",".join(reason.code for reason in reasons)
            )

    def canaries(self, run: UUID) -> set[str]:
        """Return the names of the canaries that the database sees: the run's own, and those that dead runs left."""
        return {row.value for row in self._rows(Value[str], "canaries", this_run=run)}

    def judge_saved(self, run: UUID) -> ReferenceSet:
        """Count the reference set now, and note it for the run. Costs a scan of ``user_assets``."""
        return self._rows(ReferenceSet, "judge_saved", this_run=run)[0]

    def first_run_facts(self) -> FirstRunFacts:
        """Return whether there is something that a project without any reference shouldn't have."""
        return self._rows(FirstRunFacts, "first_run_facts")[0]

    def unprotected_among(self, references: Collection[str]) -> list[str]:
        """Return which of these columns (``schema.table.column``) no trigger guards."""
        return [row.value for row in self._rows(Value[str], "unprotected_among", wanted=list(references))]

    def plan(self, plan: UUID) -> Plan | None:
        """Return the dry run of that id, or None."""
        return next(iter(self._rows(Plan, "plan", plan=plan)), None)

    # -- the run ---------------------------------------------------------------------------------------------------

    def open_run(
        self, run: UUID, *, trigger: str, dry_run: bool, options: dict[str, Any], scope: dict[str, Any]
    ) -> None:
        """Record that the run has started, and close those whose process died."""
        self._rows(
            Value[None],
            "open_run",
            this_run=run,
            trigger=trigger,
            dry_run=dry_run,
            options=json.dumps(options),
            scope=json.dumps(scope),
        )

    def start_run(
        self,
        run: UUID,
        *,
        trigger: str,
        dry_run: bool,
        options: dict[str, Any],
        scope: dict[str, Any],
        override_of: UUID | None,
    ) -> None:
        """Begin the run, which is opened already or now: from now on it may claim."""
        self._rows(
            Value[None],
            "start_run",
            this_run=run,
            trigger=trigger,
            dry_run=dry_run,
            options=json.dumps(options),
            scope=json.dumps(scope),
            override_of=override_of,
        )

    def finish_run(self, run: UUID, *, status: str, summary: dict[str, Any], found_good: bool) -> None:
        """Close the run with its answer. ``found_good``: what ``judge_saved`` counted is right."""
        self._rows(
            Value[None],
            "finish_run",
            this_run=run,
            status=status,
            summary=json.dumps(summary),
            found_good=found_good,
        )

    def backlog(self, run: UUID, max_age: timedelta, grace: timedelta) -> Backlog:
        """Count what is left for the next run."""
        return self._rows(Backlog, "backlog", this_run=run, max_age=max_age, grace=grace)[0]

    def compare_if_due(self, most: timedelta) -> int | None:
        """Compare what is noted with everything, once a day and whenever the triggers or the tables have changed.

        It goes in slices, for so long at ``most``; what is left then is for the next run. Returns how many jobs the
        triggers had missed, or None when it isn't time or isn't through.
        """
        until = time.monotonic() + most.total_seconds()
        while slices := self._rows(Comparison, "compare_if_due"):
            if slices[0].is_done:
                return slices[0].jobs
            if time.monotonic() > until:
                break
        return None

    def prune(self, keep: timedelta) -> None:
        """Forget finished ledger rows and runs that are older than ``keep``."""
        self._rows(Value[None], "prune", keep=keep)

    # -- candidates and claims -------------------------------------------------------------------------------------

    def due(
        self,
        run: UUID,
        *,
        with_file: bool,
        max_age: timedelta,
        grace: timedelta,
        after: Position,
        size: int,
        own_share: bool,
        plan: UUID | None,
    ) -> list[Candidate]:
        """Return the next ``size`` candidates after a position, oldest first; with a plan, its jobs.

        ``own_share`` leaves those out that fall to other runs at work.
        """
        return self._rows(
            Candidate,
            "due",
            this_run=run,
            with_file=with_file,
            max_age=max_age,
            grace=grace,
            after_since=after[0],
            after_job=after[1],
            page_size=size,
            own_share=own_share,
            plan=plan,
        )

    def park(self, kept: dict[UUID, str], max_age: timedelta) -> None:
        """Remember why candidates were kept, so that the next run need not look at them again at once."""
        self._rows(
            Value[None], "park", jobs=list(kept), reasons=[str(reason) for reason in kept.values()], max_age=max_age
        )

    def set_aside(self, run: UUID, refused: dict[UUID, str]) -> None:
        """Remember that the URLs of candidates mean no object: no run of this run's scope looks at them again."""
        self._rows(
            Value[None],
            "set_aside",
            this_run=run,
            jobs=list(refused),
            reasons=[str(reason) for reason in refused.values()],
        )

    def claim(
        self,
        run: UUID,
        keys: dict[UUID, str],
        *,
        foreign_urls: Collection[str] = (),
        max_age: timedelta,
        grace: timedelta,
        owners_only: bool,
        keep_dependents: bool,
        dry_run: bool,
        plan: UUID | None,
    ) -> list[Verdict]:
        """Claim what may go of these jobs (id → ``bucket/name``).

        Another job that may mean one of the objects keeps it, unless its URL is one of ``foreign_urls`` and nobody
        saved it. One that could go as well comes with the outcome ``unasked``, so that it may be asked for, too. A dry
        run decides in the same way, and writes only its plan.
        """
        return self._rows(
            Verdict,
            "claim",
            this_run=run,
            jobs=list(keys),
            keys=list(keys.values()),
            foreign_urls=list(foreign_urls),
            max_age=max_age,
            grace=grace,
            owners_only=owners_only,
            keep_dependents=keep_dependents,
            dry_run=dry_run,
            plan=plan,
        )

    def adopt(self, run: UUID, size: int) -> list[Verdict]:
        """Take over up to ``size`` claims of runs that have ended or died."""
        return self._rows(Verdict, "adopt", this_run=run, batch_size=size)

    def settle(self, run: UUID, jobs: Sequence[UUID], error: str | None, *, is_open: bool) -> list[Settled]:
        """Look which objects are gone and mark their claims; count an attempt, with its error, for the others.

        While a request ``is_open`` (nobody has seen its end), no claim is closed or released until Storage can't be
        at work on it any more.
        """
        return self._rows(Settled, "settle", this_run=run, jobs=list(jobs), error=error, is_open=is_open)

    def give_back(self, run: UUID, jobs: Sequence[UUID]) -> set[UUID]:
        """Release claims whose removal was never asked for; returns those that this run still had."""
        return {row.value for row in self._rows(Value[UUID], "give_back", this_run=run, jobs=list(jobs))}

    def give_back_abandoned(self) -> int:
        """Release claims of dead runs whose files are there, once no request can be under way; return how many."""
        return self._value(Value[int], "give_back_abandoned")

    def leftover_rows(self, run: UUID, *, size: int, after: UUID) -> list[UUID]:
        """Return the next jobs whose file is known to be gone, and whose row other runs have left."""
        rows = self._rows(Value[UUID], "leftover_rows", this_run=run, after_job=after, page_size=size)
        return [row.value for row in rows]

    def delete_rows(self, run: UUID, jobs: Sequence[UUID], *, keep_dependents: bool) -> list[RowOutcome]:
        """Delete the rows of those of these jobs whose file is known to be gone."""
        return self._rows(RowOutcome, "delete_rows", this_run=run, jobs=list(jobs), keep_dependents=keep_dependents)

    def claim_fileless(
        self,
        run: UUID,
        jobs: Sequence[UUID],
        *,
        max_age: timedelta,
        grace: timedelta,
        keep_dependents: bool,
        dry_run: bool,
        plan: UUID | None,
    ) -> list[RowOutcome]:
        """Claim those of these jobs that are orphans without a file; ``delete_rows`` takes them next."""
        return self._rows(
            RowOutcome,
            "claim_fileless",
            this_run=run,
            jobs=list(jobs),
            max_age=max_age,
            grace=grace,
            keep_dependents=keep_dependents,
            dry_run=dry_run,
            plan=plan,
        )

    # -- the wire --------------------------------------------------------------------------------------------------

    def _time_for(self, name: str) -> timedelta:  # noqa: ARG002  (all the same)
        return self._statement_timeout

    def _run(self, row: type[_Row], name: str, statement: str, **parameters: Any) -> list[_Row]:
        started = time.monotonic()
        try:
            return super()._run(row, name, statement, **parameters)
        finally:
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
