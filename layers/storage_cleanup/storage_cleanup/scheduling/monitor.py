"""Do cycles run as often as the parameters say? The interval that is wanted, and the signs that cycles are missing.

Judged by the rule's own rate, so that an hourly schedule doesn't look like an outage, and a missing cycle is noticed
within two intervals whatever the interval is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from storage_cleanup.aws.clients import AWS_ERRORS
from storage_cleanup.config.parameters import SETUP_BEGUN, interval_parameter, read_one
from storage_cleanup.errors import ScheduleError
from storage_cleanup.limits import MAX_LOOK_BACK_DAYS, SCHEDULE_ALLOWANCE_MINUTES
from storage_cleanup.model.vocabulary import Profile
from storage_cleanup.scheduling.rate import Interval

_FAST_MINUTES, _LOOK_MINUTES = 10, 5
_LONGEST_SILENCE = timedelta(days=3)
_ALLOWANCE = timedelta(minutes=SCHEDULE_ALLOWANCE_MINUTES)

Series = Mapping[datetime, float]
"""Figures by the minute."""


@dataclass(frozen=True)
class StoredParameter:
    """A parameter's value and when it was put."""

    value: str
    modified: datetime


@dataclass(frozen=True)
class Figures:
    """By the minute, how many scheduled cycles started, how many ended, and how many of those failed."""

    started: Series
    finished: Series
    failed: Series


@dataclass(frozen=True)
class Watched:
    """By how many intervals the next cycle is late, and how many cycles failed since the last good one."""

    intervals_overdue: float
    consecutive_failures: int


def read_schedule_parameters(ssm: Any, path: str) -> dict[str, StoredParameter]:
    """Return the parameters of the schedule that exist, by their names relative to ``path``: no secret is read."""
    names = ["profile", *map(interval_parameter, Profile), SETUP_BEGUN]
    answer = ssm.get_parameters(Names=[f"{path}/{name}" for name in names])
    return {
        each["Name"].removeprefix(f"{path}/"): StoredParameter(each["Value"], each["LastModifiedDate"])
        for each in answer["Parameters"]
    }


def wanted_interval(parameters: Mapping[str, StoredParameter]) -> Interval:
    """Return the interval of the profile that applies.

    The other profile's interval isn't looked at: while it is wrong, the schedule can still be right.

    Raises
    ------
    ConfigurationError
        When the profile or its interval is nonsense.
    """
    tree = {name: parameter.value for name, parameter in parameters.items()}
    return Interval(read_one(interval_parameter(read_one("profile", tree)), tree))


def testing_hours(parameters: Mapping[str, StoredParameter], now: datetime) -> float:
    """Return for how long the profile has been ``testing``; 0 under any other."""
    profile = parameters.get("profile")
    if profile is None or profile.value != Profile.TESTING:
        return 0.0
    return max(0.0, (now - profile.modified).total_seconds() / 3600)


def rule_interval(events: Any, rule: str) -> Interval:
    """Return the rate in force: not the one that is wanted, or a nonsense profile would look like an outage, too.

    Raises
    ------
    ScheduleError
        When the rule can't be read, or has no rate.
    """
    try:
        return Interval.from_expression(events.describe_rule(Name=rule).get("ScheduleExpression", ""))
    except (*AWS_ERRORS, ValueError) as error:
        raise ScheduleError(f"The rate of the rule {rule} couldn't be read: {error}") from error


def look_back(interval: Interval, timeout: timedelta) -> timedelta:
    """Return how far back figures are needed to judge an interval."""
    return min(6 * timedelta(minutes=interval.minutes) + timeout + _ALLOWANCE, timedelta(days=MAX_LOOK_BACK_DAYS))


def read_figures(cloudwatch: Any, namespace: str, service: str, start: datetime, end: datetime) -> Figures:
    """Return what CloudWatch knows of the cycles between two times.

    Raises
    ------
    ScheduleError
        When CloudWatch can't be asked.
    """
    own = {"Namespace": namespace, "Dimensions": [{"Name": "service", "Value": service}]}
    wanted = {
        "started": ({**own, "MetricName": "ScheduledCycle"}, "Sum"),
        "finished": ({**own, "MetricName": "CycleFailed"}, "SampleCount"),
        "failed": ({**own, "MetricName": "CycleFailed"}, "Sum"),
    }
    return Figures(**_read(cloudwatch, wanted, start, end, period=60))


def _read(
    cloudwatch: Any, wanted: Mapping[str, tuple[Mapping[str, Any], str]], start: datetime, end: datetime, *, period: int
) -> dict[str, dict[datetime, float]]:
    series: dict[str, dict[datetime, float]] = {key: {} for key in wanted}
    queries = [
        {"Id": key, "MetricStat": {"Metric": metric, "Period": period, "Stat": statistic}}
        for key, (metric, statistic) in wanted.items()
    ]
    try:
        pages = cloudwatch.get_paginator("get_metric_data")
        for page in pages.paginate(MetricDataQueries=queries, StartTime=start, EndTime=end):
            for result in page["MetricDataResults"]:
                pairs = zip(result["Timestamps"], result["Values"], strict=True)
                # A minute in which nothing happened may come as 0.
                series[result["Id"]].update({minute: value for minute, value in pairs if value})
    except AWS_ERRORS as error:
        raise ScheduleError(f"The figures of the cycles couldn't be read: {error}") from error
    return series


def deployed_at(parameters: Mapping[str, StoredParameter]) -> datetime | None:
    """Return when the stage was first deployed, as `scheduling.setup` has noted it; None where that can't be read."""
    try:
        noted = datetime.fromisoformat(parameters[SETUP_BEGUN].value)
    except (KeyError, ValueError):
        return None
    return noted if noted.tzinfo else None


def hours_since_success(
    cloudwatch: Any, *, namespace: str, service: str, health: str, deployed: datetime | None, now: datetime
) -> dict[str, float]:
    """Return for how many hours each function that runs by itself hasn't done its work, by its name.

    A cycle is a success of cleanup unless it failed; an invocation is one of health unless it broke off. Where there is
    none in the last three days, the hours since the deploy count, or those days.

    Parameters
    ----------
    health
        The name of the health function.
    deployed
        When the stage was first deployed; None where nobody noted it.

    Raises
    ------
    ScheduleError
        When CloudWatch can't be asked.
    """
    own = {"Namespace": namespace, "Dimensions": [{"Name": "service", "Value": service}]}
    lambdas = {"Namespace": "AWS/Lambda", "Dimensions": [{"Name": "FunctionName", "Value": health}]}
    start = now - _LONGEST_SILENCE
    found = _read(
        cloudwatch,
        {
            "cleanup_done": ({**own, "MetricName": "CycleFailed"}, "SampleCount"),
            "cleanup_failed": ({**own, "MetricName": "CycleFailed"}, "Sum"),
            "health_done": ({**lambdas, "MetricName": "Invocations"}, "Sum"),
            "health_failed": ({**lambdas, "MetricName": "Errors"}, "Sum"),
        },
        start,
        now,
        period=3600,
    )
    since = max(start, deployed) if deployed else start
    hours = {}
    for function in ("cleanup", "health"):
        failed = found[f"{function}_failed"]
        good = [hour for hour, number in found[f"{function}_done"].items() if number > failed.get(hour, 0)]
        hours[function] = max(0.0, (now - max([since, *good])).total_seconds() / 3600)
    return hours


def drain_is_running(states: Any, state_machine: str) -> bool:
    """Tell whether a drain is at work.

    Raises
    ------
    ScheduleError
        When Step Functions can't be asked.
    """
    try:
        running = states.list_executions(stateMachineArn=state_machine, statusFilter="RUNNING", maxResults=1)
    except AWS_ERRORS as error:
        raise ScheduleError(f"The drains couldn't be listed: {error}") from error
    return bool(running["executions"])


def is_time_to_look(interval: Interval, now: datetime) -> bool:
    """Tell whether the cycles' figures are worth their price this minute: every fifth will do for a slow schedule."""
    return interval.minutes <= _FAST_MINUTES or now.minute % _LOOK_MINUTES == 0


def watch(
    events: Any,
    cloudwatch: Any,
    *,
    rule: str,
    service: str,
    namespace: str,
    parameters: Mapping[str, StoredParameter],
    timeout: timedelta,
    now: datetime,
) -> Watched | None:
    """Return how the cycles that a rule starts keep to its own rate; None when it isn't time to look.

    Parameters
    ----------
    events, cloudwatch
        Clients of these services.
    namespace, service
        Where the cycles' metrics are, and their dimension.
    timeout
        How long a cycle may take.

    Raises
    ------
    ScheduleError
        When the rule or the figures can't be read.
    """
    interval = rule_interval(events, rule)
    if not is_time_to_look(interval, now):
        return None
    start = now - look_back(interval, timeout)
    figures = read_figures(cloudwatch, namespace, service, start, now)
    changed = [parameter.modified for name, parameter in parameters.items() if name != SETUP_BEGUN]
    overdue = intervals_overdue(interval, figures.started, changed, start, now)
    return Watched(overdue, consecutive_failures(figures, timeout, now))


def intervals_overdue(
    interval: Interval, started: Iterable[datetime], changed: Iterable[datetime], looked_since: datetime, now: datetime
) -> float:
    """Return by how many intervals the next cycle is late: 0 in healthy times, whatever the interval is.

    Parameters
    ----------
    changed
        When the schedule's parameters were put: a new rate's clock starts then.
    looked_since
        A cycle before this time wouldn't be in ``started``.
    """
    last_sign = max([looked_since, *started, *changed])
    late = now - last_sign - timedelta(minutes=interval.minutes) - _ALLOWANCE
    return max(0.0, late / timedelta(minutes=interval.minutes))


def consecutive_failures(figures: Figures, timeout: timedelta, now: datetime) -> int:
    """Return how many cycles failed since the last one that didn't.

    A cycle that started longer than ``timeout`` ago and hasn't reported since has failed too (killed, out of memory).
    """
    failed = figures.failed
    good = [minute for minute, count in figures.finished.items() if count > failed.get(minute, 0)]
    since = max(good, default=datetime.min.replace(tzinfo=UTC))
    reported = sum(count for minute, count in failed.items() if minute > since)
    due = sum(count for minute, count in figures.started.items() if minute > since and now - minute > timeout)
    return int(max(reported, due))
