"""Deploys a stage with `sam deploy`, after a look at what would let it fail later, or would make it a surprise."""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from operations.region import region

ROOT = Path(__file__).resolve().parents[1]
SAM = ROOT / ".venv-sam/bin/sam"
PROTECTED = frozenset({"production"})
"""Stages whose stack can't be deleted before somebody lifts its protection."""
_STAGE = r"[a-z][a-z0-9-]{0,19}"


def problems(stage: str, *, sts: Any, cloudformation: Any, logs: Any) -> list[str]:
    """Return what would let a deploy of this stage fail, a sentence each.

    Parameters
    ----------
    sts, cloudformation, logs
        Clients of these services.
    """
    if not re.fullmatch(_STAGE, stage):
        return [f"STAGE is {stage!r}; it accepts up to 20 lower-case letters, digits and hyphens, a letter first"]
    try:
        sts.get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        return [f"AWS doesn't know who you are ({error}): sign in, so that `aws sts get-caller-identity` answers"]
    if _exists(cloudformation, stack_of(stage)):
        return []
    left = [name for name in audit_trail(stage) if _has_group(logs, name)]
    return [
        f"a removed stack has left the log group {name}: delete it "
        f"(aws logs delete-log-group --log-group-name {name}), or take another STAGE"
        for name in left
    ]


def stack_of(stage: str) -> str:
    """Return the name of the stage's stack."""
    return f"storage-cleanup-{stage}"


def audit_trail(stage: str) -> list[str]:
    """Return the log groups that outlive the stage's stack."""
    stack = stack_of(stage)
    return [f"/aws/lambda/{stack}-cleanup", f"/aws/lambda/{stack}-restore", f"/aws/vendedlogs/states/{stack}-drain"]


def command(stage: str, flags: Sequence[str]) -> list[str]:
    """Return the command that deploys a stage: by samconfig.toml, or for a name that isn't there by the same rules."""
    if stage in tomllib.loads((ROOT / "samconfig.toml").read_text()):
        return [str(SAM), "deploy", "--config-env", stage, *flags]
    options = ["--stack-name", stack_of(stage), "--resolve-s3", "--capabilities", "CAPABILITY_IAM"]
    options += ["--no-fail-on-empty-changeset"]
    if "--parameter-overrides" not in flags:
        options += ["--parameter-overrides", f"Stage={stage}"]
    return [str(SAM), "deploy", *options, *flags]


def _exists(cloudformation: Any, stack: str) -> bool:
    try:
        cloudformation.describe_stacks(StackName=stack)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return False
        raise
    return True


def _has_group(logs: Any, name: str) -> bool:
    found = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return any(group["logGroupName"] == name for group in found)


def main() -> int:
    """Check a stage, or deploy it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("check", "run"))
    parser.add_argument("stage")
    arguments, flags = parser.parse_known_args()
    place = region()
    clients = {name: boto3.client(name, region_name=place) for name in ("sts", "cloudformation", "logs")}
    if found := problems(arguments.stage, **clients):
        print("\n".join(f"Not deployed: {problem}" for problem in found), file=sys.stderr)
        return 1
    if arguments.what == "check":
        return 0
    done = subprocess.run(
        command(arguments.stage, flags), cwd=ROOT, env=os.environ | {"AWS_DEFAULT_REGION": place}, check=False
    )
    if done.returncode == 0 and arguments.stage in PROTECTED:
        stack = stack_of(arguments.stage)
        clients["cloudformation"].update_termination_protection(StackName=stack, EnableTerminationProtection=True)
        print(f"{stack} is protected against deletion.")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
