"""Requests in flight: as many as the server can bear."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from storage_cleanup.limits import MOST_REQUESTS, PUSHBACK_SECONDS


@dataclass
class Pace:
    """Requests in flight: one more after each round that went well, half as many when the server pushes back.

    Additive increase, multiplicative decrease: what the server can bear is found out, not configured. What is pushed
    back within a moment of a decrease was sent before it, and says nothing about the new pace.
    """

    most: int = MOST_REQUESTS
    limit: int = field(init=False)
    clock: Callable[[], float] = time.monotonic
    _successes: int = 0
    _decreased_at: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self.limit = self.most

    def speed_up(self) -> None:
        """Note an answer without complaint."""
        with self._lock:
            self._successes += 1
            if self._successes >= self.limit:
                self.limit, self._successes = min(self.most, self.limit + 1), 0

    def slow_down(self) -> None:
        """Note that the server asked to be asked less."""
        with self._lock:
            if self.clock() - self._decreased_at < PUSHBACK_SECONDS:
                return
            self.limit, self._successes = max(1, self.limit // 2), 0
            self._decreased_at = self.clock()
