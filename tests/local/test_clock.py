"""The local clock plays EventBridge."""

import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from local.aws import Aws
from local.clock import Clock, parameter_change_event, scheduled_event
from local.functions import RULE, Functions, function_for
from local.stack import PARAMETER_PATH
from storage_cleanup.events.cleanup import parse_cleanup_event
from storage_cleanup.model.vocabulary import Trigger
from storage_cleanup.scheduling.rate import Interval

EVENTS = Path(__file__).resolve().parents[2] / "events"


class Time:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Recorder(Functions):
    """Answers with when it was invoked, and what with."""

    def __init__(self, time: Time) -> None:
        self._time = time

    def invoke(self, name: str, event: object, *, seconds: float = 900) -> dict[str, Any]:
        return {"name": name, "event": event, "at": self._time.seconds}


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def clock(aws: Aws, time: Time) -> Clock:
    clock = Clock(aws, Recorder(time), monotonic=time.monotonic, sleep=time.sleep)
    clock.deploy(Interval(1))
    return clock


def shape(value: object) -> object:
    """Return which fields a value has, at every depth."""
    return {name: shape(each) for name, each in value.items()} if isinstance(value, dict) else type(value)


def test_it_fires_at_once(clock: Clock) -> None:
    answer = clock.fire_now()
    assert answer["name"] == "cleanup"
    assert parse_cleanup_event(answer["event"]).trigger is Trigger.SCHEDULE


def test_it_fires_at_the_rules_interval(clock: Clock) -> None:
    assert [answer["at"] for answer in islice(clock.answers(), 3)] == [60, 120, 180]


def test_a_changed_rule_starts_the_interval_anew(clock: Clock, aws: Aws) -> None:
    answers = clock.answers()
    next(answers)
    aws.put_rule(RULE, 2)
    assert next(answers)["at"] == pytest.approx(60 + 120, abs=2)


def test_a_disabled_rule_does_not_fire(clock: Clock, aws: Aws, time: Time) -> None:
    answers = clock.answers()
    next(answers)
    aws.events.disable_rule(Name=RULE)

    def enable_later(seconds: float) -> None:
        time.seconds += seconds
        if time.seconds == 150:
            aws.events.enable_rule(Name=RULE)

    clock._sleep = enable_later
    assert next(answers)["at"] == 180


def test_its_events_have_the_shape_of_the_examples() -> None:
    examples = {name: json.loads((EVENTS / f"{name}.json").read_text()) for name in ("scheduled", "parameter-change")}
    assert shape(scheduled_event()) == shape(examples["scheduled"])
    assert shape(parameter_change_event("/a/profile")) == shape(examples["parameter-change"])
    assert parameter_change_event("/a/profile")["detail"]["name"] == "/a/profile"


def test_a_changed_profile_changes_the_rule(aws: Aws) -> None:
    clock = Clock(aws, Functions(aws, io.StringIO()))
    clock.deploy(Interval(60))
    intervals = {"testing/interval-minutes": "3", "production/interval-minutes": "60"}
    aws.put_parameters(PARAMETER_PATH, {"profile": "production", **intervals})
    clock.change_parameter("profile", "testing")
    assert clock.expression == "rate(3 minutes)"
    clock.change_parameter("profile", "production")
    assert clock.expression == "rate(1 hour)"


@pytest.mark.parametrize(
    ("event", "function"),
    [
        ("scheduled", "cleanup"),
        ("manual-cleanup", "cleanup"),
        ("manual-dry-run", "cleanup"),
        ("parameter-change", "schedule_sync"),
        ("health", "health"),
        ("report-weekly", "health"),
        ("restore-run", "restore"),
    ],
)
def test_an_event_finds_its_function(event: str, function: str) -> None:
    assert function_for(json.loads((EVENTS / f"{event}.json").read_text())) == function


@pytest.mark.parametrize("event", [None, [], "cleanup", {"action": ["health"]}, {}])
def test_what_no_other_function_takes_goes_to_cleanup(event: object) -> None:
    assert function_for(event) == "cleanup"
