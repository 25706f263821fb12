"""`sam build`, and what it built under the Runtime Interface Emulator, with layers for this machine."""

import hashlib
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from local.application import Application
from local.aws import Aws
from local.functions import RULE, function_environment
from local.postgres import ROOT
from local.runtime_emulator import FunctionError, RuntimeEmulator, find_emulator, find_python, install_runtime
from local.stack import PARAMETER_PATH
from operations.package import package
from storage_cleanup.events.restore import refusal
from tests.conftest import Servers

SAM = ROOT / ".venv-sam/bin/sam"
_MB = 1_000_000


@dataclass(frozen=True)
class Built:
    """What `sam build` made, and layers that this machine can run."""

    directory: Path
    layers: list[Path]
    python: Path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    python = find_python("3.13")
    if python is None:
        pytest.skip("no Python 3.13 on PATH or in pyenv, which is the functions' runtime")
    if find_emulator() is None or not SAM.exists():
        pytest.skip("SAM isn't installed: make tools")
    work = tmp_path_factory.mktemp("sam")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "SAM_CLI_TELEMETRY": "0",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }
    command: list[str | Path] = [SAM, "build", "--no-cached", "--parallel", "--template", ROOT / "template.yaml"]
    command += ["--base-dir", ROOT, "--build-dir", work / "build"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    machine = os.uname().machine
    make: list[str | Path] = [
        "make",
        "-s",
        "-C",
        ROOT / "layers/dependencies",
        "build-DependenciesLayer",
        f"LAYER_ARCH={machine}",
    ]
    subprocess.run([*make, f"ARTIFACTS_DIR={work / 'native'}"], env=environment, check=True, capture_output=True)
    runtime = install_runtime(python, work / "runtime")
    # The layers come before the runtime's own packages, as on Lambda.
    return Built(work / "build", [work / "native", work / "build/PackageLayer", runtime], python)


@pytest.fixture
def schedule_sync(built: Built, aws: Aws, tmp_path: Path) -> Iterator[RuntimeEmulator]:
    aws.put_parameters(
        PARAMETER_PATH, {"profile": "production", "testing/interval-minutes": "3", "production/interval-minutes": "60"}
    )
    aws.put_rule(RULE, 60)
    environment = {**function_environment(aws), "LOG_LEVEL": "INFO"}
    function = built.directory / "ScheduleSyncFunction"
    log = tmp_path / "function.log"
    with RuntimeEmulator(function, built.layers, built.python, environment, log=log, timeout_seconds=30) as emulator:
        yield emulator


@pytest.fixture
def cleanup(built: Built, servers: Servers, tmp_path: Path) -> Iterator[RuntimeEmulator]:
    servers.put_parameters(temp__directories=str(tmp_path / "temp"))
    servers.aws.put_rule(RULE, 60)
    environment = function_environment(servers.aws)
    function = built.directory / "CleanupFunction"
    log = tmp_path / "function.log"
    with RuntimeEmulator(function, built.layers, built.python, environment, log=log, timeout_seconds=60) as emulator:
        yield emulator


def test_layers_are_small_and_carry_bytecode(built: Built) -> None:
    layer = built.directory / "DependenciesLayer/python"
    files = [path for path in layer.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 40 * _MB
    bytecode = {path.name.split(".")[0] for path in files if path.suffix == ".pyc"}
    assert {"main", "client"} <= bytecode
    assert not any(path.name in {"boto3", "botocore"} for path in layer.iterdir())
    assert not [path for path in files if path.suffix == ".pyi" or "tests" in path.parts]
    native = {path.name.split(".cpython-313-")[1] for path in files if ".cpython-313-" in path.name}
    assert native == {"aarch64-linux-gnu.so"}
    package = built.directory / "PackageLayer/python/storage_cleanup"
    assert list(package.glob("config/__pycache__/settings.cpython-313.pyc"))
    assert list(package.glob("postgres/sql/*.sql"))


def test_every_function_has_its_code(built: Built) -> None:
    for name in ("CleanupFunction", "ScheduleSyncFunction", "HealthFunction", "RestoreFunction"):
        assert (built.directory / name / "app.py").is_file()


def test_the_package_is_all_that_a_deploy_needs(built: Built, aws: Aws, tmp_path: Path) -> None:
    """SAM uploads everything that the template names, from the unpacked zip, without this repository."""
    packed = package(built.directory, tmp_path / "out")
    digest, name = packed.with_suffix(".zip.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(packed.read_bytes()).hexdigest(), packed.name)
    assert package(built.directory, tmp_path / "again").read_bytes() == packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | aws.environment()
    s3 = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="eu-central-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    s3.create_bucket(Bucket="builds", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    command: list[str | Path] = [
        SAM,
        "package",
        "--template-file",
        "template.yaml",
        "--s3-bucket",
        "builds",
        "--output-template-file",
        "out",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path / "unpacked",
        env={**environment, "SAM_CLI_TELEMETRY": "0", "AWS_DEFAULT_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    text = (tmp_path / "unpacked/out").read_text()
    assert len(re.findall(r"(?:CodeUri|ContentUri): s3://builds/", text)) == 6
    assert len(re.findall(r"DefinitionUri:\s+Bucket: builds", text)) == 1
    assert "create table storage_cleanup.run" in (tmp_path / "unpacked" / "install.sql").read_text()


def test_the_built_schedule_sync_moves_the_rule(schedule_sync: RuntimeEmulator, aws: Aws) -> None:
    event = json.loads((ROOT / "events/parameter-change.json").read_text())
    assert schedule_sync.invoke(event)["changed"] is False
    aws.put_parameters(PARAMETER_PATH, {"profile": "testing"})
    assert schedule_sync.invoke(event) == {
        "rule": RULE,
        "before": "rate(60 minutes)",
        "after": "rate(3 minutes)",
        "changed": True,
    }
    assert aws.rule_expression(RULE) == "rate(3 minutes)"
    aws.put_parameters(PARAMETER_PATH, {"profile": "nonsense"})
    with pytest.raises(FunctionError, match=r"profile is 'nonsense': .*; it accepts testing or production"):
        schedule_sync.invoke(event)
    assert aws.rule_expression(RULE) == "rate(3 minutes)"
    starts = re.findall(r"Init Duration: ([0-9.]+) ms", schedule_sync.output())
    assert len(starts) == 1, "one cold start, then warm"


def test_the_built_cleanup_cleans_up_on_schedule(cleanup: RuntimeEmulator, servers: Servers) -> None:
    with closing(Application(servers.database, servers.storage.url, servers.keys.service_role)) as application:
        saved, orphan = application.render(), application.render()
        application.save(saved)
        answer = cleanup.invoke(json.loads((ROOT / "events/scheduled.json").read_text()))
        assert answer["status"] == "succeeded"
        assert application.jobs() == {saved.job_id}
        assert application.download(saved) == saved.content
        assert orphan.job_id not in application.jobs()
    log = cleanup.output()
    assert "Comprehensive cleanup cycle completed" in log
    assert '"ScheduledCycle"' in log
    assert len(re.findall(r"Init Duration: ([0-9.]+) ms", log)) == 1


def test_the_built_cleanup_plans_a_dry_run(cleanup: RuntimeEmulator, servers: Servers) -> None:
    with closing(Application(servers.database, servers.storage.url, servers.keys.service_role)) as application:
        application.render()
        answer = cleanup.invoke(json.loads((ROOT / "events/manual-dry-run.json").read_text()))
        assert answer["phases"]["storage_files"]["would_delete"] == 1
        assert answer["plan_id"] == answer["run_id"]
        assert len(application.files()) == 1


def test_the_built_cleanup_refuses_an_invalid_event_with_a_clear_error(cleanup: RuntimeEmulator) -> None:
    with pytest.raises(FunctionError, match="'dryrun' is no field; did you mean dry_run") as refusal:
        cleanup.invoke({"action": "cleanup", "dryrun": True})
    assert refusal.value.kind == "RequestError"


def test_the_built_health_answers_and_draws_a_report(built: Built, servers: Servers, tmp_path: Path) -> None:
    servers.put_parameters(temp__directories=str(tmp_path / "temp"))
    servers.aws.put_rule(RULE, 60)
    environment = {**servers.aws.environment(), "PARAMETER_PATH": PARAMETER_PATH, "RULE_NAME": RULE}
    with servers.database.connect() as owner:  # a history of one run, so that there is something to draw
        owner.execute(
            "insert into storage_cleanup.run (trigger, dry_run, options, scope, status, finished_at, summary) "
            """values ('schedule', false, '{}', '{}', 'failed', now(), '{"seconds": 1.5, "phases": {}}')"""
        )
    function = built.directory / "HealthFunction"
    with RuntimeEmulator(function, built.layers, built.python, environment, log=tmp_path / "log") as emulator:
        assert len(emulator.invoke({"action": "health"})["checks"]) > 20
        assert "<svg" in emulator.invoke({"action": "report", "period": "weekly"})["page"]


def test_what_is_not_built_says_so(built: Built, tmp_path: Path) -> None:
    function = built.directory / "RestoreFunction"
    with RuntimeEmulator(function, built.layers, built.python, {}, log=tmp_path / "log") as emulator:
        assert emulator.invoke({}) == {"status": "not_built", "message": refusal({})}
