"""What the parameters say, checked as a whole before anything is touched.

Reading is strict and complete: every fault of every parameter is collected, and one `ConfigurationError` names them
all. A configuration that is only half changed (URL, key and database of two projects) is a fault as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage_cleanup.config.credentials import key_faults, project_faults
from storage_cleanup.config.parameters import (
    PARAMETERS,
    age_parameter,
    grace_parameter,
    interval_parameter,
    phase_parameter,
)
from storage_cleanup.errors import ConfigurationError
from storage_cleanup.events.wording import unknown_names
from storage_cleanup.model.vocabulary import Phase, Profile


@dataclass(frozen=True)
class Secret:
    """A text that neither ``repr`` nor ``str`` shows."""

    _value: str = field(repr=False)

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._value


@dataclass(frozen=True)
class ProfileSettings:
    """How often a cycle runs, how old a thing must be to go, and how long it stays after an un-save; in minutes."""

    interval_minutes: int
    max_age_minutes: int
    unsaved_grace_minutes: int


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
    owners_only
        Whether a job's file goes only if it is its own user's.
    keep_dependents
        Whether a job stays that rows of other tables refer to.
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
    owners_only: bool
    keep_dependents: bool
    temp_directories: tuple[Path, ...]
    temp_prefixes: tuple[str, ...]
    max_deletions_per_run: int
    max_saved_drop_percent: int
    max_failure_percent: int
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
        values, faults = _read(parameters)
        faults += unknown_names(sorted(parameters.keys() - PARAMETERS.keys()), PARAMETERS, "parameter")
        faults += project_faults(values)
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
            owners_only=values["ownership"] == "required",
            keep_dependents=values["dependents"] == "keep",
            temp_directories=tuple(map(Path, values["temp/directories"])),
            temp_prefixes=values["temp/prefixes"],
            max_deletions_per_run=values["limits/max-deletions-per-run"],
            max_saved_drop_percent=values["limits/max-saved-drop-percent"],
            max_failure_percent=values["limits/max-failure-percent"],
            supabase_url=values["supabase/url"],
            service_role_key=Secret(values["supabase/service-role-key"]),
            database_url=Secret(values["database/url"]),
        )


def _read(tree: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that could be read, and the faults of the others."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, parameter in PARAMETERS.items():
        try:
            values[name] = parameter.read(tree)
        except ValueError as fault:
            faults.append(str(fault))
    return values, faults


def _profile_settings(values: Mapping[str, Any], profile: Profile) -> ProfileSettings:
    return ProfileSettings(
        interval_minutes=values[interval_parameter(profile)],
        max_age_minutes=values[age_parameter(profile)],
        unsaved_grace_minutes=values[grace_parameter(profile)],
    )
