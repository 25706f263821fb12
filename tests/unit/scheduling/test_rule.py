"""The rule that follows the interval."""

from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws
from mypy_boto3_events import EventBridgeClient

from storage_cleanup.errors import ScheduleError
from storage_cleanup.model.account import ScheduleChange
from storage_cleanup.scheduling.rate import Interval
from storage_cleanup.scheduling.rule import repair_rule, sync_rule

RULE = "storage-cleanup-testing"


@pytest.fixture
def events() -> Iterator[EventBridgeClient]:
    with mock_aws():
        yield boto3.client("events", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")


def test_a_rule_gets_the_new_interval(events: EventBridgeClient) -> None:
    events.put_rule(Name=RULE, ScheduleExpression="rate(1 hour)")
    assert sync_rule(events, RULE, Interval(3)) == ScheduleChange("rate(1 hour)", "rate(3 minutes)", changed=True)
    assert events.describe_rule(Name=RULE)["ScheduleExpression"] == "rate(3 minutes)"


def test_everything_else_about_the_rule_stays(events: EventBridgeClient) -> None:
    role = "arn:aws:iam::123456789012:role/r"
    events.put_rule(Name=RULE, ScheduleExpression="rate(1 hour)", Description="d", State="DISABLED", RoleArn=role)
    before = events.describe_rule(Name=RULE)
    sync_rule(events, RULE, Interval(3))
    after = events.describe_rule(Name=RULE)
    for name in ("Description", "State", "RoleArn", "EventBusName", "Arn"):
        assert after.get(name) == before.get(name)
    assert after["State"] == "DISABLED"


@pytest.mark.parametrize("expression", ["rate(1 hour)", "rate(60 minutes)"])
def test_a_rule_that_fires_at_the_interval_already_is_not_touched(expression: str) -> None:
    class OnlyDescribed:
        def describe_rule(self, **_: object) -> dict[str, str]:
            return {"Name": RULE, "ScheduleExpression": expression, "State": "ENABLED"}

    assert sync_rule(OnlyDescribed(), RULE, Interval(60)) == ScheduleChange(expression, expression, changed=False)


def test_a_rule_with_another_kind_of_schedule_gets_the_interval(events: EventBridgeClient) -> None:
    events.put_rule(Name=RULE, ScheduleExpression="cron(0 * * * ? *)")
    assert sync_rule(events, RULE, Interval(3)).changed


def test_a_missing_rule_is_named(events: EventBridgeClient) -> None:
    with pytest.raises(ScheduleError, match=RULE):
        sync_rule(events, RULE, Interval(3))


def test_a_rule_that_cannot_be_looked_at_does_not_cost_the_cycle(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert repair_rule(RULE, Interval(3)) is None
    assert "couldn't be checked: You must specify a region" in caplog.text
