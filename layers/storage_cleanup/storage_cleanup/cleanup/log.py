"""What the log says of a cycle: the original's five lines, each with flat fields beside it that queries can use.

Each phase ends with one line, and so does the run; before a phase's comes a line for each reason. The fields of both
are the numbers of the account, a run's being the sums of its phases'. The logger adds ``run_id``, ``stage`` and
``correlation_id`` to each (`storage_cleanup.telemetry`).
"""

import logging
from collections.abc import MutableMapping
from typing import Any

from storage_cleanup.model.account import PhaseResult, RunResult
from storage_cleanup.model.reasons import Kind, Reason, meaning
from storage_cleanup.model.vocabulary import Phase, Status

_log = logging.getLogger(__name__)
_THINGS = {
    Phase.TEMP_FILES: "temporary files",
    Phase.STORAGE_FILES: "orphaned files",
    Phase.RENDER_JOBS: "orphaned render job records",
}


class PhaseLog(logging.LoggerAdapter[logging.Logger]):
    """The log of a phase: each line carries its name."""

    def __init__(self, name: str, phase: Phase) -> None:
        super().__init__(logging.getLogger(name), {"phase": phase.value})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the phase to the line's own fields."""
        return msg, {**kwargs, "extra": {**(self.extra or {}), **(kwargs.get("extra") or {})}}


def log_start(*, dry_run: bool, why_dry: str | None, profile: str) -> None:
    """Log that a cycle begins, and why it will delete nothing, where the parameters say so."""
    extra = {"dry_run": dry_run, "profile": profile}
    if why_dry:
        _log.warning("This cycle deletes nothing: the parameter %s", why_dry, extra=extra)
    _log.info("Starting comprehensive cleanup cycle", extra=extra)


def log_phase(phase: Phase, result: PhaseResult, *, dry_run: bool) -> None:
    """Log the end of a phase, with its account; before it, a line for each reason that its own doesn't say."""
    for kind, reasons in _by_kind(result):
        for reason, number in sorted(reasons.items() - {(Reason.DRY_RUN, result.would_delete)}):
            log_reason(phase, kind, reason, number)
    extra = {"phase": phase.value, "dry_run": dry_run, **_flat(result)}
    if dry_run:
        _log.info("Would delete %d %s", result.would_delete, _THINGS[phase], extra=extra)
    else:
        _log.info("Successfully deleted %d %s", result.deleted, _THINGS[phase], extra=extra)


def log_reason(phase: Phase, kind: Kind, reason: str, number: int) -> None:
    """Log how many things had an outcome for a reason."""
    extra = {"phase": phase.value, "outcome": kind.value, "reason": str(reason), "number": number}
    _log.info("%s %d: %s", kind.value.capitalize(), number, meaning(reason), extra=extra)


def log_end(result: RunResult) -> None:
    """Log the end of a run: the only line of it that has a ``status``."""
    extra = {
        **_flat(sum(result.phases.values(), PhaseResult())),
        "status": result.status.value,
        "dry_run": result.dry_run,
        "profile": result.profile,
        "remaining": result.remaining,
        "stuck": result.stuck,
        "seconds": round(result.seconds, 3),
        "slowest_query_seconds": round(result.slowest_query_seconds, 3),
        "breaker_open": result.breaker_open,
        "why": result.message,
    }
    if result.status is Status.FAILED:
        _log.error("Cleanup cycle failed: %s", result.message, extra=extra)
    elif result.status is Status.SKIPPED:
        _log.warning("Cleanup cycle skipped: %s", result.message, extra=extra)
    else:
        _log.info("Comprehensive cleanup cycle completed", extra=extra)


def _flat(result: PhaseResult) -> dict[str, Any]:
    """Return an account without anything nested: the reasons in one text, such as ``kept saved 3, failed stuck 1``."""
    account = result.as_dict()
    reasons = [
        f"{kind.value} {reason} {number}" for kind, of in _by_kind(result) for reason, number in sorted(of.items())
    ]
    return {**account, "reasons": ", ".join(reasons) or "none"}


def _by_kind(result: PhaseResult) -> list[tuple[Kind, dict[str, int]]]:
    return [(Kind.KEPT, result.kept), (Kind.SKIPPED, result.skipped), (Kind.FAILED, result.failed)]
