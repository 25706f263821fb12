"""The adapter to Supabase Storage: the storage part of the ``supabase`` client, with timeouts and retries.

``storage3`` alone, because the rest of ``supabase`` doubles the import time and isn't needed here.
"""

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from storage3 import SyncStorageClient
from storage3.exceptions import StorageApiError

from storage_cleanup.errors import ObjectStoreError

BATCH_SIZE = 500
"""Names in one request: the server's own transaction size, so that a request succeeds or fails as a whole."""

_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_TIMEOUT = httpx.Timeout(20.0, connect=5.0)
_PUSHBACK = frozenset({429, 503, 544})
_REFUSED = frozenset({401, 403})
_Answer = TypeVar("_Answer")


@dataclass
class Removal:
    """What the server said about one batch of names.

    Attributes
    ----------
    removed
        Names that it returned as deleted by this request.
    failed
        Names that couldn't be asked for, or whose outcome is unknown, each with what went wrong.
    """

    removed: set[str] = field(default_factory=set)
    failed: dict[str, ObjectStoreError] = field(default_factory=dict)


class ObjectStore(AbstractContextManager["ObjectStore"]):
    """Removes objects, and knows which errors are worth another try.

    Safe to use from several threads at once.

    Parameters
    ----------
    origin
        ``https://<ref>.supabase.co``, without a trailing slash.
    key
        The service-role key.
    give_up
        Asked before each pause: a reason not to try again (time is short, the kill switch is off), or None.
    on_pushback
        Called whenever the server asks to be asked less.
    pause
        Sleeps for so many seconds.
    """

    def __init__(
        self,
        origin: str,
        key: str,
        *,
        give_up: Callable[[], str | None] = lambda: None,
        on_pushback: Callable[[], None] = lambda: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._http = httpx.Client(http2=False, timeout=_TIMEOUT, follow_redirects=False)
        self._client = SyncStorageClient(
            f"{origin}/storage/v1/", {"apikey": key, "Authorization": f"Bearer {key}"}, http_client=self._http
        )
        self._give_up = give_up
        self.on_pushback = on_pushback
        self._pause = pause

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def buckets(self) -> dict[str, datetime]:
        """Return when each bucket was created, by id. Any key but the service role's sees none.

        Raises
        ------
        ObjectStoreError
            The server can't be reached, or refuses the key.
        """
        return {bucket.id: bucket.created_at for bucket in self._retrying(self._client.list_buckets)}

    def remove(self, bucket: str, names: Sequence[str]) -> Removal:
        """Remove objects by their exact names, at most ``BATCH_SIZE`` of them.

        A name that breaks its batch is found by halving and reported alone. No answer is proof that a name is gone: a
        missing name, a missing bucket and a key without rights all look the same.

        Raises
        ------
        ObjectStoreError
            The server refuses the key (401 or 403); every other failure is in the result.
        """
        result = Removal()
        try:
            result.removed |= self._remove(bucket, names)
        except ObjectStoreError as error:
            if error.status in _REFUSED:
                raise
            if error.status is None or error.status in _PUSHBACK or len(names) == 1:
                result.failed.update(dict.fromkeys(names, error))
            else:
                self._halve(bucket, names, error, result)
        return result

    def _halve(self, bucket: str, names: Sequence[str], error: ObjectStoreError, result: Removal) -> None:
        """Find the names that break the batch, with few requests: a server that always fails isn't asked 1000 times."""
        requests_left = 8 + 4 * len(names).bit_length()
        pending: list[tuple[Sequence[str], ObjectStoreError]] = [(names, error)]
        while pending:
            group, cause = pending.pop()
            if len(group) == 1 or requests_left <= 0 or self._give_up():
                result.failed.update(dict.fromkeys(group, cause))
                continue
            middle = len(group) // 2
            for half in (group[:middle], group[middle:]):
                requests_left -= 1
                try:
                    result.removed |= _names_in(_asking(partial(self._client.from_(bucket).remove, list(half))))
                except ObjectStoreError as failure:
                    pending.append((half, failure))

    def _remove(self, bucket: str, names: Sequence[str]) -> set[str]:
        return _names_in(self._retrying(partial(self._client.from_(bucket).remove, list(names))))

    def _retrying(self, ask: Callable[[], _Answer]) -> _Answer:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _asking(ask)
            except ObjectStoreError as error:
                if error.status in _PUSHBACK:
                    self.on_pushback()
                if not _is_worth_retrying(error) or attempt == _ATTEMPTS or self._give_up():
                    raise
                longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
                self._pause(random.uniform(longest / 4, longest))  # noqa: S311  (jitter, not a secret)
        raise AssertionError("unreachable: the last attempt returns or raises")


def _asking(ask: Callable[[], _Answer]) -> _Answer:
    """Make one request; every way in which it can go wrong becomes an ``ObjectStoreError``."""
    try:
        return ask()
    except StorageApiError as error:
        # The body's status is a str, a gateway's an int; HTTP itself says 400 for almost everything.
        status = int(error.status) if str(error.status).isdigit() else None
        message = _brief(str(error.message))
        if status in _REFUSED:
            message = f"supabase/url refuses supabase/service-role-key: {message}"
        raise ObjectStoreError(message, status=status, code=_snake(str(error.code))) from error
    except httpx.TimeoutException as error:
        raise ObjectStoreError(f"no answer in time ({type(error).__name__})", code="timeout") from error
    except httpx.HTTPError as error:
        raise ObjectStoreError(_brief(str(error)) or type(error).__name__, code=_snake(type(error).__name__)) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ObjectStoreError("an answer that is not JSON", code="not_json") from error
    except (KeyError, TypeError, ValueError) as error:  # JSON, but not what Storage answers
        raise ObjectStoreError("an answer that is not Storage's", code="not_storage") from error


def _names_in(answer: Any) -> set[str]:
    if not isinstance(answer, list):
        raise ObjectStoreError("an answer that is not a list", code="not_a_list")
    return {str(row.get("name")) for row in answer if isinstance(row, dict)}


def _is_worth_retrying(error: ObjectStoreError) -> bool:
    return error.status is None or error.status == 429 or error.status >= 500


def _snake(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def _brief(message: str) -> str:
    return " ".join(message.split())[:300]
