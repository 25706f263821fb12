"""What an invocation of the function cleanup asks for; `cleanup.options.resolve` holds it against the parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage_cleanup.errors import RequestError
from storage_cleanup.events.fields import boolean, not_for_this_function, plan_id, read_fields, some_of, whole_number
from storage_cleanup.events.wording import shown
from storage_cleanup.limits import MAX_AGE_MINUTES, MAX_DELETIONS, MAX_DRAIN_DELETIONS, MAX_DRAIN_WORKERS
from storage_cleanup.model.vocabulary import Phase, Trigger

_ACCEPTED = (
    'are the scheduled event of EventBridge and {"action": "cleanup"} with the optional fields '
    "dry_run, phases, max_age_minutes, max_deletions and override, and "
    '{"action": "drain"} with max_deletions and the optional field workers'
)
_FIELDS = {
    "dry_run": boolean(),
    "phases": some_of(Phase, "phase"),
    "max_age_minutes": whole_number(MAX_AGE_MINUTES),
    "max_deletions": whole_number(MAX_DELETIONS),
    "override": plan_id(),
}
_DRAIN_FIELDS = {
    "max_deletions": whole_number(MAX_DRAIN_DELETIONS, required=True),
    "workers": whole_number(MAX_DRAIN_WORKERS),
}
_SCHEDULERS = ("aws.events", "aws.scheduler")  # a rule, and EventBridge Scheduler
_NO_DETAIL: tuple[object, ...] = ({}, "{}", "")  # Scheduler sends its detail as text


@dataclass(frozen=True)
class CleanupRequest:
    """What an event asks for; None where it leaves the choice to the parameters.

    Attributes
    ----------
    override
        Id of the plan (a dry run) whose boldness is asked for, a UUID in lower case.
    """

    trigger: Trigger
    dry_run: bool | None = None
    phases: frozenset[Phase] | None = None
    max_age_minutes: int | None = None
    max_deletions: int | None = None
    override: str | None = None


@dataclass(frozen=True)
class DrainRequest:
    """Cycles side by side until a backlog is gone.

    Attributes
    ----------
    max_deletions
        Budget of all cycles together.
    workers
        Cycles at a time.
    """

    max_deletions: int
    workers: int = 4


def parse_cleanup_event(event: object) -> CleanupRequest:
    """Read the event of a cleanup.

    Raises
    ------
    RequestError
        With every fault of a manual event, or with what is accepted when the event is of another kind.

    Examples
    --------
    >>> parse_cleanup_event({"action": "cleanup", "dry_run": True}).dry_run
    True
    """
    if isinstance(event, Mapping):
        if event.get("action") == "cleanup":
            return _manual(event)
        if "action" not in event and event.get("detail-type") == "Scheduled Event":
            return _scheduled(event)
    raise not_for_this_function(event, _ACCEPTED)


def parse_drain_event(event: object) -> DrainRequest | None:
    """Read the event of a drain; None when it is an event of another kind.

    Raises
    ------
    RequestError
        With every fault of it.
    """
    if not isinstance(event, Mapping) or event.get("action") != "drain":
        return None
    return DrainRequest(**read_fields(event, _DRAIN_FIELDS))


def _scheduled(event: Mapping[str, Any]) -> CleanupRequest:
    faults = []
    if event.get("source") not in _SCHEDULERS:
        faults.append(f"source is {shown(event.get('source'))}; it accepts {' or '.join(_SCHEDULERS)}")
    if event.get("detail", {}) not in _NO_DETAIL:
        faults.append(f"detail is {shown(event['detail'])}; a scheduled event accepts none, a manual one has options")
    if faults:
        raise RequestError(faults)
    return CleanupRequest(Trigger.SCHEDULE)


def _manual(event: Mapping[str, Any]) -> CleanupRequest:
    values = read_fields(event, _FIELDS)
    if values.get("override") and values.get("dry_run"):
        raise RequestError(["override: a dry run needs none; leave out one of dry_run and override"])
    return CleanupRequest(Trigger.MANUAL, **values)
