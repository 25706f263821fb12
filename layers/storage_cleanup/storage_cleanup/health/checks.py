"""What a figure means: pure judgements, each a value held against its threshold, with a sentence that says what to do.

The thresholds are those that operators know (``reference/operations.md``). Nothing here asks anybody anything:
`storage_cleanup.health.runner` finds the values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from storage_cleanup.model.reasons import meaning
from storage_cleanup.postgres.observer import Finding

_INSTALL = "run database/install.sql as postgres"
_MOST_SHOWN = 3


class Status(StrEnum):
    """How urgent a check is: nothing to do, look within 4 hours, act at once."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True)
class Limit:
    """What a value may reach before it is a warning, and before it is critical; None where it never is."""

    warning: float | None = None
    critical: float | None = None

    def status(self, value: float) -> Status:
        """Judge a value: beyond a limit, not at it."""
        if self.critical is not None and value > self.critical:
            return Status.CRITICAL
        if self.warning is not None and value > self.warning:
            return Status.WARNING
        return Status.OK

    def as_dict(self) -> dict[str, float]:
        """Return the limits that there are."""
        limits = {"warning": self.warning, "critical": self.critical}
        return {name: limit for name, limit in limits.items() if limit is not None}


ORPHANS_LEFT = Limit(warning=50, critical=100)
FAILED_IN_A_ROW = Limit(critical=3)
GROWTH_PERCENT = Limit(warning=10, critical=20)
CYCLE_SECONDS = Limit(warning=30)
QUERY_SECONDS = Limit(warning=5)
SUCCESS_PERCENT = 99.9
_NONE_WARNS = Limit(warning=0)
_NONE_IS_CRITICAL = Limit(critical=0)
_UNKNOWN_OBJECTS = Limit(warning=50)
_USAGE_HOURS = Limit(warning=48)
_OVERDUE_INTERVALS, _OVERDUE_MINUTES = 1.25, 2


@dataclass(frozen=True)
class Check:
    """One answer.

    Attributes
    ----------
    value
        What was found: a number, or figures by name; None where it couldn't be found.
    threshold
        What it was held against; None for a figure that is only told.
    sentence
        What it means and, unless all is well, what to do.
    """

    name: str
    value: Any
    threshold: Any
    status: Status
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON-ready values."""
        return {
            "name": self.name,
            "value": self.value,
            "threshold": self.threshold,
            "status": self.status.value,
            "sentence": self.sentence,
        }


def told(name: str, value: Any, sentence: str) -> Check:
    """Return a figure that is only told: nothing is wrong with any value."""
    return Check(name, value, None, Status.OK, sentence)


def unanswered(name: str, why: str, status: Status = Status.WARNING) -> Check:
    """Return a check that couldn't be made."""
    return Check(name, None, None, status, f"This couldn't be checked: {why}.")


def overall(checks: Iterable[Check]) -> Status:
    """Return the most urgent status of all."""
    order = list(Status)
    return max((check.status for check in checks), key=order.index, default=Status.OK)


# -- configuration and schedule ----------------------------------------------------------------------------------------


def judge_parameters(faults: Sequence[str]) -> Check:
    """Judge whether the parameters can be read."""
    if faults:
        sentence = f"Cycles refuse to work until the parameters are right: {'; '.join(faults)}."
        return Check("parameters", list(faults), [], Status.CRITICAL, sentence)
    return Check("parameters", [], [], Status.OK, "All parameters can be read and agree with each other.")


def judge_switches(off: Sequence[str]) -> Check:
    """Judge which switches keep cycles from their whole work."""
    if off:
        sentence = f"Less than everything is cleaned: {', '.join(off)}. Put the parameter back when the reason is gone."
        return Check("switches", list(off), [], Status.WARNING, sentence)
    return Check("switches", [], [], Status.OK, "Every phase is on, and nothing is a dry run.")


def judge_schedule(rule: str | None, state: str | None, expected: str, *, agrees: bool) -> Check:
    """Judge whether EventBridge's rule fires as the parameters say; ``rule`` is None where there is none."""
    value, threshold = {"rule": rule, "state": state}, {"rule": expected, "state": "ENABLED"}
    if rule is None:
        sentence = "The rule that starts cycles is missing, so none start: deploy the stack again."
        return Check("schedule", value, threshold, Status.CRITICAL, sentence)
    if state != "ENABLED":
        sentence = "The rule that starts cycles is disabled, so none start: enable it in EventBridge."
        return Check("schedule", value, threshold, Status.CRITICAL, sentence)
    if not agrees:
        sentence = f"The rule has {rule}, the parameters ask for {expected}: look why schedule-sync doesn't repair it."
        return Check("schedule", value, threshold, Status.WARNING, sentence)
    return Check("schedule", value, threshold, Status.OK, f"The rule fires as the parameters say, {rule}.")


# -- cycles ------------------------------------------------------------------------------------------------------------


def judge_last_cycle(minutes: float | None, interval_minutes: int, *, enabled: bool) -> Check:
    """Judge how long ago the last cycle started; None when there never was one."""
    limit = Limit(critical=interval_minutes * _OVERDUE_INTERVALS + _OVERDUE_MINUTES)
    if not enabled:
        return told("last_cycle", minutes, "Cycles are switched off by the parameter enabled, so none is due.")
    if minutes is None:
        sentence = "No cycle has run yet: wait for the schedule, or invoke one by hand."
        return Check("last_cycle", None, limit.as_dict(), Status.WARNING, sentence)
    status = limit.status(minutes)
    if status is Status.OK:
        sentence = f"The last cycle started {minutes:.0f} minutes ago; one is due every {interval_minutes}."
    else:
        sentence = (
            f"No cycle has started for {minutes:.0f} minutes, and one is due every {interval_minutes}: "
            "see docs/emergency.md, No cycles."
        )
    return Check("last_cycle", round(minutes, 1), limit.as_dict(), status, sentence)


def judge_last_run(differences: Sequence[str]) -> Check:
    """Judge whether the last scheduled cycle worked by the parameters of now."""
    if differences:
        sentence = (
            f"The last scheduled cycle worked by other parameters ({'; '.join(differences)}): "
            "if the next one does too, the function reads another path."
        )
        return Check("last_run", list(differences), [], Status.WARNING, sentence)
    return Check("last_run", [], [], Status.OK, "The last scheduled cycle worked by the parameters of now.")


def judge_failed_cycles(in_a_row: int, message: str | None) -> Check:
    """Judge how many cycles failed since the last that didn't."""
    status = FAILED_IN_A_ROW.status(in_a_row)
    sentence = "The last cycle didn't fail."
    if in_a_row:
        sentence = f"The last {in_a_row} cycles failed, the last because: {message or 'it said nothing'}."
    if status is not Status.OK:
        sentence += " Nothing is lost meanwhile; see docs/emergency.md."
    return Check("failed_cycles", in_a_row, FAILED_IN_A_ROW.as_dict(), status, sentence)


def judge_success_rate(cycles: int, failed: int) -> Check:
    """Judge the part of the last seven days' cycles that didn't fail."""
    threshold = {"warning": SUCCESS_PERCENT}
    if not cycles:
        return Check("success_rate", None, threshold, Status.OK, "No cycle has run in the last seven days.")
    percent = 100 * (cycles - failed) / cycles
    if percent >= SUCCESS_PERCENT:
        return Check("success_rate", round(percent, 2), threshold, Status.OK, f"{percent:.1f} % of cycles succeeded.")
    sentence = f"{failed} of {cycles} cycles of the last seven days failed: look for their reason in the failures."
    return Check("success_rate", round(percent, 2), threshold, Status.WARNING, sentence)


def judge_cycle_seconds(longest: float | None) -> Check:
    """Judge the longest cycle of the last 24 hours; None when there was none."""
    sentence = "The longest cycle of 24 hours took {:.1f} s"
    advice = ": that is normal while a backlog is worked off; else look at the slowest query."
    return _duration("cycle_seconds", longest, CYCLE_SECONDS, sentence, advice)


def judge_query_seconds(slowest: float | None) -> Check:
    """Judge the slowest statement of the last 24 hours; None when no cycle recorded it."""
    sentence = "The slowest statement of a cycle in 24 hours took {:.1f} s"
    advice = ": look at indexes and locks below, and at the database's load."
    return _duration("query_seconds", slowest, QUERY_SECONDS, sentence, advice)


def judge_breaker(message: str | None) -> Check:
    """Judge whether the last cycle was stopped by the circuit breaker; its message, or None."""
    if message is None:
        return Check("breaker", False, False, Status.OK, "The circuit breaker is closed.")
    sentence = (
        f"The last cycle was stopped by the circuit breaker: {message}. "
        "Find out why before you go on; see docs/emergency.md, Saved assets affected."
    )
    return Check("breaker", True, False, Status.CRITICAL, sentence)


# -- what is left ------------------------------------------------------------------------------------------------------


def judge_orphans_left(orphans: int) -> Check:
    """Judge how many orphans the cycles should have taken by now."""
    status = ORPHANS_LEFT.status(orphans)
    if not orphans:
        sentence = "No orphan is older than the age and one interval."
    elif status is Status.OK:
        sentence = f"{_many(orphans, 'orphan')} of more than the age and one interval left; the next cycle takes them."
    else:
        sentence = (
            f"{_many(orphans, 'orphan')} left that cycles should have taken: see docs/emergency.md, Files not going."
        )
    return Check("orphans_left", orphans, ORPHANS_LEFT.as_dict(), status, sentence)


def judge_stuck_claims(stuck: int) -> Check:
    """Judge how many claims keep failing."""
    status = _NONE_WARNS.status(stuck)
    sentence = "Every claim gets finished."
    if stuck:
        sentence = (
            f"{_many(stuck, 'claim')} failed three times or more, and their jobs can't be saved meanwhile: "
            "read last_error in storage_cleanup.deletion."
        )
    return Check("stuck_claims", stuck, _NONE_WARNS.as_dict(), status, sentence)


# -- integrity ---------------------------------------------------------------------------------------------------------


def judge_saved_assets(saved: int, before: int | None, max_drop_percent: int) -> Check:
    """Judge how many assets name a job, against the number at the last cycle that looked."""
    threshold = {"critical_drop_percent": max_drop_percent, "before": before}
    drop = 100 * (before - saved) / before if before else 0.0
    if before and (drop > max_drop_percent or saved == 0):
        sentence = (
            f"Saved assets fell from {before} to {saved} since the last good cycle, so cycles delete nothing: "
            "find out who deleted them; see docs/emergency.md, Saved assets affected."
        )
        return Check("saved_assets", saved, threshold, Status.CRITICAL, sentence)
    return Check("saved_assets", saved, threshold, Status.OK, f"{_many(saved, 'asset')} are saved and name a job.")


def judge_saved_jobs(finding: Finding) -> Check:
    """Judge saved assets whose job is missing: critical where this system removed it."""
    value = _value(finding, removed=finding.removed)
    threshold = {"warning": 0, "critical_removed": 0}
    if not finding.found:
        return Check("saved_job_missing", value, threshold, Status.OK, "Every saved asset has its job.")
    if finding.removed:
        sentence = (
            f"{_many(finding.removed, 'saved asset')} lost a job that this system removed{_examples(finding)}: "
            "switch it off and see docs/emergency.md, Saved assets affected."
        )
        return Check("saved_job_missing", value, threshold, Status.CRITICAL, sentence)
    sentence = (
        f"{_many(finding.found, 'saved asset')} name a job that is missing{_examples(finding)}: "
        "the ledger doesn't know it, so ask who else deletes rows."
    )
    return Check("saved_job_missing", value, threshold, Status.WARNING, sentence)


def judge_saved_files(finding: Finding) -> Check:
    """Judge saved assets whose file is missing: a user looks at a broken image."""
    value, status = _value(finding, removed=finding.removed), _NONE_IS_CRITICAL.status(finding.found)
    sentence = "Every saved asset has its file."
    if finding.found:
        who = f"this system removed {finding.removed}" if finding.removed else "this system didn't remove them"
        sentence = (
            f"{_many(finding.found, 'saved asset')} lost the file ({who}){_examples(finding)}: "
            "switch the system off and see docs/emergency.md, Saved assets affected."
        )
    return Check("saved_file_missing", value, _NONE_IS_CRITICAL.as_dict(), status, sentence)


def judge_rows_without_file(finding: Finding) -> Check:
    """Judge rows of unsaved jobs whose file is gone although a cycle should have deleted them."""
    value, status = _value(finding), _NONE_WARNS.status(finding.found)
    sentence = "No row names a file that is gone."
    if finding.found:
        sentence = (
            f"{_many(finding.found, 'row')} of unsaved jobs name a file that is gone{_examples(finding)}: "
            "the next cycle deletes them, unless a foreign key, a trigger or the phase render_jobs keeps them."
        )
    return Check("row_without_file", value, _NONE_WARNS.as_dict(), status, sentence)


def judge_unknown_objects(finding: Finding) -> Check:
    """Judge objects in listed buckets that nobody points at: this system never touches them."""
    value, status = _value(finding, bytes=finding.bytes), _UNKNOWN_OBJECTS.status(finding.found)
    sentence = f"{_many(finding.found, 'object')} in the listed buckets that no job and no asset knows."
    if status is not Status.OK:
        sentence = (
            f"{_many(finding.found, 'object')} in the listed buckets that no job and no asset knows"
            f"{_examples(finding)}: nobody cleans them up; find out who writes them, or delete them by hand."
        )
    return Check("object_unknown", value, _UNKNOWN_OBJECTS.as_dict(), status, sentence)


def judge_urls(odd: Finding, elsewhere: Finding) -> Check:
    """Judge completed jobs whose URL means no object of this project; those in other buckets are only told."""
    value, status = {**_value(odd), "in_other_buckets": elsewhere.found}, _NONE_WARNS.status(odd.found)
    sentence = "Every output_url of a completed job is understood."
    if odd.found:
        sentence = (
            f"{_many(odd.found, 'output_url')} of completed jobs aren't understood{_examples(odd)}: "
            "they are never touched; correct them, or delete those rows by hand."
        )
    return Check("url_not_understood", value, _NONE_WARNS.as_dict(), status, sentence)


# -- storage -----------------------------------------------------------------------------------------------------------


def judge_stored_bytes(stored: int, before: int | None, hours: float | None) -> Check:
    """Judge what lies in Storage, against what lay there ``hours`` ago; growth is told for 24 hours."""
    percent = growth_percent(stored, before, hours)
    value = {"bytes": stored, "growth_percent": None if percent is None else round(percent, 2)}
    if percent is None:
        sentence = "There is no figure of yesterday to compare with yet; cycles take one a day."
        return Check("stored_bytes", value, GROWTH_PERCENT.as_dict(), Status.OK, sentence)
    status = GROWTH_PERCENT.status(percent)
    sentence = f"Stored bytes changed by {percent:+.1f} % in 24 hours"
    advice = "." if status is Status.OK else ": see docs/emergency.md, Storage spike."
    return Check("stored_bytes", value, GROWTH_PERCENT.as_dict(), status, sentence + advice)


def growth_percent(stored: int, before: int | None, hours: float | None) -> float | None:
    """Return by how much stored bytes grew in 24 hours, from two figures that lie ``hours`` apart."""
    if not before or not hours:
        return None
    return 100 * (stored - before) / before * 24 / hours


def judge_usage_history(hours: float | None) -> Check:
    """Judge the age of the newest figure of what is stored; None when there is none."""
    if hours is None:
        sentence = "What is stored hasn't been remembered yet, so there is no trend: the next cycle does it."
        return Check("usage_history", None, _USAGE_HOURS.as_dict(), Status.WARNING, sentence)
    status = _USAGE_HOURS.status(hours)
    sentence = f"What is stored was last remembered {hours:.0f} hours ago"
    advice = "." if status is Status.OK else ": the trend has a gap; it goes on with the next cycle that isn't dry."
    return Check("usage_history", round(hours, 1), _USAGE_HOURS.as_dict(), status, sentence + advice)


# -- the database ------------------------------------------------------------------------------------------------------


def judge_guard(reasons: Sequence[str]) -> Check:
    """Judge what speaks against deleting anything, as every claim asserts it."""
    if reasons:
        sentence = f"Cycles delete nothing until this is repaired: {'; '.join(reasons)}."
        return Check("guard", list(reasons), [], Status.CRITICAL, sentence)
    return Check("guard", [], [], Status.OK, "The guard trigger is there and on, and the database sees every row.")


def judge_triggers(off: Sequence[str]) -> Check:
    """Judge the triggers that bring new candidates."""
    if off:
        sentence = f"{', '.join(off)} missing or off, so orphans are found once a day only: {_INSTALL}."
        return Check("triggers", list(off), [], Status.WARNING, sentence)
    return Check("triggers", [], [], Status.OK, "The triggers that find new orphans are on.")


def judge_indexes(scans: Mapping[str, int], invalid: Sequence[str]) -> Check:
    """Judge the indexes: each is there and valid; how often each was used is told."""
    value = {"scans": dict(scans), "invalid": list(invalid)}
    if invalid:
        sentence = f"{', '.join(invalid)} missing or invalid, so cycles are slow or refuse to work: {_INSTALL}."
        return Check("indexes", value, {"invalid": []}, Status.CRITICAL, sentence)
    unused = [name for name, times in scans.items() if not times]
    sentence = f"All {len(scans)} indexes are there and valid"
    told_unused = f"; not used since the server's statistics began: {', '.join(unused)}." if unused else " and used."
    return Check("indexes", value, {"invalid": []}, Status.OK, sentence + told_unused)


def judge_foreign_keys(without_index: Sequence[str]) -> Check:
    """Judge the foreign keys that reference render_jobs: without an index, each deleted row scans their table."""
    if without_index:
        sentence = f"Deleting jobs scans every row of what references them: add an index on {', '.join(without_index)}."
        return Check("foreign_keys", list(without_index), [], Status.WARNING, sentence)
    return Check("foreign_keys", [], [], Status.OK, "Every foreign key that references render_jobs has an index.")


def judge_privileges(role: str, missing: Sequence[str], excessive: Sequence[str]) -> Check:
    """Judge what the role of ``database/url`` may do: what is needed, and no more."""
    value = {"role": role, "missing": list(missing), "excessive": list(excessive)}
    threshold: dict[str, list[str]] = {"missing": [], "excessive": []}
    if missing:
        sentence = f"Role {role} may not execute {', '.join(missing)}: {_INSTALL}, and use storage_cleanup_worker."
        return Check("privileges", value, threshold, Status.CRITICAL, sentence)
    if excessive:
        sentence = f"Role {role} {', '.join(excessive)}: put storage_cleanup_worker into database/url."
        return Check("privileges", value, threshold, Status.WARNING, sentence)
    return Check("privileges", value, threshold, Status.OK, f"Role {role} may do what is needed, and nothing else.")


def judge_locks(waiting: int, long_running: int) -> Check:
    """Judge sessions that work with the two tables: those that wait, and transactions of more than five minutes."""
    value = {"waiting": waiting, "long_running": long_running}
    status = _NONE_WARNS.status(waiting + long_running)
    sentence = "Nobody waits for a lock on render_jobs or user_assets."
    if status is not Status.OK:
        sentence = (
            f"On render_jobs and user_assets, {_many(waiting, 'session')} wait for a lock and "
            f"{_many(long_running, 'transaction')} run for over five minutes: look into pg_stat_activity."
        )
    return Check("locks", value, _NONE_WARNS.as_dict(), status, sentence)


# -- words -------------------------------------------------------------------------------------------------------------


def reasons_in_words(failures: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return what each reason of a failure means with its number, the most frequent first."""
    return sorted(((meaning(reason), number) for reason, number in failures.items()), key=lambda each: -each[1])


def _duration(name: str, seconds: float | None, limit: Limit, sentence: str, advice: str) -> Check:
    if seconds is None:
        return Check(name, None, limit.as_dict(), Status.OK, "No cycle of the last 24 hours has recorded it.")
    status = limit.status(seconds)
    words = sentence.format(seconds) + ("." if status is Status.OK else advice)
    return Check(name, round(seconds, 3), limit.as_dict(), status, words)


def _value(finding: Finding, **more: int) -> dict[str, Any]:
    return {"found": finding.found, **more, "examples": list(finding.examples)}


def _examples(finding: Finding) -> str:
    return f" (such as {', '.join(finding.examples[:_MOST_SHOWN])})" if finding.examples else ""


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
