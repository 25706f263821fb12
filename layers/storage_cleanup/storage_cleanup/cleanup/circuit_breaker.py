"""The circuit breaker: judgements about whether a run may go on deleting."""

from dataclasses import dataclass

from storage_cleanup.errors import BreakerOpenError


def judge_reference_set(saved_now: int, saved_before: int | None, max_drop_percent: int) -> str | None:
    """Say why the set of saved assets can't be trusted, or None when it can.

    An asset that went missing by mistake makes its job look like an orphan. So a sudden drop stops everything.

    Parameters
    ----------
    saved_now, saved_before
        Assets that name a job: counted now, and at the last run that went well (None: there was none).
    max_drop_percent
        How much of the set may have gone since then, 0 to 100. An empty set is never accepted where it wasn't empty.
    """
    if not saved_before or saved_now >= saved_before:
        return None
    drop = 100 * (saved_before - saved_now) / saved_before
    if saved_now == 0 or drop > max_drop_percent:
        return (
            f"saved assets fell from {saved_before} to {saved_now} ({drop:.1f} %) since the last good run; "
            f"limits/max-saved-drop-percent allows {max_drop_percent} %"
        )
    return None


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
