"""How often a cycle runs: a value that can't be invalid, as EventBridge writes it."""

import re
from dataclasses import dataclass

from storage_cleanup.limits import MAX_INTERVAL_MINUTES

_MINUTES = {"minute": 1, "hour": 60, "day": 24 * 60}
_RATE = re.compile(r"rate\(([1-9][0-9]{0,4}) (minute|hour|day)(s?)\)")


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
