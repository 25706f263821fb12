"""The figures of a report, and what they say in three sentences: pure arithmetic over what an observer read."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from storage_cleanup.events.health import Period
from storage_cleanup.health.checks import CYCLE_SECONDS, SUCCESS_PERCENT
from storage_cleanup.health.model import HealthAnswer, Status
from storage_cleanup.model.pricing import GIGABYTE
from storage_cleanup.model.reasons import meaning
from storage_cleanup.postgres.observer import DayOfWork, Observer, Stored, Trouble, Usage

LAMBDA_GB_SECOND = 0.0000133334
"""Dollars for a gigabyte-second of an arm64 function."""

_CLEANUP_GIGABYTES = 0.5  # memory of the cleanup function
_DAYS_A_MONTH = 365.25 / 12
_MOST_POINTS = 60  # in a chart; a longer time is drawn by the week
_DAYS_OF_TREND = 30
_FEWEST_POINTS, _SHORTEST_TREND = 3, timedelta(days=2)


@dataclass(frozen=True)
class Span:
    """How long a period is, how far its charts look back, and how far its projection looks ahead; in days."""

    days: int
    back: int
    ahead: int


SPANS: Mapping[Period, Span] = {
    Period.DAILY: Span(1, 14, 7),
    Period.WEEKLY: Span(7, 28, 14),
    Period.MONTHLY: Span(30, 60, 30),
    Period.QUARTERLY: Span(91, 364, 182),
}


@dataclass(frozen=True)
class Material:
    """What an observer read for a report.

    Attributes
    ----------
    work
        What cycles did, by days counted back from ``now``; days without a cycle are left out.
    failures, troubles
        Those of the period alone.
    price
        Dollars for a gigabyte that is stored for a month.
    """

    period: Period
    now: datetime
    stage: str
    price: float
    work: Sequence[DayOfWork]
    failures: Mapping[str, int]
    troubles: Sequence[Trouble]
    usage: Sequence[Usage]
    stored: Sequence[Stored]


@dataclass(frozen=True)
class Work:
    """What cycles did in some time.

    Attributes
    ----------
    ends
        The last day of that time.
    left_over
        What its last cycle left for the next one; None when none counted.
    """

    ends: date
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


@dataclass(frozen=True)
class Point:
    """What was stored at the end of a day."""

    at: datetime
    bytes: int


@dataclass(frozen=True)
class Incident:
    """Cycles in a row that went wrong for the same reason."""

    first: datetime
    last: datetime
    cycles: int
    status: str
    message: str


@dataclass(frozen=True)
class Money:
    """What storing and not storing cost, in dollars.

    Attributes
    ----------
    stored_month
        A month of what is stored now.
    freed_month
        A month of what the period freed, had it stayed.
    saved
        What the freed files would have cost from the hour they went to the period's end.
    running
        What the cycles of the period cost in Lambda.
    projected_year
        What a year saves when every day frees as much as the period's average day.
    stored_month_ahead
        A month of what will be stored when the projection is right; None without one.
    """

    price: float
    stored_month: float
    freed_month: float
    saved: float
    running: float
    projected_year: float
    stored_month_ahead: float | None


@dataclass(frozen=True)
class Report:
    """All that a report says.

    Attributes
    ----------
    charted
        Work over the time that the charts show, the oldest first, by the day or by the week.
    step_days
        Days that each of them covers.
    trend
        What was stored, the oldest first; the last point is now.
    projection
        What will be stored at the end of the time ahead; None while the history is too short to tell.
    """

    period: Period
    stage: str
    since: datetime
    until: datetime
    work: Work
    before: Work
    charted: Sequence[Work]
    step_days: int
    trend: Sequence[Point]
    projection: Point | None
    stored: Sequence[Stored]
    failures: Sequence[tuple[str, int]]
    incidents: Sequence[Incident]
    money: Money
    health: HealthAnswer

    @property
    def sentences(self) -> tuple[str, str, str]:
        """The three sentences that matter."""
        return _on_trust(self), _on_work(self), _on_storage(self)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return {
            "period": self.period.value,
            "stage": self.stage,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
            "sentences": list(self.sentences),
            "work": _work_as_dict(self.work),
            "before": _work_as_dict(self.before),
            "by_time": [_work_as_dict(each) for each in self.charted],
            "step_days": self.step_days,
            "stored": [
                {"bucket": each.bucket_id, "objects": each.objects, "bytes": each.bytes} for each in self.stored
            ],
            "trend": [_point_as_dict(point) for point in self.trend],
            "projection": _point_as_dict(self.projection) if self.projection else None,
            "failures": [{"reason": reason, "number": number} for reason, number in self.failures],
            "incidents": [
                {
                    "first": each.first.isoformat(),
                    "last": each.last.isoformat(),
                    "cycles": each.cycles,
                    "status": each.status,
                    "message": each.message,
                }
                for each in self.incidents
            ],
            "money": {name: _rounded(value) for name, value in vars(self.money).items()},
            "health": self.health.as_dict(),
        }


def gather(observer: Observer, *, period: Period, buckets: Sequence[str], stage: str, price: float) -> Material:
    """Read what a report needs.

    Raises
    ------
    StorageCleanupError
        The database can't be asked.
    """
    now, span = observer.clock(), SPANS[period]
    length, back = timedelta(days=span.days), timedelta(days=span.back)
    return Material(
        period=period,
        now=now,
        stage=stage,
        price=price,
        work=observer.days_of_work(now, back),
        failures=observer.failures(now, length),
        troubles=observer.troubles(now, length),
        usage=observer.usage(buckets, now, back),
        stored=observer.stored(buckets),
    )


def make_report(material: Material, health: HealthAnswer) -> Report:
    """Turn what was read, and how the system is now, into a report."""
    span, now = SPANS[material.period], material.now
    days = {day.days_ago: day for day in material.work}
    step = 1 if span.back <= _MOST_POINTS else 7
    work = _together(days, range(span.days), now)
    trend = _trend(material.usage, material.stored, now, timedelta(days=span.back))
    projection = _project(trend, now + timedelta(days=span.ahead))
    return Report(
        period=material.period,
        stage=material.stage,
        since=now - timedelta(days=span.days),
        until=now,
        work=work,
        before=_together(days, range(span.days, 2 * span.days), now),
        charted=[_together(days, range(first, first + step), now) for first in range(span.back - step, -1, -step)],
        step_days=step,
        trend=trend,
        projection=projection,
        stored=material.stored,
        failures=reasons_in_words(material.failures),
        incidents=incidents(material.troubles),
        money=_money(material, work, trend[-1], projection),
        health=health,
    )


def reasons_in_words(failures: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return what each reason of a failure means with its number, the most frequent first."""
    return sorted(((meaning(reason), number) for reason, number in failures.items()), key=lambda each: -each[1])


def incidents(troubles: Iterable[Trouble]) -> list[Incident]:
    """Join neighbouring cycles that went wrong for the same reason; the newest first.

    Examples
    --------
    >>> incidents([])
    []
    """
    joined: list[Incident] = []
    for trouble in sorted(troubles, key=lambda each: each.started_at, reverse=True):
        message = trouble.message or "some things couldn't be deleted"
        last = joined[-1] if joined else None
        if last and (last.status, last.message) == (trouble.status, message):
            joined[-1] = Incident(trouble.started_at, last.last, last.cycles + 1, last.status, message)
        else:
            joined.append(Incident(trouble.started_at, trouble.started_at, 1, trouble.status, message))
    return joined


def human_bytes(number: float) -> str:
    """Return a size as people write it, in powers of 1000.

    Examples
    --------
    >>> human_bytes(1_500_000_000), human_bytes(999), human_bytes(0)
    ('1.5 GB', '999 B', '0 B')
    """
    size, unit = float(number), "B"
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(size) < 999.5 or unit == "PB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 100 else f"{size:.1f} {unit}"


def human_money(dollars: float) -> str:
    """Return dollars and cents; what is less than a cent says so.

    Examples
    --------
    >>> human_money(1234.5), human_money(0.001), human_money(0)
    ('$1,234.50', 'less than $0.01', '$0.00')
    """
    return "less than $0.01" if 0 < dollars < 0.005 else f"${dollars:,.2f}"


def _together(days: Mapping[int, DayOfWork], wanted: range, now: datetime) -> Work:
    """Add up the days of a range, which counts back from now."""
    ends = (now - timedelta(days=wanted.start)).date()
    there = [days[index] for index in wanted if index in days]
    if not there:
        return Work(ends)
    medians = sorted(day.median_seconds for day in there if day.median_seconds is not None)
    left_over = [day.left_over for day in there if day.left_over is not None]
    return Work(
        ends=ends,
        succeeded=sum(day.succeeded for day in there),
        partial=sum(day.partial for day in there),
        failed=sum(day.failed for day in there),
        files=sum(day.files for day in there),
        bytes=sum(day.bytes for day in there),
        rows=sum(day.rows for day in there),
        median_seconds=medians[len(medians) // 2] if medians else None,
        longest_seconds=max((day.longest_seconds for day in there if day.longest_seconds is not None), default=None),
        all_seconds=sum(day.all_seconds for day in there),
        left_over=left_over[0] if left_over else None,
    )


def _trend(usage: Iterable[Usage], stored: Iterable[Stored], now: datetime, back: timedelta) -> list[Point]:
    """Return what lay in all buckets by day; what lies there now takes the place of the last hours' figure."""
    sizes: dict[date, int] = defaultdict(int)
    taken: dict[date, datetime] = {}
    for row in usage:
        sizes[row.day] += row.bytes
        taken[row.day] = row.taken_at
    shown = [day for day in sorted(sizes) if now - back < taken[day] < now - timedelta(hours=4)]
    points = [Point(taken[day], sizes[day]) for day in shown]
    return [*points, Point(now, sum(bucket.bytes for bucket in stored))]


def _project(trend: Sequence[Point], ahead: datetime) -> Point | None:
    """Draw a straight line through the last month (least squares) and read it at the time ahead."""
    end = trend[-1].at
    recent = [point for point in trend if point.at >= end - timedelta(days=_DAYS_OF_TREND)]
    if len(recent) < _FEWEST_POINTS or end - recent[0].at < _SHORTEST_TREND:
        return None
    times = [(point.at - end).total_seconds() for point in recent]
    sizes = [point.bytes for point in recent]
    middle, mean = sum(times) / len(times), sum(sizes) / len(sizes)
    slope = sum((time - middle) * (size - mean) for time, size in zip(times, sizes, strict=True)) / sum(
        (time - middle) ** 2 for time in times
    )
    return Point(ahead, max(0, round(sizes[-1] + slope * (ahead - end).total_seconds())))


def _money(material: Material, work: Work, stored: Point, projection: Point | None) -> Money:
    price, days = material.price, SPANS[material.period].days
    daily = price / GIGABYTE / _DAYS_A_MONTH  # dollars for a byte and day
    return Money(
        price=price,
        stored_month=stored.bytes / GIGABYTE * price,
        freed_month=work.bytes / GIGABYTE * price,
        # A day's files went in its middle, on average.
        saved=sum(day.bytes * (day.days_ago + 0.5) for day in material.work if day.days_ago < days) * daily,
        running=work.all_seconds * _CLEANUP_GIGABYTES * LAMBDA_GB_SECOND,
        projected_year=work.bytes / days * 365 * 365 / 2 * daily,
        stored_month_ahead=projection.bytes / GIGABYTE * price if projection else None,
    )


# -- sentences ---------------------------------------------------------------------------------------------------------

_LAST = {
    Period.DAILY: "24 hours",
    Period.WEEKLY: "7 days",
    Period.MONTHLY: "30 days",
    Period.QUARTERLY: "13 weeks",
}


def _on_trust(report: Report) -> str:
    urgent = [check for check in report.health.checks if check.status is Status.CRITICAL]
    if urgent:
        more = f" (and {len(urgent) - 1} more)" if len(urgent) > 1 else ""
        return f"Act now{more}: {urgent[0].sentence}"
    work, last = report.work, _LAST[report.period]
    if not work.cycles:
        return f"No cycle ran in the last {last}."
    if work.failed:
        return (
            f"{work.failed:,} of {work.cycles:,} cycles of the last {last} failed, "
            f"so {work.success_percent:.1f} % succeeded where {SUCCESS_PERCENT} % is the target."
        )
    which = "The one cycle" if work.cycles == 1 else f"All {work.cycles:,} cycles"
    intact = any(check.name == "saved_file_missing" and check.status is Status.OK for check in report.health.checks)
    return f"{which} of the last {last} succeeded{', and every saved asset has its file' if intact else ''}."


def _on_work(report: Report) -> str:
    work = report.work
    files = "file was" if work.files == 1 else "files were"
    left = "" if work.left_over is None else f"; {work.left_over:,} orphans wait for the next cycle"
    return f"{work.files:,} {files} removed, which freed {human_bytes(work.bytes)}{_compared(report)}{left}."


def _compared(report: Report) -> str:
    before = report.before.bytes
    if not before:
        return ""
    change = 100 * (report.work.bytes - before) / before
    if abs(change) < 1:
        return ", as much as in the period before"
    return f", {abs(change):,.0f} % {'more' if change > 0 else 'less'} than in the period before"


def _on_storage(report: Report) -> str:
    stored, money = report.trend[-1].bytes, report.money
    now = f"{human_bytes(stored)} are stored, which cost {human_money(money.stored_month)} a month"
    if report.projection is None:
        return f"{now}; without what was freed it would be {human_money(money.stored_month + money.freed_month)}."
    when = f"{report.projection.at:%-d %B %Y}"
    return f"{now}; at this pace it will be {human_bytes(report.projection.bytes)} on {when}."


def is_slow(work: Work) -> bool:
    """Tell whether a cycle of that time took longer than operators expect."""
    return CYCLE_SECONDS.status(work.longest_seconds or 0) is not Status.OK


# -- JSON --------------------------------------------------------------------------------------------------------------


def _work_as_dict(work: Work) -> dict[str, Any]:
    return {
        **{name: _rounded(value) for name, value in vars(work).items() if name != "ends"},
        "ends": work.ends.isoformat(),
        "success_percent": _rounded(work.success_percent),
    }


def _point_as_dict(point: Point) -> dict[str, Any]:
    return {"at": point.at.isoformat(), "bytes": point.bytes}


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if isinstance(value, float) else value
