"""EventBridge on this machine: fires the rule that moto holds, and reports changed parameters.

moto keeps rules, targets and parameters, but never invokes anything. This does: in this process, with the events that
AWS sends.

``python -m local.clock --now`` fires once on a new embedded stack; without ``--now`` it fires at the rule's interval
until Ctrl-C.
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO
from uuid import uuid4

from local.aws import REGION, Aws
from local.functions import ACCOUNT, RULE, Functions
from local.postgres import ROOT
from local.scenario import Scene, embedded
from local.stack import PARAMETER_PATH
from storage_cleanup.scheduling.rate import Interval

PRODUCTION = Interval(60)

_TARGET = "cleanup"
_LOOK_SECONDS = 1.0


class Clock:
    """The schedule of the embedded stack.

    Parameters
    ----------
    aws
        Holds the rule and the parameters.
    functions
        What is fired.
    monotonic, sleep
        The time that passes, for tests.
    """

    def __init__(
        self,
        aws: Aws,
        functions: Functions,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._aws = aws
        self._functions = functions
        self._monotonic = monotonic
        self._sleep = sleep

    def deploy(self, interval: Interval) -> None:
        """Create the rule and its target, as ``template.yaml`` does."""
        self._aws.events.put_rule(Name=RULE, ScheduleExpression=interval.expression, State="ENABLED")
        target = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{_TARGET}"
        self._aws.events.put_targets(Rule=RULE, Targets=[{"Id": _TARGET, "Arn": target}])

    @property
    def expression(self) -> str:
        """The rule's schedule."""
        return self._aws.rule_expression(RULE)

    def fire_now(self) -> dict[str, Any]:
        """Invoke the rule's target once with the scheduled event, and return its answer."""
        target = self._aws.events.list_targets_by_rule(Rule=RULE)["Targets"][0]["Arn"]
        return self._functions.invoke(target.rpartition(":")[2], scheduled_event())

    def answers(self) -> Iterator[dict[str, Any]]:
        """Fire whenever the interval has passed, for ever, and yield each answer.

        As on AWS, a change of the rule starts the interval anew, and a disabled rule doesn't fire.
        """
        expression, began = self.expression, self._monotonic()
        while True:
            self._sleep(_LOOK_SECONDS)
            rule = self._aws.events.describe_rule(Name=RULE)
            if rule["ScheduleExpression"] != expression:
                expression, began = rule["ScheduleExpression"], self._monotonic()
            if self._monotonic() - began < 60 * Interval.from_expression(expression).minutes:
                continue
            began = self._monotonic()
            if rule["State"] == "ENABLED":
                yield self.fire_now()

    def change_parameter(self, name: str, value: str) -> dict[str, Any]:
        """Change a parameter and deliver the event of that; return what ``schedule_sync`` answers."""
        path = f"{PARAMETER_PATH}/{name}"
        self._aws.ssm.put_parameter(Name=path, Value=value, Type="String", Overwrite=True)
        return self._functions.invoke("schedule_sync", parameter_change_event(path))


@contextlib.contextmanager
def scheduled(log: TextIO) -> Iterator[tuple[Scene, Clock]]:
    """Start an embedded stack on which the scenario has been played, with the rule of the profile ``production``."""
    with embedded() as scene:
        clock = Clock(scene.stack.aws, scene.functions(log))
        clock.deploy(PRODUCTION)
        yield scene, clock


def scheduled_event() -> dict[str, Any]:
    """Return the event that a rule sends when its time has come, in the shape of ``events/scheduled.json``."""
    return _event("scheduled.json", resources=[f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{RULE}"])


def parameter_change_event(path: str) -> dict[str, Any]:
    """Return the event of a changed parameter, in the shape of ``events/parameter-change.json``."""
    event = _event("parameter-change.json", resources=[f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{path}"])
    event["detail"]["name"] = path
    return event


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the clock on an embedded stack with the sample application, and print each answer."""
    parser = argparse.ArgumentParser(prog="python -m local.clock", description=main.__doc__)
    parser.add_argument("--now", action="store_true", help="fire once, at once, and end")
    options = parser.parse_args(arguments)
    with scheduled(sys.stderr) as (_, clock):
        print(f"{RULE} has {clock.expression}; Ctrl-C ends", file=sys.stderr)
        with contextlib.suppress(KeyboardInterrupt):
            for answer in [clock.fire_now()] if options.now else clock.answers():
                print(json.dumps(answer), flush=True)
    return 0


def _event(shape: str, *, resources: list[str]) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((ROOT / "events" / shape).read_text())
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**event, "id": str(uuid4()), "time": now, "region": REGION, "account": ACCOUNT, "resources": resources}


if __name__ == "__main__":
    sys.exit(main())
