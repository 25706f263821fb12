"""How long a run may go on: the time left, and the kill switch."""

import logging
import threading
import time
from collections.abc import Callable

from storage_cleanup.errors import ConfigurationError, ThrottledError
from storage_cleanup.limits import RESERVE_SECONDS, SWITCH_READ_SECONDS, SWITCH_STALE_SECONDS
from storage_cleanup.model.reasons import Reason

_log = logging.getLogger(__name__)


def clock() -> float:
    """Return seconds that go on while the machine, or this process, is asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Watch:
    """Tells when to stop taking work. Safe to ask from several threads.

    Parameters
    ----------
    remaining_milliseconds
        Time until the invocation is ended from outside: Lambda's ``get_remaining_time_in_millis``.
    enabled
        Reads the kill switch; asked at most every two seconds, and again when Parameter Store throttles.
    reserve_seconds
        Time kept for what is under way: finishing requests, settling them, closing the run.
    """

    def __init__(
        self,
        remaining_milliseconds: Callable[[], int],
        enabled: Callable[[], bool],
        *,
        reserve_seconds: float = RESERVE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remaining_milliseconds = remaining_milliseconds
        self._enabled = enabled
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._read_at = clock()
        self._switched_off: str | None = None
        # A short invocation keeps a share of its time instead, or it would never begin.
        self._reserve_seconds = min(reserve_seconds, self.remaining_seconds / 4)

    @property
    def remaining_seconds(self) -> float:
        """Time until the invocation is ended from outside."""
        return self._remaining_milliseconds() / 1000

    def seconds_for(self, most: float) -> float:
        """Return how long a call may take that would be allowed ``most`` seconds.

        Half of the time left at most, however long the calls before it took: so there is always time for those that
        come after it, which settle what is under way and record the run.
        """
        return min(most, self.remaining_seconds / 2)

    def stop_reason(self) -> str | None:
        """Return ``time_is_short``, ``disabled`` or ``switch_unreadable``, or None to go on."""
        if self.remaining_seconds < self._reserve_seconds:
            return Reason.TIME_IS_SHORT
        with self._lock:
            if self._switched_off is None and self._clock() - self._asked_at >= SWITCH_READ_SECONDS:
                self._asked_at = self._clock()
                self._switched_off = self._read_switch()
            return self._switched_off

    def _read_switch(self) -> str | None:
        try:
            is_enabled = self._enabled()
        except ConfigurationError as error:
            if isinstance(error, ThrottledError) and self._clock() - self._read_at < SWITCH_STALE_SECONDS:
                return None
            _log.error("The kill switch can't be read, so the run stops", extra={"error": str(error)})
            return Reason.SWITCH_UNREADABLE
        self._read_at = self._clock()
        return None if is_enabled else Reason.DISABLED
