"""What is packed, shared and deployed, and what says early that a deploy can't go well."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml  # type: ignore[import-untyped]
from botocore.client import BaseClient

from local.postgres import ROOT
from operations import deploy, share_events
from operations.deploy import SAM, command, problems
from tests.infrastructure.conftest import STACK, STAGE, Stack, Template
from tests.infrastructure.iam import as_list

CLIENTS = ("sts", "cloudformation", "logs")


def clients() -> dict[str, Any]:
    return {name: boto3.client(name) for name in CLIENTS}  # type: ignore[call-overload]


# -- deploying -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("stack")
def test_a_stage_that_is_there_can_be_deployed_again() -> None:
    assert problems(STAGE, **clients()) == []


@pytest.mark.usefixtures("stack")
def test_a_new_stage_can_be_deployed() -> None:
    assert problems("staging-2", **clients()) == []


@pytest.mark.parametrize("stage", ["", "Prod", "2nd", "a" * 21, "a_b", "a/b", "--help"])
def test_a_name_that_no_stage_can_have_is_refused_before_anybody_is_asked(stage: str) -> None:
    (sentence,) = problems(stage, sts=None, cloudformation=None, logs=None)
    assert sentence.startswith(f"STAGE is {stage!r}; it accepts up to 20 lower-case letters")


@pytest.mark.usefixtures("stack")
def test_log_groups_that_a_removed_stack_has_left_are_named() -> None:
    boto3.client("logs").create_log_group(logGroupName="/aws/lambda/storage-cleanup-gone-cleanup")
    (sentence,) = problems("gone", **clients())
    assert "a removed stack has left the log group /aws/lambda/storage-cleanup-gone-cleanup" in sentence
    assert "aws logs delete-log-group --log-group-name" in sentence


def test_the_log_groups_that_are_looked_for_are_those_that_stay(stack: Stack) -> None:
    kept = [
        each["Properties"]["LogGroupName"]["Fn::Sub"].replace("${Stage}", STAGE)
        for each in stack.template["Resources"].values()
        if each["Type"] == "AWS::Logs::LogGroup" and each.get("DeletionPolicy")
    ]
    assert sorted(deploy.audit_trail(STAGE)) == sorted(kept)


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MAKE"))}
    mine |= {"AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    mine |= {"AWS_EC2_METADATA_DISABLED": "true", "PYTHONPATH": f"{ROOT}/layers/storage_cleanup:{ROOT}"}
    return subprocess.run(
        [sys.executable, "-m", *arguments], env=mine | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments", [("operations.deploy", "check", "testing"), ("operations.share_events", "testing")]
)
def test_without_a_region_a_sentence_says_so(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr == "There is no AWS region: set AWS_REGION to the region of the Supabase project\n"


def test_without_credentials_a_sentence_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "operations.deploy", "check", "testing", AWS_REGION="eu-central-1")
    assert done.returncode == 1
    assert done.stderr.startswith("Not deployed: AWS doesn't know who you are (Unable to locate credentials): sign in")


def refused_by_sam(arguments: list[str]) -> str:
    """Let SAM read a command, and show its help instead of carrying it out; return what it refuses it with."""
    done = subprocess.run(
        [SAM, *arguments, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-central-1"},
        cwd=ROOT,
    )
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("stage", ["production", "staging-2"])
def test_the_command_that_deploys_is_one_that_sam_understands(stage: str) -> None:
    if not SAM.exists():
        pytest.skip("SAM isn't installed: make .venv-sam/.ready")
    made = command(stage, ["--no-confirm-changeset"])
    assert made[0] == str(SAM)
    assert refused_by_sam(made[1:]) == ""


def test_a_stage_of_any_name_is_deployed_by_the_rules_of_the_others() -> None:
    made = command("staging-2", [])
    assert made[made.index("--stack-name") + 1] == "storage-cleanup-staging-2"
    assert made[made.index("--parameter-overrides") + 1] == "Stage=staging-2"
    assert command("testing", ["--role-arn", "x"])[1:] == ["deploy", "--config-env", "testing", "--role-arn", "x"]


@pytest.mark.parametrize(("code", "protected"), [(0, True), (1, False)], ids=["deployed", "failed"])
def test_production_is_protected_against_deletion_once_it_is_deployed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, code: int, *, protected: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["deploy", "run", STAGE, "--no-confirm-changeset"])
    commands: list[list[str]] = []

    def sam(made: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(made)
        return subprocess.CompletedProcess(made, code)

    original, asked = BaseClient._make_api_call, []  # type: ignore[attr-defined]

    def call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if operation != "UpdateTerminationProtection":  # which moto doesn't know
            return original(client, operation, parameters)
        asked.append(parameters)
        return {}

    monkeypatch.setattr("operations.deploy.subprocess.run", sam)
    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    assert deploy.main() == code
    assert commands == [command(STAGE, ["--no-confirm-changeset"])]
    assert asked == ([{"StackName": STACK, "EnableTerminationProtection": True}] if protected else [])


# -- sharing events --------------------------------------------------------------------------------------------------


def test_every_sample_is_put_beside_the_function_that_takes_it(translated: Template) -> None:
    shared = [name for names in share_events.SAMPLES.values() for name in names]
    assert sorted(shared) == sorted(path.stem for path in (ROOT / "events").glob("*.json"))
    functions = {name for name, each in translated["Resources"].items() if each["Type"] == "AWS::Lambda::Function"}
    assert share_events.SAMPLES.keys() == functions


def test_the_commands_that_share_events_are_ones_that_sam_understands() -> None:
    if not SAM.exists():
        pytest.skip("SAM isn't installed: make .venv-sam/.ready")
    made = next(share_events.commands("testing"))
    assert refused_by_sam(made[1:]) == ""
    assert "No such option" in refused_by_sam([*made[1:], "--no-such"])


def test_there_is_a_sample_of_each_kind_of_event() -> None:
    samples = [json.loads(path.read_text()) for path in sorted((ROOT / "events").glob("*.json"))]
    kinds = {sample.get("detail-type") or sample.get("action") for sample in samples}
    assert kinds == {
        *("Scheduled Event", "Parameter Store Change", "CloudFormation Stack Status Change"),
        *("cleanup", "drain", "health", "report", "restore"),
    }


# -- the role that deploys -------------------------------------------------------------------------------------------

# What CloudFormation calls at least to make and to remove one.
NEEDS = {
    "AWS::CloudWatch::Alarm": {"cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"},
    "AWS::CloudWatch::CompositeAlarm": {"cloudwatch:PutCompositeAlarm", "cloudwatch:DeleteAlarms"},
    "AWS::CloudWatch::Dashboard": {"cloudwatch:PutDashboard", "cloudwatch:DeleteDashboards"},
    "AWS::Events::Rule": {"events:PutRule", "events:PutTargets", "events:RemoveTargets", "events:DeleteRule"},
    "AWS::IAM::Role": {"iam:CreateRole", "iam:PutRolePolicy", "iam:DeleteRolePolicy", "iam:DeleteRole", "iam:PassRole"},
    "AWS::Lambda::EventInvokeConfig": {
        *("lambda:PutFunctionEventInvokeConfig", "lambda:DeleteFunctionEventInvokeConfig"),
    },
    "AWS::Lambda::Function": {
        *("lambda:CreateFunction", "lambda:GetFunction", "lambda:UpdateFunctionCode"),
        *("lambda:UpdateFunctionConfiguration", "lambda:DeleteFunction", "s3:GetObject"),
    },
    "AWS::Lambda::LayerVersion": {"lambda:PublishLayerVersion", "lambda:GetLayerVersion", "lambda:DeleteLayerVersion"},
    "AWS::Lambda::Permission": {"lambda:AddPermission", "lambda:RemovePermission"},
    "AWS::Logs::LogGroup": {"logs:CreateLogGroup", "logs:PutRetentionPolicy", "logs:DeleteLogGroup"},
    "AWS::Logs::QueryDefinition": {"logs:PutQueryDefinition", "logs:DeleteQueryDefinition"},
    "AWS::S3::Bucket": {"s3:CreateBucket", "s3:PutEncryptionConfiguration", "s3:PutLifecycleConfiguration"},
    "AWS::S3::BucketPolicy": {"s3:PutBucketPolicy", "s3:DeleteBucketPolicy"},
    "AWS::SNS::Subscription": {"sns:Subscribe", "sns:Unsubscribe"},
    "AWS::SNS::Topic": {"sns:CreateTopic", "sns:DeleteTopic", "sns:GetTopicAttributes"},
    "AWS::SNS::TopicPolicy": {"sns:SetTopicAttributes"},
    "AWS::SQS::Queue": {"sqs:CreateQueue", "sqs:DeleteQueue", "sqs:GetQueueAttributes"},
    "AWS::SQS::QueuePolicy": {"sqs:SetQueueAttributes"},
    "AWS::StepFunctions::StateMachine": {
        *("states:CreateStateMachine", "states:UpdateStateMachine", "states:DeleteStateMachine"),
        *("logs:CreateLogDelivery", "iam:PassRole"),
    },
}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads CloudFormation's short forms as their arguments."""


def _plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!", _plain)


def statements(role: str) -> list[dict[str, Any]]:
    template = yaml.load((ROOT / ".github/deploy-role.yaml").read_text(), _Loader)
    policies = template["Resources"][role]["Properties"]["Policies"]
    return [each for policy in policies for each in policy["PolicyDocument"]["Statement"]]


def test_the_role_that_deploys_may_make_whatever_the_template_has(translated: Template) -> None:
    allowed = {action for each in statements("ExecutionRole") for action in as_list(each["Action"])}
    for kind in sorted({each["Type"] for each in translated["Resources"].values()}):
        assert NEEDS[kind] <= allowed, kind


def test_the_role_that_deploys_may_touch_nothing_else() -> None:
    for each in statements("DeployRole") + statements("ExecutionRole"):
        assert not any("*" in action for action in as_list(each["Action"]))
        named = [resource for resource in as_list(each["Resource"]) if "storage-cleanup-" in resource]
        if not named:
            ours = ("aws-sam-cli-managed-default", "Serverless-2016-10-31", "ExecutionRole.Arn")
            reads = {"ReadTemplates", "Network", "DescribeAlarms", "LookForLogsThatStayed", "QueriesAndDelivery"}
            assert each["Sid"] in reads or any(part in json.dumps(each["Resource"]) for part in ours), each["Sid"]


def test_only_the_named_repository_and_environment_may_deploy() -> None:
    template = yaml.load((ROOT / ".github/deploy-role.yaml").read_text(), _Loader)
    (trust,) = template["Resources"]["DeployRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"]["StringEquals"] == {
        "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
        "token.actions.githubusercontent.com:sub": "repo:${Repository}:environment:${Environment}",
    }


def test_the_workflow_signs_in_without_a_stored_key() -> None:
    text = (ROOT / ".github/workflows/deploy.yml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read", "id-token": "write"}
    assert "secrets." not in text
    steps = [step.get("run", "") for step in workflow["jobs"]["deploy"]["steps"]]
    assert any(step.startswith('make deploy STAGE="$STAGE"') for step in steps)
    assert workflow["jobs"]["deploy"]["environment"] == "${{ inputs.stage }}"


def test_the_name_of_a_stack_is_that_of_its_stage() -> None:
    assert deploy.stack_of(STAGE) == STACK
