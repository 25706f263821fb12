"""Events: what is accepted, and how bold one may be."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_cleanup.cleanup.options import RunOptions, resolve
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import RequestError
from storage_cleanup.events.cleanup import CleanupRequest, parse_cleanup_event
from storage_cleanup.model.vocabulary import Phase, Trigger
from tests.unit.examples import PARAMETERS

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


def parameters(**changes: str) -> Settings:
    return Settings.from_parameters(
        {**PARAMETERS, **{name.replace("__", "/"): value for name, value in changes.items()}}
    )


def manual(**fields: Any) -> CleanupRequest:
    return parse_cleanup_event({"action": "cleanup", **fields})


def faults(event: object) -> tuple[str, ...]:
    with pytest.raises(RequestError) as refusal:
        parse_cleanup_event(event)
    return refusal.value.faults


def bold(request: CleanupRequest, found: Settings) -> tuple[str, ...]:
    with pytest.raises(RequestError) as refusal:
        resolve(request, found)
    return refusal.value.faults


@pytest.mark.parametrize("source", ["aws.events", "aws.scheduler"])
@pytest.mark.parametrize("detail", [{}, "{}"])
def test_a_scheduled_event_leaves_everything_to_the_parameters(source: str, detail: object) -> None:
    event = {**SCHEDULED, "source": source, "detail": detail}
    assert parse_cleanup_event(event) == CleanupRequest(Trigger.SCHEDULE)


def test_a_scheduled_event_from_elsewhere_is_refused() -> None:
    assert "source is 'me'" in faults({**SCHEDULED, "source": "me"})[0]


def test_a_scheduled_event_with_wishes_is_refused() -> None:
    assert "detail is a dict" in faults({**SCHEDULED, "detail": {"dry_run": True}})[0]


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
    assert '{"action": "cleanup"}' in fault
    assert "scheduled event" in fault


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
    assert "override" in faults({"action": "cleanup", "dry_run": True, "override": PLAN})[0]


def test_what_an_event_does_not_say_comes_from_the_parameters() -> None:
    assert resolve(CleanupRequest(Trigger.SCHEDULE), parameters(**{"phases__temp-files": "false"})) == RunOptions(
        trigger=Trigger.SCHEDULE,
        dry_run=False,
        phases=frozenset({Phase.STORAGE_FILES, Phase.RENDER_JOBS}),
        max_age=timedelta(hours=1),
        max_deletions=10000,
        override=None,
    )


def test_the_age_is_the_active_profiles() -> None:
    assert resolve(manual(), parameters(profile="testing")).max_age == timedelta(minutes=3)


def test_the_parameter_makes_every_run_dry() -> None:
    assert resolve(manual(), parameters(**{"dry-run": "true"})).dry_run


def test_an_event_may_be_more_careful_than_the_parameters() -> None:
    options = resolve(manual(dry_run=True, max_age_minutes=61, max_deletions=1, phases=["temp_files"]), parameters())
    assert options.dry_run
    assert (options.max_age, options.max_deletions) == (timedelta(minutes=61), 1)
    assert options.phases == {Phase.TEMP_FILES}


BOLD: list[tuple[dict[str, Any], dict[str, str], list[str]]] = [
    ({"max_age_minutes": 59}, {}, ["max_age_minutes is 59", "production/max-age-minutes allows 60 or more"]),
    ({"max_deletions": 10001}, {}, ["max_deletions is 10001", "limits/max-deletions-per-run allows 10000 or fewer"]),
    ({"dry_run": False}, {"dry-run": "true"}, ["dry_run is false", "parameter dry-run is true"]),
    (
        {"phases": ["render_jobs"]},
        {"phases__render-jobs": "false"},
        ["phases has render_jobs", "parameter phases/render-jobs is false"],
    ),
]


@pytest.mark.parametrize(("wish", "changes", "words"), BOLD)
def test_a_bolder_event_is_refused_and_told_how_to_go_on(
    wish: dict[str, Any], changes: dict[str, str], words: list[str]
) -> None:
    fault, advice = bold(manual(**wish), parameters(**changes))
    assert all(word in fault for word in words)
    assert "plan_id" in advice


@pytest.mark.parametrize(("wish", "changes"), [(wish, changes) for wish, changes, _ in BOLD])
def test_an_override_lifts_what_the_parameters_allow(wish: dict[str, Any], changes: dict[str, str]) -> None:
    assert resolve(manual(**{"dry_run": False, **wish}, override=PLAN), parameters(**changes)).override == PLAN


@pytest.mark.parametrize(("wish", "changes"), [(wish, changes) for wish, changes, _ in BOLD if "dry_run" not in wish])
def test_a_dry_run_may_look_as_far_as_it_likes(wish: dict[str, Any], changes: dict[str, str]) -> None:
    assert resolve(manual(**wish, dry_run=True), parameters(**changes)).dry_run


def test_every_boldness_is_named_at_once() -> None:
    assert len(bold(manual(max_age_minutes=1, max_deletions=99999), parameters())) == 3


def test_an_override_that_the_parameter_would_make_dry_is_refused() -> None:
    assert "dry-run" in bold(manual(override=PLAN), parameters(**{"dry-run": "true"}))[0]


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
