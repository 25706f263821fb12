"""Keeps the schedule's rate what the parameters say, and watches that cycles run at that rate.

Any event does: a changed parameter, a finished stack update, the minute's tick, an invocation by hand. After a stack
update, it also creates the parameters that are missing.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from storage_cleanup.aws.clients import client
from storage_cleanup.errors import ConfigurationError, ScheduleError
from storage_cleanup.limits import CREATING, INVOCATION_SECONDS, SUCCESS_MINUTES, WATCHING
from storage_cleanup.scheduling import monitor
from storage_cleanup.scheduling.rule import sync_rule
from storage_cleanup.scheduling.setup import note_progress
from storage_cleanup.telemetry import NAMESPACE, count, count_of, instrumented, logger, metrics


@instrumented
def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001
    """Watch, then set the rule's rate; raise when the parameters don't say which, and leave the last good one.

    Returns
    -------
    dict
        ``rule``, ``before``, ``after`` (rates) and ``changed``.

    Raises
    ------
    ConfigurationError
        Naming each parameter that is nonsense, or can't be created.
    ScheduleError
        When the rule can't be read or changed, or the cycles can't be watched.
    """
    try:
        return _sync(event)
    except ConfigurationError as refusal:
        logger.error(str(refusal), extra={"faults": refusal.faults})
        raise


def _sync(event: dict[str, Any]) -> dict[str, Any]:
    rule, path = os.environ["RULE_NAME"], os.environ["PARAMETER_PATH"]
    refusal = _create_parameters(event, path)  # first: a new stage's clock starts with its parameters
    parameters = monitor.read_schedule_parameters(client("ssm", WATCHING), path)
    blindness = _watch(rule, parameters, datetime.now(UTC))
    change = sync_rule(client("events", WATCHING), rule, monitor.wanted_interval(parameters))
    if change.changed:
        count("ScheduleDrift")
    summary = {"rule": rule, "before": change.before, "after": change.after, "changed": change.changed}
    if change.changed:
        logger.info("Schedule changed", extra=summary)
    else:
        logger.debug("Schedule agrees with the parameters", extra=summary)
    if trouble := refusal or blindness:
        raise trouble
    return summary


def _create_parameters(event: dict[str, Any], path: str) -> ConfigurationError | None:
    """Create what is missing; return why it can't be, which must not keep the schedule from being watched and set."""
    is_deploy = event.get("source") == "aws.cloudformation"
    try:
        created = note_progress(client("ssm", CREATING), path, datetime.now(UTC), is_deploy=is_deploy)
    except ConfigurationError as error:
        return error
    if created:
        logger.info("Parameters created", extra={"parameters": created})
    return None


def _watch(rule: str, parameters: Mapping[str, monitor.StoredParameter], now: datetime) -> ScheduleError | None:
    """Count what the alarms need; return why it couldn't be, which must not keep the schedule from being set."""
    if hours := monitor.testing_hours(parameters, now):
        count("TestingProfileHours", round(hours, 2))
    cloudwatch, names = client("cloudwatch", WATCHING), {"namespace": NAMESPACE, "service": metrics.service or ""}
    try:
        drain = os.environ.get("DRAIN_ARN")
        if drain and monitor.drain_is_running(client("stepfunctions", WATCHING), drain):
            count("DrainRunning")
        if seen := monitor.watch(
            client("events", WATCHING),
            cloudwatch,
            rule=rule,
            **names,
            parameters=parameters,
            timeout=timedelta(seconds=int(os.environ.get("CLEANUP_TIMEOUT_SECONDS") or INVOCATION_SECONDS)),
            now=now,
        ):
            count("IntervalsOverdue", round(seen.intervals_overdue, 2))
            count("ConsecutiveFailedCycles", seen.consecutive_failures)
        health = os.environ.get("HEALTH_FUNCTION")
        if health and now.minute % SUCCESS_MINUTES == 0:
            deployed = monitor.deployed_at(parameters)
            silent = monitor.hours_since_success(cloudwatch, **names, health=health, deployed=deployed, now=now)
            for function, since in silent.items():
                count_of(function, "HoursSinceSuccess", round(since, 2))
    except ScheduleError as error:
        logger.warning("The cycles can't be watched", extra={"error": str(error)})
        return error
    return None
