"""Undoing a run; not built yet, so every event is refused in words."""

from typing import Any

from storage_cleanup.events.restore import refusal
from storage_cleanup.telemetry import instrumented, logger


@instrumented
def lambda_handler(event: Any, context: Any) -> dict[str, str]:  # noqa: ARG001
    """Refuse the event."""
    message = refusal(event)
    logger.warning(message)
    return {"status": "not_built", "message": message}
