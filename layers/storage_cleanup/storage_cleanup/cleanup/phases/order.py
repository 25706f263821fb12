"""What the phases are told to do."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from storage_cleanup.limits import LEASE_SECONDS


@dataclass(frozen=True)
class Order:
    """What a phase may do.

    Attributes
    ----------
    max_age
        How old a thing must be; jobs and their files are judged by the database's clock.
    budget
        Most things to delete.
    grace
        How long a job stays after it was last un-saved.
    owners_only
        Whether a file goes only if it is its job's own user's.
    keep_dependents
        Whether a job stays that rows of other tables refer to.
    page_size
        How many things are looked at together.
    lease_seconds
        How long after it was asked for a claim may be acted on.
    plan
        Only the jobs of this dry run, or None for all.
    stop
        Returns a reason to take no more work, or None.
    """

    run: UUID
    max_age: timedelta
    budget: int
    page_size: int
    dry_run: bool
    plan: UUID | None
    stop: Callable[[], str | None]
    lease_seconds: float = LEASE_SECONDS
    grace: timedelta = timedelta(0)
    owners_only: bool = True
    keep_dependents: bool = True
