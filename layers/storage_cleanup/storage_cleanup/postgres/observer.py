"""The adapter to PostgreSQL for whoever only looks: every transaction is read-only, and all share one time budget."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

from storage_cleanup.errors import DatabaseError
from storage_cleanup.limits import SHORTEST_QUESTION_SECONDS
from storage_cleanup.postgres import sql
from storage_cleanup.postgres.adapter import Adapter, Value
from storage_cleanup.postgres.connection import Transactions

_STATEMENTS = sql.load("health")
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Finding:
    """Things that integrity is broken by.

    Attributes
    ----------
    removed
        How many of them this system removed, or is about to, as far as its ledger reaches.
    examples
        Ids or names of up to three.
    """

    found: int = 0
    removed: int = 0
    bytes: int = 0
    examples: Sequence[str] = ()


@dataclass(frozen=True)
class LastCycle:
    """The last cycle."""

    minutes: float
    breaker_open: bool
    message: str | None


@dataclass(frozen=True)
class FailedCycles:
    """How many cycles failed since the last that didn't, and when that one started; None when there was none."""

    failed: int
    last_good: datetime | None


@dataclass(frozen=True)
class Orders:
    """What a run was told: what to do, and where it may."""

    options: dict[str, Any]
    scope: dict[str, Any]


@dataclass(frozen=True)
class CyclesOfDay:
    """How the cycles of one day (UTC) ended."""

    day: date
    succeeded: int
    partial: int
    failed: int


@dataclass(frozen=True)
class Slowest:
    """Seconds of the longest cycle and of the slowest statement; None where nothing was recorded."""

    cycle: float | None
    query: float | None


@dataclass(frozen=True)
class OrphansOfDay:
    """Orphans by the day of their render; None where their row is gone."""

    day: date | None
    orphans: int


@dataclass(frozen=True)
class OrphanBytes:
    """Bytes of orphans that were claimed this month and last."""

    this_month: int
    last_month: int


@dataclass(frozen=True)
class Completed:
    """Completed jobs."""

    saved: int
    not_saved: int


@dataclass(frozen=True)
class AssetsOfDay:
    """Assets of one type that were made on one day."""

    day: date
    asset_type: str
    assets: int
    bytes: int


@dataclass(frozen=True)
class Stored:
    """What lies in one bucket."""

    bucket_id: str
    objects: int
    bytes: int


@dataclass(frozen=True)
class UsageBefore:
    """What lay there about a day ago, and how long ago anybody looked; None where nobody did."""

    bytes: int | None
    hours: float | None
    newest_hours: float | None


@dataclass(frozen=True)
class Index:
    """An index that cycles need."""

    name: str
    is_valid: bool
    used: int


@dataclass(frozen=True)
class Role:
    """The role of ``database/url``, and how its rights differ from what is needed."""

    name: str
    missing: list[str]
    excessive: list[str]


@dataclass(frozen=True)
class Locks:
    """Sessions in trouble on the two tables."""

    waiting: int
    long_running: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """What cycles did in some time.

    Attributes
    ----------
    left_over
        What the last of them left for the next; None when none counted.
    """

    succeeded: int = 0
    partial: int = 0
    failed: int = 0
    files: int = 0
    bytes: int = 0
    rows: int = 0
    median_seconds: float | None = None
    longest_seconds: float | None = None
    all_seconds: float = 0.0
    left_over: int | None = None

    @property
    def cycles(self) -> int:
        """Number of cycles."""
        return self.succeeded + self.partial + self.failed

    @property
    def success_percent(self) -> float | None:
        """The part of the cycles that didn't fail; None when there were none."""
        return 100 * (self.cycles - self.failed) / self.cycles if self.cycles else None


@dataclass(frozen=True, kw_only=True)
class DayOfWork(Work):
    """What cycles did within 24 hours, counted back from the report's end: day 0 is the last."""

    days_ago: int


@dataclass(frozen=True)
class Trouble:
    """A cycle that failed, or couldn't do all of its work."""

    started_at: datetime
    status: str
    message: str | None


@dataclass(frozen=True)
class Usage:
    """What lay in one of the buckets on one day."""

    day: date
    bytes: int
    taken_at: datetime


@dataclass(frozen=True)
class _Failure:
    reason: str
    number: int


@dataclass(frozen=True, kw_only=True)
class _Named(Finding):
    name: str


class Observer(Adapter):
    """What health and reports ask of PostgreSQL.

    Parameters
    ----------
    url
        ``postgresql://…`` of a role that may call the functions of schema ``storage_cleanup``.
    seconds
        Time for all questions together; each may take what is left.

    Raises
    ------
    DatabaseError
        From every method: no connection, no time left, a failed statement.
    UnsafeError
        From every method: the schema is missing or another version, or the role lacks a right.
    """

    def __init__(self, url: str, *, seconds: float) -> None:
        super().__init__(Transactions(url, read_only=True))
        self._end = time.monotonic() + seconds

    # -- health ----------------------------------------------------------------------------------------------------

    def last_cycle(self) -> LastCycle | None:
        """Return the last cycle, or None."""
        return next(iter(self._ask(LastCycle, "last_cycle")), None)

    def has_worked(self) -> bool:
        """Return whether any run that was no dry one has ever cleaned Storage to its end."""
        return self._ask_one(Value[bool], "has_worked").value

    def last_scheduled(self) -> Orders | None:
        """Return what the last scheduled cycle was told, or None."""
        return next(iter(self._ask(Orders, "last_scheduled")), None)

    def failed_cycles(self) -> FailedCycles:
        """Count the cycles that failed since the last one that didn't."""
        return self._ask_one(FailedCycles, "failed_cycles")

    def failures_reported(self) -> int:
        """Count the runs of seven days that failed and lived to say so."""
        return self._ask_one(Value[int], "failures_reported").value

    def unended(self) -> list[str]:
        """Return the ids of the runs of seven days that started and never ended, the newest first."""
        return [row.value for row in self._ask(Value[str], "unended")]

    def cycles_by_day(self) -> list[CyclesOfDay]:
        """Return how the cycles of the last seven days ended."""
        return self._ask(CyclesOfDay, "cycles_by_day")

    def slowest(self) -> Slowest:
        """Return the longest cycle and the slowest statement of 24 hours."""
        return self._ask_one(Slowest, "slowest")

    def stuck(self) -> int:
        """Count the claims that keep failing."""
        return self._ask_one(Value[int], "stuck").value

    def orphans(self, max_age: timedelta, grace: timedelta, unsaved_grace: timedelta) -> list[OrphansOfDay]:
        """Return the orphans that cycles should have taken ``grace`` ago, by the day of their render."""
        return self._rows(OrphansOfDay, "orphans", max_age=max_age, grace=grace, unsaved_grace=unsaved_grace)

    def orphan_bytes(self) -> OrphanBytes:
        """Return the bytes of the orphans of this month and the last."""
        return self._rows(OrphanBytes, "orphan_bytes")[0]

    def completed(self) -> Completed:
        """Count the completed jobs of 24 hours."""
        return self._ask_one(Completed, "completed")

    def assets(self) -> list[AssetsOfDay]:
        """Return the assets of seven days by day and type."""
        return self._ask(AssetsOfDay, "assets")

    def saved_count(self) -> int:
        """Count the assets that name a job."""
        return self._value(Value[int], "count_saved")

    def most_saved(self) -> int | None:
        """Return the number that cycles judge it by: the highest of 7 days; None when there was no cycle yet."""
        return self._value(Value[int | None], "most_saved")

    def integrity(
        self, origins: Collection[str], buckets: Collection[str], max_age: timedelta, grace: timedelta
    ) -> dict[str, Finding]:
        """Compare assets, jobs and objects both ways; findings by name, those that there are."""
        rows = self._ask(
            _Named, "integrity", origins=list(origins), buckets=list(buckets), max_age=max_age, grace=grace
        )
        return {row.name: row for row in rows}

    def stored(self, buckets: Collection[str]) -> list[Stored]:
        """Return what lies in the buckets now."""
        return self._ask(Stored, "stored", buckets=list(buckets))

    def usage_before(self, buckets: Collection[str]) -> UsageBefore:
        """Return what lay in the buckets about a day ago."""
        return self._ask_one(UsageBefore, "usage_before", buckets=list(buckets))

    def indexes(self) -> list[Index]:
        """Return the indexes that cycles need."""
        return self._rows(Index, "index_use")

    def unprotected_among(self, references: Collection[str]) -> list[str]:
        """Return which of these columns (``schema.table.column``) no trigger guards."""
        return [row.value for row in self._rows(Value[str], "unprotected_among", wanted=list(references))]

    def columns_with_paths(self, known: Collection[str]) -> list[str]:
        """Return columns that seem to hold paths of objects, but for those that are protected or ``known``."""
        return [row.value for row in self._rows(Value[str], "columns_with_paths", known=list(known))]

    def foreign_keys_without_index(self) -> list[str]:
        """Return the foreign keys that make deleting a row slow, as table and columns."""
        return [row.value for row in self._rows(Value[str], "foreign_keys_without_index")]

    def role(self) -> Role:
        """Return who asks, and how its rights differ from those that cycles and health need."""
        return self._ask_one(Role, "role")

    def locks(self) -> Locks:
        """Return the sessions in trouble on the two tables."""
        return self._rows(Locks, "lock_trouble")[0]

    # -- reports ---------------------------------------------------------------------------------------------------

    def clock(self) -> datetime:
        """Return the database's time."""
        return self._ask_one(Value[datetime], "clock").value

    def days_of_work(self, now: datetime, length: timedelta) -> list[DayOfWork]:
        """Return what cycles did on each day of that time, the oldest first; days without a cycle are left out."""
        return self._ask(DayOfWork, "days_of_work", now=now, length=length)

    def failures(self, now: datetime, length: timedelta) -> dict[str, int]:
        """Return how many things couldn't be deleted, by reason."""
        return {row.reason: row.number for row in self._ask(_Failure, "failures", now=now, length=length)}

    def troubles(self, now: datetime, length: timedelta) -> list[Trouble]:
        """Return the cycles that didn't go well, the newest first."""
        return self._ask(Trouble, "troubles", now=now, length=length)

    def usage(self, buckets: Collection[str], now: datetime, length: timedelta) -> list[Usage]:
        """Return what lay in the buckets on each day of that time."""
        return self._ask(Usage, "usage", buckets=list(buckets), now=now, length=length)

    # -- the wire --------------------------------------------------------------------------------------------------

    def _ask(self, row: type[_Row], query: str, **parameters: Any) -> list[_Row]:
        return self._run(row, query, _STATEMENTS[query], **parameters)

    def _ask_one(self, row: type[_Row], query: str, **parameters: Any) -> _Row:
        return self._ask(row, query, **parameters)[0]

    def _time_for(self, name: str) -> timedelta:
        left = self._end - time.monotonic()
        if left < SHORTEST_QUESTION_SECONDS:
            raise DatabaseError(f"{name}: there was no time left")
        return timedelta(seconds=left)
