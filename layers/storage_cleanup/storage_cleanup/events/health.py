"""What an invocation of the health function asks for; refused like a cleanup's event, field by field."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from storage_cleanup.errors import RequestError
from storage_cleanup.events.wording import shown, unknown_names

_ACCEPTED = 'accepted are {"action": "health"} and {"action": "report", "period": "daily|weekly|monthly|quarterly"}'


class Period(StrEnum):
    """The time that a report is about; it ends when the report is made."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


@dataclass(frozen=True)
class HealthRequest:
    """Asks for every check."""


@dataclass(frozen=True)
class ReportRequest:
    """Asks for a report over a period."""

    period: Period


def parse_health_event(event: object) -> HealthRequest | ReportRequest:
    """Read the event of the health function; a schedule sends the same JSON as a person.

    Raises
    ------
    RequestError
        With every fault of the event, or with what is accepted when it is of another kind.

    Examples
    --------
    >>> parse_health_event({"action": "report", "period": "weekly"}).period.value
    'weekly'
    """
    if not isinstance(event, Mapping):
        raise RequestError([f"an event that is {shown(event)} isn't for this function; {_ACCEPTED}"])
    match event.get("action"):
        case "health":
            _refuse(unknown_names(event, ("action",), "field"))
            return HealthRequest()
        case "report":
            faults = unknown_names(event, ("action", "period"), "field")
            period = event.get("period")
            if not isinstance(period, str) or period not in set(Period):
                faults.append(f"period is {shown(period)}; it accepts {', '.join(Period)}")
            _refuse(faults)
            return ReportRequest(Period(str(period)))
    what = f"whose action is {shown(event['action'])}" if "action" in event else "without an action"
    raise RequestError([f"an event {what} isn't for this function; {_ACCEPTED}"])


def _refuse(faults: list[str]) -> None:
    if faults:
        raise RequestError(faults)
