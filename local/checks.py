"""What must hold after a cycle, held against the scenario and not against what the system says of itself."""

import fnmatch
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from os.path import lexists
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from local.application import Application
from local.postgres import Database
from local.scenario import Fate, File, Scenario

PROMISED_LINES = (
    "Starting comprehensive cleanup cycle",
    "Cleaning up * orphaned Supabase files",  # once a batch
    "Successfully deleted {files} orphaned files",
    "Successfully deleted {rows} orphaned render job records",
    "Comprehensive cleanup cycle completed",
)

# The query of the implementation summary, with the age as a parameter; and why the system left such a job alone.
_VALIDATION = """
select rj.id, candidate.reason
from render_jobs rj
left join user_assets ua on ua.metadata->>'render_job_id' = rj.id::text
left join storage_cleanup.candidate on candidate.job_id = rj.id
where rj.status = 'completed'
  and rj.output_url is not null
  and ua.id is null
  and rj.created_at < now() - %s
"""
_MOST_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """Something that must hold, and what speaks against it."""

    claim: str
    faults: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.faults


@dataclass(frozen=True)
class State:
    """What there is at one moment."""

    jobs: frozenset[UUID]
    files: frozenset[File]
    temp: frozenset[Path]
    saved_assets: int


def look(application: Application, scenario: Scenario) -> State:
    """Look what is there."""
    return State(
        jobs=frozenset(application.jobs()),
        files=frozenset(application.files()),
        temp=frozenset(case.path for case in scenario.temp if lexists(case.path)),
        saved_assets=application.saved_assets(),
    )


def validation_query(database: Database, age: timedelta) -> dict[UUID, str | None]:
    """Return the jobs that the validation query counts, and the reason for which the system left each alone."""
    with database.connect() as connection:
        return dict(connection.execute(_VALIDATION, (age,)).fetchall())


def jobs_and_files(scenario: Scenario, state: State) -> list[Check]:
    """Hold jobs, files and temporary files against what must have gone and what must have stayed."""
    there_after = (
        ("rows of render_jobs", scenario.jobs(Fate.GOES), scenario.jobs(Fate.STAYS), state.jobs),
        ("files in Storage", scenario.files(Fate.GOES), scenario.files(Fate.STAYS), state.files),
        ("temporary files", _paths(scenario, Fate.GOES), _paths(scenario, Fate.STAYS), state.temp),
    )
    return [
        check
        for what, going, staying, there in there_after
        for check in (
            Check(f"gone: all {len(going)} {what} that had to go", _listed("still there", there & set(going))),
            Check(f"there: all {len(staying)} {what} that had to stay", _listed("missing", set(staying) - there)),
        )
    ]


def saved_bytes(application: Application, scenario: Scenario) -> Check:
    """Download every file of a case with saved jobs and compare its bytes."""
    files = {file: content for case in scenario.cases if case.saved for file, content in case.files.items()}
    faults = [fault for file, content in files.items() if (fault := _difference(application, file, content))]
    return Check(f"all {len(files)} saved files compared byte for byte", tuple(faults[:_MOST_SHOWN]))


def account(scenario: Scenario, answer: Mapping[str, Any]) -> list[Check]:
    """Hold the answer against itself and the scenario."""
    files, rows = len(scenario.files(Fate.GOES)), len(scenario.jobs(Fate.GOES))
    phases = answer["phases"]
    unequal = [name for name, phase in phases.items() if not _adds_up(phase)]
    kept = Counter(phases["storage_files"]["reasons"]["kept"])
    expected = Counter(scenario.reasons.values())
    told = {
        "status": (answer["status"], "succeeded"),
        "storage_files deleted": (phases["storage_files"]["deleted"], files),
        "render_jobs deleted": (phases["render_jobs"]["deleted"], rows),
        "temp_files deleted": (phases["temp_files"]["deleted"], len(_paths(scenario, Fate.GOES))),
        "remaining": (answer["remaining"], 0),
    }
    return [
        Check(
            "the answer adds up: examined = planned + kept, planned = deleted + already missing + skipped + failed",
            tuple(unequal),
        ),
        Check("the answer says what happened", _unequal(told)),
        Check(
            f"the right reason for each of {expected.total()} jobs looked at and kept",
            _unequal({reason: (kept[reason], expected[reason]) for reason in kept | expected}),
        ),
    ]


def log_lines(answer: Mapping[str, Any], lines: Iterable[str]) -> Check:
    """Hold the log against the lines that the original promised."""
    files, rows = (answer["phases"][phase]["deleted"] for phase in ("storage_files", "render_jobs"))
    promised = [line.format(files=files, rows=rows) for line in PROMISED_LINES]
    missing = [line for line in promised if not fnmatch.filter(lines, line)]
    return Check("the log has the five lines that the original promised", _listed("missing", missing))


def nothing_removable(scenario: Scenario, counted: Mapping[UUID, str | None]) -> Check:
    """Hold what the validation query counts against what must be left alone, and for which reason."""
    reasons = scenario.reasons
    removable = {job for job, reason in counted.items() if reason is None or reason != reasons.get(job)}
    return Check("validation query: 0 orphans that may be removed", _listed("not accounted for", removable))


def late_save_is_refused(application: Application, scenario: Scenario) -> Check:
    """Save what has gone, which must be an error and never a broken asset."""
    claim = "saving what has gone is refused with an error"
    try:
        application.save(scenario.latecomer)
    except psycopg.errors.ForeignKeyViolation:
        return Check(claim)
    return Check(claim, ("it was accepted",))


def nothing_found(answer: Mapping[str, Any], before: State, after: State) -> Check:
    """Hold a second cycle against the first one's work: nothing is left to do."""
    phases = answer["phases"]
    told = {
        "status": (answer["status"], "succeeded"),
        "temp_files deleted": (phases["temp_files"]["deleted"], 0),  # fresh ones are looked at every time
        "storage_files planned": (phases["storage_files"]["planned"], 0),
        "render_jobs planned": (phases["render_jobs"]["planned"], 0),
        "remaining": (answer["remaining"], 0),
    }
    faults = _unequal(told) + (() if before == after else ("it changed something",))
    return Check("a second cycle finds nothing to do", faults)


def rule_follows(parameter: str, expression: str, expected: str) -> Check:
    """Hold the rule's schedule against what a parameter asks for."""
    return Check(f"{parameter}: the rule has {expected}", _unequal({"rule": (expression, expected)}))


def _paths(scenario: Scenario, fate: Fate) -> set[Path]:
    return {case.path for case in scenario.temp if case.fate is fate}


def _difference(application: Application, file: File, content: bytes) -> str | None:
    try:
        stored = application.read(*file)
    except Exception as error:  # noqa: BLE001 - whatever keeps a saved file from being read is a fault
        return f"{'/'.join(file)}: {error}"
    return None if stored == content else f"{'/'.join(file)}: other bytes"


def _adds_up(phase: Mapping[str, Any]) -> bool:
    outcomes = phase["deleted"] + phase["already_missing"] + phase["skipped"] + phase["failed"]
    return bool(phase["planned"] == outcomes and phase["examined"] == outcomes + phase["kept"])


def _unequal(told: Mapping[str, tuple[object, object]]) -> tuple[str, ...]:
    return tuple(f"{name} is {found}, not {expected}" for name, (found, expected) in told.items() if found != expected)


def _listed(what: str, things: Iterable[object]) -> tuple[str, ...]:
    names = sorted(map(str, things))
    more = [f"and {len(names) - _MOST_SHOWN} more"] if len(names) > _MOST_SHOWN else []
    return tuple([f"{what}: {name}" for name in names[:_MOST_SHOWN]] + more)
