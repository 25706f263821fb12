"""What a check is: where its value comes from, what that is held against, and the sentence for each case."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from string import Formatter
from typing import Any

from storage_cleanup.health.sources import Sources


class Status(StrEnum):
    """How urgent a check is: nothing to do, look within 4 hours, act at once."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Limit:
    """How far a value may go before it is a warning, and before it is critical; None where it never is.

    A floor is the least that a value may be, other limits are the most.
    """

    warning: float | None = None
    critical: float | None = None
    is_floor: bool = False

    def status(self, value: float) -> Status:
        """Judge a value: beyond a limit, not at it."""
        for status, limit in ((Status.CRITICAL, self.critical), (Status.WARNING, self.warning)):
            if limit is not None and (value < limit if self.is_floor else value > limit):
                return status
        return Status.OK

    def as_dict(self) -> dict[str, float]:
        """Return the limits that there are."""
        limits = {"warning": self.warning, "critical": self.critical}
        return {name: limit for name, limit in limits.items() if limit is not None}


@dataclass(frozen=True)
class Found:
    """What a check has found.

    Attributes
    ----------
    value
        A number, or figures by name; None where there is nothing to tell.
    measure
        What a ``Limit`` judges.
    case
        The key of the sentence, where no ``Limit`` decides.
    threshold
        What the value is held against, where that isn't always the same.
    words
        What the sentence says beside the value.
    figures
        What alarms count, by the name of the metric.
    """

    value: Any
    measure: float = 0
    case: str | None = None
    threshold: Any = None
    words: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """One answer.

    Attributes
    ----------
    value
        What was found: a number, or figures by name; None where it couldn't be found.
    threshold
        What it was held against; None for a figure that is only told.
    sentence
        What it means and, unless all is well, what to do.
    """

    name: str
    value: Any
    threshold: Any
    status: Status
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return what was found, without the name, as JSON-ready values."""
        return {
            "value": self.value,
            "threshold": self.threshold,
            "status": self.status.value,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Check:
    """An entry of the table.

    A sentence is a format string over ``value`` and ``words``, in which a number may be given a noun (``{value:claim}``
    makes "1 claim" and "2 claims") and a list what joins it (``{value:; }``).

    Attributes
    ----------
    look
        Finds the value; an error that it raises leaves this check unanswered.
    threshold
        A ``Limit``, or what the value ought to be; None for a figure that is only told.
    ok, warning, critical
        The sentence for each status; without one of its own, what is critical takes that of the warning.
    cases
        Status and sentence of whatever needs another.
    is_essential
        Whether no further check can be made without an answer to this one.
    """

    name: str
    look: Callable[[Sources], Found]
    threshold: Any = None
    _: KW_ONLY
    ok: str
    warning: str = ""
    critical: str = ""
    cases: Mapping[str, tuple[Status, str]] = field(default_factory=dict)
    is_essential: bool = False

    def judge(self, found: Found) -> Result:
        """Hold what was found against the threshold, and say what it means."""
        threshold = self.threshold if found.threshold is None else found.threshold
        case: str = found.case or Status.OK
        if isinstance(threshold, Limit):
            case = found.case or threshold.status(found.measure)
            threshold = threshold.as_dict()
        status, sentence = self.by_case()[case]
        return Result(
            self.name, found.value, threshold, status, _WORDING.format(sentence, value=found.value, **found.words)
        )

    def unanswered(self, error: Exception) -> Result:
        """Return the answer when the value couldn't be found."""
        status, sentence = self.by_case()["unanswered"]
        return Result(self.name, None, None, status, sentence.format(error=error))

    def by_case(self) -> Mapping[str, tuple[Status, str]]:
        """Return the status and the sentence of each case."""
        return {
            Status.OK: (Status.OK, self.ok),
            Status.WARNING: (Status.WARNING, self.warning),
            Status.CRITICAL: (Status.CRITICAL, self.critical or self.warning),
            "unanswered": (Status.WARNING, "This couldn't be checked: {error}."),
            **self.cases,
        }


@dataclass(frozen=True)
class HealthAnswer:
    """What was found.

    Attributes
    ----------
    figures
        What alarms count, by the name of the metric.
    """

    checks: list[Result]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The most urgent status of all checks."""
        return max((check.status for check in self.checks), key=list(Status).index, default=Status.OK)

    def count(self, status: Status) -> int:
        """Return how many checks have that status."""
        return sum(check.status is status for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON-ready values."""
        return {
            "status": self.status.value,
            "critical": self.count(Status.CRITICAL),
            "warnings": self.count(Status.WARNING),
            "checks": {check.name: check.as_dict() for check in self.checks},
        }


class _Wording(Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if isinstance(value, list):
            return (format_spec or ", ").join(value)
        if isinstance(value, int) and format_spec[:1].isalpha():
            return f"{value:,} {format_spec}" if value == 1 else f"{value:,} {format_spec}s"
        return str(super().format_field(value, format_spec))


_WORDING = _Wording()
