"""What each reason in an account means: one sentence for every word that a run can answer with."""

from collections.abc import Mapping
from enum import StrEnum

from storage_cleanup.limits import LONGEST_NAME, LONGEST_URL


class Reason(StrEnum):
    """Why a URL is left alone; ``meaning`` says it in words."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "Reason":
        """Make a member that is its own value and knows its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    EMPTY = "empty", "there is no URL"
    NOT_A_URL = "not_a_url", "it is no text, or neither an http(s) URL nor a path"
    CREDENTIALS = "credentials", "it has a user or a password before its host"
    FOREIGN_HOST = "foreign_host", "its scheme, host or port isn't this project's"
    NOT_A_STORAGE_PATH = "not_a_storage_path", "its path isn't one that Supabase Storage serves objects at"
    UNLISTED_BUCKET = "unlisted_bucket", "its bucket isn't in the parameter buckets"
    NO_OBJECT_NAME = "no_object_name", "it names a bucket and no object"
    TOO_LONG = (
        "too_long",
        f"it has more than {LONGEST_URL} bytes, or the object's name more than {LONGEST_NAME} characters",
    )
    ILLEGAL_NAME = "illegal_name", "the object's name has a character that Supabase Storage doesn't allow"
    DOT_SEGMENT = "dot_segment", "the object's name has a segment that is . or .."
    TWO_QUERIES = "two_queries", "it has several question marks, and the name may end at any of them"
    TRAILING_SPACE = "trailing_space", "it ends in a space, which may or may not belong to the object's name"


_FAMILIES: Mapping[str, str] = {
    "storage_": "Storage refused to remove it: ",
    "os_error_": "the operating system refused: ",
}
"""Beginnings of reasons whose rest somebody else has named."""

MEANINGS: Mapping[str, str] = {
    **{reason.value: reason.meaning for reason in Reason},
    # Kept because somebody needs it, or may soon.
    "saved": "somebody saved it",
    "shared_with_kept_job": "another job, which is kept, points at the same file",
    "asset_points_at_file": "an asset points at the file by a path of its own",
    "job_not_completed": "the job isn't completed",
    "job_too_young": "the job is younger than the age that applies",
    "file_too_young": "the file is younger than the age that applies",
    "too_young": "it, or something in it, is younger than the age that applies",
    # Kept because it isn't what it was when it was chosen.
    "job_gone": "the job's row is gone already",
    "job_changed": "the job's URL changed meanwhile",
    "already_claimed": "another run is removing it, or has",
    "locked": "somebody is working with the row; the next run looks again",
    "not_in_plan": "it isn't in the plan that the override names",
    "rendered_again": "the job was rendered again, or its file was uploaded again",
    "taken_over": "another run finished it meanwhile",
    "given_back": "the run had to stop before it asked Storage; it may be saved again, or a later run takes it",
    "not_asked": "the run had to stop before it asked Storage; the next run goes on",
    "claimed_by_another_run": "another run has claimed it, and may still be at work",
    "dry_run": "this is a dry run; a real one would delete it",
    # Rows that stay.
    "foreign_key": "a foreign key of another table protects the row",
    "row_protected": "the row couldn't be deleted the last time",
    "refused": "the database refused to delete the row",
    "kept_by_trigger": "the application keeps the row: a trigger or a rule swallowed the deletion",
    # Files that stay.
    "stuck": "removing the file failed five times; it is given up for an hour",
    "tried_in_vain": "removing the file failed five times; it is given up once no request for it can be under way",
    "still_there": "Storage answered, but the object is still there",
    "unconfirmed": "the database couldn't be asked whether it is gone; the next run finds out",
    # Temporary files that stay.
    "other_file_system": "it lies on another file system",
    "special_file": "it is a socket, a pipe or a device",
    "changed_meanwhile": "it changed while it was looked at",
    "permission_denied": "the function may not delete it",
    "stopped_halfway": "the run had to stop inside the directory",
    # Why a phase ended before its work did.
    "limit_reached": "limits/max-deletions-per-run was reached; the next run goes on",
    "time_is_short": "the invocation's time was running out; the next run goes on",
    "disabled": "the parameter enabled was switched off",
    "breaker_open": "the circuit breaker opened",
    "switch_unreadable": "the parameter enabled couldn't be read",
}


def meaning(reason: str) -> str:
    """Return the sentence for a reason; a reason that has none is its own.

    Examples
    --------
    >>> meaning("saved")
    'somebody saved it'
    >>> meaning("storage_SlowDown")
    'Storage refused to remove it: SlowDown'
    """
    if reason in MEANINGS:
        return MEANINGS[reason]
    for family, sentence in _FAMILIES.items():
        if reason.startswith(family):
            return sentence + reason.removeprefix(family)
    return reason
