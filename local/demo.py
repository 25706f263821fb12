"""The whole system, once, before your eyes: from nothing to a checked cycle.

Starts PostgreSQL, Storage and AWS on this machine, plays a small application, lets the rule fire, and holds what
happened against what had to happen. Ends with 0 only if every check holds.
"""

import contextlib
import io
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local import checks
from local.checks import Check, State
from local.clock import Clock, scheduled
from local.functions import RULE
from local.postgres import ROOT
from local.report import write_report
from local.scenario import Case, Fate, Scenario, Scene
from storage_cleanup.model.reasons import meaning

_AGE = timedelta(minutes=60)


def main() -> int:
    """Run the demo; return the exit code."""
    began = time.monotonic()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ✓ gets a ?
    console = Console(highlight=False)
    console.print("Starting PostgreSQL, Storage and AWS; people render and save ...")
    with scheduled(io.StringIO()) as (scene, clock):
        console.print(f"  {_seconds(began)}: all is there (servers alone: {scene.stack.seconds_to_start:.1f} s)")
        results = [*_first_cycle(console, scene, clock), *_afterwards(console, scene, clock)]
        report = write_report(scene.stack.aws)
    console.rule("Checks", characters="-")
    for check in results:
        _print_check(console, check)
    failed = sum(not check.holds for check in results)
    console.print(f"\n{len(results) - failed} of {len(results)} checks hold, after {_seconds(began)}.")
    console.print(f"A report of what was done lies in {report.relative_to(ROOT)}: open it in a browser.")
    return 1 if failed else 0


def _first_cycle(console: Console, scene: Scene, clock: Clock) -> list[Check]:
    """Let the rule fire on what people left, and check everything."""
    application, scenario = scene.application, scene.scenario
    before = checks.look(application, scenario)
    counted_before = checks.validation_query(scene.stack.database, _AGE)
    console.rule("Before", characters="-")
    console.print(_before_table(scenario))
    console.print()
    console.print(_totals(before, len(counted_before)))

    console.rule(f"The rule fires: {clock.expression}", characters="-")
    with _recorded_log() as lines:
        answer = clock.fire_now()
    _print_answer(console, answer, lines)

    after = checks.look(application, scenario)
    counted = checks.validation_query(scene.stack.database, _AGE)
    console.rule("After", characters="-")
    console.print(_after_table(scenario, after))
    removable = checks.nothing_removable(scenario, counted)
    console.print()
    console.print(_totals(after, len(counted)))
    console.print(_left_alone(scenario, counted))
    console.print("\nComparing every saved file ...")
    return [
        *checks.jobs_and_files(scenario, after),
        checks.saved_bytes(application, scenario),
        *checks.account(scenario, answer),
        checks.log_lines(answer, lines),
        removable,
        checks.late_save_is_refused(application, scenario),
    ]


def _afterwards(console: Console, scene: Scene, clock: Clock) -> Iterator[Check]:
    """Fire again, and switch the profile there and back."""
    before = checks.look(scene.application, scene.scenario)
    console.print("The rule fires again ...")
    answer = clock.fire_now()
    yield checks.nothing_found(answer, before, checks.look(scene.application, scene.scenario))
    for profile, expected in (("testing", "rate(3 minutes)"), ("production", "rate(1 hour)")):
        before_change = clock.expression
        clock.change_parameter("profile", profile)
        console.print(f"profile = {profile}: {RULE} goes\n  from {before_change} to {clock.expression}")
        yield checks.rule_follows(f"profile = {profile}", clock.expression, expected)


# -- what is shown -----------------------------------------------------------------------------------------------------


def _before_table(scenario: Scenario) -> Table:
    table = _table("what", "jobs>", "files>", "must", "because")
    for case in scenario.cases:
        table.add_row(case.title, str(len(case.jobs)), str(len(case.files)), case.fate.value, case.because)
    for temp in scenario.temp:
        table.add_row(f"temp: {temp.title}", "", "1", temp.fate.value, temp.because)
    return table


def _after_table(scenario: Scenario, after: State) -> Table:
    table = _table("what", "jobs>", "files>", "must", "")
    for case in scenario.cases:
        jobs, files = len(case.jobs & after.jobs), len(case.files.keys() & after.files)
        as_it_must = (jobs, files) == _expected(case)
        table.add_row(case.title, str(jobs), str(files), case.fate.value, _mark(holds=as_it_must))
    for temp in scenario.temp:
        there = temp.path in after.temp
        as_it_must = there == (temp.fate is Fate.STAYS)
        table.add_row(f"temp: {temp.title}", "", str(int(there)), temp.fate.value, _mark(holds=as_it_must))
    return table


def _print_answer(console: Console, answer: Mapping[str, Any], lines: list[str]) -> None:
    for line in lines:
        console.print(f"  log: {escape(line)}")
    console.print()
    console.print(_phase_table(answer))
    console.print()
    console.print(_reason_table(answer))


def _reason_table(answer: Mapping[str, Any]) -> Table:
    table = _table("phase", "", "things>", "because")
    for name, phase in answer["phases"].items():
        for outcome, reasons in phase["reasons"].items():
            for reason, count in reasons.items():
                table.add_row(name, outcome, str(count), escape(meaning(reason)))
        for trouble in filter(None, (phase.get("stopped"), phase.get("error"))):
            table.add_row(name, "stopped", "", escape(meaning(trouble)))
    return table


def _phase_table(answer: Mapping[str, Any]) -> Table:
    columns = ("examined", "kept", "planned", "deleted", "already_missing", "skipped", "failed", "seconds")
    table = _table("phase", *(f"{column.replace('_', ' ')}>" for column in columns))
    for name, phase in answer["phases"].items():
        table.add_row(name, *(str(phase[column]) for column in columns))
    return table


def _totals(state: State, counted: int) -> str:
    return (
        f"{len(state.jobs)} jobs, {len(state.files)} files, {state.saved_assets} saved assets, "
        f"{len(state.temp)} temporary files;\nthe validation query (age {_AGE.seconds // 60} minutes) counts {counted}"
    )


def _left_alone(scenario: Scenario, counted: Mapping[UUID, str | None]) -> Table:
    """Say what the validation query counts although it must stay: it knows no hosts, buckets or shared files."""
    expected = scenario.reasons
    kept = Counter(reason for job, reason in counted.items() if reason and expected.get(job) == reason)
    table = _table("", "")
    for reason, count in sorted(kept.items()):
        table.add_row(f"  {count} left alone on purpose:", meaning(reason))
    table.add_row(f"  {len(counted) - kept.total()} that may be removed", "")
    return table


def _print_check(console: Console, check: Check) -> None:
    console.print(f"{_mark(holds=check.holds)} {escape(check.claim)}")
    for fault in check.faults:
        console.print(f"    {escape(fault)}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(columns))
    for column in columns:
        table.add_column(column.removesuffix(">"), justify="right" if column.endswith(">") else "left")
    return table


def _expected(case: Case) -> tuple[int, int]:
    return (len(case.jobs), len(case.files)) if case.fate is Fate.STAYS else (0, 0)


def _mark(*, holds: bool) -> str:
    return "[green]✓[/]" if holds else "[bold red]✗[/]"


def _seconds(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


@contextlib.contextmanager
def _recorded_log() -> Iterator[list[str]]:
    """Yield the messages that the system logs meanwhile."""
    lines: list[str] = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("storage_cleanup")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


if __name__ == "__main__":
    sys.exit(main())
