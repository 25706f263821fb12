"""What an invocation of the function health asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from storage_cleanup.events.fields import not_for_this_function, one_of, read_fields


class Period(StrEnum):
    """The time that a report is about; it ends when the report is made."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    QUARTERLY = "quarterly"


_ACCEPTED = f'are {{"action": "health"}} and {{"action": "report", "period": "{"|".join(Period)}"}}'
_REPORT_FIELDS = {"period": one_of(Period)}


@dataclass(frozen=True)
class HealthRequest:
    """Asks for every check."""


@dataclass(frozen=True)
class ReportRequest:
    """Asks for a report over a period."""

    period: Period


def parse_health_event(event: object) -> HealthRequest | ReportRequest:
    """Read the event of the function health; a schedule sends the same JSON as a person.

    Raises
    ------
    RequestError
        With every fault of the event, or with what is accepted when it is of another kind.

    Examples
    --------
    >>> parse_health_event({"action": "report", "period": "weekly"}).period.value
    'weekly'
    """
    match event:
        case Mapping() if event.get("action") == "health":
            return HealthRequest(**read_fields(event, {}))
        case Mapping() if event.get("action") == "report":
            return ReportRequest(**read_fields(event, _REPORT_FIELDS))
    raise not_for_this_function(event, _ACCEPTED)
