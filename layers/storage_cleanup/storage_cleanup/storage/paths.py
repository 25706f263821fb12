"""Which object a stored URL means, or why it is left alone.

The steps are few and in one order, because ``storage_cleanup.object_key(text)`` in ``database/functions/values.sql``
takes them too and must agree on every URL that is accepted here:

1. strip white space at both ends
2. cut at the first ``#``, and at the first ``?``; but in a signed URL at the last, where that begins the token: the
   server doesn't encode a ``?`` in the name that it signs. What isn't Storage's may be the name's, and is refused
3. strip scheme and authority (compared with this project's origin), then one leading slash
4. strip ``storage/v1/``, where it is there
5. strip the longest prefix in `SHAPES`
6. up to the next slash: the bucket; the rest: the name
7. percent-decode both, once

Every step is linear in the length of the URL.
"""

from collections.abc import Collection
from dataclasses import dataclass
from string import ascii_letters, digits
from urllib.parse import unquote

from storage_cleanup.limits import LONGEST_NAME, LONGEST_URL
from storage_cleanup.model.origin import DEFAULT_PORTS, normal_origin, own_origins
from storage_cleanup.model.reasons import Reason

GRAMMAR = 1
"""Which rules these are: to be raised when they accept what they refused, so that it is looked at again."""

WHITE_SPACE = " \t\n\r\f\v"
STORAGE_PREFIX = "storage/v1/"
SHAPES = (
    "object/upload/sign/",
    "object/info/authenticated/",
    "object/info/public/",
    "object/info/",
    "object/public/",
    "object/sign/",
    "object/authenticated/",
    "object/",
    "render/image/public/",
    "render/image/sign/",
    "render/image/authenticated/",
    "s3/",
)
"""What stands between ``/storage/v1/`` and the bucket; a longer prefix comes before the one that it begins with."""

QUERY = frozenset({"token", "download", "width", "height", "resize", "quality", "format", "t", "v"})
"""Storage's own parameters, and those that applications add to get past a cache."""

OWN_BUCKET = "storage-cleanup"
"""The bucket that ``database/bucket.sql`` makes; no render lies there."""

RESERVED_BUCKETS = frozenset(
    {
        OWN_BUCKET,
        *("authenticated", "copy", "info", "list", "list-v2", "move", "object"),
        *("public", "render", "s3", "sign", "storage", "upload"),
    }
)
"""Our own, and words that the server's own paths use where a bucket could stand, which would make URLs ambiguous."""

LEGAL_IN_NAMES = frozenset(ascii_letters + digits + "_/!.*'()&$@=;:+,?- ")
"""The characters that the server accepts in the name of an object; those of a bucket's are the same but for ``/``."""

_DOT_SEGMENTS = frozenset({".", ".."})


@dataclass(frozen=True, slots=True)
class StorageObject:
    """An object in Storage, by the exact strings that ``remove()`` and ``storage.objects`` use."""

    bucket: str
    name: str

    @property
    def key(self) -> str:
        """Bucket and name as one string; unambiguous, since a bucket has no slash."""
        return f"{self.bucket}/{self.name}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A URL that is left alone, and why."""

    reason: Reason


class _RefusedError(Exception):
    def __init__(self, reason: Reason) -> None:
        self.reason = reason
        super().__init__(reason)


def parse_storage_url(url: object, *, origin: str, buckets: Collection[str]) -> StorageObject | Refusal:
    """Tell which object ``url`` means.

    Parameters
    ----------
    url
        What ``render_jobs.output_url`` holds, absolute or relative; anything at all is answered, nothing raises.
    origin
        This project's origin, such as ``https://abc.supabase.co``.
    buckets
        The only buckets whose objects may be named.

    Examples
    --------
    >>> parse_storage_url("/object/sign/images/u/a%20b.png?token=x", origin="https://a.supabase.co", buckets={"images"})
    StorageObject(bucket='images', name='u/a b.png')
    """
    try:
        path = _path(_without_query(_text(url)), origin)
        bucket, name = _bucket_and_name(path)
        _check_bucket(bucket, buckets)
        _check_name(name)
    except _RefusedError as refused:
        return Refusal(refused.reason)
    return StorageObject(bucket, name)


def _text(url: object) -> str:
    if url is None:
        raise _RefusedError(Reason.EMPTY)
    if not isinstance(url, str):
        raise _RefusedError(Reason.NOT_A_URL)
    if len(url.encode(errors="surrogatepass")) > LONGEST_URL:
        raise _RefusedError(Reason.TOO_LONG)
    text = url.strip(WHITE_SPACE)
    if not text:
        raise _RefusedError(Reason.EMPTY)
    return _without_doubt_about_its_end(url, text)


def _without_doubt_about_its_end(url: str, text: str) -> str:
    """Refuse a space right behind a name: ``x`` and ``x `` are two legal names, and only one of them is meant."""
    tail = url[len(url.rstrip(WHITE_SPACE)) :]
    if " " in tail and "?" not in text and "#" not in text:
        raise _RefusedError(Reason.TRAILING_SPACE)
    return text


def _without_query(text: str) -> str:
    text = text.partition("#")[0]
    path, _, query = text.partition("?")
    if "?" not in query:
        return _without_known_query(path, query)
    signed, _, query = text.rpartition("?")
    if "/sign/" in path and query.startswith("token="):
        return signed
    raise _RefusedError(Reason.TWO_QUERIES)


def _without_known_query(path: str, query: str) -> str:
    """Refuse a query that isn't Storage's: a ``?`` is legal in a name, and ``encodeURI`` leaves it as it is."""
    if query and not all(part.partition("=")[0] in QUERY for part in query.split("&")):
        raise _RefusedError(Reason.UNKNOWN_QUERY)
    return path


def _path(text: str, origin: str) -> str:
    """Return the path without its leading slash, after making sure that it is this project's."""
    scheme, authority, path = _split(text)
    if authority is None:
        return path.removeprefix("/")
    if "@" in authority:
        raise _RefusedError(Reason.CREDENTIALS)
    own_scheme, _, own_authority = origin.partition("://")
    if normal_origin(scheme or own_scheme, authority) not in own_origins(normal_origin(own_scheme, own_authority)):
        raise _RefusedError(Reason.FOREIGN_HOST)
    return path


def _split(text: str) -> tuple[str | None, str | None, str]:
    """Return scheme, authority (None for a relative URL) and path of ``text``."""
    scheme: str | None
    scheme, colon, rest = text.partition(":")
    if not colon or "/" in scheme:  # a colon behind a slash belongs to the path
        scheme, rest = None, text
    elif scheme.lower() not in DEFAULT_PORTS or not rest.startswith("//"):
        raise _RefusedError(Reason.NOT_A_URL)
    if not rest.startswith("//"):
        return None, None, rest
    authority, _, path = rest[2:].partition("/")
    return scheme, authority, path


def _bucket_and_name(path: str) -> tuple[str, str]:
    inside = path.removeprefix(STORAGE_PREFIX)
    shape = next((shape for shape in SHAPES if inside.startswith(shape)), None)
    if shape is None:
        raise _RefusedError(Reason.NOT_A_STORAGE_PATH)
    bucket, _, name = inside[len(shape) :].partition("/")
    if bucket in RESERVED_BUCKETS:
        raise _RefusedError(Reason.NOT_A_STORAGE_PATH)
    if not name:
        raise _RefusedError(Reason.NO_OBJECT_NAME)
    # unquote, never unquote_plus: "+" is a legal character and stays one.
    return unquote(bucket), unquote(name)


def _check_bucket(bucket: str, listed: Collection[str]) -> None:
    if bucket not in listed or bucket in RESERVED_BUCKETS:
        raise _RefusedError(Reason.UNLISTED_BUCKET)


def _check_name(name: str) -> None:
    if len(name) > LONGEST_NAME:
        raise _RefusedError(Reason.TOO_LONG)
    if not LEGAL_IN_NAMES.issuperset(name):  # a "%" left over from a broken or double encoding ends here, too
        raise _RefusedError(Reason.ILLEGAL_NAME)
    if not _DOT_SEGMENTS.isdisjoint(name.split("/")):
        raise _RefusedError(Reason.DOT_SEGMENT)
