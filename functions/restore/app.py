"""Undoing a run; not built yet, so every event is refused in words."""

from typing import Any

from storage_cleanup.events.restore import refusal


def lambda_handler(event: Any, context: Any) -> dict[str, str]:  # noqa: ARG001
    """Refuse the event."""
    return {"status": "not_built", "message": refusal(event)}
