"""Events of the function cleanup: what is accepted."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_cleanup.errors import RequestError
from storage_cleanup.events.cleanup import CleanupRequest, DrainRequest, parse_cleanup_event, parse_drain_event
from storage_cleanup.events.fields import kind
from storage_cleanup.model.vocabulary import Phase, Trigger

PLAN = "0b9c7c3e-6e5b-4f0e-9a51-7c1f4dd5a1f0"
SCHEDULED = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2026-11-24T00:00:00Z",
    "region": "eu-central-1",
    "resources": ["arn:aws:events:eu-central-1:123456789012:rule/storage-cleanup"],
    "detail": {},
}


def manual(**fields: Any) -> CleanupRequest:
    return parse_cleanup_event({"action": "cleanup", **fields})


def faults(event: object) -> tuple[str, ...]:
    with pytest.raises(RequestError) as refusal:
        parse_cleanup_event(event)
    return refusal.value.faults


@pytest.mark.parametrize("source", ["aws.events", "aws.scheduler"])
@pytest.mark.parametrize("detail", [{}, "{}"])
def test_a_scheduled_event_leaves_everything_to_the_parameters(source: str, detail: object) -> None:
    event = {**SCHEDULED, "source": source, "detail": detail}
    assert parse_cleanup_event(event) == CleanupRequest(Trigger.SCHEDULE)


def test_a_scheduled_event_from_elsewhere_is_refused() -> None:
    assert faults({**SCHEDULED, "source": "me"}) == ("source is 'me'; it accepts aws.events or aws.scheduler",)


def test_a_scheduled_event_with_wishes_is_refused() -> None:
    assert "detail is a dict" in faults({**SCHEDULED, "detail": {"dry_run": True}})[0]


def test_a_scheduled_event_with_an_action_is_refused() -> None:
    assert faults({**SCHEDULED, "action": "health"})[0].startswith("an event whose action is 'health' isn't for this")


def test_a_manual_event_needs_only_its_action() -> None:
    assert manual() == CleanupRequest(Trigger.MANUAL)


def test_a_manual_event_says_what_it_wants() -> None:
    request = manual(dry_run=False, phases=["temp_files"], max_age_minutes=90, max_deletions=5, override=PLAN.upper())
    assert request == CleanupRequest(
        Trigger.MANUAL,
        dry_run=False,
        phases=frozenset({Phase.TEMP_FILES}),
        max_age_minutes=90,
        max_deletions=5,
        override=PLAN,
    )


@pytest.mark.parametrize(("minutes", "deletions"), [(1, 1), (525_600, 10_000_000)])
def test_numbers_reach_from_1_to_the_most_that_is_accepted(minutes: int, deletions: int) -> None:
    request = manual(max_age_minutes=minutes, max_deletions=deletions)
    assert (request.max_age_minutes, request.max_deletions) == (minutes, deletions)


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "cleanup",
        3,
        {},
        {"action": "health"},
        {"action": ["cleanup"]},
        {"Action": "cleanup"},
        {"source": "aws.ssm", "detail-type": "Parameter Store Change", "detail": {"name": "/x", "operation": "Update"}},
    ],
)
def test_other_events_are_refused_with_what_is_accepted(event: object) -> None:
    (fault,) = faults(event)
    assert fault.startswith(f"{kind(event)} isn't for this function; accepted are ")
    assert '{"action": "cleanup"}' in fault
    assert "scheduled event" in fault


UNKNOWN = (
    "'temp-files' is no phase; did you mean temp_files?; "
    "'x' is no phase; there are temp_files, storage_files, render_jobs"
)
ACCEPTED = {
    "dry_run": "true or false",
    "max_age_minutes": "a whole number from 1 to 525600",
    "max_deletions": "a whole number from 1 to 10000000",
    "phases": "a list of temp_files, storage_files, render_jobs, each at most once",
    "override": "the plan_id of a dry run, a UUID",
}
WRONG_VALUES: dict[str, list[object]] = {
    "dry_run": ["true", 1, 0, None, []],
    "max_age_minutes": ["3", 3.0, True, None, 0, -1, 525601, 10**30],
    "max_deletions": ["3", 3.0, True, None, 0, -1, 10_000_001],
    "phases": ["temp_files", None, {}, [], ["temp-files"], [1], [[]], ["temp_files", "temp_files"]],
    "override": ["", "yes", 1, None, PLAN.replace("-", ""), f"{{{PLAN}}}", f"{PLAN} "],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in WRONG_VALUES.items() for value in values]
)
def test_a_field_of_another_type_or_range_is_refused_by_name(field: str, value: object) -> None:
    (fault,) = faults({"action": "cleanup", field: value})
    assert fault.startswith(f"{field} ")
    assert fault.endswith(f"; it accepts {ACCEPTED[field]}")


@pytest.mark.parametrize(
    ("field", "value", "fault"),
    [
        ("dry_run", "true", "is 'true'"),
        ("max_deletions", 0, "is 0"),
        ("phases", {}, "is a dict"),
        ("phases", [], "is empty"),
        ("phases", ["temp-files", "x"], f"has a fault: {UNKNOWN}"),
        ("phases", ["temp_files", "temp_files"], "names a phase twice"),
        ("override", "yes", "is 'yes'"),
    ],
)
def test_a_fault_shows_the_value_and_what_is_accepted(field: str, value: object, fault: str) -> None:
    assert faults({"action": "cleanup", field: value}) == (f"{field} {fault}; it accepts {ACCEPTED[field]}",)


@pytest.mark.parametrize("field", ["dry_run", "phases", "max_age_minutes", "max_deletions", "override"])
def test_a_misspelt_field_is_refused_with_what_was_meant(field: str) -> None:
    assert faults({"action": "cleanup", field.replace("_", "-") + "s": 1}) == (
        f"'{field.replace('_', '-')}s' is no field; did you mean {field}?",
    )


def test_a_misspelt_phase_is_refused_with_what_was_meant() -> None:
    assert "did you mean temp_files?" in faults({"action": "cleanup", "phases": ["temp-files"]})[0]


def test_every_fault_is_named_at_once() -> None:
    assert len(faults({"action": "cleanup", "dryrun": True, "phases": [], "max_deletions": "all"})) == 3


def test_an_override_of_a_dry_run_is_refused() -> None:
    assert faults({"action": "cleanup", "dry_run": True, "override": PLAN}) == (
        "override: a dry run needs none; leave out one of dry_run and override",
    )


def test_an_event_of_another_kind_is_no_drain() -> None:
    assert parse_drain_event({"action": "cleanup"}) is None
    assert parse_drain_event("drain") is None


def test_a_drain_has_four_workers_unless_told_otherwise() -> None:
    assert parse_drain_event({"action": "drain", "max_deletions": 5}) == DrainRequest(max_deletions=5, workers=4)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "max_deletions is missing; it accepts a whole number from 1 to 1000000000"),
        ({"max_deletions": 0}, "max_deletions is 0; it accepts a whole number from 1 to 1000000000"),
        ({"max_deletions": True}, "max_deletions is True"),
        ({"max_deletions": 5, "workers": 17}, "workers is 17; it accepts a whole number from 1 to 16"),
        ({"max_deletions": 5, "worker": 4}, "did you mean workers"),
        ({"max_deletions": 5, "dry_run": True}, "dry_run"),
    ],
)
def test_a_drain_with_a_fault_is_refused_and_told_what_it_accepts(fields: dict[str, Any], fault: str) -> None:
    with pytest.raises(RequestError, match=fault):
        parse_drain_event({"action": "drain", **fields})


def test_a_drain_is_no_cleanup() -> None:
    with pytest.raises(RequestError, match="drain"):
        parse_cleanup_event({"action": "drain", "max_deletions": 5})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(["action", "dry_run", "phases", "max_age_minutes", "override", "detail", "detail-type", "x"])


@settings(max_examples=300, deadline=None)
@given(json_values | st.dictionaries(fields, json_values | st.just("cleanup") | st.just("Scheduled Event")))
def test_whatever_the_event_is_it_is_read_or_refused(event: object) -> None:
    with suppress(RequestError):
        assert isinstance(parse_cleanup_event(event), CleanupRequest)
