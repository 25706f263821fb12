"""Starting a drain: the state machine ``BacklogDrain`` runs cycles side by side until a backlog is gone.

Each of its workers invokes the cleanup function again and again, so every cycle has the same claims, breakers and
limits as any other. The budget is dealt out before the start: no worker gets more cycles, and no cycle more deletions,
than together make up the whole. So it holds whatever fails.
"""

import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from storage_cleanup.aws.clients import AWS_ERRORS
from storage_cleanup.config.parameters import phase_parameter
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import DrainError, RequestError
from storage_cleanup.events.cleanup import DrainRequest
from storage_cleanup.limits import MAX_DRAIN_CYCLE_DELETIONS, MAX_DRAIN_CYCLES
from storage_cleanup.model.vocabulary import Phase


@dataclass(frozen=True)
class Shares:
    """How a budget is dealt out.

    Attributes
    ----------
    workers
        Cycles at a time.
    cycles
        Most cycles of a worker.
    max_deletions
        Most deletions of a cycle.
    """

    workers: int
    cycles: int
    max_deletions: int

    @property
    def total(self) -> int:
        """What all together may delete at most."""
        return self.workers * self.cycles * self.max_deletions


def deal(budget: int, workers: int, most_a_cycle: int) -> Shares:
    """Deal a budget out to workers, in cycles of at most ``most_a_cycle`` deletions; a small one needs fewer workers.

    Examples
    --------
    >>> deal(100_000, workers=4, most_a_cycle=10_000)
    Shares(workers=4, cycles=3, max_deletions=8333)
    """
    workers = min(workers, budget)
    share = budget // workers
    cycles = -(-share // most_a_cycle)
    return Shares(workers, cycles, share // cycles)


def start_drain(request: DrainRequest, settings: Settings, *, states: Any, state_machine: str | None) -> dict[str, Any]:
    """Start the state machine; return what was started.

    Parameters
    ----------
    states
        A client of ``stepfunctions``.
    state_machine
        Its ARN; None where there is none.

    Raises
    ------
    RequestError
        The parameters don't allow it, another drain is running, or the budget is too large for one.
    DrainError
        Step Functions can't be reached, or refuses.
    """
    if state_machine is None:
        raise RequestError(["a drain needs the state machine of a deployed stack; here, send cleanup events instead"])
    most_a_cycle = min(settings.max_deletions_per_run, MAX_DRAIN_CYCLE_DELETIONS)
    shares = deal(request.max_deletions, request.workers, most_a_cycle)
    if faults := _faults(shares, settings):
        raise RequestError(faults)
    try:
        running = states.list_executions(stateMachineArn=state_machine, statusFilter="RUNNING", maxResults=1)
        if running["executions"]:
            raise RequestError([f"another drain is running: {running['executions'][0]['executionArn']}"])
        worker = {"cycles": shares.cycles, "max_deletions": shares.max_deletions}
        # A name makes it idempotent: without one, a request that is repeated because its answer was lost starts two.
        started = states.start_execution(
            stateMachineArn=state_machine,
            name=str(uuid4()),
            input=json.dumps({"workers": [worker] * shares.workers}),
        )
    except AWS_ERRORS as error:
        raise DrainError(f"the drain couldn't be started: {error}") from error
    return {
        "status": "started",
        "execution": started["executionArn"],
        "workers": shares.workers,
        "cycles_a_worker": shares.cycles,
        "max_deletions": shares.total,
    }


def _faults(shares: Shares, settings: Settings) -> list[str]:
    faults = [f"the parameter {why}; a drain deletes" for why in settings.switched_off.values()]
    faults += [
        f"the parameter {phase_parameter(phase)} is false; a drain needs it"
        for phase in (Phase.STORAGE_FILES, Phase.RENDER_JOBS)
        if phase not in settings.phases
    ]
    if shares.workers * shares.cycles > MAX_DRAIN_CYCLES:
        most = MAX_DRAIN_CYCLES * min(settings.max_deletions_per_run, MAX_DRAIN_CYCLE_DELETIONS)
        faults.append(
            f"max_deletions is too much for one drain: with limits/max-deletions-per-run "
            f"{settings.max_deletions_per_run} it accepts up to about {most}"
        )
    return faults
