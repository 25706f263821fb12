"""What the phases are told to do."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID


@dataclass(frozen=True)
class Order:
    """What a phase may do.

    Attributes
    ----------
    max_age
        How old a thing must be; jobs and their files are judged by the database's clock.
    budget
        Most things to delete.
    page_size
        How many things are looked at together.
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
