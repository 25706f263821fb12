"""Each saved query, and each table of the dashboard, on the log of cycles of every ending: it finds what it is for."""

import io
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, fields
from functools import cache, partial
from types import ModuleType
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from local.application import Application
from local.functions import RULE, Context, load_function
from local.postgres import ROOT
from local.stack import PARAMETER_PATH
from local.storage_emulator.faults import Fault
from storage_cleanup import telemetry
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.storage.object_store import ObjectStore
from storage_cleanup.telemetry import SERVICE, logger
from tests.conftest import Servers
from tests.integration.conftest import Configure
from tests.integration.direct import IMPATIENT
from tests.integration.insights import Row, Table, UnknownConstructError, events, run, source

SCHEDULED = json.loads((ROOT / "events" / "scheduled.json").read_text())
CRASH = "the disk is made of cheese"
KILLED = "2026-11-27T05:00:00.000Z 00000000-0000-0000-0000-000000000000 Task timed out after 900.10 seconds"
REPORT = (
    "REPORT RequestId: 00000000-0000-0000-0000-000000000000\tDuration: 812.34 ms\tBilled Duration: 1634 ms\t"
    "Memory Size: 512 MB\tMax Memory Used: 113 MB\t"
)
"""What the platform itself writes into a function's log."""


class Log:
    """What the functions have printed, by the name of the function."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {"cleanup": [], "schedule_sync": [], "health": [], "restore": []}
        self.by_ending: dict[str, list[str]] = {}

    @contextmanager
    def of(self, function: str, ending: str) -> Iterator[None]:
        """Take what is printed meanwhile; an error that a handler raises is part of the ending."""
        printed = io.StringIO()
        before = logger.registered_handler.setStream(printed)  # type: ignore[attr-defined]
        try:
            with redirect_stdout(printed), suppress(Exception):
                yield
        finally:
            logger.registered_handler.setStream(before)  # type: ignore[attr-defined]
        lines = printed.getvalue().splitlines()
        self.by_ending[ending] = lines
        self.lines[function] += [*lines, REPORT]


@cache
def played() -> Log:
    """Return the log of all endings, which are played once."""
    return Log()


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Log:
    """Play a cycle of every ending through the real handlers."""
    log = played()
    if not log.by_ending:
        play(log, Stage(**{each.name: request.getfixturevalue(each.name) for each in fields(Stage)}))
    return log


@dataclass
class Stage:
    """What endings are played with."""

    servers: Servers
    application: Application
    configure: Configure
    app: ModuleType
    monkeypatch: pytest.MonkeyPatch


def play(log: Log, stage: Stage) -> None:
    """Play every ending, each on what the one before it has left."""
    servers, application, configure = stage.servers, stage.application, stage.configure
    app, monkeypatch = stage.app, stage.monkeypatch
    monkeypatch.setenv("RULE_NAME", RULE)
    monkeypatch.setattr(app, "ObjectStore", partial(ObjectStore, backoff=IMPATIENT))
    servers.aws.put_rule(RULE, 60)

    def cycle(ending: str, event: object = SCHEDULED, *, seconds: float = 900) -> None:
        with log.of("cleanup", ending):
            app.lambda_handler(event, Context(seconds))

    configure()
    renders = application.render_many(4)
    application.save_many(renders[:2])
    application.add_job(output_url="https://elsewhere.example/a.png")
    cycle("succeeded")

    application.render_many(2)
    cycle("dry run", {"action": "cleanup", "dry_run": True})

    configure(limits__max_failure_percent="100")
    servers.storage.inject({Fault.INTERNAL: 1}, operations=["remove"])
    cycle("partial", {"action": "cleanup", "max_deletions": 1})
    servers.storage.heal()

    protected = application.render()
    servers.execute("create table notes (id int primary key, job uuid references render_jobs)")
    servers.execute("insert into notes values (1, %s)", protected.job_id)
    configure(dependents="delete")
    cycle("row stays")
    servers.execute("drop table notes")

    servers.execute("alter table user_assets disable trigger storage_cleanup_asset_inserted")
    cycle("failed preflight")
    servers.execute("alter table user_assets enable trigger storage_cleanup_asset_inserted")

    configure(limits__max_deletions_per_run="many")
    cycle("configuration error")
    with log.of("schedule_sync", "schedule refused"):
        configure(profile="neither")
        load_function("schedule_sync").lambda_handler({}, Context(function_name="schedule_sync"))
    configure(enabled="false")
    cycle("switched off")
    configure(database__url="postgresql://postgres@127.0.0.1:1/postgres")
    cycle("no database")
    configure()

    cycle("refused", {"action": "cleanup", "max_age_minutes": "old"})

    application.render_many(200)
    servers.storage.inject(operations=["remove"], latency_ms=300)
    with monkeypatch.context() as patched:
        patched.setattr(app, "run_cycle", partial(run_cycle, page_size=5, most_requests=1))
        cycle("deadline", seconds=6)
    servers.storage.heal()

    with monkeypatch.context() as patched:
        patched.setattr(app, "run_cycle", _crash)
        cycle("crash")
    servers.execute("delete from user_assets")
    application.render_many(2)
    cycle("breaker open")

    with log.of("health", "health"):
        load_function("health").lambda_handler({"action": "health"}, Context(300, function_name="health"))
    with log.of("restore", "restore"):
        load_function("restore").lambda_handler({"action": "restore"}, Context(function_name="restore"))
    log.lines["cleanup"] += [KILLED, f"{REPORT}Init Duration: 821.50 ms\t"]


def _crash(*_: object, **__: object) -> None:
    raise RuntimeError(CRASH)


# -- what template.yaml asks -------------------------------------------------------------------------------------------


class _Template(yaml.SafeLoader):  # type: ignore[misc]
    """Reads CloudFormation's short forms as what they refer to."""


_Template.add_multi_constructor("!", lambda loader, _, node: _short_form(loader, node))


def _short_form(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


def _resources() -> Mapping[str, Any]:
    resources: Mapping[str, Any] = yaml.load((ROOT / "template.yaml").read_text(), _Template)["Resources"]
    return resources


FUNCTIONS = {
    "CleanupLogs": "cleanup",
    "ScheduleSyncLogs": "schedule_sync",
    "HealthLogs": "health",
    "RestoreLogs": "restore",
}


def questions() -> dict[str, tuple[list[str], str]]:
    """Return each saved query, and each log widget, with the log groups that it searches."""
    found: dict[str, tuple[list[str], str]] = {}
    for name, resource in _resources().items():
        if resource["Type"] == "AWS::Logs::QueryDefinition":
            found[name] = resource["Properties"]["LogGroupNames"], resource["Properties"]["QueryString"]
    for widget in json.loads(_resources()["Dashboard"]["Properties"]["DashboardBody"])["widgets"]:
        if widget["type"] == "log":
            group, query = source(widget["properties"]["query"])
            found[widget["properties"]["title"]] = [group.strip("${}")], query
    return found


QUESTIONS = questions()


def asked(log: Log, name: str, run_id: str = "") -> Table:
    """Return what a question finds in the log; one that is about a run, about this one."""
    groups, query = QUESTIONS[name]
    query = query.replace("paste the run id here", run_id)
    return run(query, events([line for group in groups for line in log.lines[FUNCTIONS[group]]]))


def run_of(log: Log, ending: str) -> str:
    """Return the id of the run that ended so."""
    (found,) = {line["run_id"] for line in events(log.by_ending[ending]) if "run_id" in line}
    return str(found)


@pytest.mark.parametrize("name", sorted(QUESTIONS))
def test_a_question_finds_lines_and_fills_each_of_its_columns(log: Log, name: str) -> None:
    tables = [asked(log, name, run_of(log, ending)) for ending in ("partial", "row stays")]
    rows = [row for table in tables for row in table.rows]
    assert rows
    columns = set(tables[0].columns)
    assert {column for column in columns if any(row.get(column) is not None for row in rows)} == columns


ENDINGS = {
    "succeeded": "succeeded",
    "dry run": "succeeded",
    "partial": "partial",
    "row stays": "succeeded",
    "failed preflight": "failed",
    "configuration error": "failed",
    "switched off": "skipped",
    "no database": "failed",
    "deadline": "partial",
    "crash": "failed",
    "breaker open": "failed",
}


def test_cycles_shows_each_cycle_once_with_how_it_ended(log: Log) -> None:
    rows = asked(log, "CyclesQuery").rows
    assert {row["run_id"]: row["status"] for row in rows} == {
        run_of(log, ending): status for ending, status in ENDINGS.items()
    }
    assert len(rows) == len(ENDINGS)


@pytest.mark.parametrize("ending", sorted(ending for ending, status in ENDINGS.items() if status == "failed"))
def test_failures_shows_each_cycle_that_failed(log: Log, ending: str) -> None:
    assert run_of(log, ending) in {row.get("run_id") for row in asked(log, "FailuresQuery").rows}


def test_failures_shows_what_an_invocation_could_not_say_itself(log: Log) -> None:
    rows = asked(log, "FailuresQuery").rows
    assert KILLED in [row["@message"] for row in rows]
    assert any(CRASH in str(row.get("exception")) for row in rows)
    assert "schedule_sync" in {row.get("function_name") for row in rows}
    assert not [row for row in rows if row["@message"].startswith("REPORT")]


def test_reasons_counts_things_by_their_reason(log: Log) -> None:
    rows = asked(log, "ReasonsQuery").rows
    counted = {(row["phase"], row["outcome"], row["reason"]): row["things"] for row in rows}
    assert counted["storage_files", "kept", "foreign_host"] == 1
    assert counted["render_jobs", "skipped", "foreign_key"] == 1
    assert {key[1] for key in counted} == {"kept", "skipped", "failed"}


def test_one_run_shows_every_line_of_it_and_none_of_another(log: Log) -> None:
    rows = asked(log, "OneRunQuery", run_of(log, "succeeded")).rows
    logged = [line for line in log.by_ending["succeeded"] if '"level"' in line]
    assert [row["@message"] for row in rows] == logged
    assert rows[0]["message"] == "Starting comprehensive cleanup cycle"


def test_cold_starts_counts_what_the_platform_reports(log: Log) -> None:
    (row,) = asked(log, "ColdStartsQuery").rows
    assert (row["cold"], row["slowest_start_ms"], row["slowest_ms"], row["memory_mb"]) == (1, 821.5, 812.34, 113)


# -- the lines themselves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", sorted(ENDINGS))
def test_every_line_of_a_run_says_whose_it_is(log: Log, ending: str) -> None:
    lines = [line for line in events(log.by_ending[ending]) if "level" in line]
    assert lines
    for line in lines:
        assert line["run_id"] == run_of(log, ending)
        assert (line["stage"], line["service"]) == (PARAMETER_PATH.rpartition("/")[2], SERVICE)
        assert line["correlation_id"]


def test_a_scheduled_run_correlates_with_the_event_of_the_rule(log: Log) -> None:
    assert {line["correlation_id"] for line in _lines(log, "succeeded")} == {SCHEDULED["id"]}
    assert {line["correlation_id"] for line in _lines(log, "dry run")} == {Context().aws_request_id}


@pytest.mark.parametrize(
    ("event", "expected"),
    [({"id": "x" * 500}, "x" * 100), ({"id": 7}, Context().aws_request_id), ("text", Context().aws_request_id)],
)
def test_a_correlation_id_is_a_short_text_whatever_the_event_says(log: Log, event: object, expected: str) -> None:
    with log.of("restore", "odd event"):
        load_function("restore").lambda_handler(event, Context(function_name="restore"))
    assert {line["correlation_id"] for line in _lines(log, "odd event")} == {expected}


def test_logs_and_metrics_have_one_name_for_the_service(log: Log) -> None:
    found = {event["service"] for lines in log.lines.values() for event in events(lines) if "service" in event}
    assert found == {SERVICE}


def test_a_cold_start_is_a_metric(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "_WARM", set())
    restore = load_function("restore")
    for ending in ("cold", "warm"):
        with log.of("restore", ending):
            restore.lambda_handler({}, Context(function_name="restore"))
    metrics = [line for ending in ("cold", "warm") for line in events(log.by_ending[ending]) if "ColdStart.0" in line]
    assert [(line["ColdStart.0"], line["service"]) for line in metrics] == [(1, SERVICE), (0, SERVICE)]


FLAT = {"examined", "planned", "deleted", "already_missing", "skipped", "failed", "reasons", "bytes", "seconds"}


def _lines(log: Log, ending: str) -> list[Row]:
    return [line for line in events(log.by_ending[ending]) if "level" in line]


@pytest.mark.parametrize("ending", ["succeeded", "dry run", "partial", "row stays", "deadline", "breaker open"])
def test_each_phase_and_the_run_end_with_one_line_of_flat_fields(log: Log, ending: str) -> None:
    account = [line for line in _lines(log, ending) if "examined" in line]
    assert [line.get("phase") for line in account] == ["temp_files", "storage_files", "render_jobs", None]
    for line in account:
        assert line.keys() >= FLAT
        assert line["planned"] == sum(line[part] for part in ("deleted", "already_missing", "skipped", "failed"))
    for field in FLAT - {"reasons", "seconds"}:
        assert account[-1][field] >= sum(line[field] for line in account[:-1])


# -- the interpreter ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "fields a | dedup a",
        "filter a",
        "filter a == 'b'",
        "filter a like 'b'",
        "filter not ispresent(a)",
        "filter a = 'b' xor b = 'c'",
        "stats pct(a, 99) as b",
        "stats count(*)",
        "sort a",
        "fields a as b",
        "limit some",
    ],
)
def test_what_the_interpreter_does_not_know_is_an_error(query: str) -> None:
    with pytest.raises(UnknownConstructError):
        run(query, events(['{"a": "b"}']))


def test_and_binds_closer_than_or() -> None:
    lines = events(['{"a": "1"}', '{"a": "2", "b": "2"}', '{"a": "2"}'])
    assert len(run("filter a = '1' or a = '2' and b = '2'", lines).rows) == 2
    assert len(run("filter (a = '1' or a = '2') and b = '2'", lines).rows) == 1


def test_an_empty_column_is_seen() -> None:
    table = run("fields a, c | filter a = '1'", events(['{"a": "1", "b": {"c": 2}}']))
    assert [table.rows[0].get(column) for column in table.columns] == ["1", None]
    assert table.rows[0]["b.c"] == 2


def test_each_log_group_is_one_of_a_function() -> None:
    groups = {group for searched, _ in QUESTIONS.values() for group in searched}
    assert groups <= FUNCTIONS.keys()
    assert re.findall(r"^  (\w+Query):", (ROOT / "template.yaml").read_text(), re.MULTILINE)
