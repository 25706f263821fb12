"""How one parameter's text is read: every function returns its value, or raises ValueError with what is wrong."""

import os.path
import re
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from storage_cleanup.events.wording import looks_like_a_key, shown
from storage_cleanup.limits import MAX_BUCKET_LENGTH, MAX_INTEGER_DIGITS, MAX_RETENTION_HOURS, MIN_PREFIX_LENGTH
from storage_cleanup.model.origin import is_loopback, normal_origin
from storage_cleanup.model.vocabulary import Profile
from storage_cleanup.storage.paths import LEGAL_IN_NAMES, OWN_BUCKET, RESERVED_BUCKETS

_SYSTEM_DIRECTORIES = frozenset(
    {"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root"}
    | {"/run", "/sbin", "/srv", "/sys", "/usr", "/var"}
)
_SYSTEM_TREES = ("/bin/", "/boot/", "/dev/", "/etc/", "/lib/", "/lib64/", "/proc/", "/sbin/", "/sys/", "/usr/")
_IDENTIFIER = r"(?:[A-Za-z_][A-Za-z0-9_$]*|\"[^\",]+\")"
_COLUMN = re.compile(rf"{_IDENTIFIER}\.{_IDENTIFIER}\.{_IDENTIFIER}")
_HOST_NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")


def profile(value: str) -> Profile:
    """Read the name of a profile."""
    if value not in set(Profile):
        raise ValueError("no such profile")
    return Profile(value)


def boolean(value: str) -> bool:
    """Read ``true`` or ``false``, in any case."""
    if value.lower() not in {"true", "false"}:
        raise ValueError("neither true nor false")
    return value.lower() == "true"


def one_of(*words: str) -> Callable[[str], str]:
    """Return a reader of one of these words."""

    def read(value: str) -> str:
        if value not in words:
            raise ValueError("no such choice")
        return value

    return read


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``low`` to ``high``."""

    def read(value: str) -> int:
        if not (value.isascii() and value.isdecimal() and len(value) <= MAX_INTEGER_DIGITS):
            raise ValueError("no whole number in decimal digits")
        if not low <= int(value) <= high:
            raise ValueError("out of range")
        return int(value)

    return read


def retention(value: str) -> int:
    """Read the hours of quarantine, which can only be none as yet."""
    hours = whole_number(0, MAX_RETENTION_HOURS)(value)
    if hours > 0:
        raise ValueError("quarantine isn't built yet, and deleting for good instead would be a lie")
    return hours


def list_of(check: Callable[[str], None]) -> Callable[[str], tuple[str, ...]]:
    """Return a reader of items separated by commas, each of which ``check`` accepts."""

    def read(value: str) -> tuple[str, ...]:
        items = tuple(item.strip() for item in value.split(","))
        if "" in items:
            raise ValueError("it has an empty item")
        if len(set(items)) < len(items):
            raise ValueError("it names something twice")
        for item in items:
            check(item)
        return items

    return read


def columns(nothing: str) -> Callable[[str], tuple[str, ...]]:
    """Return a reader of columns, each ``schema.table.column``; the word ``nothing`` names none."""

    def read(value: str) -> tuple[str, ...]:
        items = list_of(lambda item: None if item == nothing else _check_column(item))(value)
        return tuple(item for item in items if item != nothing)

    return read


def _check_column(name: str) -> None:
    _refuse_keys(name)
    if not _COLUMN.fullmatch(name):
        raise ValueError(f"{shown(name)} is no schema.table.column")


def check_bucket(name: str) -> None:
    """Refuse what is no name of a bucket, or makes URLs ambiguous."""
    _refuse_keys(name)
    if "/" in name or name in {".", ".."} or len(name) > MAX_BUCKET_LENGTH or not LEGAL_IN_NAMES.issuperset(name):
        raise ValueError(f"{shown(name)} is no legal name of a bucket")
    if name == OWN_BUCKET:
        raise ValueError(f"{shown(name)} is this system's own bucket")
    if name in RESERVED_BUCKETS:
        raise ValueError(f"{shown(name)} is a word of Storage's own paths, which makes URLs ambiguous")


def check_directory(path: str) -> None:
    """Refuse what is no plain absolute path, and the directories of the system."""
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(f"{shown(path)} is no absolute path")
    if path.startswith("//") or os.path.normpath(path) != path:
        raise ValueError(f"{shown(path)} isn't normalised (no '.', no '..', no '//', no slash at its end)")
    if path == "/" or path in _SYSTEM_DIRECTORIES or path.startswith(_SYSTEM_TREES):
        raise ValueError(f"{shown(path)} is a directory of the system")


def check_prefix(prefix: str) -> None:
    """Refuse what can't begin the name of a file, or would match what others keep."""
    _refuse_keys(prefix)
    if "/" in prefix or not prefix.isprintable():
        raise ValueError(f"{shown(prefix)} can't begin the name of a file")
    if len(prefix) < MIN_PREFIX_LENGTH or not prefix.strip("."):
        raise ValueError(f"{shown(prefix)} would match too much")


def origin(value: str) -> str:
    """Read the origin of a project: https, or http on this machine."""
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ValueError("it has a character that a URL can't have")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("its host or port can't be read") from None
    if parts.username is not None or parts.path not in {"", "/"} or "?" in value or "#" in value:
        raise ValueError("it has more than scheme, host and port")
    if port == 0 or not _is_host(host):
        raise ValueError("its host or port can't be read")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("it isn't https")
    return normal_origin(parts.scheme, parts.netloc)


def _refuse_keys(value: str) -> None:
    """Refuse a key that was pasted into the wrong parameter: the answer would show it."""
    if looks_like_a_key(value):
        raise ValueError("it looks like a key")


def _is_host(host: str) -> bool:
    if _HOST_NAME.fullmatch(host):
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
