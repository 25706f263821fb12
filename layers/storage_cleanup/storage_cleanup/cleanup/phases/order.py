"""What the phases that work with the database are told to do."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID


@dataclass(frozen=True)
class Order:
    """What a run may do.

    Attributes
    ----------
    max_age
        How old a job, and its file, must be; judged by the database's clock.
    budget
        Most objects to delete.
    plan
        Only the jobs of this dry run, or None for all.
    """

    run: UUID
    max_age: timedelta
    budget: int
    dry_run: bool
    plan: UUID | None
