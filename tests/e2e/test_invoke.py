"""``make invoke``: one event through the real handler, on the embedded stack or on another Supabase."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.application import Application
from local.invoke import PREFIX, parameters_in
from local.project import VARIABLES
from tests.conftest import Servers

ROOT = Path(__file__).resolve().parents[2]
Invoke = Callable[..., subprocess.CompletedProcess[str]]


def invoke(event: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # A real project that somebody has in the environment must not be what is cleaned here.
    own = {name: value for name, value in os.environ.items() if name not in VARIABLES and not name.startswith(PREFIX)}
    return subprocess.run(
        [sys.executable, "-m", "local.invoke", str(event)],
        cwd=ROOT,
        env={**own, "PYTHONPATH": f"layers/storage_cleanup{os.pathsep}.", **variables},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def log_of(run: subprocess.CompletedProcess[str]) -> list[str]:
    lines = (json.loads(line) for line in run.stderr.splitlines() if line.startswith("{"))
    return [line["message"] for line in lines if "message" in line]


@pytest.fixture
def application(servers: Servers) -> Iterator[Application]:
    people = Application(servers.database, servers.storage.url, servers.keys.service_role)
    yield people
    people.close()


@pytest.fixture(params=["postgres", "storage_cleanup_worker"])
def role(request: pytest.FixtureRequest, servers: Servers) -> str:
    """Return a role of the database; the worker may do what a cycle needs, and nothing else."""
    servers.execute("alter role storage_cleanup_worker login")
    return str(request.param)


@pytest.fixture
def elsewhere(servers: Servers) -> Invoke:
    """Invoke on another Supabase, which has been there before and goes on afterwards."""

    def on(event: str | Path, *, role: str = "postgres", **variables: str) -> subprocess.CompletedProcess[str]:
        project = {
            "SUPABASE_URL": servers.storage.url,
            "SUPABASE_SERVICE_ROLE_KEY": servers.keys.service_role,
            "DATABASE_URL": servers.database.url(role),
        }
        return invoke(event, **{**project, **variables})

    return on


def answer_of(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return dict(json.loads(run.stdout))


def test_on_the_embedded_stack_there_is_something_to_clean() -> None:
    run = invoke("events/manual-cleanup.json")
    assert run.returncode == 0, run.stderr
    answer = answer_of(run)
    assert answer["status"] == "succeeded"
    assert all(phase["deleted"] > 0 for phase in answer["phases"].values())
    assert "Comprehensive cleanup cycle completed" in log_of(run)


def test_on_another_supabase_the_orphans_go(application: Application, elsewhere: Invoke, role: str) -> None:
    saved = application.render()
    application.save(saved)
    application.render()
    application.add_job(output_url=None)
    run = elsewhere("events/manual-cleanup.json", role=role)
    assert run.returncode == 0, run.stderr
    phases = answer_of(run)["phases"]
    assert (phases["storage_files"]["deleted"], phases["render_jobs"]["deleted"]) == (1, 2)
    assert application.jobs() == {saved.job_id}
    assert application.download(saved) == saved.content


def test_parameters_are_set_by_variables(application: Application, elsewhere: Invoke) -> None:
    application.create_bucket("renders")
    kept, _ = application.render(), application.render(bucket="renders")
    run = elsewhere(
        "events/scheduled.json", STORAGE_CLEANUP_BUCKETS="renders", STORAGE_CLEANUP_LIMITS__MAX_DELETIONS_PER_RUN="9"
    )
    assert run.returncode == 0, run.stderr
    assert answer_of(run)["phases"]["storage_files"]["reasons"]["kept"] == {"unlisted_bucket": 1}
    assert application.files() == {(kept.bucket, kept.name)}


def test_a_misspelt_parameter_is_an_error_that_names_it(elsewhere: Invoke) -> None:
    run = elsewhere("events/manual-cleanup.json", STORAGE_CLEANUP_PROFIL="testing")
    assert run.returncode == 2
    assert run.stderr.startswith("STORAGE_CLEANUP_PROFIL names no parameter")
    assert run.stdout == ""


@pytest.mark.parametrize("value", ["", " "])
def test_a_variable_that_is_set_but_empty_is_an_error_that_names_it(
    application: Application, elsewhere: Invoke, value: str
) -> None:
    """Whoever wrote ``STORAGE_CLEANUP_DRY_RUN=$UNSET`` wanted anything but to delete for good."""
    application.render()
    run = elsewhere("events/manual-cleanup.json", STORAGE_CLEANUP_DRY_RUN=value)
    assert run.returncode == 2
    assert run.stderr == "STORAGE_CLEANUP_DRY_RUN is set, but empty: give it a value, or unset it\n"
    assert len(application.files()) == 1


def test_nothing_is_installed_and_the_file_to_run_is_named(servers: Servers, elsewhere: Invoke) -> None:
    servers.execute((ROOT / "database/uninstall.sql").read_bytes())
    run = elsewhere("events/manual-cleanup.json")
    assert run.returncode == 1
    assert "database/install.sql" in answer_of(run)["message"]
    assert servers.execute("select to_regnamespace('storage_cleanup')") == [(None,)]


def test_a_bucket_that_is_missing_is_not_made(application: Application, elsewhere: Invoke, servers: Servers) -> None:
    application.render()
    run = elsewhere("events/manual-cleanup.json", STORAGE_CLEANUP_BUCKETS="images,clips")
    assert run.returncode == 1
    assert "clips" in answer_of(run)["message"]
    assert len(application.files()) == 1
    assert servers.execute("select count(*) from storage.buckets where id = 'clips'") == [(0,)]


def test_another_event_reaches_another_function(elsewhere: Invoke) -> None:
    run = elsewhere("events/parameter-change.json", STORAGE_CLEANUP_PROFILE="testing")
    assert run.returncode == 0, run.stderr
    assert answer_of(run)["after"] == "rate(3 minutes)"


def test_half_a_project_is_refused() -> None:
    run = invoke("events/manual-cleanup.json", SUPABASE_URL="https://abc.supabase.co")
    assert run.returncode == 2
    assert "missing: SUPABASE_SERVICE_ROLE_KEY, DATABASE_URL" in run.stderr


@pytest.mark.parametrize("content", [None, "{"])
def test_an_event_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None) -> None:
    event = tmp_path / "event.json"
    if content is not None:
        event.write_text(content)
    run = invoke(event)
    assert run.returncode == 2
    assert str(event) in run.stderr


def test_names_of_variables_become_names_of_parameters() -> None:
    variables = {"STORAGE_CLEANUP_TESTING__MAX_AGE_MINUTES": "5", "PATH": "/bin"}
    assert parameters_in(variables) == {"testing__max_age_minutes": "5"}
