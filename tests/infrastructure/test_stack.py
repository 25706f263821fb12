"""The translated template in moto: what is there, how it hangs together, and what an update leaves alone."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import boto3
import pytest

from storage_cleanup.errors import ConfigurationError
from tests.infrastructure.conftest import PATH, RULE, STACK, Stack, Template

FUNCTIONS = {"cleanup": 900, "schedule-sync": 60, "health": 300, "restore": 900}
Sync = Callable[..., dict[str, Any]]


def test_functions(stack: Stack) -> None:
    for name, timeout in FUNCTIONS.items():
        function = boto3.client("lambda").get_function_configuration(FunctionName=f"{STACK}-{name}")
        assert (function["Runtime"], function["Handler"], function["Timeout"]) == (
            "python3.13",
            "app.lambda_handler",
            timeout,
        )
        assert function["Environment"]["Variables"]["PARAMETER_PATH"] == PATH
    groups = boto3.client("logs").describe_log_groups()["logGroups"]
    kept = {group["logGroupName"]: group.get("retentionInDays") for group in groups}
    groups = [*(f"/aws/lambda/{STACK}-{name}" for name in FUNCTIONS), f"/aws/vendedlogs/states/{STACK}-drain"]
    assert kept == dict.fromkeys(groups, 90)


@pytest.mark.parametrize(
    ("rule", "function"),
    [
        ("schedule", "cleanup"),
        ("parameter-change", "schedule-sync"),
        ("stack-change", "schedule-sync"),
        ("watch", "schedule-sync"),
    ],
)
def test_rule_target_permission_and_function_refer_to_each_other(stack: Stack, rule: str, function: str) -> None:
    events = boto3.client("events")
    found = events.describe_rule(Name=f"{STACK}-{rule}")
    (target,) = events.list_targets_by_rule(Rule=f"{STACK}-{rule}")["Targets"]
    configuration = boto3.client("lambda").get_function_configuration(FunctionName=f"{STACK}-{function}")
    policy = json.loads(boto3.client("lambda").get_policy(FunctionName=f"{STACK}-{function}")["Policy"])
    permitted = {each["Condition"]["ArnLike"]["AWS:SourceArn"] for each in policy["Statement"]}
    queues = boto3.client("sqs").list_queues(QueueNamePrefix=f"{STACK}-undelivered")["QueueUrls"]
    assert found["State"] == "ENABLED"
    assert target["Arn"] == configuration["FunctionArn"]
    assert found["Arn"] in permitted
    assert len(queues) == 1
    assert target["DeadLetterConfig"]["Arn"].endswith(f":{STACK}-undelivered")


def test_patterns_of_the_rules(stack: Stack) -> None:
    events = boto3.client("events")
    pattern = json.loads(events.describe_rule(Name=f"{STACK}-parameter-change")["EventPattern"])
    names = pattern["detail"]["name"]
    assert names == [
        f"{PATH}/{name}" for name in ("profile", "testing/interval-minutes", "production/interval-minutes")
    ]
    pattern = json.loads(events.describe_rule(Name=f"{STACK}-stack-change")["EventPattern"])
    assert pattern["detail"]["stack-id"] == [boto3.client("cloudformation").describe_stacks()["Stacks"][0]["StackId"]]


def test_a_stale_cycle_is_not_repeated(translated: Template) -> None:
    resources = translated["Resources"]
    target = resources["CleanupFunctionSchedule"]["Properties"]["Targets"][0]
    assert target["RetryPolicy"] == {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}
    for each in resources.values():
        if each["Type"] == "AWS::Lambda::EventInvokeConfig":
            assert each["Properties"]["MaximumRetryAttempts"] == 0
            assert each["Properties"]["MaximumEventAgeInSeconds"] == 60
    destination = resources["CleanupFunctionEventInvokeConfig"]["Properties"]["DestinationConfig"]["OnFailure"]
    assert destination["Destination"] == {"Fn::GetAtt": ["FailedQueue", "Arn"]}


def test_the_schedule_follows_the_profile_there_and_back(stack: Stack, sync: Sync) -> None:
    assert sync() == {"rule": RULE, "before": "rate(1 hour)", "after": "rate(1 hour)", "changed": False}
    stack.put("profile", "testing")
    assert sync() == {"rule": RULE, "before": "rate(1 hour)", "after": "rate(3 minutes)", "changed": True}
    stack.put("testing/interval-minutes", "1")
    assert sync()["after"] == "rate(1 minute)"
    stack.put("profile", "production")
    sync()
    assert stack.rate() == "rate(1 hour)"
    (target,) = boto3.client("events").list_targets_by_rule(Rule=RULE)["Targets"]
    assert target["Arn"].endswith(f":function:{STACK}-cleanup")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("profile", "prodution"),
        ("testing/interval-minutes", "-3"),
        ("testing/interval-minutes", "often"),
        ("testing/interval-minutes", "٣"),
    ],
)
def test_nonsense_keeps_the_last_good_schedule_and_names_the_parameter(
    stack: Stack, sync: Sync, name: str, value: str
) -> None:
    stack.put("profile", "testing")
    sync()
    stack.put(name, value)
    with pytest.raises(ConfigurationError, match=rf"{name} is .*; it accepts "):
        sync()
    assert stack.rate() == "rate(3 minutes)"


def test_a_missing_parameter_means_its_default(stack: Stack, sync: Sync) -> None:
    stack.put("profile", "testing")
    sync()
    boto3.client("ssm").delete_parameter(Name=f"{PATH}/profile")
    assert sync()["after"] == "rate(1 hour)"


def test_an_update_leaves_what_an_operator_changed(stack: Stack, sync: Sync) -> None:
    stack.put("profile", "testing")
    stack.put("limits/max-deletions-per-run", "77")
    sync()
    changed = deepcopy(stack.template)
    changed["Resources"]["UndeliveredQueue"]["Properties"]["MessageRetentionPeriod"] = 86400
    stack.update(changed)
    assert stack.parameter("profile") == "testing"
    assert stack.parameter("limits/max-deletions-per-run") == "77"
    assert stack.rate() == "rate(3 minutes)"


def test_an_update_of_the_rule_is_repaired(stack: Stack, sync: Sync) -> None:
    stack.put("profile", "testing")
    sync()
    changed = deepcopy(stack.template)
    changed["Resources"]["CleanupFunctionSchedule"]["Properties"]["Description"] = "Another one."
    stack.update(changed)
    assert stack.rate() == "rate(1 hour)"
    assert sync()["changed"]
    assert stack.rate() == "rate(3 minutes)"


def test_the_rate_is_a_literal(translated: Template) -> None:
    """A rate that hangs on a stack parameter would be put again when somebody deploys with another."""
    assert isinstance(translated["Resources"]["CleanupFunctionSchedule"]["Properties"]["ScheduleExpression"], str)
