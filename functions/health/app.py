"""Validation, integrity and reports; not built yet."""

from typing import Any


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, str]:  # noqa: ARG001
    """Say that there is nothing here yet, and where to look meanwhile."""
    return {
        "status": "not_built",
        "message": "Health checks and reports aren't built yet; nothing was checked. See the dashboard and the alarms.",
    }
