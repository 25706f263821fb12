"""What the parameters say, checked as a whole before anything is touched.

Reading is strict and complete: every fault of every parameter is collected, and one `ConfigurationError` names them
all. A configuration that is only half changed (URL, key and database of two projects) is a fault as well.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storage_cleanup.config.credentials import key_faults, project_faults
from storage_cleanup.config.parameters import (
    DRY_RUN,
    ENABLED,
    MARKERS,
    OWN,
    PARAMETERS,
    SETUP_BEGUN,
    SETUP_DONE,
    age_parameter,
    grace_parameter,
    interval_parameter,
    phase_parameter,
)
from storage_cleanup.errors import ConfigurationError, NotConfiguredYetError
from storage_cleanup.events.wording import misspelt, unknown_names
from storage_cleanup.limits import SETUP_HOURS
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
    references
        Columns beside the assets that name files which have to stay, each ``schema.table.column``.
    ignored_references
        Columns that hold paths and keep nothing.
    max_deletions_per_run
        Most things that one cycle may delete.
    max_saved_drop_percent, max_failure_percent
        Where the circuit breaker opens, 0 to 100.
    supabase_url
        The project's origin, ``scheme://host[:port]`` in lower case, without a trailing slash.
    absent
        The full names of ``enabled`` and ``dry-run`` where they don't exist, by their names.
    unknown
        A sentence for each parameter that isn't known, which is no reason to stop.
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
    references: tuple[str, ...]
    ignored_references: tuple[str, ...]
    temp_directories: tuple[Path, ...]
    temp_prefixes: tuple[str, ...]
    max_deletions_per_run: int
    max_saved_drop_percent: int
    max_failure_percent: int
    supabase_url: str
    service_role_key: Secret
    database_url: Secret
    absent: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    @property
    def active(self) -> ProfileSettings:
        """Interval and age of the profile that applies."""
        return self.testing if self.profile is Profile.TESTING else self.production

    @property
    def switched_off(self) -> dict[str, str]:
        """Why nothing may be deleted: ``enabled`` and ``dry-run`` by their names, each in a few words."""
        off = {ENABLED: "" if self.enabled else "false", DRY_RUN: "true" if self.dry_run else ""}
        return {
            name: f"{self.absent[name]} is absent" if name in self.absent else f"{name} is {value}"
            for name, value in off.items()
            if value
        }

    @classmethod
    def from_parameters(
        cls, parameters: Mapping[str, str], *, path: str = "", now: datetime | None = None
    ) -> "Settings":
        """Read the settings from the tree of parameters.

        Parameters
        ----------
        parameters
            Values by their names relative to the path, such as ``testing/max-age-minutes``.
        path
            Where they lie, for words about those that are absent.
        now
            When the key must not have expired (aware); the current time unless given.

        Raises
        ------
        ConfigurationError
            With every fault: a parameter that is unreadable or out of range, one without a default that is missing, a
            misspelt one, and parameters that contradict each other.
        NotConfiguredYetError
            When nothing is wrong but that URL, key and database are all missing, on a stage that is being set up.
        """
        now = now or datetime.now(UTC)
        unknown = sorted(parameters.keys() - PARAMETERS.keys() - MARKERS)
        wrong = misspelt(unknown, PARAMETERS.keys() - parameters.keys())
        is_new = _is_being_set_up(parameters, now)
        values, faults = _read(parameters, PARAMETERS.keys() - (OWN if is_new else set()))
        faults += unknown_names(wrong, PARAMETERS, "parameter")
        faults += project_faults(values)
        if (key := values.get("supabase/service-role-key")) is not None:
            faults += key_faults(key, now)
        if faults:
            raise ConfigurationError(faults)
        if is_new:
            raise NotConfiguredYetError(sorted(OWN))
        prefix = f"{path.rstrip('/')}/" if path else ""
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
            references=values["references"],
            ignored_references=values["references/ignored"],
            temp_directories=tuple(map(Path, values["temp/directories"])),
            temp_prefixes=values["temp/prefixes"],
            max_deletions_per_run=values["limits/max-deletions-per-run"],
            max_saved_drop_percent=values["limits/max-saved-drop-percent"],
            max_failure_percent=values["limits/max-failure-percent"],
            supabase_url=values["supabase/url"],
            service_role_key=Secret(values["supabase/service-role-key"]),
            database_url=Secret(values["database/url"]),
            absent={name: f"{prefix}{name}" for name in (ENABLED, DRY_RUN) if name not in parameters},
            unknown=tuple(unknown_names(unknown, PARAMETERS, "parameter")),
        )


def _is_being_set_up(tree: Mapping[str, str], now: datetime) -> bool:
    """Tell whether URL, key and database may be missing: never seen here, and all absent, in the first hours."""
    if SETUP_DONE in tree or not tree.keys().isdisjoint(OWN):
        return False
    try:
        return timedelta(0) <= now - datetime.fromisoformat(tree[SETUP_BEGUN]) < timedelta(hours=SETUP_HOURS)
    except (KeyError, ValueError, TypeError):  # nobody noted when, or somebody wrote something else
        return False


def _read(tree: Mapping[str, str], names: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values that could be read, and the faults of the others."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for name, parameter in PARAMETERS.items():
        if name not in names:
            continue
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
