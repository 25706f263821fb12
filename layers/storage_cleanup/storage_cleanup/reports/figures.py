"""The figures of a report: read from the database, then pure arithmetic."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from storage_cleanup.events.health import Period
from storage_cleanup.health.model import HealthAnswer
from storage_cleanup.model.pricing import GIGABYTE
from storage_cleanup.postgres.observer import DayOfWork, Observer, Stored, Trouble, Usage
from storage_cleanup.reports.model import SPANS, Incident, Money, Point, Report, WorkUntil
from storage_cleanup.reports.words import reasons_in_words, three_sentences

LAMBDA_GB_SECOND = 0.0000133334
"""Dollars for a gigabyte-second of an arm64 function."""

_CLEANUP_GIGABYTES = 0.5  # memory of the cleanup function
_DAYS_A_MONTH = 365.25 / 12
_MOST_POINTS = 60  # in a chart; a longer time is drawn by the week
_DAYS_OF_TREND = 30
_FEWEST_POINTS, _SHORTEST_TREND = 3, timedelta(days=2)


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
    report = Report(
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
    return replace(report, sentences=three_sentences(report))


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


def _together(days: Mapping[int, DayOfWork], wanted: range, now: datetime) -> WorkUntil:
    """Add up the days of a range, which counts back from now."""
    ends = (now - timedelta(days=wanted.start)).date()
    there = [days[index] for index in wanted if index in days]
    if not there:
        return WorkUntil(ends=ends)
    medians = sorted(day.median_seconds for day in there if day.median_seconds is not None)
    left_over = [day.left_over for day in there if day.left_over is not None]
    return WorkUntil(
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


def _money(material: Material, work: WorkUntil, stored: Point, projection: Point | None) -> Money:
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
