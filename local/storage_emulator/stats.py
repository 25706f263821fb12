"""What the emulator was asked and did, for tests to look at."""

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

Kind = Literal["requests", "removals", "faults"]


class Stats:
    """Counters since the last reset: of operations, of ``<bucket>/<name>`` removed, and of faults injected."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start again from nothing."""
        with self._lock:
            self._counters: dict[Kind, Counter[str]] = {
                "requests": Counter(),
                "removals": Counter(),
                "faults": Counter(),
            }

    def count(self, kind: Kind, things: Iterable[str]) -> None:
        """Count each of these once more."""
        with self._lock:
            self._counters[kind].update(things)

    def as_dict(self) -> dict[str, Any]:
        """Return all counters as JSON-ready values, and the sum of all removals as ``names_removed``."""
        with self._lock:
            counted: dict[str, Any] = {kind: dict(counter) for kind, counter in self._counters.items()}
            return {**counted, "names_removed": self._counters["removals"].total()}
