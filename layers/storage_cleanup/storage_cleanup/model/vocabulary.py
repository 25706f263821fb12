"""The words that everything else is said in: phases, how a run ended, who started it, which profile applies."""

from enum import StrEnum


class Phase(StrEnum):
    """The three phases of a cycle, in the order in which they run."""

    TEMP_FILES = "temp_files"
    STORAGE_FILES = "storage_files"
    RENDER_JOBS = "render_jobs"


class Status(StrEnum):
    """How a run ended: everything done, some of it, none of it because of an error, or nothing was to be done."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    SKIPPED = "skipped"


class Trigger(StrEnum):
    """Who started the run."""

    SCHEDULE = "schedule"
    MANUAL = "manual"


class Profile(StrEnum):
    """Which pair of interval and age applies."""

    TESTING = "testing"
    PRODUCTION = "production"
