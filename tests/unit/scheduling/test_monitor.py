"""The interval that is wanted, and what is counted to see whether cycles keep to it."""

from datetime import UTC, datetime, timedelta
from typing import Any

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


# -- the hours since the last success of a function -------------------------------------------------------------------


class Cloudwatch:
    """Answers with what a test has put, by the id of a query, and notes what it was asked."""

    def __init__(self, **series: dict[int, float]) -> None:
        self.series = series
        self.queries: list[dict[str, Any]] = []

    def get_paginator(self, _: str) -> "Cloudwatch":
        return self

    def paginate(self, **asked: Any) -> list[dict[str, Any]]:
        self.queries += asked["MetricDataQueries"]
        results = [
            {
                "Id": query["Id"],
                "Timestamps": [START + timedelta(hours=hour) for hour in self.series.get(query["Id"], {})],
                "Values": list(self.series.get(query["Id"], {}).values()),
            }
            for query in asked["MetricDataQueries"]
        ]
        return [{"MetricDataResults": results}]


def silent(cloudwatch: Cloudwatch, *, hours: float, deployed: float | None = None) -> dict[str, float]:
    return monitor.hours_since_success(
        cloudwatch,
        namespace="StorageCleanup",
        service="s",
        health="h",
        deployed=None if deployed is None else START + timedelta(hours=deployed),
        now=START + timedelta(hours=hours),
    )


def test_hours_count_from_the_last_that_did_not_fail() -> None:
    cloudwatch = Cloudwatch(
        cleanup_done={1: 20, 2: 20, 3: 20},
        cleanup_failed={2: 19, 3: 20},
        health_done={0: 1, 5: 1},
        health_failed={5: 1},
    )
    assert silent(cloudwatch, hours=6) == {"cleanup": 4, "health": 6}


def test_without_a_success_the_hours_since_the_deploy_count() -> None:
    assert silent(Cloudwatch(), hours=30, deployed=20) == {"cleanup": 10, "health": 10}


@pytest.mark.parametrize("deployed", [None, -500.0])
def test_without_a_success_or_a_deploy_in_three_days_these_count(deployed: float | None) -> None:
    assert silent(Cloudwatch(), hours=100, deployed=deployed) == {"cleanup": 72, "health": 72}


def test_a_deploy_after_the_last_success_counts_as_one() -> None:
    assert silent(Cloudwatch(health_done={0: 1}), hours=50, deployed=49)["health"] == 1


def test_cleanup_is_judged_by_its_cycles_and_health_by_its_invocations() -> None:
    cloudwatch = Cloudwatch()
    silent(cloudwatch, hours=1)
    metrics = {query["Id"]: query["MetricStat"]["Metric"] for query in cloudwatch.queries}
    assert metrics["cleanup_done"]["MetricName"] == metrics["cleanup_failed"]["MetricName"] == "CycleFailed"
    assert metrics["health_done"]["Dimensions"] == [{"Name": "FunctionName", "Value": "h"}]
    assert {query["MetricStat"]["Period"] for query in cloudwatch.queries} == {3600}


@pytest.mark.parametrize(
    ("noted", "at"), [(START.isoformat(), START), ("yesterday", None), ("2026-01-01T00:00:00", None), (None, None)]
)
def test_the_deploy_is_read_from_its_note(noted: str | None, at: datetime | None) -> None:
    parameters = {"setup/begun": StoredParameter(noted, START)} if noted else {}
    assert monitor.deployed_at(parameters) == at


# -- a drain, and when it is time to look ----------------------------------------------------------------------------


@pytest.mark.parametrize("running", [[], [{"executionArn": "a"}]])
def test_a_drain_runs_while_an_execution_does(running: list[dict[str, str]]) -> None:
    class States:
        def list_executions(self, **asked: Any) -> dict[str, Any]:
            assert asked == {"stateMachineArn": "machine", "statusFilter": "RUNNING", "maxResults": 1}
            return {"executions": running}

    assert monitor.drain_is_running(States(), "machine") is bool(running)


@pytest.mark.parametrize(
    ("interval", "minutes"),
    [(1, range(60)), (3, range(60)), (10, range(60)), (11, range(0, 60, 5)), (60, range(0, 60, 5))],
)
def test_a_slow_schedule_is_looked_at_every_fifth_minute(interval: int, minutes: range) -> None:
    looked = [
        minute for minute in range(60) if monitor.is_time_to_look(Interval(interval), START + timedelta(minutes=minute))
    ]
    assert looked == list(minutes)
