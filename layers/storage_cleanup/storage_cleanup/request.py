"""What an invocation asks for, and what it may do: the only module that knows the shapes of events.

`parse_cleanup_event` reads an event, `resolve` holds it against the parameters.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from storage_cleanup.errors import RequestError
from storage_cleanup.result import Phase
from storage_cleanup.settings import MAX_AGE_MINUTES, MAX_DELETIONS, Settings, phase_parameter
from storage_cleanup.wording import shown, unknown_names

_ACCEPTED = (
    'accepted are the scheduled event of EventBridge and {"action": "cleanup"} with the optional fields '
    "dry_run, phases, max_age_minutes, max_deletions and override, and "
    '{"action": "drain"} with max_deletions and the optional field workers'
)
_DRY_OVERRIDE = (
    'override: it is for deleting, and this is a dry run because the parameter dry-run is true; it accepts "dry_run": '
    "false beside it"
)
_GO_ON = 'to go on, make a dry run ("dry_run": true) and pass its plan_id as "override"'
MAX_DRAIN, MAX_WORKERS = 1_000_000_000, 16
_SCHEDULERS = ("aws.events", "aws.scheduler")  # a rule, and EventBridge Scheduler
_NO_DETAIL: tuple[object, ...] = ({}, "{}", "")  # Scheduler sends its detail as text


class Trigger(StrEnum):
    """Who started the run."""

    SCHEDULE = "schedule"
    MANUAL = "manual"


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


@dataclass(frozen=True)
class RunOptions:
    """What a run does: the event's wishes and the parameters', made one.

    Attributes
    ----------
    max_age
        Only what is older may go.
    max_deletions
        Most things that the run may delete.
    override
        Id of a plan that still has to be checked against the database, or None.
    """

    trigger: Trigger
    dry_run: bool
    phases: frozenset[Phase]
    max_age: timedelta
    max_deletions: int
    override: str | None


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


def resolve(request: CleanupRequest, settings: Settings) -> RunOptions:
    """Turn a request into what the run does, as far as the parameters allow it.

    A dry run deletes nothing and may look as far as it likes: that is how the plan for an override is made. A
    request with an override isn't held against the parameters here, but the database must confirm the plan.

    Raises
    ------
    RequestError
        When the event is bolder than the parameters and has no override, or has one that can't be meant.
    """
    dry_run = settings.dry_run if request.dry_run is None else request.dry_run
    if request.override and dry_run:
        raise RequestError([_DRY_OVERRIDE])
    if not (dry_run or request.override):
        _refuse_boldness(request, settings)
    return RunOptions(
        trigger=request.trigger,
        dry_run=dry_run,
        phases=settings.phases if request.phases is None else request.phases,
        max_age=timedelta(minutes=request.max_age_minutes or settings.active.max_age_minutes),
        max_deletions=request.max_deletions or settings.max_deletions_per_run,
        override=request.override,
    )


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


def _refuse_boldness(request: CleanupRequest, settings: Settings) -> None:
    faults = [*_bold_switches(request, settings), *_bold_numbers(request, settings)]
    if faults:
        raise RequestError([*faults, _GO_ON])


def _bold_switches(request: CleanupRequest, settings: Settings) -> Iterator[str]:
    if request.dry_run is False and settings.dry_run:
        yield "dry_run is false, but the parameter dry-run is true"
    for phase in sorted((request.phases or frozenset()) - settings.phases):
        yield f"phases has {phase}, but the parameter {phase_parameter(phase)} is false"


def _bold_numbers(request: CleanupRequest, settings: Settings) -> Iterator[str]:
    age, lowest = request.max_age_minutes, settings.active.max_age_minutes
    if age is not None and age < lowest:
        yield f"max_age_minutes is {age}, but the parameter {settings.profile}/max-age-minutes allows {lowest} or more"
    count, highest = request.max_deletions, settings.max_deletions_per_run
    if count is not None and count > highest:
        yield f"max_deletions is {count}, but the parameter limits/max-deletions-per-run allows {highest} or fewer"
