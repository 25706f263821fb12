"""The wire to Supabase Storage: the storage part of the ``supabase`` client, with every failure as one kind of error.

Importing ``supabase`` takes about as long as the rest of a cold start, so `ObjectStore` imports this module when it has
something to ask.
"""

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import httpx
from storage3.exceptions import StorageApiError
from supabase import ClientOptions, create_client

from storage_cleanup.errors import KEY_REFUSED, ObjectStoreError
from storage_cleanup.limits import HttpPatience
from storage_cleanup.storage.transport import DeadlineTransport

_Answer = TypeVar("_Answer")


class StorageClient:
    """Asks once. Safe to use from several threads at once.

    Parameters
    ----------
    origin
        ``https://<ref>.supabase.co``, without a trailing slash.
    key
        The service-role key.
    patience
        How long a request may take.
    seconds_for
        Returns how long a request may take that would be allowed so many seconds; `Watch.seconds_for`.

    Raises
    ------
    ObjectStoreError
        From every method: the server can't be reached, refuses, or answers what Storage wouldn't.
    """

    def __init__(
        self,
        origin: str,
        key: str,
        patience: HttpPatience,
        seconds_for: Callable[[float], float] = lambda most: most,
    ) -> None:
        transport = DeadlineTransport(lambda: seconds_for(patience.total_seconds))
        timeout = httpx.Timeout(patience.read_seconds, connect=patience.connect_seconds)
        self._http = httpx.Client(transport=transport, timeout=timeout, follow_redirects=False)
        # With an Authorization of its own, the client asks nobody for a session.
        options = ClientOptions(
            httpx_client=self._http,
            headers={"Authorization": f"Bearer {key}"},
            auto_refresh_token=False,
            persist_session=False,
        )
        self._client = create_client(origin, key, options).storage

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def buckets(self) -> dict[str, datetime]:
        """Return when each bucket was created, by id. Any key but the service role's sees none."""
        return _asking(lambda: {bucket.id: bucket.created_at for bucket in self._client.list_buckets()})

    def upload(self, bucket: str, name: str, content: bytes) -> None:
        """Store a small object, in place of one that has the name."""
        _asking(lambda: self._client.from_(bucket).upload(name, content, {"upsert": "true"}))

    def remove(self, bucket: str, names: Sequence[str]) -> set[str]:
        """Remove objects by their exact names; return those that the server says this request has removed."""
        return _asking(lambda: _names_in(self._client.from_(bucket).remove(list(names))))


def _asking(ask: Callable[[], _Answer]) -> _Answer:
    """Make one request; every way in which it can go wrong becomes an ``ObjectStoreError``."""
    try:
        return ask()
    except StorageApiError as error:
        # The body's status is a str, a gateway's an int; HTTP itself says 400 for almost everything.
        status = int(error.status) if str(error.status).isdigit() else None
        blame = "supabase/url refuses supabase/service-role-key: " if status in KEY_REFUSED else ""
        raise ObjectStoreError(
            blame + _brief(str(error.message)), status=status, code=_snake(str(error.code))
        ) from error
    except httpx.TimeoutException as error:
        raise ObjectStoreError(f"no answer in time ({type(error).__name__})", code="timeout") from error
    except httpx.HTTPError as error:
        raise ObjectStoreError(_brief(str(error)) or type(error).__name__, code=_snake(type(error).__name__)) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ObjectStoreError("an answer that is not JSON", code="not_json") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # JSON, but not what Storage answers
        raise ObjectStoreError("an answer that is not Storage's", code="not_storage") from error


def _names_in(answer: object) -> set[str]:
    if not isinstance(answer, list):
        raise ObjectStoreError("an answer that is not a list", code="not_a_list")
    return {str(row.get("name")) for row in answer if isinstance(row, dict)}


def _snake(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def _brief(message: str) -> str:
    return " ".join(message.split())[:300]
