"""Undoing a run; not built yet."""

from typing import Any


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, str]:  # noqa: ARG001
    """Say that there is nothing here yet."""
    return {"status": "not_built", "message": "Restoring isn't built yet; nothing was restored."}
