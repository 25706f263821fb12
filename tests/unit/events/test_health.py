"""Events of the function health: what is accepted."""

import pytest

from storage_cleanup.errors import RequestError
from storage_cleanup.events.health import HealthRequest, Period, ReportRequest, parse_health_event


def fault(event: object) -> str:
    with pytest.raises(RequestError) as refusal:
        parse_health_event(event)
    (only,) = refusal.value.faults
    return only


def test_health_needs_only_its_action() -> None:
    assert parse_health_event({"action": "health"}) == HealthRequest()


@pytest.mark.parametrize("period", Period)
def test_a_report_has_a_period(period: Period) -> None:
    assert parse_health_event({"action": "report", "period": period.value}) == ReportRequest(period)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"action": "report"}, "period is missing; it accepts daily, weekly, monthly, quarterly"),
        (
            {"action": "report", "period": "yearly"},
            "period is 'yearly'; it accepts daily, weekly, monthly, quarterly",
        ),
        ({"action": "report", "period": ["daily"]}, "period is a list; it accepts daily, weekly, monthly, quarterly"),
        ({"action": "report", "period": "daily", "periods": 1}, "'periods' is no field; did you mean period?"),
        ({"action": "health", "period": "daily"}, "'period' is no field; there are action"),
    ],
)
def test_a_field_with_a_fault_is_refused_and_told_what_it_accepts(event: object, expected: str) -> None:
    assert fault(event) == expected


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (None, "an event that is None"),
        ([], "an event that is a list"),
        ({}, "an event without an action"),
        ({"action": ["health"]}, "an event whose action is a list"),
        ({"detail-type": "Scheduled Event"}, "an event whose detail-type is 'Scheduled Event'"),
    ],
)
def test_an_event_of_another_kind_is_refused_with_what_is_accepted(event: object, kind: str) -> None:
    assert fault(event) == (
        f"{kind} isn't for this function; "
        'accepted are {"action": "health"} and {"action": "report", "period": "daily|weekly|monthly|quarterly"}'
    )
