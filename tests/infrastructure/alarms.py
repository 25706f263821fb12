"""CloudWatch's evaluation of alarms, from their own definitions, and what they send to subscribers.

As documented ("Configuring how CloudWatch alarms treat missing data"), an alarm is evaluated every minute over its
last N periods. It looks at a few more than N; where those hold N figures, gaps among them don't count. Otherwise the
gaps are filled as ``TreatMissingData`` says.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_EXTRA_PERIODS = 2  # the documentation's example: 3 periods, and a range of 5
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}
_STATISTICS: Mapping[str, Callable[[Sequence[float]], float]] = {"Maximum": max, "Minimum": min, "Sum": sum}

Figures = Mapping[int, Sequence[float]]
Series = Mapping[str, Figures]
"""What was published, by metric: its name, and where there is one, what it is of (``Errors/HealthFunction``)."""


def metric_of(alarm: Mapping[str, Any]) -> str:
    """Return the name by which a `Series` knows an alarm's metric."""
    subjects = [each["Value"] for each in alarm["Dimensions"] if each["Name"] != "service"]
    names = [_subject(each) for each in subjects]
    return "/".join([alarm["MetricName"], *names])


def _subject(value: Any) -> str:
    if isinstance(value, dict):
        ((_, name),) = value.items()
        return str(name[0] if isinstance(name, list) else name)
    return str(value)


def messages(template: Mapping[str, Any], series: Series, minutes: range) -> list[tuple[int, str]]:
    """Return what subscribers are sent: the minute, and the logical id of the alarm that came on.

    A composite is silent while its suppressor is on, and for its waiting and extension periods; what comes on meanwhile
    is sent afterwards if it is still on ("Suppressing composite alarm actions").
    """
    parameters = {name: each.get("Default") for name, each in template["Parameters"].items()}
    found: dict[str, dict[int, str]] = {}
    sent: list[tuple[int, str]] = []
    resources = template["Resources"]
    for name, each in resources.items():
        if each["Type"] == "AWS::CloudWatch::Alarm":
            figures = series.get(metric_of(each["Properties"]), {})
            found[name] = states(each["Properties"], figures, minutes, parameters)
    for name, each in resources.items():
        properties = each.get("Properties", {})
        if each["Type"] == "AWS::CloudWatch::CompositeAlarm":
            found[name] = {minute: "ALARM" if _holds(properties, found, minute) else "OK" for minute in minutes}
        if name in found and "AlarmActions" in properties:
            sent += [(minute, name) for minute in _sends(properties, found, name, minutes)]
    return sorted(sent)


def _holds(composite: Mapping[str, Any], found: Mapping[str, Mapping[int, str]], minute: int) -> bool:
    """Evaluate a rule: states of alarms, joined by AND, OR and NOT, without parentheses."""
    rule = composite["AlarmRule"]["Fn::Sub"]

    def part(text: str) -> bool:
        negated, text = text.strip().startswith("NOT "), text.strip().removeprefix("NOT ")
        state, name = re.fullmatch(r"(ALARM|INSUFFICIENT_DATA|OK)\(\$\{(\w+)\}\)", text).groups()  # type: ignore[union-attr]
        return bool((found[name][minute] == state) is not negated)

    return any(all(part(each) for each in group.split(" AND ")) for group in rule.split(" OR "))


def _sends(
    alarm: Mapping[str, Any], found: Mapping[str, Mapping[int, str]], name: str, minutes: range
) -> Iterator[int]:
    suppressor = alarm.get("ActionsSuppressor", {}).get("Fn::GetAtt", [None])[0]
    wait = alarm.get("ActionsSuppressorWaitPeriod", 0) // 60
    extension = alarm.get("ActionsSuppressorExtensionPeriod", 0) // 60
    since, quiet_until, is_sent = None, -1, False
    for minute in minutes:
        if suppressor and found[suppressor][minute] == "ALARM":
            quiet_until = minute + extension
        if found[name][minute] != "ALARM":
            since, is_sent = None, False
            continue
        since = minute if since is None else since
        if not is_sent and minute >= since + wait and minute > quiet_until:
            is_sent = True
            yield minute


def states(alarm: Mapping[str, Any], figures: Figures, minutes: range, parameters: Mapping[str, Any]) -> dict[int, str]:
    """Return the alarm's state at each minute.

    Parameters
    ----------
    alarm
        The resource's properties.
    figures
        What was published, by minute.
    parameters
        Values of the stack's parameters, for thresholds that refer to one.
    """
    state, found = "INSUFFICIENT_DATA", {}
    reach = (alarm["EvaluationPeriods"] + _EXTRA_PERIODS) * alarm["Period"] // 60
    last_figure = None
    for minute in minutes:
        last_figure = minute if minute in figures else last_figure
        if minute == minutes[0] or (last_figure is not None and minute - last_figure <= reach):
            state = _evaluate(alarm, figures, minute, state, parameters)
        found[minute] = state  # nothing is left in its range: it stays what it was when that became so
    return found


def _evaluate(alarm: Mapping[str, Any], figures: Figures, now: int, state: str, parameters: Mapping[str, Any]) -> str:
    wanted, needed = alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]
    length = alarm["Period"] // 60
    recent = [_point(alarm, figures, now - index * length, length) for index in range(wanted + _EXTRA_PERIODS)]
    real = [point for point in recent if point is not None]
    missing = alarm["TreatMissingData"]
    considered: list[float | None] = list(real[:wanted]) if len(real) >= wanted else [*real]
    gaps = wanted - len(considered)
    threshold = _number(alarm["Threshold"], parameters)
    compare = _COMPARE[alarm["ComparisonOperator"]]
    breaching = sum(compare(point, threshold) for point in considered if point is not None)
    if missing == "breaching":
        return "ALARM" if breaching + gaps >= needed else "OK"
    if missing == "notBreaching":
        return "ALARM" if breaching >= needed else "OK"
    if missing != "ignore":
        raise NotImplementedError(missing)
    if breaching >= needed:
        return "ALARM"
    return "OK" if not gaps else state


def _point(alarm: Mapping[str, Any], figures: Figures, end: int, length: int) -> float | None:
    """Return the figure of the period of ``length`` minutes that ends with the minute ``end``."""
    values = [value for minute in range(end - length + 1, end + 1) for value in figures.get(minute, ())]
    return _STATISTICS[alarm["Statistic"]](values) if values else None


def _number(value: Any, parameters: Mapping[str, Any]) -> float:
    return float(parameters[value["Ref"]] if isinstance(value, dict) else value)
