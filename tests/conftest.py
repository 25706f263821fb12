"""The embedded stack for tests: servers start once a session, state is new for every test."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from local import stack
from local.aws import Aws
from local.keys import Keys
from local.postgres import Database, Postgres
from local.stack import BUCKETS, workspace
from local.storage import StorageServer
from storage_cleanup.aws import clients

_NUMBERS = count(1)
_BUCKET_ROWS = [(bucket, bucket, public) for bucket, public in BUCKETS.items()]


class Servers(stack.Servers):
    """What an integration test runs against."""

    def execute(self, statement: str | bytes, *values: object, role: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement in the database, and return the rows that it has."""
        with self.database.connect(role) as connection:
            done = connection.execute(statement.encode() if isinstance(statement, str) else statement, values or None)
            return done.fetchall() if done.description else []


@pytest.fixture(scope="session")
def stack_directory() -> Iterator[Path]:
    with workspace("tests") as directory:
        yield directory


@pytest.fixture(scope="session")
def postgres(stack_directory: Path) -> Iterator[Postgres]:
    """One cluster for all tests; each test has a database of its own in it."""
    with Postgres(stack_directory / "postgres") as cluster:
        cluster.prepare_template()
        yield cluster


@pytest.fixture(scope="session")
def storage_server(stack_directory: Path) -> Iterator[StorageServer]:
    """One emulator for all tests, pointed to the database of each."""
    with StorageServer(stack_directory / "storage") as server:
        yield server


@pytest.fixture(scope="session")
def aws_server(stack_directory: Path) -> Iterator[Aws]:
    with Aws(stack_directory / "aws") as server:
        yield server


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """Yield a new database: Supabase's schemas, the application's tables, and what database/install.sql adds."""
    name = f"test_{next(_NUMBERS)}"
    postgres.create_database(name)
    yield Database(postgres, name)
    postgres.drop_database(name)


@pytest.fixture
def storage(storage_server: StorageServer, database: Database, tmp_path: Path) -> Iterator[StorageServer]:
    """Storage, bound to the test's database, with the application's buckets."""
    with database.connect("supabase_storage_admin") as connection, connection.cursor() as cursor:
        cursor.executemany("insert into storage.buckets (id, name, public) values (%s, %s, %s)", _BUCKET_ROWS)
    storage_server.use(database.url("supabase_storage_admin"), tmp_path / "bytes")
    yield storage_server
    storage_server.release()


@pytest.fixture(autouse=True)
def new_clients() -> None:
    """Let every test make its own clients of AWS, as an execution environment of its own would."""
    clients.client.cache_clear()


@pytest.fixture
def aws(aws_server: Aws) -> Aws:
    """AWS with nothing in it."""
    aws_server.reset()
    return aws_server


@pytest.fixture
def servers(database: Database, storage: StorageServer, aws: Aws, keys: Keys) -> Servers:
    """All of the embedded stack, new for the test, without parameters."""
    return Servers(database, storage, aws, keys)
