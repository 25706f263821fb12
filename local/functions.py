"""The Lambda functions, invoked in this process as Lambda would invoke them."""

import importlib.util
import json
import os
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Any, TextIO
from unittest.mock import patch

from local.aws import REGION, Aws
from local.postgres import ROOT
from local.stack import PARAMETER_PATH, STAGE

ACCOUNT = "123456789012"
RULE = f"storage-cleanup-{STAGE}-schedule"

_BY_ACTION = {"health": "health", "report": "health", "restore": "restore"}


@dataclass(frozen=True)
class Context:
    """What Lambda hands to a handler beside the event; its clock starts when it is made."""

    seconds: float = 900
    function_name: str = "cleanup"
    memory_limit_in_mb: int = 512
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"
    _began: float = field(default_factory=time.monotonic)

    @property
    def invoked_function_arn(self) -> str:
        """The function's address."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{self.function_name}"

    def get_remaining_time_in_millis(self) -> int:
        """Return the time until Lambda would end the invocation."""
        return max(0, int((self._began + self.seconds - time.monotonic()) * 1000))


class Functions:
    """The functions of the local stage.

    Parameters
    ----------
    aws
        Where they find their parameters and the rule.
    log
        Takes what they print, as CloudWatch Logs would.
    ahead
        How far the clock that temporary files are judged by is ahead. A file's ctime can't be set back, so this is how
        one that was made just now can be old.
    """

    def __init__(self, aws: Aws, log: TextIO, *, ahead: timedelta = timedelta(0)) -> None:
        self._environment = function_environment(aws)
        self._log = log
        self._ahead = ahead
        self._loaded: dict[str, ModuleType] = {}

    def invoke(self, name: str, event: object, *, seconds: float = 900) -> dict[str, Any]:
        """Invoke a function and return its answer, as JSON carries it. What the handler raises comes through."""
        with patch.dict(os.environ, self._environment), redirect_stdout(self._log):
            if name not in self._loaded:
                self._loaded[name] = load_function(name)
                if name == "cleanup":
                    _set_ahead(self._loaded[name], self._ahead)
            answer = self._loaded[name].lambda_handler(_copy(event), Context(seconds, function_name=name))
        return dict(_copy(answer))


def function_for(event: object) -> str:
    """Return the name of the function that an event is for; what no other takes goes to ``cleanup``."""
    if not isinstance(event, Mapping):
        return "cleanup"
    if event.get("detail-type") in {"Parameter Store Change", "CloudFormation Stack Status Change"}:
        return "schedule_sync"
    return _BY_ACTION.get(str(event.get("action")), "cleanup")


def load_function(name: str) -> ModuleType:
    """Import ``functions/<name>/app.py`` as Lambda would: by its path."""
    spec = importlib.util.spec_from_file_location(f"{name}_app", ROOT / "functions" / name / "app.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _set_ahead(cleanup: ModuleType, ahead: timedelta) -> None:
    """Let the function's cycles judge temporary files by a clock that is ahead."""
    vars(cleanup)["run_cycle"] = partial(cleanup.run_cycle, now=lambda: time.time() + ahead.total_seconds())


def function_environment(aws: Aws) -> dict[str, str]:
    """Return the variables that ``template.yaml`` gives its functions, and those that lead any AWS SDK here."""
    return {
        **aws.environment(),
        "PARAMETER_PATH": PARAMETER_PATH,
        "RULE_NAME": RULE,
        "POWERTOOLS_SERVICE_NAME": f"storage-cleanup-{STAGE}",
        "POWERTOOLS_METRICS_NAMESPACE": "StorageCleanup",
    }


def _copy(value: object) -> Any:
    """Return a value as it arrives behind an invocation: what isn't JSON fails here."""
    return json.loads(json.dumps(value))
