"""Why a thing is still there, or a phase ended early: every word that a run can answer with, and what it means."""

from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum

from storage_cleanup.limits import LONGEST_NAME, LONGEST_URL


class Kind(StrEnum):
    """Where an account has a reason."""

    KEPT = "kept"
    """The thing must not go, or not yet."""
    SKIPPED = "skipped"
    """It was to go, and nobody tried."""
    FAILED = "failed"
    """It was to go, and it didn't work."""
    STOPPED = "stopped"
    """The phase ended before its work did."""


class Reason(StrEnum):
    """A word of an account, such as ``Reason["SAVED"]``: where it stands, and what it means in a sentence."""

    kind: Kind
    meaning: str

    def __new__(cls, value: str, kind: Kind, meaning: str) -> "Reason":
        """Make a member that is its own value and knows its kind and meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.kind = kind
        member.meaning = meaning
        return member

    # Kept because nobody can tell which object its URL means, or the object isn't this project's.
    EMPTY = "empty", Kind.KEPT, "there is no URL"
    NOT_A_URL = "not_a_url", Kind.KEPT, "it is no text, or neither an http(s) URL nor a path"
    CREDENTIALS = "credentials", Kind.KEPT, "it has a user or a password before its host"
    FOREIGN_HOST = "foreign_host", Kind.KEPT, "its scheme, host or port isn't this project's"
    NOT_A_STORAGE_PATH = (
        "not_a_storage_path",
        Kind.KEPT,
        "its path isn't one that Supabase Storage serves objects at",
    )
    UNLISTED_BUCKET = "unlisted_bucket", Kind.KEPT, "its bucket isn't in the parameter buckets"
    NO_OBJECT_NAME = "no_object_name", Kind.KEPT, "it names a bucket and no object"
    TOO_LONG = (
        "too_long",
        Kind.KEPT,
        f"it has more than {LONGEST_URL} bytes, or the object's name more than {LONGEST_NAME} characters",
    )
    ILLEGAL_NAME = (
        "illegal_name",
        Kind.KEPT,
        "the object's name has a character that Supabase Storage doesn't allow",
    )
    DOT_SEGMENT = "dot_segment", Kind.KEPT, "the object's name has a segment that is . or .."
    TWO_QUERIES = "two_queries", Kind.KEPT, "it has several question marks, and the name may end at any of them"
    UNKNOWN_QUERY = (
        "unknown_query",
        Kind.KEPT,
        "it has a question mark with something behind it that isn't Storage's and may belong to the object's name",
    )
    AMBIGUOUS_URL = "ambiguous_url", Kind.KEPT, "its URL may mean another object as well, and that one exists"
    TRAILING_SPACE = (
        "trailing_space",
        Kind.KEPT,
        "it ends in a space, which may or may not belong to the object's name",
    )

    # Kept because somebody needs it, or may soon.
    SAVED = "saved", Kind.KEPT, "somebody saved it"
    SHARED_WITH_KEPT_JOB = "shared_with_kept_job", Kind.KEPT, "another job, which is kept, points at the same file"
    SHARED_BY_MANY = "shared_by_many", Kind.KEPT, "more than a thousand jobs point at the same file: a placeholder"
    ASSET_POINTS_AT_FILE = "asset_points_at_file", Kind.KEPT, "an asset points at the file"
    ASSET_UNREAD = "asset_unread", Kind.KEPT, "its user has an asset that names more files than are read"
    JUST_UNSAVED = "just_unsaved", Kind.KEPT, "it was un-saved so lately that this may still be taken back"
    NOT_THE_OWNERS = "not_the_owners", Kind.KEPT, "the file is another user's than the job"
    HAS_DEPENDENTS = "has_dependents", Kind.KEPT, "rows of other tables refer to the job, and dependents is keep"
    JOB_NOT_COMPLETED = "job_not_completed", Kind.KEPT, "the job isn't completed"
    JOB_TOO_YOUNG = "job_too_young", Kind.KEPT, "the job is younger than the age that applies"
    FILE_TOO_YOUNG = "file_too_young", Kind.KEPT, "the file is younger than the age that applies"
    TOO_YOUNG = "too_young", Kind.KEPT, "it, or something in it, is younger than the age that applies"
    OTHER_FILE_SYSTEM = "other_file_system", Kind.KEPT, "it lies on another file system"
    SPECIAL_FILE = "special_file", Kind.KEPT, "it is a socket, a pipe or a device"

    # Kept because it isn't what it was when it was chosen, or somebody else has it.
    JOB_GONE = "job_gone", Kind.KEPT, "the job's row is gone already"
    JOB_CHANGED = "job_changed", Kind.KEPT, "the job's URL changed meanwhile"
    ALREADY_CLAIMED = "already_claimed", Kind.KEPT, "another run is removing it, or has"
    CLAIMED_BY_ANOTHER_RUN = "claimed_by_another_run", Kind.KEPT, "another run has claimed it, and may still be at work"
    LOCKED = "locked", Kind.KEPT, "somebody is working with the row; the next run looks again"
    NOT_IN_PLAN = "not_in_plan", Kind.KEPT, "it isn't in the plan that the override names"
    ROW_PROTECTED = "row_protected", Kind.KEPT, "the row couldn't be deleted the last time"
    TRIED_IN_VAIN = (
        "tried_in_vain",
        Kind.KEPT,
        "removing the file failed five times; it is given up once no request for it can be under way",
    )

    # To go, and nobody tried.
    DRY_RUN = "dry_run", Kind.SKIPPED, "this is a dry run; a real one would delete it"
    RENDERED_AGAIN = "rendered_again", Kind.SKIPPED, "the job was rendered again, or its file was uploaded again"
    TAKEN_OVER = "taken_over", Kind.SKIPPED, "another run finished it meanwhile"
    GIVEN_BACK = (
        "given_back",
        Kind.SKIPPED,
        "the run had to stop before it asked Storage; it may be saved again, or a later run takes it",
    )
    NOT_ASKED = "not_asked", Kind.SKIPPED, "the run had to stop before it asked Storage; the next run goes on"
    REQUEST_AT_WORK = (
        "request_at_work",
        Kind.SKIPPED,
        "a request for the file got no answer, and Storage may still carry it out; the next runs go on",
    )
    FOREIGN_KEY = "foreign_key", Kind.SKIPPED, "a foreign key of another table protects the row"
    KEPT_BY_TRIGGER = (
        "kept_by_trigger",
        Kind.SKIPPED,
        "the application keeps the row: a trigger or a rule swallowed the deletion",
    )

    # To go, and it didn't work.
    STUCK = "stuck", Kind.FAILED, "removing the file failed five times; it is given up for an hour"
    STILL_THERE = "still_there", Kind.FAILED, "Storage answered, but the object is still there"
    UNCONFIRMED = (
        "unconfirmed",
        Kind.FAILED,
        "the database couldn't be asked whether it is gone; the next run finds out",
    )
    REFUSED = "refused", Kind.FAILED, "the database refused to delete the row"
    CHANGED_MEANWHILE = "changed_meanwhile", Kind.FAILED, "it changed while it was looked at"
    PERMISSION_DENIED = "permission_denied", Kind.FAILED, "the function may not delete it"
    STOPPED_HALFWAY = "stopped_halfway", Kind.FAILED, "the run had to stop inside the directory"

    # Why a phase ended before its work did.
    LIMIT_REACHED = (
        "limit_reached",
        Kind.STOPPED,
        "limits/max-deletions-per-run was reached; the next run goes on",
    )
    TIME_IS_SHORT = "time_is_short", Kind.STOPPED, "the invocation's time was running out; the next run goes on"
    DISABLED = "disabled", Kind.STOPPED, "the parameter enabled was switched off"
    BREAKER_OPEN = "breaker_open", Kind.STOPPED, "the circuit breaker opened"
    SWITCH_UNREADABLE = "switch_unreadable", Kind.STOPPED, "the parameter enabled couldn't be read"


STORAGE_FAMILY, OS_FAMILY = "storage_", "os_error_"
_FAMILIES: Mapping[str, str] = {
    STORAGE_FAMILY: "Storage refused to remove it: ",
    OS_FAMILY: "the operating system refused: ",
}
"""Beginnings of reasons whose rest somebody else has named; they are failures."""


def meaning(reason: str) -> str:
    """Return the sentence for a reason; a reason that has none is its own.

    Examples
    --------
    >>> meaning("saved")
    'somebody saved it'
    >>> meaning("storage_SlowDown")
    'Storage refused to remove it: SlowDown'
    """
    with suppress(KeyError):
        return Reason[reason.upper()].meaning
    for family, sentence in _FAMILIES.items():
        if reason.startswith(family):
            return sentence + reason.removeprefix(family)
    return reason
