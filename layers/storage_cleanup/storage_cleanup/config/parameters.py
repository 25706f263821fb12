"""The one table of parameters. README, template, local stack and tests take it from here, or are held against it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from storage_cleanup.config import credentials, values
from storage_cleanup.errors import ConfigurationError
from storage_cleanup.events.wording import shown
from storage_cleanup.limits import MAX_AGE_MINUTES, MAX_DELETIONS, MAX_INTERVAL_MINUTES, MIN_PREFIX_LENGTH
from storage_cleanup.model.vocabulary import Phase, Profile

ENABLED: Final = "enabled"
DRY_RUN: Final = "dry-run"
SETUP_BEGUN: Final = "setup/begun"
SETUP_DONE: Final = "setup/done"
WHOLE_ASSETS: Final = "public.user_assets"
NO_COLUMNS: Final = "none"
MARKERS: Final = frozenset({SETUP_BEGUN, SETUP_DONE})
"""What `schedule_sync` notes for itself, once each and never again: they are no settings, and nobody changes them."""


@dataclass(frozen=True)
class Parameter:
    """What there is to know of a parameter.

    Attributes
    ----------
    default
        What a new stage starts with, and what an absent parameter means; None for what only its owner knows.
    meaning
        One sentence, as Parameter Store shows it beside the value.
    accepts
        What is right, to end a fault with: "it accepts …".
    parse
        Reads the text; raises ValueError with what is wrong.
    secret
        Whether it is a SecureString, which nothing ever shows.
    absent
        What its absence means where that isn't the default.
    """

    name: str
    default: str | None
    meaning: str
    accepts: str
    parse: Callable[[str], Any]
    secret: bool = False
    absent: str | None = None

    def read(self, tree: Mapping[str, str]) -> Any:
        """Return the value that the tree has, or what its absence means; raise ValueError with the whole fault."""
        value = tree.get(self.name, self.absent or self.default)
        if value is None:
            raise ValueError(f"{self.name} is missing; it accepts {self.accepts}")
        try:
            return self.parse(value)
        except ValueError as problem:
            what = self.name if self.secret else f"{self.name} is {shown(value)}"
            raise ValueError(f"{what}: {problem}; it accepts {self.accepts}") from None


def phase_parameter(phase: Phase) -> str:
    """Return the name of the parameter that switches ``phase``."""
    return f"phases/{phase.value.replace('_', '-')}"


def interval_parameter(profile: Profile) -> str:
    """Return the name of the parameter with the profile's interval."""
    return f"{profile}/interval-minutes"


def age_parameter(profile: Profile) -> str:
    """Return the name of the parameter with the profile's age."""
    return f"{profile}/max-age-minutes"


def grace_parameter(profile: Profile) -> str:
    """Return the name of the parameter with the profile's time between an un-save and a deletion."""
    return f"{profile}/unsaved-grace-minutes"


def _interval(profile: Profile, default: str) -> Parameter:
    meaning = f"Minutes between two cycles under the profile {profile}, 1 to {MAX_INTERVAL_MINUTES}."
    return _number(interval_parameter(profile), default, meaning, 1, MAX_INTERVAL_MINUTES)


def _age(profile: Profile, default: str) -> Parameter:
    meaning = f"Minutes after which an unsaved output goes under the profile {profile}, 1 to {MAX_AGE_MINUTES}."
    return _number(age_parameter(profile), default, meaning, 1, MAX_AGE_MINUTES)


def _grace(profile: Profile, default: str) -> Parameter:
    meaning = f"Minutes that an output stays after it was un-saved under the profile {profile}, 0 to {MAX_AGE_MINUTES}."
    return _number(grace_parameter(profile), default, meaning, 0, MAX_AGE_MINUTES)


def _number(name: str, default: str, meaning: str, low: int, high: int) -> Parameter:
    accepts = f"a whole number from {low} to {high}"
    return Parameter(name, default, meaning, accepts, values.whole_number(low, high))


def _switch(name: str, default: str, meaning: str, absent: str | None = None) -> Parameter:
    return Parameter(name, default, meaning, "true or false", values.boolean, absent=absent)


_TABLE = (
    Parameter(
        "profile",
        "production",
        "Which interval and age apply, testing or production.",
        "testing or production",
        values.profile,
    ),
    _interval(Profile.TESTING, "3"),
    _age(Profile.TESTING, "3"),
    _grace(Profile.TESTING, "3"),
    _interval(Profile.PRODUCTION, "60"),
    _age(Profile.PRODUCTION, "60"),
    _grace(Profile.PRODUCTION, "1440"),
    _switch(
        ENABLED,
        "true",
        "Kill switch; anything but true, or its absence, stops a running cycle within ten seconds.",
        "false",
    ),
    _switch(
        DRY_RUN, "true", "true - plan and report, delete nothing; set it to false after a plan that was looked at."
    ),
    *(_switch(phase_parameter(phase), "true", f"Switches the phase {phase}.") for phase in Phase),
    Parameter(
        "buckets",
        "images,videos",
        "Buckets, separated by commas; nothing outside them is ever deleted.",
        "names of buckets, separated by commas",
        values.list_of(values.check_bucket),
    ),
    Parameter(
        "ownership",
        "required",
        "required - a job's file goes only if it is its own user's; off - whoever it belongs to.",
        "required or off",
        values.one_of("required", "off"),
    ),
    Parameter(
        "dependents",
        "keep",
        "keep - a job that rows of other tables refer to stays, with its file; delete - it goes, if they let it.",
        "keep or delete",
        values.one_of("keep", "delete"),
    ),
    Parameter(
        "references",
        WHOLE_ASSETS,
        "Where files are referred to - all of public.user_assets, and further columns, separated by commas.",
        f"{WHOLE_ASSETS}, and columns such as public.posts.cover, separated by commas",
        values.columns(WHOLE_ASSETS),
    ),
    Parameter(
        "references/ignored",
        NO_COLUMNS,
        "Columns that hold paths of files and need none of them, separated by commas; none - there are none.",
        f"{NO_COLUMNS}, or columns such as public.imports.source, separated by commas",
        values.columns(NO_COLUMNS),
    ),
    Parameter(
        "temp/directories",
        "/tmp",  # noqa: S108 -- Lambda's own
        "Absolute directories of temporary files, separated by commas.",
        "absolute paths, separated by commas, such as /tmp",
        values.list_of(values.check_directory),
    ),
    Parameter(
        "temp/prefixes",
        "storage-,mat-debug-",
        f"Beginnings ({MIN_PREFIX_LENGTH} characters or more) of names of temporary files, separated by commas.",
        f"beginnings of names, {MIN_PREFIX_LENGTH} characters or more, separated by commas",
        values.list_of(values.check_prefix),
    ),
    _number(
        "limits/max-deletions-per-run",
        "10000",
        f"Most deletions of one cycle, 1 to {MAX_DELETIONS}; the rest waits for the next.",
        1,
        MAX_DELETIONS,
    ),
    _number(
        "limits/max-saved-drop-percent",
        "20",
        "Circuit breaker - delete nothing while saved assets are down by more than this from their most in 7 days.",
        0,
        100,
    ),
    _number(
        "limits/max-failure-percent",
        "10",
        "Circuit breaker - stop a run in which more than this share of deletions fails.",
        0,
        100,
    ),
    Parameter(
        "quarantine/retention-hours",
        "0",
        "Above 0 - files are moved aside and purged after so many hours, up to 8760.",
        "0 until quarantine is built",
        values.retention,
    ),
    Parameter(
        "supabase/url",
        None,
        "Origin of the Supabase project.",
        "the https origin of the project, such as https://abc.supabase.co",
        values.origin,
    ),
    Parameter(
        "supabase/service-role-key",
        None,
        "Key with which files are removed.",
        "the project's sb_secret_… or service_role key",
        credentials.service_role_key,
        secret=True,
    ),
    Parameter(
        "database/url",
        None,
        "Where the database is, and as whom to use it.",
        "postgresql://user:password@host:port/database",
        credentials.database_url,
        secret=True,
    ),
)

PARAMETERS: Final[Mapping[str, Parameter]] = {parameter.name: parameter for parameter in _TABLE}
"""Every parameter, by its name relative to the stage's path."""

DEFAULTS: Final[Mapping[str, str]] = {name: p.default for name, p in PARAMETERS.items() if p.default is not None}
"""What a new stage starts with."""

OWN: Final = frozenset(name for name, parameter in PARAMETERS.items() if parameter.default is None)
"""The names of those that only their owner knows: URL, key and database."""

SECRETS: Final = frozenset(name for name, parameter in PARAMETERS.items() if parameter.secret)
"""The names of the SecureStrings."""


def read_one(name: str, tree: Mapping[str, str]) -> Any:
    """Return one parameter's value, whatever is wrong with the others.

    Raises
    ------
    ConfigurationError
        When it is nonsense, or missing and has no default.
    """
    try:
        return PARAMETERS[name].read(tree)
    except ValueError as fault:
        raise ConfigurationError([str(fault)]) from None
