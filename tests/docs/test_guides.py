"""The guides can't rot: every command, event and query in them is executed here, in order, on the embedded stack."""

import argparse
import io
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from database.install import install
from database.status import status
from local.application import Application
from local.clock import PRODUCTION, Clock
from local.functions import RULE, Functions, function_for
from local.postgres import ROOT
from local.stack import PARAMETER_PATH
from operations.deploy import SAM
from storage_cleanup.config.parameters import DEFAULTS, OWN, SECRETS
from storage_cleanup.config.settings import Settings
from storage_cleanup.health.checks import CHECKS
from storage_cleanup.health.checks import NAMED as NAMED_CHECKS
from storage_cleanup.model.reasons import Reason
from tests.campaigns.__main__ import NAMES
from tests.conftest import Servers

DOCS = ROOT / "docs"
GUIDES = ("testing", "deployment", "monitoring", "emergency")
REMOVING = frozenset({"deployment", "emergency"})  # they end with how to remove the system
ROLES = {"postgres": "postgres", "worker": "storage_cleanup_worker"}
SYMPTOMS = ("No cycles", "Files not going", "Database errors", "Saved assets affected", "Storage spike")
_BLOCK = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STAGE = re.compile(r"^/storage-cleanup/(testing|production)/")
_RESOURCE = re.compile(r"^storage-cleanup-(testing|production)-([a-z-]+)$")


@dataclass(frozen=True)
class Block:
    """Something in a guide that a reader would run."""

    guide: str
    line: int
    language: str
    option: str
    text: str

    def __str__(self) -> str:
        return f"docs/{self.guide}.md:{self.line}"


def blocks(guide: str) -> Iterator[Block]:
    text = (DOCS / f"{guide}.md").read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        yield Block(guide, text.count("\n", 0, match.start()) + 1, match[1], match[2], match[3])


def refused(words: list[str]) -> str:
    """Return why the program would refuse these words; an empty text when it understands them."""
    program, *rest = words
    if program == "sam":
        environment = {**os.environ, "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-central-1"}
        done = subprocess.run([SAM, *rest, "--help"], env=environment, capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else ""
    if program == "aws":
        return _refused_by_aws(*rest)
    return "" if program in {"sha256sum", "unzip", "cd", "psql"} else f"nobody runs {program}"


def _refused_by_aws(service: str, command: str, *words: str) -> str:
    """Hold options against the API that the command is made of; `deploy` is the CLI's own."""
    model = botocore.session.get_session().get_service_model(service)
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if (service, command) == ("cloudformation", "deploy"):
        known = {"template-file", "stack-name", "capabilities", "parameter-overrides"}
    elif command in operations:
        shape = model.operation_model(operations[command]).input_shape
        known = {xform_name(name, "-") for name in (shape.members if shape else ())} | {"query", "output"}
    else:
        return f"aws {service} has no command {command}"
    given = {word.removeprefix("--").removeprefix("no-") for word in words if word.startswith("--")}
    return ", ".join(f"aws {service} {command} has no option --{name}" for name in sorted(given - known))


class Reader:
    """Does what a guide says."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._functions = Functions(servers.aws, io.StringIO())
        self._plan = ""
        self._run: Mapping[str, Callable[[Block], None]] = {"sh": self._shell, "sql": self._sql, "json": self._event}
        self._commands: Mapping[str, Callable[[list[str]], None]] = {
            "make": self._make,
            "psql": self._psql,
            "aws ssm put-parameter": self._put_parameter,
            "aws ssm delete-parameters": self._delete_parameters,
            "aws ssm get-parameters-by-path": self._delete_the_rest,
            "aws lambda invoke": self._invoke,
            "aws events describe-rule": lambda words: self._rule("describe_rule", words),
            "aws events enable-rule": lambda words: self._rule("enable_rule", words),
        }

    def do(self, block: Block) -> None:
        assert block.language in self._run, f"{block}: nobody runs a block of {block.language or 'no language'}"
        self._run[block.language](block)

    def _event(self, block: Block) -> None:
        self._send(json.loads(block.text))

    def _send(self, event: dict[str, object]) -> None:
        if event.get("override") == "PLAN_ID":  # what a reader would have copied
            event = {**event, "override": self._plan}
        answer = self._functions.invoke(function_for(event), event)
        self._plan = answer.get("plan_id", self._plan)
        assert answer.get("status") not in {"failed", "not_built", "skipped"}, answer

    def _sql(self, block: Block) -> None:
        self._servers.execute(block.text, role=ROLES[block.option])

    def _shell(self, block: Block) -> None:
        if block.option == "elsewhere":  # on another machine, or in an account: parsed by the real programs
            for line in block.text.replace("\\\n", " ").splitlines():
                assert (refusal := refused(shlex.split(line))) == "", f"{block}: {refusal}"
            return
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            name = words[0] if words[0] != "aws" else " ".join(words[:3])
            assert name in self._commands, f"{block}: nobody runs {name}"
            self._commands[name](words[len(name.split()) :])

    def _make(self, words: list[str]) -> None:
        """Look that the target exists (tests of their own run it); an event goes through the function at once."""
        target, *variables = words
        if target == "install-database":
            install(self._servers.database.url())
        elif target == "database-status":
            assert [part for part, fault in status(self._servers.database.url()) if fault] == []
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"make {target}"
        for variable in variables:
            name, _, value = variable.partition("=")
            assert name in {"EVENT", "STAGE", "DEPLOY_FLAGS", "REFERENCES"}
            if name == "EVENT":
                self._send(json.loads((ROOT / value).read_text()))
            elif name == "STAGE":
                assert f"[{value}.deploy.parameters]" in (ROOT / "samconfig.toml").read_text()
            else:
                self._assert_deploy_flags(shlex.split(value))

    @staticmethod
    def _assert_deploy_flags(words: list[str]) -> None:
        option, *overrides = words
        assert option == "--parameter-overrides"
        head, _, _ = (ROOT / "template.yaml").read_text().partition("\nResources:")
        for override in overrides:
            name, _, value = override.partition("=")
            assert value
            assert re.search(rf"^  {name}:$", head, re.MULTILINE), f"template.yaml has no parameter {name}"

    def _psql(self, words: list[str]) -> None:
        assert words[:-1] == ["-v", "ON_ERROR_STOP=1", "$ADMIN_DATABASE_URL", "-f"]
        file = words[-1]
        self._servers.execute((ROOT / file).read_bytes())

    def _put_parameter(self, words: list[str]) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--overwrite", action="store_true", required=True)
        parser.add_argument("--name", required=True)
        parser.add_argument("--value", required=True)
        given = parser.parse_args(words)
        self._servers.aws.ssm.put_parameter(Name=_local(given.name), Value=given.value, Type="String", Overwrite=True)
        self._assert_settings()

    def _assert_settings(self) -> None:
        """Make sure that a command leaves the parameters readable."""
        pages = self._servers.aws.ssm.get_paginator("get_parameters_by_path")
        found = pages.paginate(Path=PARAMETER_PATH, Recursive=True, WithDecryption=True)
        tree = {
            each["Name"].removeprefix(f"{PARAMETER_PATH}/"): each["Value"]
            for page in found
            for each in page["Parameters"]
        }
        Settings.from_parameters(tree)

    def _delete_parameters(self, words: list[str]) -> None:
        option, *names = words
        assert option == "--names"
        answer = self._servers.aws.ssm.delete_parameters(Names=[_local(name) for name in names])
        assert answer["InvalidParameters"] == []
        assert {name.removeprefix(f"{PARAMETER_PATH}/") for name in answer["DeletedParameters"]} >= SECRETS

    def _delete_the_rest(self, words: list[str]) -> None:
        found, pipe, deleted = " ".join(words).partition(" | ")
        assert pipe
        assert found == "--recursive --path /storage-cleanup/testing --query Parameters[].[Name] --output text"
        assert deleted == "xargs -n 10 aws ssm delete-parameters --names"
        pages = self._servers.aws.ssm.get_paginator("get_parameters_by_path")
        for page in pages.paginate(Path=PARAMETER_PATH, Recursive=True):
            self._servers.aws.ssm.delete_parameters(Names=[each["Name"] for each in page["Parameters"]])

    def _invoke(self, words: list[str]) -> None:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument("--function-name", required=True)
        parser.add_argument("--cli-binary-format", choices=["raw-in-base64-out"], required=True)
        parser.add_argument("--cli-read-timeout", type=int)
        parser.add_argument("--payload", required=True)
        parser.add_argument("answer")
        given = parser.parse_args(words)
        match = _RESOURCE.match(given.function_name)
        assert match
        file = given.payload.removeprefix("file://")
        event = json.loads(given.payload if file == given.payload else (ROOT / file).read_text())
        assert match[2] == function_for(event), "the event goes to the function that takes it"
        self._send(event)

    def _rule(self, action: str, words: list[str]) -> None:
        option, name = words
        match = _RESOURCE.match(name)
        assert option == "--name"
        assert match
        assert RULE.endswith(f"-{match[2]}")
        getattr(self._servers.aws.events, action)(Name=RULE)


def _local(name: str) -> str:
    """Return the name of a parameter as the embedded stack has it."""
    assert _STAGE.match(name), name
    return _STAGE.sub(f"{PARAMETER_PATH}/", name)


@pytest.mark.parametrize(
    "words",
    [
        "sam deploy --no-such-option",
        "aws cloudformation update-protection --stack-name x",
        "aws cloudformation describe-stacks --stak-name x",
        "curl x",
    ],
)
def test_a_command_that_its_program_would_refuse_is_found(words: str) -> None:
    assert refused(words.split()) != ""


def test_every_guide_has_something_to_run() -> None:
    counts = {guide: sum(1 for _ in blocks(guide)) for guide in GUIDES}
    assert min(counts.values()) >= 8, counts


@pytest.fixture
def people(servers: Servers) -> Iterator[Application]:
    """Return the people of a project that a guide is read for."""
    with closing(Application(servers.database, servers.storage.url, servers.keys.service_role)) as people:
        yield people


@pytest.fixture
def reader(servers: Servers, tmp_path: Path) -> Reader:
    """Return somebody who has deployed the system."""
    (tmp_path / "temp").mkdir()
    servers.put_parameters(
        temp__directories=str(tmp_path / "temp"), database__url=servers.database.url(ROLES["worker"])
    )
    Clock(servers.aws, Functions(servers.aws, io.StringIO())).deploy(PRODUCTION)
    return Reader(servers)


@pytest.mark.parametrize("guide", GUIDES)
def test_everything_in_it_runs(servers: Servers, people: Application, reader: Reader, guide: str) -> None:
    saved = people.render_files(3)
    people.save_many(saved)
    people.render_files(5)
    for block in blocks(guide):
        reader.do(block)
    assert all(people.download(render) == render.content for render in saved), "whatever a guide does, saved files stay"
    assert _is_installed(servers) == (guide not in REMOVING)


def test_the_deployment_guide_deletes_nothing_before_it_says_so(
    servers: Servers, people: Application, reader: Reader
) -> None:
    people.save_many(people.render_files(3))
    people.render_files(5)
    servers.aws.put_parameters(PARAMETER_PATH, {"dry-run": "true"})  # as a new stage has it
    text = "aws ssm put-parameter --overwrite --name /storage-cleanup/testing/dry-run --value false\n"
    steps = list(blocks("deployment"))
    (step,) = (index for index, block in enumerate(steps) if block.text == text)
    for block in steps[:step]:
        reader.do(block)
    functions = Functions(servers.aws, io.StringIO())
    assert functions.invoke("cleanup", {"action": "cleanup"})["dry_run"] is True
    assert len(people.jobs()) == 8
    reader.do(steps[step])
    assert functions.invoke("cleanup", {"action": "cleanup"})["dry_run"] is False
    assert len(people.jobs()) == 3


def test_a_cycle_before_the_secrets_says_what_is_missing(servers: Servers, people: Application) -> None:
    """The steps in the wrong order: the stack is there, and nothing else."""
    begun = {"setup/begun": datetime.now(UTC).isoformat()}
    servers.aws.put_parameters(PARAMETER_PATH, {**DEFAULTS, **begun})
    servers.aws.ssm.delete_parameters(Names=[f"{PARAMETER_PATH}/{name}" for name in OWN])
    answer = Functions(servers.aws, io.StringIO()).invoke("cleanup", {"action": "cleanup"})
    assert answer["status"] == "skipped"
    assert "not configured yet: put" in answer["message"]
    assert "make secrets" in answer["message"]


def test_a_cycle_before_the_database_says_what_is_missing(
    servers: Servers, people: Application, reader: Reader
) -> None:
    people.render_files(2)
    servers.execute((ROOT / "database/uninstall.sql").read_bytes())
    answer = Functions(servers.aws, io.StringIO()).invoke("cleanup", {"action": "cleanup"})
    assert answer["status"] == "failed"
    assert "run database/install.sql of this release" in answer["message"]
    assert len(people.files()) == 2


@pytest.mark.parametrize("guide", ["testing", "deployment", "emergency"])
def test_its_dry_run_and_override_settle_a_first_run_that_refuses(
    servers: Servers, people: Application, reader: Reader, guide: str
) -> None:
    people.render_many(25)
    functions = Functions(servers.aws, io.StringIO())
    assert "nothing was ever deleted here" in functions.invoke("cleanup", {"action": "cleanup"})["message"]
    for block in blocks(guide):
        if re.search(r'"dry_run": true|PLAN_ID|file://events/manual-dry-run\.json', block.text):
            reader.do(block)
    assert not people.jobs()
    people.render_many(25)
    assert functions.invoke("cleanup", {"action": "cleanup"})["status"] == "succeeded"


def _is_installed(servers: Servers) -> bool:
    with servers.database.connect() as connection:
        row = connection.execute("select to_regnamespace('storage_cleanup') is not null").fetchone()
    return row == (True,)


def test_the_emergency_guide_has_a_section_for_each_symptom() -> None:
    text = (DOCS / "emergency.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[: len(SYMPTOMS)] == list(SYMPTOMS)
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1 : len(SYMPTOMS) + 1]:
        for part in ("**See it**", "**Guaranteed meanwhile**", "**By hand**", "**Undo**"):
            assert part in section
        assert re.search(r"\*\*(Switch|Stop everything first)\*\*", section)


def test_every_section_that_a_check_points_at_is_there() -> None:
    sentences = "\n".join(sentence for check in CHECKS for _, sentence in check.by_case().values())
    named = set(re.findall(r"docs/emergency\.md, ([A-Z][a-z ]+)", sentences))
    assert named
    assert named <= set(SYMPTOMS)


def test_every_check_and_every_reason_that_a_guide_names_exists() -> None:
    known = {*NAMED_CHECKS, *Reason}
    for guide in ("monitoring", "emergency"):
        text = (DOCS / f"{guide}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"`([a-z]+_[a-z_]+)`", text)) - {
            "render_jobs",
            "user_assets",
            "not_built",
            "plan_id",
            "output_url",
            "render_job_id",
            "storage_cleanup",
        }
        assert named <= known, named - known


def test_everything_that_the_page_of_faults_calls_its_proof_exists() -> None:
    rows = [line for line in (DOCS / "faults.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    proofs = [row.rsplit("|", 2)[1] for row in rows if not row.endswith("shown by |")]
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)", tests, re.MULTILINE))
    assert len(proofs) >= 35
    for proof in proofs:
        named, campaigns = re.findall(r"`(test_\w+)`", proof), re.findall(r"campaign `(\w+)`", proof)
        assert named or campaigns, proof
        assert set(named) <= known, proof
        assert set(campaigns) <= set(NAMES), proof
