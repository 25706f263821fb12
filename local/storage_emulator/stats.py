"""What the emulator was asked and did, for tests to look at."""

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any


class Stats:
    """Counters since the last reset."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start again from nothing."""
        with self._lock:
            self._requests: Counter[str] = Counter()
            self._removals: Counter[str] = Counter()
            self._faults: Counter[str] = Counter()

    def count_request(self, operation: str) -> None:
        """Count one request."""
        with self._lock:
            self._requests[operation] += 1

    def count_removals(self, bucket: str, names: Iterable[str]) -> None:
        """Count objects whose row was removed."""
        with self._lock:
            self._removals.update(f"{bucket}/{name}" for name in names)

    def count_fault(self, kind: str) -> None:
        """Count one fault that was injected."""
        with self._lock:
            self._faults[kind] += 1

    def as_dict(self) -> dict[str, Any]:
        """Return all counters as JSON-ready values.

        ``requests`` has the number of requests by operation; ``names_removed``, how many objects were removed in all;
        ``removals``, how often each ``<bucket>/<name>`` was; ``faults``, how many were injected, by kind.
        """
        with self._lock:
            return {
                "requests": dict(self._requests),
                "names_removed": self._removals.total(),
                "removals": dict(self._removals),
                "faults": dict(self._faults),
            }
