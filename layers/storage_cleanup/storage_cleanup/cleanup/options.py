"""What a run does: the wishes of an event, held against the parameters."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from storage_cleanup.config.parameters import DRY_RUN, phase_parameter
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import RequestError
from storage_cleanup.events.cleanup import CleanupRequest
from storage_cleanup.model.vocabulary import Phase, Trigger

_DRY_OVERRIDE = (
    'override: it is for deleting, and this is a dry run because the parameter dry-run is true; it accepts "dry_run": '
    "false beside it"
)
_GO_ON = 'to go on, make a dry run ("dry_run": true) and pass its plan_id as "override"'


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
    why_dry
        Which parameter makes this a dry run, or None when the event does, or nothing.
    """

    trigger: Trigger
    dry_run: bool
    phases: frozenset[Phase]
    max_age: timedelta
    max_deletions: int
    override: str | None
    why_dry: str | None = None

    @property
    def plan(self) -> UUID | None:
        """The plan that the override names."""
        return UUID(self.override) if self.override else None

    @property
    def max_age_minutes(self) -> int:
        """The age in minutes, as parameters, events and answers have it."""
        return round(self.max_age.total_seconds() / 60)

    def as_dict(self) -> dict[str, Any]:
        """Return what a plan and its override must have in common, as JSON-ready values."""
        return {
            "phases": sorted(phase.value for phase in self.phases),
            "max_age_minutes": self.max_age_minutes,
            "max_deletions": self.max_deletions,
        }


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
        why_dry=settings.switched_off.get(DRY_RUN) if request.dry_run is None else None,
    )


def _refuse_boldness(request: CleanupRequest, settings: Settings) -> None:
    faults = [*_bold_switches(request, settings), *_bold_numbers(request, settings)]
    if faults:
        raise RequestError([*faults, _GO_ON])


def _bold_switches(request: CleanupRequest, settings: Settings) -> Iterator[str]:
    if request.dry_run is False and settings.dry_run:
        yield f"dry_run is false, but the parameter {settings.switched_off[DRY_RUN]}"
    for phase in sorted((request.phases or frozenset()) - settings.phases):
        yield f"phases has {phase}, but the parameter {phase_parameter(phase)} is false"


def _bold_numbers(request: CleanupRequest, settings: Settings) -> Iterator[str]:
    age, lowest = request.max_age_minutes, settings.active.max_age_minutes
    if age is not None and age < lowest:
        yield f"max_age_minutes is {age}, but the parameter {settings.profile}/max-age-minutes allows {lowest} or more"
    count, highest = request.max_deletions, settings.max_deletions_per_run
    if count is not None and count > highest:
        yield f"max_deletions is {count}, but the parameter limits/max-deletions-per-run allows {highest} or fewer"
