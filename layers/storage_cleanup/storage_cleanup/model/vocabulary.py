"""The words that everything else is said in: phases, outcomes, states, who started a run, which profile applies."""

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


class Outcome(StrEnum):
    """What the database decided about a job, where that is no reason to keep it."""

    CLAIMED = "claimed"
    ALREADY_MISSING = "already_missing"
    DELETED = "deleted"
    UNASKED = "unasked"
    """Nobody has asked for the job, but it may mean an object that was asked for, and could go as well."""


class ClaimState(StrEnum):
    """How far the ledger is with a job."""

    CLAIMED = "claimed"
    """Its file may be asked for; it can't be saved any more."""
    FILE_DELETED = "file_deleted"
    """Its file is gone; its row follows."""
    DONE = "done"
    RELEASED = "released"
    """It was given back, and may be saved or claimed again."""
