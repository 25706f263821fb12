"""The interval that is wanted, and what is counted to see whether cycles keep to it."""

from datetime import UTC, datetime, timedelta

import pytest

from storage_cleanup.config.parameters import DEFAULTS
from storage_cleanup.errors import ConfigurationError
from storage_cleanup.scheduling import monitor
from storage_cleanup.scheduling.monitor import (
    Figures,
    StoredParameter,
    consecutive_failures,
    wanted_interval,
)
from storage_cleanup.scheduling.rate import Interval

START = datetime(2026, 1, 1, tzinfo=UTC)


def stored(**values: str) -> dict[str, StoredParameter]:
    tree = {"profile": "testing", "testing__interval-minutes": "3", "production__interval-minutes": "60", **values}
    return {name.replace("__", "/"): StoredParameter(value, START) for name, value in tree.items()}


@pytest.mark.parametrize(("profile", "minutes"), [("testing", 3), ("production", 60)])
def test_the_interval_is_the_active_profiles(profile: str, minutes: int) -> None:
    assert wanted_interval(stored(profile=profile)) == Interval(minutes)


def test_a_fault_of_the_other_profile_does_not_matter() -> None:
    assert wanted_interval(stored(**{"production__interval-minutes": "often"})) == Interval(3)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"profile": "prodution"}, "profile is 'prodution': no such profile; it accepts testing or production"),
        (
            {"testing__interval-minutes": "10081"},
            "testing/interval-minutes is '10081': out of range; it accepts a whole number from 1 to 10080",
        ),
    ],
)
def test_nonsense_is_refused_as_everywhere(values: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        wanted_interval(stored(**values))
    assert refusal.value.faults == (fault,)


@pytest.mark.parametrize("name", ["profile", "testing/interval-minutes"])
def test_a_missing_parameter_means_its_default(name: str) -> None:
    parameters = stored()
    del parameters[name]
    assert wanted_interval(parameters) == wanted_interval(stored(**{name.replace("/", "__"): DEFAULTS[name]}))


def test_a_cycle_under_way_has_not_failed() -> None:
    started = {START + timedelta(minutes=minute): 1.0 for minute in (0, 3, 6, 9, 12)}
    now = START + timedelta(minutes=14)
    assert consecutive_failures(Figures(started, {}, {}), timedelta(minutes=15), now) == 0


@pytest.mark.parametrize(("profile", "hours"), [("testing", 49), ("production", 0)])
def test_hours_of_testing_count_from_the_last_change(profile: str, hours: int) -> None:
    assert monitor.testing_hours(stored(profile=profile), START + timedelta(hours=49)) == hours


def test_without_a_profile_there_are_no_hours_of_testing() -> None:
    assert monitor.testing_hours({}, START) == 0
