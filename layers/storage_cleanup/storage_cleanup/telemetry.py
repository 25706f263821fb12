"""The one owner of Logger and Metrics.

Modules of the package log through ``logging.getLogger(__name__)``. The logger here is named like the package, so
Powertools' handler formats their lines as JSON, with the fields that they pass as ``extra``.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from storage_cleanup.errors import ConfigurationError, NotConfiguredYetError, RefusedError
from storage_cleanup.model.account import PhaseResult, RunResult, ScheduleChange
from storage_cleanup.model.vocabulary import Phase, Status, Trigger

NAMESPACE = "StorageCleanup"
logger = Logger(service="storage_cleanup")
metrics = Metrics(namespace=NAMESPACE, service=os.environ.get("POWERTOOLS_SERVICE_NAME", "storage-cleanup"))
"""Its dimension ``service`` names the stage as well, so that two stages of one account don't share their figures."""


def count(name: str, value: float = 1) -> None:
    """Add a plain count to the metrics of this invocation."""
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)


def record_start(trigger: Trigger) -> None:
    """Note at once that a scheduled cycle has started: a run that is killed reports nothing later."""
    if trigger is Trigger.SCHEDULE:
        with _metric("ScheduledCycle", MetricUnit.Count, 1):
            pass


def record_refusal(refusal: RefusedError) -> None:
    """Emit and log that a run was refused; a refused configuration is a failed cycle."""
    logger.error(str(refusal), extra={"faults": refusal.faults})
    count(type(refusal).__name__)
    if isinstance(refusal, ConfigurationError):
        count("CycleFailed")


def record_waiting(waiting: NotConfiguredYetError) -> dict[str, Any]:
    """Emit and log that a new stage waits for its URL, key and database; return the answer, which isn't a failure."""
    why = "; ".join(waiting.faults)
    logger.warning("Cleanup cycle skipped: %s", why)
    count("ConfigurationError", 0)
    for status in Status:
        count(f"Cycle{status.value.capitalize()}", int(status is Status.SKIPPED))
    return {"status": Status.SKIPPED.value, "phases": {}, "message": why}


def record_unknown(sentences: Sequence[str]) -> None:
    """Emit and log the parameters that aren't known; a release that adds or drops one must not stop cycles."""
    count("UnknownParameters", len(sentences))
    for sentence in sentences:
        logger.warning(sentence)


def record_schedule(change: ScheduleChange | None) -> None:
    """Emit and log whether the rule had drifted from the parameters; None when nobody looked."""
    if change is None:
        return
    count("ScheduleDrift", int(change.changed))
    if change.changed:
        logger.warning("The schedule had drifted from the parameters and was repaired", extra=asdict(change))


def record_run(result: RunResult) -> None:
    """Emit the metrics of a run. Every name is emitted every time, so that a gap always means that nothing ran."""
    count("ConfigurationError", 0)
    count("RequestError", 0)
    for status in Status:
        count(f"Cycle{status.value.capitalize()}", int(result.status is status))
    count("FilesDeleted", _of(result, Phase.STORAGE_FILES).deleted)
    count("RowsDeleted", _of(result, Phase.RENDER_JOBS).deleted)
    count("TempFilesDeleted", _of(result, Phase.TEMP_FILES).deleted)
    count("DeletionsFailed", sum(phase.failed.total() for phase in result.phases.values()))
    count("StuckClaims", result.stuck)
    count("BreakerOpen", int(result.breaker_open))
    if result.remaining is not None:
        count("OrphansRemaining", result.remaining)
    freed = 0 if result.dry_run else _of(result, Phase.STORAGE_FILES).bytes
    metrics.add_metric(name="BytesFreed", unit=MetricUnit.Bytes, value=freed)
    metrics.add_metric(name="CycleDuration", unit=MetricUnit.Seconds, value=result.seconds)
    metrics.add_metric(name="SlowestQuerySeconds", unit=MetricUnit.Seconds, value=result.slowest_query_seconds)
    for phase, outcome in result.phases.items():
        with _metric("PhaseDuration", MetricUnit.Seconds, outcome.seconds) as metric:
            metric.add_dimension(name="phase", value=phase.value)


def _metric(name: str, unit: MetricUnit, value: float) -> AbstractContextManager[Any]:
    """Return a metric of its own, written when the context ends."""
    return single_metric(
        namespace=NAMESPACE, name=name, unit=unit, value=value, default_dimensions={"service": metrics.service or ""}
    )


def _of(result: RunResult, phase: Phase) -> PhaseResult:
    return result.phases.get(phase, PhaseResult())
