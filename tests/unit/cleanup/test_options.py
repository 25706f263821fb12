"""How bold an event may be."""

from datetime import timedelta
from typing import Any

import pytest

from storage_cleanup.cleanup.options import RunOptions, resolve
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import RequestError
from storage_cleanup.events.cleanup import CleanupRequest, parse_cleanup_event
from storage_cleanup.model.vocabulary import Phase, Trigger
from tests.unit.examples import PARAMETERS

PLAN = "0b9c7c3e-6e5b-4f0e-9a51-7c1f4dd5a1f0"


def parameters(**changes: str) -> Settings:
    return Settings.from_parameters(
        {**PARAMETERS, **{name.replace("__", "/"): value for name, value in changes.items()}}
    )


def manual(**fields: Any) -> CleanupRequest:
    return parse_cleanup_event({"action": "cleanup", **fields})


def bold(request: CleanupRequest, found: Settings) -> tuple[str, ...]:
    with pytest.raises(RequestError) as refusal:
        resolve(request, found)
    return refusal.value.faults


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
