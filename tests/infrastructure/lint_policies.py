"""Lint every policy of a role with parliament; run by .venv-sam's Python as a part of `make check`."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import parliament  # type: ignore[import-not-found]
from samtranslator.yaml_helper import yaml_parse  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[2]
ACCOUNT, REGION = "123456789012", "eu-central-1"
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "Stage": "testing"}
ARNS = {
    "AWS::Logs::LogGroup": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:x:*",
    "AWS::SQS::Queue": f"arn:aws:sqs:{REGION}:{ACCOUNT}:x",
    "AWS::SNS::Topic": f"arn:aws:sns:{REGION}:{ACCOUNT}:x",
    "AWS::Lambda::Function": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:x",
    "AWS::StepFunctions::StateMachine": f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:x",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/x",
}
EXAMPLES = {
    "SecretsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/00000000-0000-0000-0000-000000000000",
    "PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/x",
}
# Each with why it is right as it is.
ACCEPTED = {
    ("RESOURCE_MISMATCH", "states:ListExecutions"): "of a state machine or of a map run: parliament wants both",
    ("RESOURCE_STAR", "ec2:CreateNetworkInterface"): "the interfaces of a VPC don't exist yet (WildcardReasons)",
    ("INVALID_ARN", "Account expected"): "SAM's transform belongs to the account aws",
    ("RESOURCE_POLICY_PRIVILEGE_ESCALATION", "arn:aws:s3:::storage-cleanup-*"): "the stack makes the bucket's policy",
    ("RESOURCE_STAR", "cloudwatch:DescribeAlarms"): "composites are read together with the alarms that they watch",
    ("RESOURCE_MISMATCH", "sns:GetSubscriptionAttributes"): "a subscription's ARN begins with its topic's",
    ("RESOURCE_MISMATCH", "sns:Unsubscribe"): "a subscription's ARN begins with its topic's",
}


def resolved(value: Any, resources: dict[str, Any]) -> Any:  # noqa: PLR0911 - a way out for each function
    """Return a value with an example in the place of each reference; conditional parts are taken in."""
    if isinstance(value, list):
        return [resolved(each, resources) for each in value if each != {"Ref": "AWS::NoValue"}]
    if not isinstance(value, dict):
        return value
    if "Fn::If" in value:
        return resolved(value["Fn::If"][1], resources)
    if "Fn::GetAtt" in value:
        got = value["Fn::GetAtt"]
        return ARNS[resources[got[0] if isinstance(got, list) else got.split(".")[0]]["Type"]]
    if name := value.get("Ref"):
        return PSEUDO.get(name) or EXAMPLES.get(name) or ARNS[resources[name]["Type"]]
    if text := value.get("Fn::Sub"):
        text = text.replace("${ReportBucket.Arn}", "arn:aws:s3:::x")
        return re.sub(r"\$\{([^}]*)\}", lambda found: PSEUDO.get(found[1], "x"), text)
    return {key: resolved(each, resources) for key, each in value.items()}


def findings(template: dict[str, Any]) -> Iterator[str]:
    """Yield what parliament finds in the policies of this template's roles, but for what is accepted."""
    resources = template["Resources"]
    for name, role in resources.items():
        if role["Type"] != "AWS::IAM::Role":
            continue
        for policy in role["Properties"]["Policies"]:
            text = json.dumps(resolved(policy["PolicyDocument"], resources))
            for finding in parliament.analyze_policy_string(text).findings:
                if not any(finding.issue == issue and action in str(finding.detail) for issue, action in ACCEPTED):
                    yield f"{name}, {policy['PolicyName']}: {finding.issue} {finding.detail}"


def main() -> int:
    """Print the findings of both templates; return 1 when there is one."""
    translate: list[str | Path] = [
        sys.executable,
        ROOT / "tests/infrastructure/translate.py",
        ROOT / "template.yaml",
        REGION,
    ]
    stack = json.loads(subprocess.run(translate, check=True, capture_output=True).stdout)
    deployer = yaml_parse((ROOT / ".github/deploy-role.yaml").read_text())
    found = [line for template in (stack, deployer) for line in findings(template)]
    print("\n".join(found) or "No policy has a fault.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
