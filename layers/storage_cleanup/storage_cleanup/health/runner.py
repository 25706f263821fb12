"""Carries the table of checks out, in its order: a question that fails leaves its checks unanswered, and no others."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from storage_cleanup.aws.clients import AWS_ERRORS, error_code
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import ConfigurationError, NotConfiguredYetError, ScheduleError, StorageCleanupError
from storage_cleanup.health.checks import CHECKS, NAMED
from storage_cleanup.health.findings import listed
from storage_cleanup.health.model import Found, HealthAnswer, Result, Status
from storage_cleanup.health.sources import Rule, Sources
from storage_cleanup.limits import INVOCATION_SECONDS
from storage_cleanup.postgres.observer import Observer
from storage_cleanup.scheduling.monitor import read_figures
from storage_cleanup.storage.object_store import ObjectStore
from storage_cleanup.telemetry import NAMESPACE, SERVICE

_LOOK_BACK = timedelta(days=7, seconds=-INVOCATION_SECONDS)
"""A cycle that ended since then began within the seven days that the database is asked about."""


def refused(error: ConfigurationError) -> HealthAnswer:
    """Return the answer when the parameters can't be read: nothing else can be asked then."""
    if isinstance(error, NotConfiguredYetError):
        found = Found(list(error.faults), case="waiting")
    else:
        found = listed(error.faults, Status.CRITICAL)
    return HealthAnswer([NAMED["parameters"].judge(found)])


def examine(
    settings: Settings, observer: Observer, store: ObjectStore, *, events: Any, cloudwatch: Any, rule_name: str
) -> HealthAnswer:
    """Make every check.

    Parameters
    ----------
    events, cloudwatch
        Clients of these services.
    rule_name
        The rule that starts cycles.
    """
    now = datetime.now(UTC)
    sources = Sources(
        settings,
        observer,
        rule=lambda: _rule(events, rule_name),
        failures=lambda: read_figures(cloudwatch, NAMESPACE, SERVICE, now - _LOOK_BACK, now).failed,
        buckets=store.buckets,
    )
    results: list[Result] = []
    figures: dict[str, float] = {}
    for check in CHECKS:
        try:
            found = check.look(sources)
        except StorageCleanupError as error:
            results.append(check.unanswered(error))
            if check.is_essential:
                break
        else:
            results.append(check.judge(found))
            figures.update(found.figures)
    return HealthAnswer(results, figures)


def _rule(events: Any, rule_name: str) -> Rule | None:
    try:
        rule: Mapping[str, Any] = events.describe_rule(Name=rule_name)
    except AWS_ERRORS as error:
        if error_code(error) == "ResourceNotFoundException":
            return None
        raise ScheduleError(f"the rule {rule_name} can't be read ({error})") from error
    return Rule(rule.get("ScheduleExpression", ""), rule.get("State"))
