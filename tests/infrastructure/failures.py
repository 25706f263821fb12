"""What a stage publishes in healthy times, and what each failure makes of it: what the alarms are tried with."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

from tests.infrastructure.alarms import Series, messages
from tests.infrastructure.conftest import Template

DAY = 24 * 60
HOURLY = 60
WATCH = "Invocations/ScheduleSyncFunction"
Changes = dict[str, dict[int, list[float] | None]]
"""What a failure changes in the healthy series; None takes a figure away."""


def healthy(minutes: range, interval: int = HOURLY, *, deployed: int = 0) -> dict[str, dict[int, list[float]]]:
    """Return what a stage publishes: the watch every minute, a cycle every interval, health every day."""
    look = 1 if interval <= 10 else 5
    since = [minute for minute in minutes if minute >= deployed]
    looks = [minute for minute in since if minute % look == 0]
    cycles = [minute for minute in since if minute % interval == 0]
    quarters = [minute for minute in since if minute % 15 == 0]
    days = [minute for minute in since if minute % DAY == 5 * 60]
    return {
        WATCH: {minute: [1.0] for minute in since},
        "Errors/ScheduleSyncFunction": {minute: [0.0] for minute in since},
        "IntervalsOverdue": {minute: [0.0] for minute in looks},
        "ConsecutiveFailedCycles": {minute: [0.0] for minute in looks},
        "HoursSinceSuccess/cleanup": {minute: [min(interval, minute - deployed) / 60] for minute in quarters},
        "HoursSinceSuccess/health": {minute: [(minute - 5 * 60) % DAY / 60] for minute in quarters},
        **{name: {minute: [0.0] for minute in cycles} for name in ("BreakerOpen", "ConfigurationError", "StuckClaims")},
        "OrphansRemaining": {minute: [float(minute % 7)] for minute in cycles},
        "CycleDuration": {minute: [1.0 + minute % 11] for minute in cycles},
        "SlowestQuerySeconds": {minute: [0.2] for minute in cycles},
        "SavedAssetsMissing": {minute: [0.0] for minute in days},
        "StoredBytesGrowthPercent": {minute: [2.0] for minute in days},
    }


@dataclass(frozen=True)
class Failure:
    """Something that goes wrong for some time.

    Attributes
    ----------
    metrics
        What its figures are, by minutes since it began; None where there are none any more.
    alarm
        What has to be sent.
    within
        Minutes after which it must have been, at an hourly schedule.
    lasts
        Minutes.
    """

    metrics: dict[str, Callable[[int], float | None]]
    alarm: str
    within: int
    lasts: int = 12 * 60

    def changes(self, start: int, series: Series) -> Changes:
        """Return what it changes in these series; queues, drift and the like publish only while it lasts."""
        found: Changes = {}
        for metric, figure in self.metrics.items():
            known = series.get(metric)
            minutes = list(known or range(start, start + self.lasts))
            found[metric] = {
                minute: None if (value := figure(minute - start)) is None else [value]
                for minute in minutes
                if start <= minute < start + self.lasts
            }
        return found


def always(value: float) -> Callable[[int], float]:
    return lambda _: value


FAILURES = {
    "cycles stop": Failure({"IntervalsOverdue": lambda since: since / 60}, "MissingCycleAlarm", 30),
    "cycles fail": Failure({"ConsecutiveFailedCycles": lambda since: since // 60}, "FailedCyclesAlarm", 5 * 60),
    "the watch dies": Failure({WATCH: lambda _: None, "IntervalsOverdue": lambda _: None}, "WatchDeadAlarm", 35),
    "the watch fails": Failure({"Errors/ScheduleSyncFunction": always(1)}, "ScheduleSyncErrorsAlarm", 15),
    "the breaker opens": Failure({"BreakerOpen": always(1)}, "BreakerOpenAlarm", 60),
    "the parameters are nonsense": Failure({"ConfigurationError": always(1)}, "ConfigurationErrorAlarm", 60),
    "saved assets are gone": Failure({"SavedAssetsMissing": always(2)}, "SavedAssetsMissingAlarm", DAY, 2 * DAY),
    "orphans pile up": Failure({"OrphansRemaining": always(500)}, "ManyOrphansAlarm", 60),
    "Storage grows fast": Failure({"StoredBytesGrowthPercent": always(40)}, "FastGrowthAlarm", DAY, 2 * DAY),
    "Storage grows": Failure({"StoredBytesGrowthPercent": always(12)}, "GrowthAlarm", DAY, 2 * DAY),
    "health dies": Failure(
        {"HoursSinceSuccess/health": lambda since: 24 + since / 60, "SavedAssetsMissing": lambda _: None},
        *("HealthSilentAlarm", 3 * 60),
    ),
    "no cycle succeeds": Failure(
        {"HoursSinceSuccess/cleanup": lambda since: 1 + since / 60}, "CleanupSilentAlarm", 26 * 60, 2 * DAY
    ),
    "health fails": Failure({"Errors/HealthFunction": always(1)}, "FunctionErrorsAlarm", 60),
    "claims are stuck": Failure({"StuckClaims": always(3)}, "StuckClaimsAlarm", 60),
    "testing is forgotten": Failure({"TestingProfileHours": lambda since: 47 + since / 60}, "TestingTooLongAlarm", 90),
    "somebody writes the rule": Failure({"ScheduleDrift": always(1)}, "ScheduleDriftAlarm", 15),
    "events aren't delivered": Failure(
        {"ApproximateNumberOfMessagesVisible/UndeliveredQueue": always(1)}, "UndeliveredEventsAlarm", 15
    ),
    "invocations fail": Failure(
        {"ApproximateNumberOfMessagesVisible/FailedQueue": lambda since: since // 60}, "FailedEventsAlarm", 5 * 60
    ),
    "cleanup is throttled": Failure({"Throttles/CleanupFunction": always(1)}, "ThrottlesAlarm", 20),
    "a drain fails": Failure({"ExecutionsFailed/BacklogDrain": always(1)}, "DrainFailedAlarm", 15),
    "cycles are slow": Failure({"CycleDuration": always(60)}, "WarningAlarm", 65),
}
ALL = sorted(FAILURES)


def published(minutes: range, *events: tuple[str, int], interval: int = HOURLY) -> Series:
    """Return the series of a stage to which these failures happen; where two touch a figure, the worse counts."""
    series = healthy(minutes, interval)
    basis = {metric: dict(figures) for metric, figures in series.items()}
    for name, start in events:
        for metric, changes in FAILURES[name].changes(start, basis).items():
            figures = series.setdefault(metric, {})
            for minute, value in changes.items():
                if value is None:
                    figures.pop(minute, None)
                elif minute in figures or metric not in basis:
                    figures[minute] = max(figures.get(minute, value), value)
    return series


def unreached(sent: list[tuple[int, str]], *events: tuple[str, int]) -> list[str]:
    return [
        name
        for name, start in events
        if not any(
            alarm == FAILURES[name].alarm and start <= minute <= start + FAILURES[name].within for minute, alarm in sent
        )
    ]


# One is the same trouble seen twice, or the first takes away what the second would be seen by.
EXCUSED = {
    ("the watch dies", "cycles stop"),
    ("cycles stop", "the watch dies"),
    ("health dies", "saved assets are gone"),
    ("saved assets are gone", "health dies"),
    ("Storage grows fast", "Storage grows"),
    ("orphans pile up", "cycles are slow"),  # three parts of one message: the first has been sent
}


PAIRS = [pair for pair in permutations(ALL, 2) if pair not in EXCUSED]
GAPS = {"overlapping": 2 * 60, "after another": 26 * 60}


def hidden(template: Template, first: str, second: str, gap: int) -> list[str]:
    """Return which of two failures reaches nobody in time when the second begins ``gap`` minutes after the first."""
    minutes, events = range(4 * DAY), ((first, DAY), (second, DAY + gap))
    return unreached(messages(template, published(minutes, *events), minutes), *events)
