"""The real cleanup handler in processes of its own, as an execution environment would run it.

All is as on Lambda but for the network: addresses are this machine's, so there is neither latency nor TLS to wait for.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks.project import Ground, Project
from local.aws import Aws
from local.functions import RULE, function_environment
from local.postgres import ROOT
from local.stack import PARAMETER_PATH
from storage_cleanup.config.parameters import SECRETS

HANDLER = """
import json, pathlib, sys
class Context:
    function_name, memory_limit_in_mb, aws_request_id = "cleanup", 512, "0"
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:cleanup"
    def get_remaining_time_in_millis(self): return 900_000
sys.path.insert(0, "functions/cleanup")
import app
event = json.loads(pathlib.Path("events/scheduled.json").read_text())
def answer():
    assert app.lambda_handler(event, Context())["status"] == "succeeded"
"""
"""Imports the handler; ``answer()`` is one scheduled cycle."""


@contextmanager
def environment_for(ground: Ground, project: Project) -> Iterator[Mapping[str, str]]:
    """Yield the environment of a deployed function, with its parameters and its rule in moto."""
    with Aws(ground.directory / "aws") as aws:
        parameters = project.parameters(phases__temp_files="false", buckets=project.bucket)
        aws.put_parameters(PARAMETER_PATH, parameters, SECRETS)
        aws.put_rule(RULE, int(parameters["production/interval-minutes"]))
        yield {
            **os.environ,
            **function_environment(aws),
            "PYTHONPATH": f"{ROOT / 'layers' / 'storage_cleanup'}",
            "PYTHONDONTWRITEBYTECODE": "",  # the layers carry bytecode
        }


def output_of(program: str, environment: Mapping[str, str]) -> str:
    """Run a program in a new interpreter; return what it wrote."""
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
