"""What subscribers are sent over months: nothing while all is well, and each failure within its time.

That what is on doesn't hide what comes next, after it or beside it, the campaign `alarms` tries with every pair.
"""

import pytest

from tests.infrastructure.alarms import messages
from tests.infrastructure.conftest import Template
from tests.infrastructure.failures import ALL, DAY, FAILURES, HOURLY, healthy, published, unreached


@pytest.mark.parametrize("interval", [1, 3, HOURLY])
def test_healthy_months_reach_nobody(translated: Template, interval: int) -> None:
    minutes = range((31 if interval == HOURLY else 2) * DAY)
    assert messages(translated, healthy(minutes, interval), minutes) == []


def test_a_first_deploy_reaches_nobody(translated: Template) -> None:
    """The alarms are there before the first figure is: the rules come last, and what they start takes its time."""
    minutes = range(2 * DAY)
    assert messages(translated, healthy(minutes, deployed=20), minutes) == []


def test_figures_that_come_late_reach_nobody(translated: Template) -> None:
    """At an interval of a minute, the watch sees a cycle two minutes later than it was."""
    minutes = range(DAY)
    series = healthy(minutes, 1)
    late = {metric: {minute + 2: value for minute, value in figures.items()} for metric, figures in series.items()}
    assert messages(translated, late, minutes) == []


def test_every_alarm_that_writes_has_a_failure_that_it_is_for(translated: Template) -> None:
    writing = {
        name
        for name, each in translated["Resources"].items()
        if each["Type"].startswith("AWS::CloudWatch::") and "AlarmActions" in each["Properties"]
    }
    assert {failure.alarm for failure in FAILURES.values()} == writing


@pytest.mark.parametrize("name", ALL)
def test_each_failure_alone_reaches_a_subscriber_within_its_time_and_once(translated: Template, name: str) -> None:
    minutes, event = range(3 * DAY + 60), (name, DAY)
    sent = messages(translated, published(minutes, event), minutes)
    assert unreached(sent, event) == []
    assert [minute for minute, alarm in sent if alarm == FAILURES[name].alarm and minute < DAY] == []
    assert sum(alarm == FAILURES[name].alarm for _, alarm in sent) == 1


def test_a_drain_holds_back_only_what_it_brings_about(translated: Template) -> None:
    minutes = range(2 * DAY)
    series = dict(published(minutes, ("cycles are slow", DAY), ("the breaker opens", DAY + 60)))
    series["DrainRunning"] = {minute: [1.0] for minute in range(DAY - 5, DAY + 8 * 60)}
    sent = messages(translated, series, minutes)
    assert [alarm for minute, alarm in sent if minute < DAY + 8 * 60] == ["BreakerOpenAlarm"]
    assert any(alarm == "WarningAlarm" for _, alarm in sent), "it is still slow when the drain has ended"
