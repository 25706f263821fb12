"""What a phase and a run did, in numbers that add up."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from storage_cleanup.model.pricing import monthly_cost
from storage_cleanup.model.vocabulary import Phase, Status


@dataclass
class PhaseResult:
    """The account of one phase: everything that it examined has exactly one outcome.

    ``examined = planned + kept``, and ``planned = deleted + already_missing + skipped + failed``.

    Attributes
    ----------
    deleted
        Things that a request of this system made disappear, however late its answer: ``storage_files`` counts objects,
        ``render_jobs`` rows.
    already_missing
        Things that were gone before they were asked for.
    kept
        Things that must not go, or not yet: how many by each reason (snake_case).
    skipped, failed
        Things that were to go and are still there, by reason: nobody tried, or it didn't work.
    bytes
        Size of what was deleted (in a dry run: of what would be).
    seconds
        Time that the phase was at work; phases 2 and 3 work side by side.
    stopped
        Why the phase ended before its work did (``disabled``, ``time_is_short``, ``limit_reached`` …), or None.
    error
        What broke the phase as a whole, or None.
    """

    deleted: int = 0
    already_missing: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    seconds: float = 0.0
    stopped: str | None = None
    error: str | None = None

    def __add__(self, other: "PhaseResult") -> "PhaseResult":
        """Return the account of two parts of a phase."""
        return PhaseResult(
            deleted=self.deleted + other.deleted,
            already_missing=self.already_missing + other.already_missing,
            kept=self.kept + other.kept,
            skipped=self.skipped + other.skipped,
            failed=self.failed + other.failed,
            bytes=self.bytes + other.bytes,
            seconds=self.seconds + other.seconds,
            stopped=self.stopped or other.stopped,
            error=self.error or other.error,
        )

    @property
    def examined(self) -> int:
        """Number of things that the phase decided about."""
        return self.planned + self.kept.total()

    @property
    def planned(self) -> int:
        """Number of things that were to go."""
        return self.deleted + self.already_missing + self.skipped.total() + self.failed.total()

    @property
    def would_delete(self) -> int:
        """Number of things that a real run would have tried to delete; 0 unless this is a dry run."""
        return self.skipped["dry_run"]

    def as_dict(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Return the account as JSON-ready values; ``would_delete`` only in a dry run."""
        account: dict[str, Any] = {
            "examined": self.examined,
            "kept": self.kept.total(),
            "planned": self.planned,
            "deleted": self.deleted,
            "already_missing": self.already_missing,
            "skipped": self.skipped.total(),
            "failed": self.failed.total(),
            "reasons": {name: dict(sorted(getattr(self, name).items())) for name in ("kept", "skipped", "failed")},
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
        }
        if dry_run:
            account["would_delete"] = self.would_delete
        if self.stopped:
            account["stopped"] = self.stopped
        if self.error:
            account["error"] = self.error
        return account


@dataclass
class RunResult:
    """The answer of one invocation.

    Attributes
    ----------
    remaining
        Candidates past their age that wait for the next run, or None when nobody counted.
    stuck
        Claims that keep failing; they count as remaining, too.
    given_back
        Claims of dead runs that a switched-off system has given back, so that their jobs can be saved again.
    message
        One sentence for a human: why the run was skipped or failed; None when it went well.
    """

    run_id: str
    status: Status
    dry_run: bool
    profile: str
    max_age_minutes: int
    phases: dict[Phase, PhaseResult]
    remaining: int | None = None
    stuck: int = 0
    given_back: int = 0
    seconds: float = 0.0
    slowest_query_seconds: float = 0.0
    breaker_open: bool = False
    message: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON-ready values; a dry run names its ``plan_id``, unless it failed."""
        answer: dict[str, Any] = {
            "run_id": self.run_id,
            "status": self.status.value,
            "dry_run": self.dry_run,
            "profile": self.profile,
            "max_age_minutes": self.max_age_minutes,
            "phases": {phase.value: result.as_dict(dry_run=self.dry_run) for phase, result in self.phases.items()},
            "remaining": self.remaining,
            "stuck": self.stuck,
            "seconds": round(self.seconds, 3),
            "slowest_query_seconds": round(self.slowest_query_seconds, 3),
        }
        if self.given_back:
            answer["given_back"] = self.given_back
        if self.breaker_open:
            answer["breaker_open"] = True
        if self.dry_run and self.status is not Status.FAILED:
            answer["plan_id"] = self.run_id
            freed = sum(result.bytes for result in self.phases.values())
            answer["would_save_usd_per_month"] = round(monthly_cost(freed), 6)
        if self.message:
            answer["message"] = self.message
        return answer


@dataclass(frozen=True)
class ScheduleChange:
    """What `sync_rule` found and left behind; ``before`` is None where the rule had no schedule."""

    before: str | None
    after: str
    changed: bool
