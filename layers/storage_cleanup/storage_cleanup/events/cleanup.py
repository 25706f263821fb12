"""What an invocation asks for, and what it may do: the only module that knows the shapes of events.

`parse_cleanup_event` reads an event, `resolve` holds it against the parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from storage_cleanup.errors import RequestError
from storage_cleanup.events.wording import shown, unknown_names
from storage_cleanup.limits import MAX_AGE_MINUTES, MAX_DELETIONS
from storage_cleanup.model.vocabulary import Phase, Trigger

_ACCEPTED = (
    'accepted are the scheduled event of EventBridge and {"action": "cleanup"} with the optional fields '
    "dry_run, phases, max_age_minutes, max_deletions and override, and "
    '{"action": "drain"} with max_deletions and the optional field workers'
)
MAX_DRAIN, MAX_WORKERS = 1_000_000_000, 16
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
    raise RequestError([f"{_kind(event)} isn't for this function; {_ACCEPTED}"])


def parse_drain_event(event: object) -> DrainRequest | None:
    """Read the event of a drain; None when it is an event of another kind.

    Raises
    ------
    RequestError
        With every fault of it.
    """
    if not isinstance(event, Mapping) or event.get("action") != "drain":
        return None
    values = _values(event, _DRAIN_FIELDS, required=("max_deletions",))
    return DrainRequest(**values)


def _kind(event: object) -> str:
    if not isinstance(event, Mapping):
        return f"an event that is {shown(event)}"
    for name in ("action", "detail-type"):
        if name in event:
            return f"an event whose {name} is {shown(event[name])}"
    return "an event without an action"


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
    values = _values(event, _FIELDS)
    if values.get("override") and values.get("dry_run"):
        raise RequestError(["override: a dry run needs none; leave out one of dry_run and override"])
    return CleanupRequest(Trigger.MANUAL, **values)


def _values(
    event: Mapping[str, Any], fields: Mapping[str, Callable[[object], Any]], required: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the fields that an event has, read; every fault of them is in one error."""
    faults = unknown_names(event, ("action", *fields), "field")
    faults += [f"{name} is missing; it has no default" for name in required if name not in event]
    values: dict[str, Any] = {}
    for name, read in fields.items():
        if name in event:
            try:
                values[name] = read(event[name])
            except (TypeError, ValueError) as problem:
                faults.append(f"{name} {problem}")
    if faults:
        raise RequestError(faults)
    return values


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"is {shown(value)}; it accepts true or false")
    return value


def _integer_up_to(high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= high:
            raise ValueError(f"is {shown(value)}; it accepts a whole number from 1 to {high}")
        return value

    return read


def _phases(value: object) -> frozenset[Phase]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"is {shown(value) if value != [] else 'empty'}; it accepts a list of {', '.join(Phase)}")
    strange = [name for name in value if not isinstance(name, str) or name not in set(Phase)]
    if strange:
        raise ValueError("has a fault: " + "; ".join(unknown_names(strange, [phase.value for phase in Phase], "phase")))
    if len(set(value)) < len(value):
        raise ValueError("names a phase twice; it accepts each at most once")
    return frozenset(map(Phase, value))


def _plan_id(value: object) -> str:
    try:
        plan = str(UUID(value)) if isinstance(value, str) else None
    except ValueError:
        plan = None
    if plan is None or not isinstance(value, str) or plan != value.lower():
        raise ValueError(f"is {shown(value)}; it accepts the plan_id of a dry run, a UUID")
    return plan


_FIELDS: Mapping[str, Callable[[object], Any]] = {
    "dry_run": _boolean,
    "phases": _phases,
    "max_age_minutes": _integer_up_to(MAX_AGE_MINUTES),
    "max_deletions": _integer_up_to(MAX_DELETIONS),
    "override": _plan_id,
}
_DRAIN_FIELDS: Mapping[str, Callable[[object], Any]] = {
    "max_deletions": _integer_up_to(MAX_DRAIN),
    "workers": _integer_up_to(MAX_WORKERS),
}
