"""The real handler against the embedded stack."""

import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import psycopg
import pytest

from local.application import Application
from local.functions import RULE, Context, load_function
from local.postgres import ROOT, Database, Postgres
from local.stack import PARAMETER_PATH
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.limits import HttpPatience
from storage_cleanup.storage.object_store import ObjectStore
from tests.conftest import Servers
from tests.integration.direct import IMPATIENT

Configure = Callable[..., None]
"""Writes the parameters: the defaults, and what is given."""


class Cleanup(Protocol):
    """Invokes the cleanup function with a manual event, or the event given."""

    def __call__(self, event: object = None, *, seconds: float = 900, **fields: object) -> dict[str, Any]: ...


class Health(Protocol):
    """Invokes the health function."""

    def __call__(self, event: object = None) -> dict[str, Any]: ...


@pytest.fixture
def application(servers: Servers) -> Iterator[Application]:
    """People who render and save, on an empty project."""
    people = Application(servers.database, servers.storage.url, servers.keys.service_role)
    yield people
    people.close()


@pytest.fixture
def earlier_run(application: Application) -> None:
    """Have a good run behind, for tests of orphans alone: a first run that sees no save refuses."""
    application.had_a_run()


@pytest.fixture
def configure(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Write the parameters (defaults and overrides) and point the functions to them."""
    for name, value in servers.aws.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PARAMETER_PATH", PARAMETER_PATH)
    temp = tmp_path / "temp"
    temp.mkdir()

    def put(**overrides: str) -> None:
        at_once = {"production__unsaved_grace_minutes": "0"}  # after an un-save, unless a test says otherwise
        servers.put_parameters(**{"temp__directories": str(temp), **at_once, **overrides})

    return put


@pytest.fixture
def app() -> ModuleType:
    """Return the module of the cleanup function, which wires the collaborators of a cycle."""
    return load_function("cleanup")


@pytest.fixture
def cleanup(app: ModuleType, configure: Configure) -> Cleanup:
    """Return the real handler, with the default parameters."""
    configure()
    handler = app.lambda_handler

    def invoke(event: object = None, *, seconds: float = 900, **fields: object) -> dict[str, Any]:
        answer = handler({"action": "cleanup", **fields} if event is None else event, Context(seconds))
        json.dumps(answer)  # what Lambda would do with it
        for account in answer["phases"].values():
            parts = ("deleted", "already_missing", "skipped", "failed")
            assert account["planned"] == sum(account[part] for part in parts)
            assert account["examined"] == account["planned"] + account["kept"]
            assert all(account[part] == sum(by.values()) for part, by in account["reasons"].items())
        return dict(answer)

    return invoke


@pytest.fixture
def impatience(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes seconds elsewhere takes a moment here."""
    patience = HttpPatience(connect_seconds=2, read_seconds=0.5, total_seconds=30)
    monkeypatch.setattr(app, "ObjectStore", partial(ObjectStore, backoff=IMPATIENT, patience=patience))


@pytest.fixture
def small_batches(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "run_cycle", partial(run_cycle, page_size=10))


def nothing_happened(answer: dict[str, Any], application: Application, *, files: int) -> None:
    """Assert that a run has failed without claiming or deleting anything."""
    assert answer["status"] == "failed"
    assert sum(phase["planned"] for phase in answer["phases"].values()) == 0
    assert len(application.files()) == len(application.jobs()) == files


@cache
def loaded() -> ModuleType:
    """Return health's module, warm after its first invocation as on Lambda."""
    return load_function("health")


@pytest.fixture
def health(
    configure: Configure,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Health:
    """Return the real handler, with the rule that the parameters ask for."""
    configure()
    servers.aws.put_rule(RULE, 60)
    monkeypatch.setenv("RULE_NAME", RULE)

    def invoke(event: object = None) -> dict[str, Any]:
        answer = loaded().lambda_handler(
            {"action": "health"} if event is None else event, Context(300, function_name="health")
        )
        return dict(json.loads(json.dumps(answer)))

    return invoke


@pytest.fixture(scope="module", params=[16, 18])
def cluster(request: pytest.FixtureRequest, stack_directory: Path) -> Iterator[Postgres]:
    """A cluster of the oldest and of the newest version that the wheel has."""
    with Postgres(stack_directory / f"install-{request.param}", request.param) as cluster:
        yield cluster


@pytest.fixture
def project(cluster: Postgres, request: pytest.FixtureRequest) -> Iterator[Database]:
    """A Supabase project with the application's tables, and nothing of ours."""
    name = "project"
    with psycopg.connect(cluster.url("supabase_admin"), autocommit=True) as admin:
        admin.execute(f"create database {name} owner postgres")
        database = Database(cluster, name)
        with database.connect("supabase_admin") as superuser:
            superuser.execute((ROOT / "local" / "sql" / "supabase.sql").read_bytes())
        with database.connect() as owner:
            owner.execute((ROOT / "local" / "sql" / "application.sql").read_bytes())
        yield database
        admin.execute(f"drop database {name} with (force)")
