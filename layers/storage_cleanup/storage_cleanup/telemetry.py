"""The one owner of Logger and Metrics.

Modules of the package log through ``logging.getLogger(__name__)``. The logger here is named like the package, so
Powertools' handler formats their lines as JSON, with the fields that they pass as ``extra``. Each line carries
``service`` (as in the metrics), ``stage`` and ``correlation_id``, and those of a run its ``run_id``.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID, uuid4

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from storage_cleanup.errors import ConfigurationError, NotConfiguredYetError, RefusedError
from storage_cleanup.model.account import RunResult, ScheduleChange
from storage_cleanup.model.vocabulary import Status, Trigger

NAMESPACE = "StorageCleanup"
SERVICE = os.environ.get("POWERTOOLS_SERVICE_NAME", "storage-cleanup")
"""It names the stage as well, so that two stages of one account don't share their figures."""
logger = Logger(service="storage_cleanup")
_UNITS = {"StoredBytes": MetricUnit.Bytes, "StoredBytesGrowthPercent": MetricUnit.Percent}
metrics = Metrics(namespace=NAMESPACE, service=SERVICE)
_LONGEST_ID = 100
_WARM: set[bool] = set()
"""Empty until the first invocation of this execution environment."""
_Answer = TypeVar("_Answer")
_Handler = Callable[[Any, Any], _Answer]


def instrumented(handler: _Handler[_Answer]) -> _Handler[_Answer]:
    """Give a handler its log and its metrics, cold starts among them; what breaks it is logged with its trace."""

    @wraps(handler)
    def handle(event: Any, context: Any) -> _Answer:
        _count_cold_start()
        stage = os.environ.get("PARAMETER_PATH", "").rstrip("/").rpartition("/")[2]
        logger.append_keys(service=SERVICE, stage=stage, correlation_id=_correlation_id(event, context))
        try:
            return handler(event, context)
        except RefusedError:
            raise  # it is in the log in words
        except Exception:
            logger.exception("Broken off")
            raise

    instrumented: _Handler[_Answer] = metrics.log_metrics(logger.inject_lambda_context(handle, clear_state=True))
    return instrumented


def _count_cold_start() -> None:
    """Count each invocation, as 1 if it is the first of its execution environment."""
    count("ColdStart", 1 - len(_WARM))
    _WARM.add(True)


def _correlation_id(event: Any, context: Any) -> str:
    """Return the id of the event that EventBridge sent, or of the request by which somebody invoked the function."""
    own = event.get("id") if isinstance(event, Mapping) else None
    return own[:_LONGEST_ID] if isinstance(own, str) and own else str(context.aws_request_id)


def begin_run(trigger: Trigger) -> UUID:
    """Return the id of a new run, which each line carries from now on.

    That a scheduled one has started is noted at once: a run that is killed reports nothing later.
    """
    run = uuid4()
    logger.append_keys(run_id=str(run))
    if trigger is Trigger.SCHEDULE:
        with _metric("ScheduledCycle", MetricUnit.Count, 1):
            pass
    return run


def count(name: str, value: float = 1) -> None:
    """Add a plain count to the metrics of this invocation."""
    metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)


def record_figures(figures: Mapping[str, float]) -> None:
    """Emit what health has measured, each in its unit."""
    for name, value in figures.items():
        metrics.add_metric(name=name, unit=_UNITS.get(name, MetricUnit.Count), value=value)


def count_of(function: str, name: str, value: float) -> None:
    """Emit a count that is about another function."""
    with _metric(name, MetricUnit.Count, value) as metric:
        metric.add_dimension(name="function", value=function)


@contextmanager
def crash_recorded() -> Iterator[None]:
    """Count a cycle that breaks off as failed, and let its log end like that of any other."""
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        extra = {"status": Status.FAILED.value, "why": why}
        logger.error("Cleanup cycle failed: %s", why, extra=extra)  # noqa: TRY400  (the trace is the handler's to log)
        count("CycleFailed")
        raise


def record_refusal(refusal: RefusedError) -> None:
    """Emit and log that a run was refused; a refused configuration is a failed cycle."""
    extra: dict[str, Any] = {"faults": refusal.faults}
    if isinstance(refusal, ConfigurationError):
        count("ConfigurationError")
        count("CycleFailed")
        extra |= {"status": Status.FAILED.value, "why": "; ".join(refusal.faults)}
    logger.error(str(refusal), extra=extra)


def record_waiting(waiting: NotConfiguredYetError) -> dict[str, Any]:
    """Emit and log that a new stage waits for its URL, key and database; return the answer, which isn't a failure."""
    why = "; ".join(waiting.faults)
    logger.warning("Cleanup cycle skipped: %s", why, extra={"status": Status.SKIPPED.value, "why": why})
    count("ConfigurationError", 0)
    count("CycleFailed", 0)
    return {"status": Status.SKIPPED.value, "phases": {}, "message": why}


def record_unknown(sentences: Sequence[str]) -> None:
    """Emit and log the parameters that aren't known; a release that adds or drops one must not stop cycles."""
    if sentences:
        count("UnknownParameters", len(sentences))
    for sentence in sentences:
        logger.warning(sentence)


def record_schedule(change: ScheduleChange | None) -> None:
    """Emit and log whether the rule had drifted from the parameters; None when nobody looked."""
    if change is None:
        return
    if change.changed:
        count("ScheduleDrift")
        logger.warning("The schedule had drifted from the parameters and was repaired", extra=asdict(change))


def record_run(result: RunResult) -> None:
    """Emit the metrics of a run that alarms are made of; all else is in its log.

    Every name is emitted every time, so that a gap always means that nothing ran.
    """
    count("ConfigurationError", 0)
    count("CycleFailed", int(result.status is Status.FAILED))
    count("StuckClaims", result.stuck)
    count("BreakerOpen", int(result.breaker_open))
    if result.remaining is not None:
        count("OrphansRemaining", result.remaining)
    metrics.add_metric(name="CycleDuration", unit=MetricUnit.Seconds, value=result.seconds)
    metrics.add_metric(name="SlowestQuerySeconds", unit=MetricUnit.Seconds, value=result.slowest_query_seconds)


def _metric(name: str, unit: MetricUnit, value: float) -> AbstractContextManager[Any]:
    """Return a metric of its own, written when the context ends."""
    return single_metric(
        namespace=NAMESPACE, name=name, unit=unit, value=value, default_dimensions={"service": metrics.service or ""}
    )
