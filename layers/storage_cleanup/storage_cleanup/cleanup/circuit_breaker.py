"""The circuit breaker: judgements about whether a run may go on deleting."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage_cleanup.errors import BreakerOpenError
from storage_cleanup.events.wording import shown


def judge_reference_set(saved_now: int, saved_before: int | None, max_drop_percent: int) -> str | None:
    """Say why the set of saved assets can't be trusted, or None when it can.

    An asset that went missing by mistake makes its job look like an orphan. So a sudden drop stops everything.

    Parameters
    ----------
    saved_now, saved_before
        Assets that name a job: counted now, and the most in the last 7 days (None: they were never counted).
    max_drop_percent
        How much of the set may have gone, 0 to 100. An empty set is never accepted where it wasn't empty.
    """
    if not saved_before or saved_now >= saved_before:
        return None
    drop = 100 * (saved_before - saved_now) / saved_before
    if saved_now == 0 or drop > max_drop_percent:
        return (
            f"saved assets fell from {saved_before} to {saved_now} ({drop:.1f} %), "
            f"measured by the most of 7 days; limits/max-saved-drop-percent allows {max_drop_percent} %"
        )
    return None


def judge_first_run(*, has_assets: bool, has_jobs: bool, keys: Sequence[str]) -> str | None:
    """Say why the first run of a project, which sees no reference at all, may be blind to the saves, or None.

    Parameters
    ----------
    has_assets, has_jobs
        Whether there are assets, and more completed jobs than somebody makes who only tries it out.
    keys
        The usual ones of the assets' metadata.
    """
    facts = []
    if has_assets:
        facts.append(f"user_assets has rows (keys of metadata: {', '.join(map(shown, keys)) or 'none'})")
    if has_jobs:
        facts.append("more than 20 jobs are completed")
    if not facts:
        return None
    return (
        "nothing was ever deleted here, and no asset names a render job by metadata->>'render_job_id', although "
        f"{' and '.join(facts)}: if renders are saved under another key, all of them would be lost. "
        'If nobody has saved any, settle it for good: send {"action": "cleanup", "dry_run": true}, read what it would '
        'delete, and send {"action": "cleanup", "override": "…"} with the plan_id of its answer'
    )


@dataclass
class FailureBreaker:
    """Opens when too large a part of what a run tried has failed.

    Attributes
    ----------
    max_percent
        How much may fail, 0 to 100.
    minimum
        It never judges fewer attempts than this: one failure of three says little.
    """

    max_percent: int
    minimum: int = 20
    attempted: int = 0
    failed: int = 0

    def record(self, *, attempted: int, failed: int) -> None:
        """Count what became of one batch."""
        self.attempted += attempted
        self.failed += failed

    @property
    def reason(self) -> str | None:
        """Why the breaker is open, or None while it is closed."""
        if self.attempted < self.minimum or 100 * self.failed <= self.max_percent * self.attempted:
            return None
        return (
            f"{self.failed} of {self.attempted} deletions failed ({100 * self.failed / self.attempted:.0f} %); "
            f"limits/max-failure-percent allows {self.max_percent} %"
        )


@dataclass
class CircuitBreaker:
    """Opens when too much fails, or when the set of saved assets can't be trusted.

    Attributes
    ----------
    reference_reason
        Why the set of saved assets can't be trusted, or None.
    """

    failures: FailureBreaker
    reference_reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why the breaker is open, or None while it is closed."""
        return self.reference_reason or self.failures.reason

    def assert_closed(self) -> None:
        """Raise ``BreakerOpenError`` when the breaker is open."""
        if self.reason:
            raise BreakerOpenError(self.reason)
