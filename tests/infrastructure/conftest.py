"""The stack in moto, in this process: the translated template, deployed; what moto can't deploy is read from it."""

import ast
import io
import json
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import boto3
import pytest
from moto import mock_aws

from local.functions import Context, load_function
from local.postgres import ROOT

REGION: Final = "eu-central-1"
STAGE = "production"
STACK = f"storage-cleanup-{STAGE}"
RULE = f"{STACK}-schedule"
PATH = f"/storage-cleanup/{STAGE}"

# Unknown to moto; the rest of the template must not refer to them.
_NOT_IN_MOTO = {
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Logs::QueryDefinition",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
}
Template = dict[str, Any]


@pytest.fixture(scope="session")
def translated() -> Template:
    """Translate the template to what CloudFormation gets to see; SAM's translator lives in a venv of its own."""
    python = ROOT / ".venv-sam/bin/python"
    if not python.exists():
        pytest.skip("SAM's translator isn't installed: make .venv-sam/.ready")
    command: list[str | Path] = [python, ROOT / "tests/infrastructure/translate.py", ROOT / "template.yaml", REGION]
    template: Template = json.loads(subprocess.run(command, check=True, capture_output=True, cwd="/").stdout)
    return template


@dataclass(frozen=True)
class Stack:
    """The deployed stack."""

    template: Template

    def update(self, template: Template, **tags: str) -> None:
        """Deploy another form of the template over it, or other tags."""
        _deploy("update_stack", template, Tags=[{"Key": key, "Value": value} for key, value in tags.items()])

    def put(self, name: str, value: str) -> None:
        """Set a parameter as an operator would."""
        boto3.client("ssm").put_parameter(Name=f"{PATH}/{name}", Value=value, Type="String", Overwrite=True)

    def put_secrets(self, *, supabase_url: str, key: str, database_url: str) -> None:
        """Put what only its owner knows, as `make secrets` does."""
        values = {"supabase/url": supabase_url, "supabase/service-role-key": key, "database/url": database_url}
        for name, value in values.items():
            kind: Literal["String", "SecureString"] = "String" if name == "supabase/url" else "SecureString"
            boto3.client("ssm").put_parameter(Name=f"{PATH}/{name}", Value=value, Type=kind, Overwrite=True)

    def point_to(self, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set the variables that the deployed function has."""
        found = boto3.client("lambda").get_function_configuration(FunctionName=f"{STACK}-{function}")["Environment"]
        for name, value in found["Variables"].items():
            monkeypatch.setenv(name, str(value))  # moto hands a stack parameter of type Number out as one

    def tree(self) -> dict[str, str]:
        """Return all parameters of the stage, by their names relative to its path."""
        pages = boto3.client("ssm").get_paginator("get_parameters_by_path").paginate(Path=PATH, Recursive=True)
        return {each["Name"].removeprefix(f"{PATH}/"): each["Value"] for page in pages for each in page["Parameters"]}

    def parameter(self, name: str) -> str:
        """Return a parameter's value."""
        return boto3.client("ssm").get_parameter(Name=f"{PATH}/{name}")["Parameter"]["Value"]

    def rate(self) -> str:
        """Return the schedule's rate."""
        return boto3.client("events").describe_rule(Name=RULE)["ScheduleExpression"]

    def statements(self, function: str) -> list[dict[str, Any]]:
        """Return what a function's role may do, with names resolved."""
        iam = boto3.client("iam")
        arn = boto3.client("lambda").get_function_configuration(FunctionName=f"{STACK}-{function}")["Role"]
        role = arn.rpartition("/")[2]
        found: list[dict[str, Any]] = []
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document: Any = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            # moto hands out what CloudFormation put as the text of a Python value.
            whole = ast.literal_eval(document) if isinstance(document, str) else document
            found += [each for each in whole["Statement"] if each is not None]  # AWS::NoValue
        return found


def _deploy(verb: str, template: Template, **options: Any) -> None:
    resources = {key: value for key, value in template["Resources"].items() if value["Type"] not in _NOT_IN_MOTO}
    body = json.dumps({**template, "Resources": resources, "Outputs": {}})
    client = boto3.client("cloudformation")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(client, verb)(StackName=STACK, TemplateBody=body, Capabilities=["CAPABILITY_IAM"], **options)


@pytest.fixture
def stack(translated: Template, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "embedded")
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.setenv(name, REGION)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("app.py", "")
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="code", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket="code", Key="placeholder.zip", Body=code.getvalue())
        _deploy("create_stack", translated)
        yield Stack(translated)


@pytest.fixture
def sync(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Invoke the real schedule_sync handler against the stack, with a parameter change event or another sample."""
    stack.point_to("schedule-sync", monkeypatch)
    module = load_function("schedule_sync")

    def invoke(event: str = "parameter-change") -> dict[str, Any]:
        content = json.loads((ROOT / f"events/{event}.json").read_text())
        answer: dict[str, Any] = module.lambda_handler(content, Context(function_name="schedule-sync"))
        return answer

    return invoke
