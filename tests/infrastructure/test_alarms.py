"""Each alarm, by its own definition, over figures as both profiles make them."""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from storage_cleanup.scheduling import monitor
from storage_cleanup.scheduling.rate import Interval
from tests.infrastructure.alarms import Figures, states
from tests.infrastructure.conftest import STAGE, Template

START = datetime(2026, 1, 1, tzinfo=UTC)
# The two profiles, and an interval that an operator might choose.
INTERVALS = [3, 20, 60]


def alarm(template: Template, name: str) -> dict[str, Any]:
    properties: dict[str, Any] = template["Resources"][f"{name}Alarm"]["Properties"]
    return properties


def run(template: Template, name: str, figures: Figures, minutes: range) -> dict[int, str]:
    parameters = {key: value.get("Default") for key, value in template["Parameters"].items()}
    return states(alarm(template, name), figures, minutes, parameters)


def first_alarm(found: dict[int, str]) -> int | None:
    return next((minute for minute, state in found.items() if state == "ALARM"), None)


def by_cycle(interval: int, values: list[float]) -> Figures:
    """One figure a cycle."""
    return {index * interval: [value] for index, value in enumerate(values)}


# What a cycle reports, and at the end of which cycle (counted from 0) the alarm is on, or None if it stays off.
@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("SomeOrphans", [0, 50, 50], None),
        ("SomeOrphans", [0, 51, 0], 1),
        ("ManyOrphans", [51, 100, 100], None),
        ("ManyOrphans", [51, 100, 101], 2),
        ("SlowCycle", [1, 30, 30], None),
        ("SlowCycle", [1, 30.5, 1], 1),
        ("SlowQuery", [5, 5], None),
        ("SlowQuery", [0.1, 5.1], 1),
        ("BreakerOpen", [0, 0, 1, 0], 2),
        ("ConfigurationError", [0, 0, 0], None),
        ("ConfigurationError", [0, 1, 0], 1),
        ("StuckClaims", [0, 1], 1),
    ],
)
def test_figures_of_a_cycle(
    translated: Template, interval: int, name: str, values: list[float], expected: int | None
) -> None:
    figures = by_cycle(interval, values)
    found = run(translated, name, figures, range(len(values) * interval))
    assert first_alarm(found) == (None if expected is None else expected * interval)


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_state_holds_until_the_next_cycle_says_otherwise(translated: Template, interval: int) -> None:
    found = run(translated, "ManyOrphans", by_cycle(interval, [500, 0]), range(interval + 1))
    assert {found[minute] for minute in range(interval)} == {"ALARM"}
    assert found[interval] == "OK"


def overdue(interval: int, cycles: list[int], minutes: range, changed: int = -10_000) -> Figures:
    """Return what the watch publishes every minute; it sees a cycle's figure one minute later."""
    figures = {}
    for minute in minutes:
        seen = [START + timedelta(minutes=cycle) for cycle in cycles if cycle < minute]
        now = START + timedelta(minutes=minute)
        looked_since = now - timedelta(minutes=6 * interval + 17)
        value = monitor.intervals_overdue(
            Interval(interval), seen, [START + timedelta(minutes=changed)], looked_since, now
        )
        figures[minute] = [value]
    return figures


@pytest.mark.parametrize("interval", [1, *INTERVALS, 1440])
def test_a_schedule_that_is_kept_is_no_outage(translated: Template, interval: int) -> None:
    # EventBridge starts a cycle within its minute: every third comes a minute late.
    cycles = [index * interval + (index % 3 == 1) for index in range(20)]
    minutes = range(1, 19 * interval)
    assert first_alarm(run(translated, "MissingCycle", overdue(interval, cycles, minutes), minutes)) is None


@pytest.mark.parametrize("interval", [*INTERVALS, 1440])
def test_a_missing_cycle_is_noticed_within_two_intervals(translated: Template, interval: int) -> None:
    cycles = [index * interval for index in range(10)]
    due = 10 * interval
    minutes = range(1, due + 3 * interval)
    noticed = first_alarm(run(translated, "MissingCycle", overdue(interval, cycles, minutes), minutes))
    assert noticed is not None
    assert due < noticed < due + 2 * interval


@pytest.mark.parametrize("interval", INTERVALS)
def test_a_missing_cycle_is_over_with_the_next(translated: Template, interval: int) -> None:
    cycles = [0, interval, 4 * interval, 5 * interval]
    minutes = range(1, 6 * interval)
    found = run(translated, "MissingCycle", overdue(interval, cycles, minutes), minutes)
    assert found[4 * interval] == "ALARM"
    assert {found[minute] for minute in range(4 * interval + 1, 6 * interval)} == {"OK"}


@pytest.mark.parametrize(("before", "after"), [(60, 3), (3, 60)])
def test_switching_the_profile_is_no_outage(translated: Template, before: int, after: int) -> None:
    switched = 5 * before - 1  # at the worst time: the next cycle was about to start
    cycles = [*range(0, switched, before), *range(switched + after, switched + 5 * after, after)]
    minutes = range(switched + 1, switched + 5 * after)
    figures = overdue(after, cycles, minutes, changed=switched)
    assert first_alarm(run(translated, "MissingCycle", figures, minutes)) is None


def test_lost_minutes_of_the_watch_are_nothing(translated: Template) -> None:
    figures = {minute: [1.0] for minute in range(60) if minute % 10 < 4}
    assert first_alarm(run(translated, "WatchSilent", figures, range(10, 60))) is None


def test_only_the_watchs_own_alarm_takes_missing_figures_for_trouble(translated: Template) -> None:
    breaching = [
        name
        for name, each in translated["Resources"].items()
        if each["Type"] == "AWS::CloudWatch::Alarm" and each["Properties"]["TreatMissingData"] == "breaching"
    ]
    assert breaching == ["WatchSilentAlarm"]


@pytest.mark.parametrize("interval", INTERVALS)
@pytest.mark.parametrize(
    ("outcomes", "fires"), [("ggfff", False), ("ggffff", True), ("fffgfff", False), ("ggcccc", True)]
)
def test_four_failed_cycles_in_a_row(translated: Template, interval: int, outcomes: str, *, fires: bool) -> None:
    """g: good, f: failed, c: crashed, which reports nothing."""
    times = [START + timedelta(minutes=index * interval) for index in range(len(outcomes))]
    started = dict.fromkeys(times, 1.0)
    finished = {time: 1.0 for time, outcome in zip(times, outcomes, strict=True) if outcome != "c"}
    failed = {time: 1.0 for time, outcome in zip(times, outcomes, strict=True) if outcome == "f"}
    now = times[-1] + timedelta(minutes=16)
    count = monitor.consecutive_failures(monitor.Figures(started, finished, failed), timedelta(minutes=15), now)
    found = run(translated, "FailedCycles", {0: [count]}, range(1))
    assert (found[0] == "ALARM") is fires


def test_a_day_of_testing_is_fine_and_the_third_is_not(translated: Template) -> None:
    figures = {minute: [minute / 60] for minute in range(50 * 60)}
    assert first_alarm(run(translated, "TestingTooLong", figures, range(50 * 60))) == 48 * 60 + 1
    assert first_alarm(run(translated, "TestingTooLong", {}, range(600))) is None


def test_a_nonsense_profile_is_an_alarm_and_a_hiccup_is_not(translated: Template) -> None:
    assert first_alarm(run(translated, "ScheduleSyncErrors", {5: [1.0]} | _zeros(30, but={5}), range(30))) is None
    errors = {minute: [1.0] for minute in range(10, 20)} | _zeros(30, but=set(range(10, 20)))
    found = run(translated, "ScheduleSyncErrors", errors, range(30))
    noticed = first_alarm(found)
    assert noticed is not None
    assert 10 < noticed <= 20
    assert found[29] == "OK"


def test_drift_that_is_repaired_is_nothing_and_drift_that_comes_back_is(translated: Template) -> None:
    assert first_alarm(run(translated, "ScheduleDrift", {5: [1.0]} | _zeros(60, but={5}), range(60))) is None
    again = {5, 10, 15}
    figures = {minute: [1.0] for minute in again} | _zeros(60, but=again)
    assert first_alarm(run(translated, "ScheduleDrift", figures, range(60))) == 15


@pytest.mark.parametrize(
    ("name", "value", "fires"),
    [
        ("Growth", 10, False),
        ("Growth", 10.1, True),
        ("FastGrowth", 20, False),
        ("FastGrowth", 20.1, True),
        ("UndeliveredEvents", 0, False),
        ("UndeliveredEvents", 1, True),
        ("DrainFailed", 0, False),
        ("DrainFailed", 1, True),
        ("FailedEvents", 3, False),
        ("FailedEvents", 4, True),
        ("FunctionErrors", 0, False),
        ("FunctionErrors", 1, True),
        ("HealthSilent", 26, False),
        ("HealthSilent", 26.25, True),
        ("CleanupSilent", 26, False),
        ("CleanupSilent", 26.25, True),
    ],
)
def test_single_figures(translated: Template, name: str, value: float, *, fires: bool) -> None:
    assert (run(translated, name, {9: [value]}, range(10))[9] == "ALARM") is fires


def test_every_alarm_writes_by_itself_or_is_a_part_of_one_that_does(translated: Template) -> None:
    """Within a composite, one that is on would hide the next: only what a drain brings about shares one."""
    resources = translated["Resources"]
    alone, parts = set(), set()
    for name, each in resources.items():
        properties = each.get("Properties", {})
        if each["Type"].startswith("AWS::CloudWatch::") and "AlarmActions" in properties:
            assert properties["AlarmActions"] == properties["OKActions"] == [{"Ref": "AlarmTopic"}]
            alone.add(name)
            parts |= set(re.findall(r"\(\$\{(\w+)\}\)", properties.get("AlarmRule", {}).get("Fn::Sub", "")))
    alarms = {name for name, each in resources.items() if each["Type"] == "AWS::CloudWatch::Alarm"}
    assert alarms - alone == {
        "WatchSilentAlarm",
        "DrainRunningAlarm",
        "SomeOrphansAlarm",
        "SlowCycleAlarm",
        "SlowQueryAlarm",
    }
    assert alarms - alone - parts == {"DrainRunningAlarm"}


def test_alarms_and_dashboard_ask_for_the_same_dimension(translated: Template) -> None:
    service = "storage-cleanup-${Stage}"
    for each in translated["Resources"].values():
        if each["Type"] == "AWS::CloudWatch::Alarm" and each["Properties"]["Namespace"] == "StorageCleanup":
            assert each["Properties"]["Dimensions"][0] == {"Name": "service", "Value": {"Fn::Sub": service}}
    board = json.loads(translated["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"])
    metrics = [metric for widget in board["widgets"] for metric in widget["properties"].get("metrics", [])]
    own = [metric for metric in metrics if metric[0] == "StorageCleanup"]
    assert {metric[3] for metric in own} == {service}


def test_figures_carry_the_dimension_that_the_alarms_ask_for(translated: Template) -> None:
    function = translated["Resources"]["CleanupFunction"]["Properties"]
    service = function["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"]
    name = service["Fn::Sub"].replace("${Stage}", STAGE)
    script = "from storage_cleanup.telemetry import metrics; print(metrics.service)"
    found = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "POWERTOOLS_SERVICE_NAME": name},
    )
    assert found.stdout.strip() == "storage-cleanup-production"


def _zeros(minutes: int, but: set[int]) -> dict[int, list[float]]:
    return {minute: [0.0] for minute in range(minutes) if minute not in but}
