"""What a new execution environment costs before its first answer.

All is as on Lambda but for the network: addresses are this machine's, so there is neither latency nor TLS to wait for.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from statistics import median

from benchmarks.figures import Figure, at_most
from benchmarks.project import Ground
from local.aws import Aws
from local.postgres import ROOT
from local.stack import PARAMETER_DEFAULTS, PARAMETER_PATH, SECURE_PARAMETERS

_RULE = "storage-cleanup-local-schedule"
# A fixed yardstick: the usual clients of those servers, whatever the handler makes do with.
_IMPORTS = "import boto3, psycopg, storage3, aws_lambda_powertools"
_ANSWER = """
import json, pathlib, sys
class Context:
    function_name, memory_limit_in_mb, aws_request_id = "cleanup", 512, "0"
    invoked_function_arn = "arn:aws:lambda:eu-central-1:123456789012:function:cleanup"
    def get_remaining_time_in_millis(self): return 900_000
sys.path.insert(0, "functions/cleanup")
import app
answer = app.lambda_handler(json.loads(pathlib.Path("events/scheduled.json").read_text()), Context())
sys.exit(answer["status"] != "succeeded")
"""


def cold_start(ground: Ground, *, quick: bool) -> Iterator[Figure]:
    """Import the handler and let it answer (a whole idle cycle), over the bare import of the clients of its servers."""
    pairs = 3 if quick else 11
    with ground.project() as project, Aws(ground.directory / "aws") as aws:
        project.seed(0, saved=100)
        values = {
            **PARAMETER_DEFAULTS,
            "phases/temp-files": "false",
            "buckets": project.bucket,
            "supabase/url": project.origin,
            "supabase/service-role-key": project.key,
            "database/url": project.database_url,
        }
        aws.put_parameters(PARAMETER_PATH, values, SECURE_PARAMETERS)
        aws.put_rule(_RULE, int(values["production/interval-minutes"]))
        environment = {
            **os.environ,
            **aws.environment(),
            "PARAMETER_PATH": PARAMETER_PATH,
            "RULE_NAME": _RULE,
            "POWERTOOLS_SERVICE_NAME": "storage-cleanup-local",
            "POWERTOOLS_METRICS_NAMESPACE": "StorageCleanup",
            "PYTHONPATH": f"{ROOT / 'layers' / 'storage_cleanup'}",
            "PYTHONDONTWRITEBYTECODE": "",  # the layers carry bytecode
        }
        for program in ("", _IMPORTS, _ANSWER):  # once for the bytecode and the caches
            _seconds(program, environment)
        bare, answers = [], []
        for _ in range(pairs):
            bare.append(_seconds(_IMPORTS, environment))
            answers.append(_seconds(_ANSWER, environment))
    ratios = tuple(answer / imports for answer, imports in zip(answers, bare, strict=True))
    note = (
        f"{median(answers) * 1000:.0f} ms to the answer of an idle cycle, {median(bare) * 1000:.0f} ms for imports, "
        "both with the interpreter's start"
    )
    yield Figure("cold_start_vs_imports", ratios, at_most(1.3), note)


def _seconds(program: str, environment: Mapping[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started
