"""The adapter to Supabase Storage: batches, retries, and which name breaks its batch."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from storage_cleanup.errors import LEASE_OVER, PUSHBACK, ObjectStoreError
from storage_cleanup.limits import STORAGE, HttpPatience

if TYPE_CHECKING:
    from storage_cleanup.storage.client import StorageClient

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Backoff:
    """How often a request is tried, with pauses that double from the first up to the longest."""

    attempts: int = 6
    first_seconds: float = 0.2
    longest_seconds: float = 5.0

    def pause_after(self, attempt: int) -> float:
        """Return the pause after an attempt, the first being 0; jittered, so that clients don't return together."""
        longest = min(self.longest_seconds, self.first_seconds * 2**attempt)
        return random.uniform(longest / 4, longest)  # noqa: S311  (jitter, not a secret)


BACKOFF = Backoff()


@dataclass
class Removal:
    """What the server said about one batch of names.

    Attributes
    ----------
    removed
        Names that it returned as deleted by this request.
    unanswered
        Whether a request for them failed: it may have removed any of them.
    is_open
        Whether nobody knows what became of a request: the server may carry it out later.
    failed
        Names that couldn't be asked for, or whose outcome is unknown, each with what went wrong.
    """

    removed: set[str] = field(default_factory=set)
    unanswered: bool = False
    is_open: bool = False
    failed: dict[str, ObjectStoreError] = field(default_factory=dict)

    def note(self, error: ObjectStoreError) -> None:
        """Remember that a request for these names has failed."""
        self.unanswered = True
        self.is_open = self.is_open or error.is_open


class ObjectStore(AbstractContextManager["ObjectStore"]):
    """Removes objects, and knows which errors are worth another try.

    Safe to use from several threads at once. The client is loaded when it is first needed: a run that finds nothing to
    do needs none.

    Parameters
    ----------
    origin
        ``https://<ref>.supabase.co``, without a trailing slash.
    key
        The service-role key.
    give_up
        Asked before each pause: a reason not to try again (time is short, the kill switch is off), or None.
    seconds_for
        Returns how long a request may take that would be allowed so many seconds; `Watch.seconds_for`.
    on_pushback
        Called whenever the server asks to be asked less.
    backoff
        How patient to be with a server that fails or pushes back.
    patience
        How long a request may take.
    pause
        Sleeps for so many seconds.
    """

    def __init__(
        self,
        origin: str,
        key: str,
        *,
        give_up: Callable[[], str | None] = lambda: None,
        seconds_for: Callable[[float], float] = lambda most: most,
        on_pushback: Callable[[], None] = lambda: None,
        backoff: Backoff = BACKOFF,
        patience: HttpPatience = STORAGE,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._address = origin, key
        self._client: StorageClient | None = None
        self._connecting = threading.Lock()
        self._give_up = give_up
        self._seconds_for = seconds_for
        self.on_pushback = on_pushback
        self._backoff = backoff
        self._patience = patience
        self._pause = pause

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client:
            self._client.close()

    def buckets(self) -> dict[str, datetime]:
        """Return when each bucket was created, by id. Any key but the service role's sees none.

        Raises
        ------
        ObjectStoreError
            The server can't be reached, or refuses the key.
        """
        return self._retrying(lambda client: client.buckets())

    def upload(self, bucket: str, name: str, content: bytes) -> None:
        """Store a small object, in place of one that has the name: a request without an answer may have made it.

        Raises
        ------
        ObjectStoreError
            The server can't be reached, or refuses.
        """
        self._retrying(lambda client: client.upload(bucket, name, content))

    def remove(self, bucket: str, names: Sequence[str], *, is_over: Callable[[], bool] = lambda: False) -> Removal:
        """Remove objects by their exact names, at most ``limits.PAGE_SIZE`` of them.

        Once ``is_over`` says so, nothing is sent any more: whoever has slept or tried for so long may be too late.

        A name that breaks its batch is found by halving and reported alone. No answer is proof that a name is gone: a
        missing name, a missing bucket and a key without rights all look the same.

        Raises
        ------
        ObjectStoreError
            The server refuses the key (401 or 403); every other failure is in the result.
        """
        result = Removal()
        try:
            result.removed |= self._retrying(lambda client: _in_time(client, is_over).remove(bucket, names), result)
        except ObjectStoreError as error:
            if error.is_refusal:
                raise
            if error.is_passing or len(names) == 1:
                result.failed.update(dict.fromkeys(names, error))
            else:
                self._halve(bucket, names, error, result, is_over)
        return result

    def _halve(
        self,
        bucket: str,
        names: Sequence[str],
        error: ObjectStoreError,
        result: Removal,
        is_over: Callable[[], bool],
    ) -> None:
        """Find the names that break the batch, with few requests: a server that always fails isn't asked 1000 times."""
        requests_left = 8 + 4 * len(names).bit_length()
        pending: list[tuple[Sequence[str], ObjectStoreError]] = [(names, error)]
        while pending:
            group, cause = pending.pop()
            if len(group) == 1 or requests_left <= 0:
                result.failed.update(dict.fromkeys(group, cause))
                continue
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                if self._give_up():
                    result.failed.update(dict.fromkeys(half, cause))
                    continue
                requests_left -= 1
                try:
                    result.removed |= _in_time(self._connected(), is_over).remove(bucket, half)
                except ObjectStoreError as failure:
                    result.note(failure)
                    pending.append((half, failure))

    def _retrying(self, ask: "Callable[[StorageClient], _Answer]", removal: Removal | None = None) -> _Answer:
        client = self._connected()
        for attempt in range(self._backoff.attempts):
            try:
                return ask(client)
            except ObjectStoreError as error:
                if removal:
                    removal.note(error)
                if error.status in PUSHBACK:
                    self.on_pushback()
                if not _is_worth_retrying(error) or attempt == self._backoff.attempts - 1 or self._give_up():
                    raise
                self._pause(self._backoff.pause_after(attempt))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _connected(self) -> "StorageClient":
        with self._connecting:
            if self._client is None:
                from storage_cleanup.storage.client import StorageClient  # noqa: PLC0415  (doubles a cold start)

                self._client = StorageClient(*self._address, self._patience, self._seconds_for)
            return self._client


def _in_time(client: "StorageClient", is_over: Callable[[], bool]) -> "StorageClient":
    if is_over():
        raise ObjectStoreError("the claim's lease was over before the request could be sent", code=LEASE_OVER)
    return client


def _is_worth_retrying(error: ObjectStoreError) -> bool:
    return error.code != LEASE_OVER and (error.status is None or error.status == 429 or error.status >= 500)
