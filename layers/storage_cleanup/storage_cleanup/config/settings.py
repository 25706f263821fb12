"""What the parameters say, checked as a whole before anything is touched.

Parsing is strict and complete: every fault of every parameter is collected, and one `ConfigurationError` names them
all. A configuration that is only half changed (URL, key and database of two projects) is a fault as well.
"""

import base64
import ipaddress
import json
import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from storage_cleanup.errors import ConfigurationError
from storage_cleanup.events.wording import looks_like_a_key, shown, unknown_names
from storage_cleanup.limits import MAX_AGE_MINUTES, MAX_DELETIONS, MAX_INTERVAL_MINUTES, MAX_RETENTION_HOURS
from storage_cleanup.model.vocabulary import Phase, Profile
from storage_cleanup.storage.paths import LEGAL_IN_NAMES, RESERVED_BUCKETS, normal_origin, project_ref

_LONGEST_INTEGER = 12  # digits
_LONGEST_BUCKET = 100  # characters
_SHORTEST_PREFIX = 3  # characters: shorter ones would match what others keep in /tmp
_SYSTEM_DIRECTORIES = frozenset(
    {"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib32", "/lib64", "/media", "/mnt", "/opt", "/proc", "/root"}
    | {"/run", "/sbin", "/srv", "/sys", "/usr", "/var"}
)
_SYSTEM_TREES = ("/bin/", "/boot/", "/dev/", "/etc/", "/lib/", "/lib64/", "/proc/", "/sbin/", "/sys/", "/usr/")
_REF = re.compile(r"[a-z0-9]{20}")
_HOST_NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")
_POOLER = ".pooler.supabase.com"
_LOCALHOST = "localhost"


@dataclass(frozen=True)
class Secret:
    """A text that neither ``repr`` nor ``str`` shows."""

    _value: str = field(repr=False)

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._value


@dataclass(frozen=True)
class ProfileSettings:
    """How often a cycle runs, and how old a thing must be to go; both in minutes."""

    interval_minutes: int
    max_age_minutes: int


@dataclass(frozen=True)
class Settings:
    """The parameters of one stage; made by `from_parameters`, which is where they are checked.

    Attributes
    ----------
    enabled
        The kill switch as it was when the tree was read.
    phases
        The phases that are switched on.
    buckets
        Nothing outside these buckets is ever deleted.
    max_deletions_per_run
        Most things that one cycle may delete.
    max_saved_drop_percent, max_failure_percent
        Where the circuit breaker opens, 0 to 100.
    supabase_url
        The project's origin, ``scheme://host[:port]`` in lower case, without a trailing slash.
    """

    profile: Profile
    testing: ProfileSettings
    production: ProfileSettings
    enabled: bool
    dry_run: bool
    phases: frozenset[Phase]
    buckets: tuple[str, ...]
    temp_directories: tuple[Path, ...]
    temp_prefixes: tuple[str, ...]
    max_deletions_per_run: int
    max_saved_drop_percent: int
    max_failure_percent: int
    quarantine_retention_hours: int
    supabase_url: str
    service_role_key: Secret
    database_url: Secret

    @property
    def active(self) -> ProfileSettings:
        """Interval and age of the profile that applies."""
        return self.testing if self.profile is Profile.TESTING else self.production

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str], *, now: datetime | None = None) -> "Settings":
        """Read the settings from the tree of parameters.

        Parameters
        ----------
        parameters
            Values by their names relative to the path, such as ``testing/max-age-minutes``.
        now
            When the key must not have expired (aware); the current time unless given.

        Raises
        ------
        ConfigurationError
            With every fault: a parameter that is missing, unknown, unreadable or out of range, and parameters that
            contradict each other.
        """
        values, faults = _parse(parameters)
        faults += unknown_names(sorted(parameters.keys() - _PARAMETERS.keys()), _PARAMETERS, "parameter")
        faults += _project_faults(values)
        if (key := values.get("supabase/service-role-key")) is not None:
            faults += key_faults(key, now or datetime.now(UTC))
        if faults:
            raise ConfigurationError(faults)
        return cls(
            profile=values["profile"],
            testing=_profile_settings(values, Profile.TESTING),
            production=_profile_settings(values, Profile.PRODUCTION),
            enabled=values["enabled"],
            dry_run=values["dry-run"],
            phases=frozenset(phase for phase in Phase if values[phase_parameter(phase)]),
            buckets=values["buckets"],
            temp_directories=tuple(map(Path, values["temp/directories"])),
            temp_prefixes=values["temp/prefixes"],
            max_deletions_per_run=values["limits/max-deletions-per-run"],
            max_saved_drop_percent=values["limits/max-saved-drop-percent"],
            max_failure_percent=values["limits/max-failure-percent"],
            quarantine_retention_hours=values["quarantine/retention-hours"],
            supabase_url=values["supabase/url"],
            service_role_key=Secret(values["supabase/service-role-key"]),
            database_url=Secret(values["database/url"]),
        )


def phase_parameter(phase: Phase) -> str:
    """Return the name of the parameter that switches ``phase``."""
    return f"phases/{phase.value.replace('_', '-')}"


def key_faults(key: str, now: datetime) -> list[str]:
    """Return why ``key`` can't be a service-role key at the time ``now`` (aware), as far as the key itself tells.

    Only a JWT tells; a ``sb_secret_…`` key has no faults here. Sentences never show the key.
    """
    claims = _claims(key)
    if claims is None:
        return []
    name = "supabase/service-role-key"
    faults = []
    if (role := claims.get("role")) != "service_role":
        faults.append(f"{name}: its role claim is {shown(role)}; it accepts a key of the role service_role")
    if (expiry := claims.get("exp")) is not None:
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            faults.append(f"{name}: its exp claim is no number; it accepts a key as Supabase issues it")
        elif not expiry > now.timestamp():
            faults.append(f"{name}: the key has expired; it accepts a key that is still valid")
    return faults


@dataclass(frozen=True)
class _Parameter:
    """How a parameter is read: ``parse`` raises ValueError with what is wrong, ``accepts`` says what is right."""

    parse: Callable[[str], Any]
    accepts: str
    secret: bool = False

    def fault(self, name: str, value: str, problem: ValueError) -> str:
        what = name if self.secret else f"{name} is {shown(value)}"
        return f"{what}: {problem}; it accepts {self.accepts}"


def _parse(parameters: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that could be read, and the faults of the others."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, parameter in _PARAMETERS.items():
        if name not in parameters:
            faults.append(f"{name} is missing; it accepts {parameter.accepts}")
            continue
        try:
            values[name] = parameter.parse(parameters[name])
        except ValueError as problem:
            faults.append(parameter.fault(name, parameters[name], problem))
    return values, faults


def _profile_settings(values: Mapping[str, Any], profile: Profile) -> ProfileSettings:
    return ProfileSettings(
        interval_minutes=values[f"{profile}/interval-minutes"], max_age_minutes=values[f"{profile}/max-age-minutes"]
    )


def _profile(value: str) -> Profile:
    if value not in set(Profile):
        raise ValueError("no such profile")
    return Profile(value)


def _boolean(value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise ValueError("neither true nor false")
    return value.lower() == "true"


def _integer_between(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not (value.isascii() and value.isdecimal() and len(value) <= _LONGEST_INTEGER):
            raise ValueError("no whole number in decimal digits")
        if not low <= int(value) <= high:
            raise ValueError("out of range")
        return int(value)

    return parse


def _retention(value: str) -> int:
    hours = _integer_between(0, MAX_RETENTION_HOURS)(value)
    if hours > 0:
        raise ValueError("quarantine isn't built yet, and deleting for good instead would be a lie")
    return hours


def _list_of(check: Callable[[str], None]) -> Callable[[str], tuple[str, ...]]:
    def parse(value: str) -> tuple[str, ...]:
        items = tuple(item.strip() for item in value.split(","))
        if "" in items:
            raise ValueError("it has an empty item")
        if len(set(items)) < len(items):
            raise ValueError("it names something twice")
        for item in items:
            check(item)
        return items

    return parse


def _check_bucket(name: str) -> None:
    _refuse_keys(name)
    if "/" in name or name in {".", ".."} or len(name) > _LONGEST_BUCKET or not LEGAL_IN_NAMES.issuperset(name):
        raise ValueError(f"{shown(name)} is no legal name of a bucket")
    if name in RESERVED_BUCKETS:
        raise ValueError(f"{shown(name)} is a word of Storage's own paths, which makes URLs ambiguous")


def _check_directory(path: str) -> None:
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(f"{shown(path)} is no absolute path")
    if path.startswith("//") or os.path.normpath(path) != path:
        raise ValueError(f"{shown(path)} isn't normalised (no '.', no '..', no '//', no slash at its end)")
    if path == "/" or path in _SYSTEM_DIRECTORIES or path.startswith(_SYSTEM_TREES):
        raise ValueError(f"{shown(path)} is a directory of the system")


def _refuse_keys(value: str) -> None:
    """Refuse a key that was pasted into the wrong parameter: the answer would show it."""
    if looks_like_a_key(value):
        raise ValueError("it looks like a key")


def _check_prefix(prefix: str) -> None:
    _refuse_keys(prefix)
    if "/" in prefix or not prefix.isprintable():
        raise ValueError(f"{shown(prefix)} can't begin the name of a file")
    if len(prefix) < _SHORTEST_PREFIX or not prefix.strip("."):
        raise ValueError(f"{shown(prefix)} would match too much")


def _origin(value: str) -> str:
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
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("it isn't https")
    return normal_origin(parts.scheme, parts.netloc)


def _is_host(host: str) -> bool:
    return _HOST_NAME.fullmatch(host) is not None or _address(host) is not None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == _LOCALHOST or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _key(value: str) -> str:
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("it is empty, or has white space or a character that no key has")
    if value.startswith("sb_publishable_"):
        raise ValueError("a publishable key may delete nothing")
    if _is_jwt(value) and _claims(value) is None:
        raise ValueError("a damaged JWT")
    return value


def _is_jwt(key: str) -> bool:
    return key.startswith("eyJ")  # base64 of '{"', with which every JWT begins


def _claims(key: str) -> dict[str, Any] | None:
    """Return the claims of a JWT, without checking its signature; None for any other key."""
    segments = key.split(".")
    if not _is_jwt(key) or len(segments) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(segments[1] + "=" * (-len(segments[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _database_url(value: str) -> str:
    if not value.isprintable() or " " in value:
        raise ValueError("it has a character that a URL can't have")
    if not value.startswith(("postgresql://", "postgres://")):
        raise ValueError("no postgresql:// URL")
    try:
        host, user = _database_host_and_user(value)
    except ValueError:
        # The original message may quote the URL, password and all.
        raise ValueError("it can't be read as a URL") from None
    if not host or "," in host:
        raise ValueError("it doesn't name one host")
    if not user:
        raise ValueError("it names no user")
    return value


def _database_host_and_user(url: str) -> tuple[str, str]:
    """Return host and user as libpq takes them: from the query, where it names them, else from the authority."""
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError where it is no port
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    host = query.get("host") or unquote(parts.hostname or "")
    return host.lower(), query.get("user") or unquote(parts.username or "")


def _database_ref(url: str) -> str | None:
    """Return the project that a database URL names by its host or by the pooler's user, or None."""
    host, user = _database_host_and_user(url)
    if host.startswith("db.") and host.endswith(".supabase.co"):
        return host.removeprefix("db.").removesuffix(".supabase.co")
    _, dot, tenant = user.rpartition(".")
    return tenant if dot and (host.endswith(_POOLER) or _REF.fullmatch(tenant)) else None


def _project_faults(values: Mapping[str, Any]) -> list[str]:
    """Refuse URL, key and database of different projects, as a change leaves them that stopped half-way."""
    refs: dict[str, str] = {}
    if url := values.get("supabase/url"):
        refs["supabase/url"] = project_ref(url) or ""
    if key := values.get("supabase/service-role-key"):
        ref = (_claims(key) or {}).get("ref")
        refs["supabase/service-role-key"] = ref if isinstance(ref, str) else ""
    if database := values.get("database/url"):
        refs["database/url"] = _database_ref(database) or ""
    named = {name: ref for name, ref in refs.items() if ref}
    if len(set(named.values())) <= 1:
        return []
    who = ", ".join(f"{name} names {shown(ref)}" for name, ref in named.items())
    return [f"the parameters belong to different projects ({who}); they accept one and the same project"]


def _whole_number(low: int, high: int) -> _Parameter:
    return _Parameter(_integer_between(low, high), f"a whole number from {low} to {high}")


def _switch() -> _Parameter:
    return _Parameter(_boolean, "true or false")


_PARAMETERS: Mapping[str, _Parameter] = {
    "profile": _Parameter(_profile, "testing or production"),
    "testing/interval-minutes": _whole_number(1, MAX_INTERVAL_MINUTES),
    "testing/max-age-minutes": _whole_number(1, MAX_AGE_MINUTES),
    "production/interval-minutes": _whole_number(1, MAX_INTERVAL_MINUTES),
    "production/max-age-minutes": _whole_number(1, MAX_AGE_MINUTES),
    "enabled": _switch(),
    "dry-run": _switch(),
    **{phase_parameter(phase): _switch() for phase in Phase},
    "buckets": _Parameter(_list_of(_check_bucket), "names of buckets, separated by commas"),
    "temp/directories": _Parameter(_list_of(_check_directory), "absolute paths, separated by commas, such as /tmp"),
    "temp/prefixes": _Parameter(
        _list_of(_check_prefix), f"beginnings of names, {_SHORTEST_PREFIX} characters or more, separated by commas"
    ),
    "limits/max-deletions-per-run": _whole_number(1, MAX_DELETIONS),
    "limits/max-saved-drop-percent": _whole_number(0, 100),
    "limits/max-failure-percent": _whole_number(0, 100),
    "quarantine/retention-hours": _Parameter(_retention, "0"),
    "supabase/url": _Parameter(_origin, "the https origin of the project, such as https://abc.supabase.co"),
    "supabase/service-role-key": _Parameter(_key, "the project's sb_secret_… or service_role key", secret=True),
    "database/url": _Parameter(_database_url, "postgresql://user:password@host:port/database", secret=True),
}

PARAMETER_NAMES = frozenset(_PARAMETERS)
"""Every parameter that there is."""
