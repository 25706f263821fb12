"""The whole embedded stack: Postgres, Storage and AWS, ready for the application and the cleanup."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
from supabase import Client, ClientOptions, create_client

from local.aws import Aws
from local.keys import Keys
from local.postgres import STACK_DIRECTORY, Database, Postgres
from local.project import Project
from local.storage import StorageServer
from storage_cleanup.config.parameters import SECRETS

STAGE = "local"
PARAMETER_PATH = f"/storage-cleanup/{STAGE}"

#: Bucket to whether it is public.
BUCKETS: Mapping[str, bool] = {"images": False, "videos": True}


@dataclass(frozen=True)
class Servers:
    """What the cleanup runs against: a database, Storage bound to it, and AWS."""

    database: Database
    storage: StorageServer
    aws: Aws
    keys: Keys

    def put_parameters(self, role: str = "postgres", **overrides: str) -> None:
        """Write the whole parameter tree of stage ``local``, see ``Project``; cycles reach the database as the role."""
        project = Project(self.storage.url, self.keys.service_role, self.database.url(role))
        self.aws.put_parameters(PARAMETER_PATH, project.parameters(**overrides), SECRETS)


@dataclass(frozen=True)
class Stack(Servers):
    """A whole stack of its own.

    Attributes
    ----------
    directory
        Where everything lives and disappears with the stack.
    seconds_to_start
        How long it took to start.
    """

    directory: Path
    seconds_to_start: float


@contextlib.contextmanager
def running_stack() -> Iterator[Stack]:
    """Start all servers, and stop them afterwards."""
    began = time.monotonic()
    with workspace("stack") as directory, contextlib.ExitStack() as started:
        # The slowest first: they start while Postgres does.
        aws = Aws(directory)
        started.callback(aws.stop)
        storage = StorageServer(directory)
        started.callback(storage.stop)
        postgres = started.enter_context(Postgres(directory / "postgres"))
        postgres.install()
        database, keys = Database(postgres, "postgres"), Keys()
        storage.wait_until_ready()
        storage.use(database.url("supabase_storage_admin"))
        create_buckets(storage.url, keys.service_role)
        aws.wait_until_ready()
        yield Stack(database, storage, aws, keys, directory, time.monotonic() - began)


def create_buckets(url: str, service_role_key: str) -> None:
    """Create the application's buckets through the client that applications use."""
    with httpx.Client(timeout=10) as http:
        client: Client = create_client(url, service_role_key, ClientOptions(httpx_client=http))
        for bucket, public in BUCKETS.items():
            client.storage.create_bucket(bucket, options={"public": public})


@contextlib.contextmanager
def workspace(purpose: str) -> Iterator[Path]:
    """Yield a directory below ``.stack/`` for this process alone, which is gone afterwards."""
    directory = own_directory(purpose)
    directory.mkdir(exist_ok=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def own_directory(purpose: str) -> Path:
    """Return a directory below ``.stack/`` for this process alone, and remove those of processes that are gone."""
    STACK_DIRECTORY.mkdir(exist_ok=True)
    for directory in STACK_DIRECTORY.glob("*-*"):
        owner = directory.name.rpartition("-")[2]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(directory, ignore_errors=True)
    return STACK_DIRECTORY / f"{purpose}-{os.getpid()}"
