"""CloudWatch's evaluation of a metric alarm, from the alarm's own definition.

As documented ("Configuring how CloudWatch alarms treat missing data"), an alarm is evaluated every minute over its
last N periods. It looks at a few more than N; where those hold N figures, gaps among them don't count. Otherwise the
gaps are filled as ``TreatMissingData`` says.
"""

from collections.abc import Callable, Mapping, Sequence
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
    for minute in minutes:
        state = found[minute] = _evaluate(alarm, figures, minute, state, parameters)
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
