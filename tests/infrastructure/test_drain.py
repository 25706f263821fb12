"""BacklogDrain as the template has it, executed by moto's interpreter; its cycles answer what a test wants."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.awslambda.models import LambdaFunction
from moto.core.exceptions import JsonRESTError

from local.postgres import ROOT
from tests.infrastructure.conftest import STACK, Stack

Answer = dict[str, Any]


def account(
    deleted: int, rows: int, remaining: int, *, status: str = "succeeded", stopped: str | None = None
) -> Answer:
    """Return the part of a cycle's answer that the drain looks at."""
    files = {"deleted": deleted} | ({"stopped": stopped} if stopped else {})
    return {
        "status": status,
        "phases": {"storage_files": files, "render_jobs": {"deleted": rows}},
        "remaining": remaining,
    }


class Cleanup:
    """Stands in for the cleanup function behind moto's Lambda, and notes its events."""

    def __init__(self) -> None:
        self.answer: Callable[[int], Answer | Exception] = lambda _: account(0, 0, 0)
        self.events: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def invoke(self, body: str | bytes, _: object, response_headers: dict[str, Any]) -> str:
        """Be invoked by moto."""
        with self._lock:
            self.events.append(json.loads(body))
            answer = self.answer(len(self.events))
        if isinstance(answer, JsonRESTError):
            raise answer
        if isinstance(answer, Exception):
            response_headers["x-amz-function-error"] = "Unhandled"
            return json.dumps({"errorType": type(answer).__name__, "errorMessage": str(answer)})
        return json.dumps(answer)


@pytest.fixture
def cleanup(monkeypatch: pytest.MonkeyPatch) -> Cleanup:
    stand_in = Cleanup()
    monkeypatch.setattr(LambdaFunction, "invoke", lambda _, *arguments: stand_in.invoke(*arguments))
    return stand_in


@pytest.fixture
def drain(stack: Stack) -> Iterator[Callable[[object], dict[str, Any]]]:
    """Execute the stack's state machine with an input; the result is the execution as it ended."""
    client = boto3.client("stepfunctions")
    (known,) = client.list_state_machines()["stateMachines"]
    assert known["name"] == f"{STACK}-drain"
    deployed = client.describe_state_machine(stateMachineArn=known["stateMachineArn"])

    def execute(given: object) -> dict[str, Any]:
        # moto's interpreter doesn't see what CloudFormation has made.
        definition = json.loads(deployed["definition"])
        definition["States"]["Workers"]["ItemProcessor"]["States"]["Wait"]["Seconds"] = 0
        machine = client.create_state_machine(
            name="drain", definition=json.dumps(definition), roleArn=deployed["roleArn"]
        )["stateMachineArn"]
        arn = client.start_execution(stateMachineArn=machine, input=json.dumps(given))["executionArn"]
        end = time.monotonic() + 60
        while (execution := client.describe_execution(executionArn=arn))["status"] == "RUNNING":
            assert time.monotonic() < end
            time.sleep(0.02)
        return dict(execution)

    with mock_aws(config={"stepfunctions": {"execute_state_machine": True}}):
        yield execute


def names_and_targets(machine: Any) -> Iterator[tuple[set[str], set[str]]]:
    """Yield, for a machine and those inside it, which states there are and which ones something leads to."""
    targets = {machine["StartAt"]}
    for state in machine["States"].values():
        for step in (state, *state.get("Choices", []), *state.get("Catch", [])):
            targets |= {step[key] for key in ("Next", "Default") if key in step}
        if inner := state.get("ItemProcessor"):
            yield from names_and_targets(inner)
    yield set(machine["States"]), targets


def test_every_transition_leads_to_a_state_and_every_state_is_reached() -> None:
    definition = json.loads((ROOT / "functions/backlog_drain.asl.json").read_text())
    found = list(names_and_targets(definition))
    assert len(found) == 2
    for names, targets in found:
        assert names == targets


def workers(number: int, cycles: int = 5, max_deletions: int = 100) -> dict[str, Any]:
    return {"workers": [{"cycles": cycles, "max_deletions": max_deletions}] * number}


def endings(execution: dict[str, Any]) -> Counter[str]:
    assert execution["status"] == "SUCCEEDED", execution
    return Counter(worker["ended"] for worker in json.loads(execution["output"]))


def test_workers_run_cycles_until_nothing_is_left(cleanup: Cleanup, drain: Callable[[object], Any]) -> None:
    cleanup.answer = lambda number: account(100, 100, max(0, 600 - 100 * number), status="partial")
    assert endings(drain(workers(3, cycles=50))) == {"nothing_left": 3}
    assert 6 <= len(cleanup.events) <= 8
    assert cleanup.events[0] == {
        "action": "cleanup",
        "phases": ["storage_files", "render_jobs"],
        "max_deletions": 100,
    }


def test_no_more_cycles_run_than_the_budget_has(cleanup: Cleanup, drain: Callable[[object], Any]) -> None:
    cleanup.answer = lambda _: account(100, 100, 1_000_000, status="partial")
    assert endings(drain(workers(2, cycles=4))) == {"budget_spent": 2}
    assert len(cleanup.events) == 8


def test_a_worker_that_achieves_nothing_ends(cleanup: Cleanup, drain: Callable[[object], Any]) -> None:
    cleanup.answer = lambda _: account(0, 0, 7)
    assert endings(drain(workers(3))) == {"no_progress": 3}
    assert len(cleanup.events) == 3


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "skipped", "phases": {}, "remaining": None},
        account(50, 50, 1000, status="partial", stopped="disabled"),
        account(50, 50, 1000, status="partial", stopped="switch_unreadable"),
    ],
    ids=["before", "in the middle", "unreadable"],
)
def test_the_kill_switch_ends_all_workers(cleanup: Cleanup, drain: Callable[[object], Any], answer: Answer) -> None:
    cleanup.answer = lambda _: answer
    assert endings(drain(workers(3))) == {"switched_off": 3}
    assert len(cleanup.events) == 3


def test_rows_alone_are_progress(cleanup: Cleanup, drain: Callable[[object], Any]) -> None:
    cleanup.answer = lambda number: account(0, 10, 0 if number == 3 else 20)
    assert endings(drain(workers(1))) == {"nothing_left": 1}
    assert len(cleanup.events) == 3


@pytest.mark.parametrize(
    "answer",
    [account(10, 10, 500, status="failed"), RuntimeError("Task timed out after 900 seconds")],
    ids=["failed", "raised"],
)
def test_a_cycle_that_fails_fails_the_drain_and_is_not_repeated(
    cleanup: Cleanup, drain: Callable[[object], Any], answer: Answer | Exception
) -> None:
    cleanup.answer = lambda _: answer
    assert drain(workers(1))["status"] == "FAILED"
    assert len(cleanup.events) == 1


LOST = ["ServiceException", "AWSLambdaException", "SdkClientException", "ClientExecutionTimeoutException"]


def test_a_call_whose_fate_is_unknown_costs_a_cycle_of_the_budget_and_another_follows(
    cleanup: Cleanup, drain: Callable[[object], Any]
) -> None:
    cleanup.answer = lambda number: (
        JsonRESTError(LOST[number // 2], "lost") if number % 2 == 0 else account(9, 9, 1_000_000, status="partial")
    )
    assert endings(drain(workers(1, cycles=7))) == {"budget_spent": 1}
    assert len(cleanup.events) == 7


def test_the_last_cycle_of_a_budget_may_get_lost(cleanup: Cleanup, drain: Callable[[object], Any]) -> None:
    cleanup.answer = lambda _: JsonRESTError("ServiceException", "lost")
    assert endings(drain(workers(1, cycles=3))) == {"budget_spent": 1}
    assert len(cleanup.events) == 3


def test_a_drain_whose_calls_all_get_lost_fails(cleanup: Cleanup, drain: Callable[[object], Any]) -> None:
    cleanup.answer = lambda _: JsonRESTError("ServiceException", "lost")
    execution = drain(workers(1, cycles=20))
    assert (execution["status"], execution["error"]) == ("FAILED", "LambdaOutOfReach")
    assert len(cleanup.events) == 5


def test_calls_that_get_lost_now_and_then_do_not_fail_a_drain(cleanup: Cleanup, drain: Callable[[object], Any]) -> None:
    cleanup.answer = lambda number: (
        JsonRESTError("ServiceException", "lost") if number % 3 else account(1, 1, 1_000_000, status="partial")
    )
    assert endings(drain(workers(1, cycles=12))) == {"budget_spent": 1}
    assert len(cleanup.events) == 12


@pytest.mark.parametrize("given", [{}, {"workers": 4}, {"workers": [{"cycles": 2}]}, [], {"action": "drain"}])
def test_an_input_that_nobody_can_mean_fails_and_deletes_nothing(
    cleanup: Cleanup, drain: Callable[[object], Any], given: object
) -> None:
    assert drain(given)["status"] == "FAILED"
    assert cleanup.events == []
