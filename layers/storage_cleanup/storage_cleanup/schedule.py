"""How often a cycle runs: a value that can't be invalid, and the rule that follows it."""

import logging
import re
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from storage_cleanup.aws import client
from storage_cleanup.errors import ScheduleError
from storage_cleanup.settings import MAX_INTERVAL_MINUTES

_log = logging.getLogger(__name__)
_MINUTES = {"minute": 1, "hour": 60, "day": 24 * 60}
_RATE = re.compile(r"rate\(([1-9][0-9]{0,4}) (minute|hour|day)(s?)\)")
_CARRIED = ("Description", "State", "RoleArn", "EventBusName", "EventPattern")


@dataclass(frozen=True, order=True)
class Interval:
    """The time between two cycles.

    Parameters
    ----------
    minutes
        From 1 to 10080 (a week).

    Raises
    ------
    ValueError
        For any other number.

    Examples
    --------
    >>> Interval(3).expression, Interval(60).expression
    ('rate(3 minutes)', 'rate(1 hour)')
    """

    minutes: int

    def __post_init__(self) -> None:
        if not 1 <= self.minutes <= MAX_INTERVAL_MINUTES:
            raise ValueError(f"an interval has 1 to {MAX_INTERVAL_MINUTES} minutes, not {self.minutes}")

    @property
    def expression(self) -> str:
        """The interval as EventBridge writes it: in hours where they are whole, and singular for one."""
        count, unit = (self.minutes // 60, "hour") if self.minutes % 60 == 0 else (self.minutes, "minute")
        return f"rate({count} {unit})" if count == 1 else f"rate({count} {unit}s)"

    @classmethod
    def from_expression(cls, expression: str) -> "Interval":
        """Read a rate back, in minutes, hours or days.

        Raises
        ------
        ValueError
            When it is no rate that EventBridge accepts (``rate(1 minutes)`` isn't), or out of range.
        """
        match = _RATE.fullmatch(expression)
        if match is None or (match[1] == "1") == bool(match[3]):
            raise ValueError(f"{expression!r} is no rate expression")
        return cls(int(match[1]) * _MINUTES[match[2]])


@dataclass(frozen=True)
class ScheduleChange:
    """What `sync_rule` found and left behind; ``before`` is None where the rule had no schedule."""

    before: str | None
    after: str
    changed: bool


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
    except (ClientError, BotoCoreError) as error:
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
    except (ScheduleError, BotoCoreError) as error:
        _log.warning("The schedule couldn't be checked: %s", error)
        return None
