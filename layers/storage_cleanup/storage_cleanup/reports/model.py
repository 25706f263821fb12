"""What a report holds: its figures, and how they become JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from storage_cleanup.events.health import Period
from storage_cleanup.health.model import HealthAnswer
from storage_cleanup.postgres.observer import Stored, Work


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


@dataclass(frozen=True, kw_only=True)
class WorkUntil(Work):
    """What cycles did in some time, which ended on that day."""

    ends: date


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
        WorkUntil over the time that the charts show, the oldest first, by the day or by the week.
    step_days
        Days that each of them covers.
    trend
        What was stored, the oldest first; the last point is now.
    projection
        What will be stored at the end of the time ahead; None while the history is too short to tell.
    sentences
        The three that matter.
    """

    period: Period
    stage: str
    since: datetime
    until: datetime
    work: WorkUntil
    before: WorkUntil
    charted: Sequence[WorkUntil]
    step_days: int
    trend: Sequence[Point]
    projection: Point | None
    stored: Sequence[Stored]
    failures: Sequence[tuple[str, int]]
    incidents: Sequence[Incident]
    money: Money
    health: HealthAnswer
    sentences: Sequence[str] = ()

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


def _work_as_dict(work: WorkUntil) -> dict[str, Any]:
    return {
        **{name: _rounded(value) for name, value in vars(work).items() if name != "ends"},
        "ends": work.ends.isoformat(),
        "success_percent": _rounded(work.success_percent),
    }


def _point_as_dict(point: Point) -> dict[str, Any]:
    return {"at": point.at.isoformat(), "bytes": point.bytes}


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if isinstance(value, float) else value
