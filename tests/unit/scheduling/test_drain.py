"""Starting a drain: how its budget is dealt out, and when it is refused."""

import json
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import DrainError, RequestError
from storage_cleanup.events.cleanup import DrainRequest
from storage_cleanup.limits import MAX_DRAIN_CYCLES
from storage_cleanup.model.vocabulary import Phase
from storage_cleanup.scheduling.drain import Shares, deal, start_drain
from tests.unit.examples import PARAMETERS

ARN = "arn:aws:states:eu-central-1:123456789012:stateMachine:drain"
EXECUTION = "arn:aws:states:eu-central-1:123456789012:execution:drain:1"
SETTINGS = Settings.from_parameters(PARAMETERS)


@pytest.mark.parametrize(
    ("budget", "workers", "shares"),
    [
        (40_000, 4, Shares(4, 1, 10_000)),
        (1_000_000, 4, Shares(4, 25, 10_000)),
        (60_000, 4, Shares(4, 2, 7_500)),
        (3, 4, Shares(3, 1, 1)),
        (1, 1, Shares(1, 1, 1)),
    ],
)
def test_a_budget_is_dealt_out_to_workers_and_cycles(budget: int, workers: int, shares: Shares) -> None:
    assert deal(budget, workers, 10_000) == shares


@pytest.mark.parametrize("most_a_cycle", [1, 7, 10_000])
@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize("budget", [1, 2, 99, 12_345, 999_999])
def test_all_shares_together_are_never_more_than_the_budget_and_nearly_all_of_it(
    budget: int, workers: int, most_a_cycle: int
) -> None:
    shares = deal(budget, workers, most_a_cycle)
    assert shares.total <= budget
    assert shares.max_deletions <= most_a_cycle
    assert budget - shares.total < shares.workers * (shares.cycles + 1)


def start(request: DrainRequest, settings: Settings, **answers: Any) -> dict[str, Any]:
    """Start a drain with a client that expects exactly these calls."""
    client = boto3.client("stepfunctions", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        for call, (answer, parameters) in answers.items():
            stub.add_response(call, answer, parameters)
        result = start_drain(request, settings, states=client, state_machine=ARN)
        stub.assert_no_pending_responses()
    return result


NONE_RUNNING: tuple[dict[str, Any], dict[str, Any]] = (
    {"executions": []},
    {"stateMachineArn": ARN, "statusFilter": "RUNNING", "maxResults": 1},
)


def test_a_drain_starts_its_workers_with_their_shares() -> None:
    given = {"workers": [{"cycles": 2, "max_deletions": 10_000}] * 3}
    answer = start(
        DrainRequest(max_deletions=60_000, workers=3),
        SETTINGS,
        list_executions=NONE_RUNNING,
        start_execution=(
            {"executionArn": EXECUTION, "startDate": "2026-11-24T00:00:00Z"},
            {"stateMachineArn": ARN, "name": ANY, "input": json.dumps(given)},
        ),
    )
    assert answer == {
        "status": "started",
        "execution": EXECUTION,
        "workers": 3,
        "cycles_a_worker": 2,
        "max_deletions": 60_000,
    }


def test_a_drain_waits_for_no_other() -> None:
    running = {
        "executionArn": EXECUTION,
        "stateMachineArn": ARN,
        "name": "1",
        "status": "RUNNING",
        "startDate": "2026-11-24T00:00:00Z",
    }
    with pytest.raises(RequestError, match=f"another drain is running: {EXECUTION}"):
        start(DrainRequest(10), SETTINGS, list_executions=({"executions": [running]}, NONE_RUNNING[1]))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"enabled": False}, "the parameter enabled is false"),
        ({"dry_run": True}, "the parameter dry-run is true"),
        ({"phases": frozenset({Phase.RENDER_JOBS})}, "phases/storage-files is false"),
        ({"phases": frozenset({Phase.STORAGE_FILES})}, "phases/render-jobs is false"),
        ({"max_deletions_per_run": 1}, f"accepts up to about {MAX_DRAIN_CYCLES}"),
    ],
)
def test_a_drain_is_no_bolder_than_the_parameters(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(RequestError, match=fault):
        start(DrainRequest(100_000), replace(SETTINGS, **change))


def test_where_there_is_no_state_machine_the_refusal_says_what_to_do() -> None:
    with pytest.raises(RequestError, match="deployed stack"):
        start_drain(DrainRequest(10), SETTINGS, states=None, state_machine=None)


def test_step_functions_that_refuse_are_an_error_of_the_drain() -> None:
    client = boto3.client("stepfunctions", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    with Stubber(client) as stub:
        stub.add_client_error("list_executions", "AccessDeniedException")
        with pytest.raises(DrainError, match="couldn't be started"):
            start_drain(DrainRequest(10), SETTINGS, states=client, state_machine=ARN)
