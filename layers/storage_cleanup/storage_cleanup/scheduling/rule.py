"""The rule that starts cycles, and how it follows the interval that is wanted."""

import logging
from typing import Any

from storage_cleanup.aws.clients import AWS_ERRORS, client
from storage_cleanup.errors import ScheduleError
from storage_cleanup.model.account import ScheduleChange
from storage_cleanup.scheduling.rate import Interval

_log = logging.getLogger(__name__)
_CARRIED = ("Description", "State", "RoleArn", "EventBusName", "EventPattern")


def sync_rule(events: Any, rule_name: str, interval: Interval) -> ScheduleChange:
    """Make a rule fire at ``interval``, and leave everything else about it as it is.

    A rule that fires at this interval already, however it is written, isn't touched: changing it would start its
    clock anew.

    Parameters
    ----------
    events
        A client of ``events``.

    Raises
    ------
    ScheduleError
        When the rule can't be read or changed.
    """
    try:
        rule = events.describe_rule(Name=rule_name)
        before = rule.get("ScheduleExpression") or None
        if _fires_at(before, interval):
            return ScheduleChange(before, before or "", changed=False)
        # PutRule nulls what it isn't given, and enables the rule.
        kept = {name: rule[name] for name in _CARRIED if rule.get(name)}
        events.put_rule(Name=rule_name, ScheduleExpression=interval.expression, **kept)
    except AWS_ERRORS as error:
        raise ScheduleError(f"The rule {rule_name} couldn't be set to {interval.expression}: {error}") from error
    return ScheduleChange(before, interval.expression, changed=True)


def _fires_at(expression: str | None, interval: Interval) -> bool:
    try:
        return expression is not None and Interval.from_expression(expression) == interval
    except ValueError:
        return False


def repair_rule(rule_name: str | None, interval: Interval) -> ScheduleChange | None:
    """Set a rule that has drifted from its interval right again, on the way.

    A deploy or a lost event leaves them apart; every cycle looks, so that it isn't for longer than one. A failure is
    logged and no more: it must not cost the cycle.

    Parameters
    ----------
    rule_name
        The rule that fired, or None where there is none (an invocation outside of AWS).
    """
    if rule_name is None:
        return None
    try:
        return sync_rule(client("events"), rule_name, interval)
    except (ScheduleError, *AWS_ERRORS) as error:
        _log.warning("The schedule couldn't be checked: %s", error)
        return None
