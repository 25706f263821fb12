"""The one owner of Logger, Metrics and Tracer.

Modules of the package log through ``logging.getLogger(__name__)``. The service is named like the package, so
Powertools' handler formats their lines as JSON, with the fields that they pass as ``extra``.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from storage_cleanup.result import Phase, PhaseResult, RunResult, Status

SERVICE = "storage_cleanup"
NAMESPACE = "StorageCleanup"
logger = Logger(service=SERVICE)
metrics = Metrics(namespace=NAMESPACE, service=SERVICE)

_Handler = TypeVar("_Handler", bound=Callable[..., Any])


def traced(handler: _Handler) -> _Handler:
    """Trace a handler with X-Ray where ``TRACING`` is ``on``; the SDK behind it is loaded only then.

    The X-Ray SDK ends in February 2027; whatever follows it is chosen here.
    """
    if os.environ.get("TRACING", "off") != "on":
        return handler
    from aws_lambda_powertools import Tracer  # noqa: PLC0415  (its import is the user's time)

    return Tracer(service=SERVICE).capture_lambda_handler(handler)  # type: ignore[return-value]


def count(name: str, value: float = 1) -> None:
    """Add a plain count to the metrics of this invocation."""
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)


def record_run(result: RunResult) -> None:
    """Emit the metrics of a run. Every name is emitted every time, so that a gap always means that nothing ran."""
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
        with single_metric(
            namespace=NAMESPACE,
            name="PhaseDuration",
            unit=MetricUnit.Seconds,
            value=outcome.seconds,
            default_dimensions={"service": SERVICE},
        ) as metric:
            metric.add_dimension(name="phase", value=phase.value)


def _of(result: RunResult, phase: Phase) -> PhaseResult:
    return result.phases.get(phase, PhaseResult())
