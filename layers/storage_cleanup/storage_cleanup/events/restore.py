"""What the function restore answers as long as nothing can be restored."""

from collections.abc import Mapping

from storage_cleanup.events.fields import kind


def refusal(event: object) -> str:
    """Return why nothing is restored, whatever the event asks for.

    Examples
    --------
    >>> refusal({"action": "restore"})
    "Event refused: restoring isn't built yet, so nothing was restored and nothing was changed."
    """
    meant = isinstance(event, Mapping) and event.get("action") == "restore"
    stranger = "" if meant else f"{kind(event)} isn't for this function, and "
    return f"Event refused: {stranger}restoring isn't built yet, so nothing was restored and nothing was changed."
