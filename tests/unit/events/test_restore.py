"""Events of the function restore: every one is refused, in words."""

import pytest

from storage_cleanup.events.restore import refusal

NOTHING = "restoring isn't built yet, so nothing was restored and nothing was changed."


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({"action": "restore", "run_id": "x"}, f"Event refused: {NOTHING}"),
        (
            {"action": "health"},
            f"Event refused: an event whose action is 'health' isn't for this function, and {NOTHING}",
        ),
        (None, f"Event refused: an event that is None isn't for this function, and {NOTHING}"),
    ],
)
def test_it_says_that_nothing_was_changed(event: object, sentence: str) -> None:
    assert refusal(event) == sentence
