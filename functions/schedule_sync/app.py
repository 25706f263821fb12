"""Keeps the schedule's rate what the parameters say, and watches that cycles run at that rate.

Any event does: a changed parameter, a finished stack update, the minute's tick, an invocation by hand.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage_cleanup.errors import ConfigurationError
from storage_cleanup.observability import MetricUnit, logger, metrics
from storage_cleanup.schedule import Interval, sync_rule
from storage_cleanup.settings import MAX_INTERVAL_MINUTES, Profile

# EventBridge starts a rate's event within its minute, and a figure is visible within another.
ALLOWANCE = timedelta(minutes=2)
# CloudWatch keeps figures by the minute for 15 days.
LONGEST_LOOK = timedelta(days=14)

Series = Mapping[datetime, float]


@metrics.log_metrics
@logger.inject_lambda_context
def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 -- every event asks the same
    """Watch, then set the rule's rate; raise when the parameters don't say which, and leave the last good one.

    Returns
    -------
    dict
        ``rule``, ``before``, ``after`` (rates) and ``changed``.

    Raises
    ------
    ConfigurationError
        Naming each parameter that is missing or nonsense.
    ScheduleError
        When the rule can't be read or changed.
    """
    now = datetime.now(UTC)
    rule = os.environ["RULE_NAME"]
    parameters = _read_parameters(os.environ["PARAMETER_PATH"])
    _watch(rule, parameters, now)
    change = sync_rule(_client("events"), rule, wanted_interval(parameters))
    metrics.add_metric("ScheduleDrift", MetricUnit.Count, int(change.changed))
    summary = {"rule": rule, "before": change.before, "after": change.after, "changed": change.changed}
    if change.changed:
        logger.info("Schedule changed", extra=summary)
    else:
        logger.debug("Schedule agrees with the parameters", extra=summary)
    return summary


@dataclass(frozen=True)
class Parameter:
    """A parameter's value and when it was put."""

    value: str
    modified: datetime


def wanted_interval(parameters: Mapping[str, Parameter]) -> Interval:
    """Return the interval of the profile that applies.

    The other profile's interval isn't looked at: while it is wrong, the schedule can still be right.

    Raises
    ------
    ConfigurationError
        When the profile or its interval is missing or nonsense.
    """
    profile = parameters["profile"].value if "profile" in parameters else None
    if profile is None or profile not in set(Profile):
        what = "is missing" if profile is None else f"is {profile!r}"
        raise ConfigurationError([f"profile {what}; it accepts testing or production"])
    name = f"{profile}/interval-minutes"
    text = parameters[name].value if name in parameters else None
    # Five digits at most: the largest number has no more, and int() is slow on a book full of them.
    minutes = int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) <= 5 else 0
    if not 1 <= minutes <= MAX_INTERVAL_MINUTES:
        what = "is missing" if text is None else f"is {text!r}"
        raise ConfigurationError([f"{name} {what}; it accepts a whole number from 1 to {MAX_INTERVAL_MINUTES}"])
    return Interval(minutes)


def testing_hours(parameters: Mapping[str, Parameter], now: datetime) -> float:
    """Return for how long the profile has been ``testing``; 0 under any other."""
    profile = parameters.get("profile")
    if profile is None or profile.value != Profile.TESTING:
        return 0.0
    return max(0.0, (now - profile.modified).total_seconds() / 3600)


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
    late = now - last_sign - timedelta(minutes=interval.minutes) - ALLOWANCE
    return max(0.0, late / timedelta(minutes=interval.minutes))


def consecutive_failures(started: Series, finished: Series, failed: Series, timeout: timedelta, now: datetime) -> int:
    """Return how many cycles failed since the last one that didn't.

    A cycle that started longer than ``timeout`` ago and hasn't reported since has failed too (killed, out of memory).
    """
    good = [minute for minute, count in finished.items() if count > failed.get(minute, 0)]
    since = max(good, default=datetime.min.replace(tzinfo=UTC))
    reported = sum(count for minute, count in failed.items() if minute > since)
    due = sum(count for minute, count in started.items() if minute > since and now - minute > timeout)
    return int(max(reported, due))


def _watch(rule: str, parameters: Mapping[str, Parameter], now: datetime) -> None:
    """Count what the alarms need; what can't be counted stays missing, which is an alarm of its own."""
    metrics.add_metric("TestingProfileHours", MetricUnit.Count, round(testing_hours(parameters, now), 2))
    timeout = timedelta(seconds=int(os.environ.get("CLEANUP_TIMEOUT_SECONDS", "900")))
    try:
        # By the rate in force and not the one that is wanted: a nonsense profile must not look like an outage too.
        interval = Interval.from_expression(_client("events").describe_rule(Name=rule).get("ScheduleExpression", ""))
        look = min(6 * timedelta(minutes=interval.minutes) + timeout + ALLOWANCE, LONGEST_LOOK)
        started, finished, failed = _figures(now - look, now)
    except (BotoCoreError, ClientError, ValueError) as error:
        logger.warning("The cycles can't be watched", extra={"error": str(error)})
        return
    changed = [parameter.modified for parameter in parameters.values()]
    overdue = intervals_overdue(interval, started, changed, now - look, now)
    metrics.add_metric("IntervalsOverdue", MetricUnit.Count, round(overdue, 2))
    failures = consecutive_failures(started, finished, failed, timeout, now)
    metrics.add_metric("ConsecutiveFailedCycles", MetricUnit.Count, failures)


def _read_parameters(path: str) -> dict[str, Parameter]:
    """Return the parameters of the schedule that exist, by their names relative to ``path``: no secret is read."""
    names = ["profile", *(f"{profile}/interval-minutes" for profile in Profile)]
    answer = _client("ssm").get_parameters(Names=[f"{path}/{name}" for name in names])
    return {
        each["Name"].removeprefix(f"{path}/"): Parameter(each["Value"], each["LastModifiedDate"])
        for each in answer["Parameters"]
    }


def _figures(start: datetime, end: datetime) -> tuple[Series, Series, Series]:
    """Return by the minute how many scheduled cycles started, how many ended, and how many of those failed."""
    dimension = {"Name": "service", "Value": os.environ["POWERTOOLS_SERVICE_NAME"]}
    namespace = os.environ["POWERTOOLS_METRICS_NAMESPACE"]
    series: dict[str, dict[datetime, float]] = {"started": {}, "finished": {}, "failed": {}}
    queries = [
        {
            "Id": key,
            "MetricStat": {
                "Metric": {"Namespace": namespace, "MetricName": name, "Dimensions": [dimension]},
                "Period": 60,
                "Stat": statistic,
            },
        }
        for key, name, statistic in (
            ("started", "ScheduledCycle", "Sum"),
            ("finished", "CycleFailed", "SampleCount"),
            ("failed", "CycleFailed", "Sum"),
        )
    ]
    pages = _client("cloudwatch").get_paginator("get_metric_data")
    for page in pages.paginate(MetricDataQueries=queries, StartTime=start, EndTime=end):
        for result in page["MetricDataResults"]:
            pairs = zip(result["Timestamps"], result["Values"], strict=True)
            # A minute in which nothing happened may come as 0.
            series[result["Id"]].update({minute: value for minute, value in pairs if value})
    return series["started"], series["finished"], series["failed"]


@cache
def _client(service: str) -> Any:
    config = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
    return boto3.client(service, config=config)  # type: ignore[call-overload]
