"""Everything that the package raises on purpose.

::

    StorageCleanupError
    ├── RefusedError            nothing was begun; names each fault and what is accepted
    │   ├── ConfigurationError  parameters are missing, misspelt or nonsense
    │   │   ├── ThrottledError         Parameter Store takes no more requests just now
    │   │   └── NotConfiguredYetError  a new stage waits for its URL, key and database
    │   └── RequestError        the event asks for something that it may not, or in a way that can't be read
    ├── UnsafeError             a precondition of deleting anything doesn't hold (key, guard, schema, blindness …)
    │   └── BreakerOpenError    the circuit breaker stopped the run
    ├── DeliveryError           S3 or SNS refused a report
    ├── DrainError              Step Functions couldn't start a drain
    ├── ScheduleError           EventBridge's rule, or the figures of its cycles, couldn't be read or changed
    ├── DatabaseError           PostgreSQL can't be reached, or a statement failed
    └── ObjectStoreError        Supabase Storage refused or failed, after all retries
"""

from collections.abc import Sequence
from typing import ClassVar


class StorageCleanupError(Exception):
    """Base of all errors that the package raises on purpose."""


class RefusedError(StorageCleanupError):
    """A refusal before anything was begun; raised as one of its two kinds.

    Parameters
    ----------
    faults
        One sentence a fault, each naming what it is about and what is accepted.
    """

    what: ClassVar[str]

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(f"{self.what} refused, nothing was deleted: " + "; ".join(self.faults))


class ConfigurationError(RefusedError):
    """The parameters can't be used; nothing was deleted. Each fault names the parameter."""

    what = "Configuration"


class ThrottledError(ConfigurationError):
    """Parameter Store takes no more requests just now: nothing is wrong with what it holds."""


class NotConfiguredYetError(ConfigurationError):
    """A new stage has no URL, key and database yet, which is no fault while it is being set up.

    Parameters
    ----------
    names
        The parameters that are to be put.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__([f"not configured yet: put {', '.join(names)} (make secrets)"])


class RequestError(RefusedError):
    """The event is refused; nothing was deleted. Each fault names the field."""

    what = "Event"


class UnsafeError(StorageCleanupError):
    """A precondition of deleting doesn't hold.

    Parameters
    ----------
    sentence
        Which one, and what to do about it.
    code
        The same as a word: ``key``, ``project``, ``bucket``, ``canary``, ``schema``, ``role``, ``replica``,
        ``breaker``, ``first_run``, or what ``storage_cleanup.distrust()`` calls it (several with commas).
    """

    def __init__(self, sentence: str, *, code: str) -> None:
        self.code = code
        super().__init__(sentence)


class BreakerOpenError(UnsafeError):
    """The circuit breaker is open: nothing more is deleted in this run.

    Parameters
    ----------
    reason
        What opened it, with the figures and the parameter that sets the limit.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"circuit breaker open, nothing more is deleted: {reason}", code="breaker")


class DeliveryError(StorageCleanupError):
    """S3 or SNS refused a report; the message says why."""


class DrainError(StorageCleanupError):
    """Step Functions couldn't start a drain; the message says why."""


class ScheduleError(StorageCleanupError):
    """EventBridge's rule couldn't be read or changed; the message names it."""


class DatabaseError(StorageCleanupError):
    """PostgreSQL couldn't be reached, or a statement failed."""


KEY_REFUSED = frozenset({401, 403})
"""The status of an answer to a key that the server doesn't accept."""
PUSHBACK = frozenset({429, 503, 544})
"""The status of an answer that asks to be asked less."""
GATEWAY = frozenset({408, 499, 502, 504, *range(520, 528)})
"""The status of an answer that a gateway gives in the server's place: the server may be at work all the same."""
LEASE_OVER = "lease_over"
NEVER_SENT = frozenset({"connect_error", LEASE_OVER})
"""The code of a failure that kept a request from being sent."""


class ObjectStoreError(StorageCleanupError):
    """Supabase Storage refused or failed, after all retries.

    Parameters
    ----------
    message
        What the server (or the transport) said.
    status
        The status in the answer's *body*, which is the real one (HTTP says 400 for almost everything); the
        HTTP status when a gateway answered; None when no answer came.
    code
        The body's ``error``, or the name of the transport's exception.
    """

    def __init__(self, message: str, *, status: int | None = None, code: str = "") -> None:
        self.status = status
        self.code = code
        super().__init__(message)

    @property
    def is_refusal(self) -> bool:
        """Whether the server doesn't accept the key."""
        return self.status in KEY_REFUSED

    @property
    def is_open(self) -> bool:
        """Whether nobody knows what became of the request: it was sent, and the server may carry it out later."""
        return self.code not in NEVER_SENT and (self.status is None or self.status in GATEWAY)

    @property
    def is_passing(self) -> bool:
        """Whether no answer came, or one that asks to be asked later: nothing was said about the request itself."""
        return self.status is None or self.status in PUSHBACK
