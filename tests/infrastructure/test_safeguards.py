"""What the template refuses, bounds, encrypts on the way, and leaves behind."""

import re
from typing import Any

import pytest

from local.postgres import ROOT
from tests.infrastructure.conftest import Template
from tests.infrastructure.iam import as_list

EMPTY = {"SubnetIds": [""], "SecurityGroupIds": [""], "EfsAccessPointId": "", "EfsFileSystemId": ""}
VPC = {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}


def holds(condition: Any, given: dict[str, Any]) -> bool:
    """Evaluate a condition of a rule, with the functions that CloudFormation has for rules."""
    ((function, arguments),) = condition.items()
    if function == "Fn::Not":
        return not holds(arguments[0], given)
    left, right = (given[each["Ref"]] if isinstance(each, dict) else each for each in arguments)
    if function == "Fn::Equals":
        return bool(left == right)
    assert function == "Fn::EachMemberEquals"
    return all(each == right for each in left)


def refusals(template: Template, **given: Any) -> list[str]:
    """Return what a deploy with these parameters would be refused with."""
    values = {**EMPTY, **given}
    return [
        assertion["AssertDescription"]
        for rule in template["Rules"].values()
        if holds(rule["RuleCondition"], values)
        for assertion in rule["Assertions"]
        if not holds(assertion["Assert"], values)
    ]


@pytest.mark.parametrize("given", [{}, VPC, {**VPC, "EfsAccessPointId": "fsap-1", "EfsFileSystemId": "fs-1"}])
def test_parameters_that_agree_are_accepted(translated: Template, given: dict[str, Any]) -> None:
    assert refusals(translated, **given) == []


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"SubnetIds": ["subnet-1"]}, "SubnetIds is set, so SecurityGroupIds must be."),
        ({"SecurityGroupIds": ["sg-1"]}, "SecurityGroupIds is set, so SubnetIds must be."),
        ({**VPC, "EfsAccessPointId": "fsap-1"}, "EfsAccessPointId is set, so EfsFileSystemId must be."),
        ({**VPC, "EfsFileSystemId": "fs-1"}, "EfsFileSystemId is set, so EfsAccessPointId must be."),
        (
            {"EfsAccessPointId": "fsap-1", "EfsFileSystemId": "fs-1"},
            "EfsAccessPointId is set, so SubnetIds and SecurityGroupIds must be.",
        ),
    ],
)
def test_parameters_that_contradict_each_other_are_refused_in_a_sentence(
    translated: Template, given: dict[str, Any], sentence: str
) -> None:
    assert refusals(translated, **given) == [sentence]


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("AlarmEmail", ["", "you@example.com"], ["you", "you@", "a b@example.com"]),
        (
            "PermissionsBoundary",
            ["", "arn:aws:iam::123456789012:policy/bound", "arn:aws-cn:iam::123456789012:policy/a/b"],
            ["bound", "arn:aws:iam::123456789012:role/bound"],
        ),
    ],
)
def test_a_parameter_that_cannot_be_right_is_refused(
    translated: Template, name: str, accepted: list[str], refused: list[str]
) -> None:
    pattern = translated["Parameters"][name]["AllowedPattern"]
    assert all(re.fullmatch(pattern, value) for value in accepted)
    assert not any(re.fullmatch(pattern, value) for value in refused)


def test_every_role_can_be_bounded(translated: Template) -> None:
    roles = [each for each in translated["Resources"].values() if each["Type"] == "AWS::IAM::Role"]
    assert len(roles) == 5
    for role in roles:
        assert role["Properties"]["PermissionsBoundary"] == {
            "Fn::If": ["HasPermissionsBoundary", {"Ref": "PermissionsBoundary"}, {"Ref": "AWS::NoValue"}]
        }


POLICIES = {
    "AWS::S3::Bucket": ("AWS::S3::BucketPolicy", "Bucket", "s3:*"),
    "AWS::SQS::Queue": ("AWS::SQS::QueuePolicy", "Queues", "sqs:*"),
    "AWS::SNS::Topic": ("AWS::SNS::TopicPolicy", "Topics", "sns:Publish"),
}


def test_bucket_queues_and_topics_take_tls_only(translated: Template) -> None:
    resources = translated["Resources"]
    guarded = [name for name, each in resources.items() if each["Type"] in POLICIES]
    assert len(guarded) == 5
    for name in guarded:
        kind, key, action = POLICIES[resources[name]["Type"]]
        (policy,) = [
            each["Properties"]
            for each in resources.values()
            if each["Type"] == kind and {"Ref": name} in as_list(each["Properties"][key])
        ]
        (denial,) = [each for each in policy["PolicyDocument"]["Statement"] if each["Effect"] == "Deny"]
        assert denial["Action"] == action
        assert denial["Principal"] == "*"
        assert denial["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# https://docs.aws.amazon.com/aws-managed-policy/latest/reference/AWSLambdaVPCAccessExecutionRole.html
MANAGED = {
    *("ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"),
    *("ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses"),
}


def test_functions_in_a_vpc_may_do_what_the_managed_policy_allows(translated: Template) -> None:
    resources = translated["Resources"]
    functions = [
        each["Properties"]
        for each in resources.values()
        if each["Type"] == "AWS::Lambda::Function" and "VpcConfig" in each["Properties"]
    ]
    assert len(functions) == 3
    for function in functions:
        role = resources[function["Role"]["Fn::GetAtt"][0]]["Properties"]
        statements = [
            each["Fn::If"][1] for each in role["Policies"][0]["PolicyDocument"]["Statement"] if "Fn::If" in each
        ]
        (joining,) = [each for each in statements if each["Sid"] == "JoinVpc"]
        assert set(joining["Action"]) == MANAGED


def test_the_removal_guide_says_exactly_what_stays(translated: Template) -> None:
    kept = {name for name, each in translated["Resources"].items() if each.get("DeletionPolicy", "Delete") != "Delete"}
    guide = (ROOT / "docs/deployment.md").read_text().partition("## Removing everything")[2]
    rows = [line.split("|")[2] for line in guide.splitlines() if line.startswith("| the ")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == kept
    assert {"CleanupLogs", "RestoreLogs", "BacklogDrainLogs", "ReportBucket"} <= kept
