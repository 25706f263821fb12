"""The whole embedded stack: Postgres, Storage and AWS, ready for the application and the cleanup."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import httpx
from supabase import Client, ClientOptions, create_client

from local.aws import Aws
from local.keys import Keys
from local.postgres import STACK_DIRECTORY, Database, Postgres
from local.storage import StorageServer
from storage_cleanup.config.parameters import DEFAULTS, SECRETS

STAGE = "local"
PARAMETER_PATH = f"/storage-cleanup/{STAGE}"

#: Bucket to whether it is public.
BUCKETS: Mapping[str, bool] = {"images": False, "videos": True}


class Stack:
    """The embedded stack, running inside a ``with`` block.

    Parameters
    ----------
    directory
        Where everything lives and disappears with the stack; by default one of its own below ``.stack/``.
    version
        Major version of PostgreSQL.

    Attributes
    ----------
    seconds_to_start
        How long it took to start.

    Examples
    --------
    >>> with Stack() as stack:  # doctest: +SKIP
    ...     stack.put_parameters(profile="testing")
    ...     os.environ |= stack.aws.environment()
    """

    def __init__(self, directory: Path | None = None, *, version: int = 18) -> None:
        self.directory = directory or own_directory("stack")
        self.keys = Keys()
        self.postgres = Postgres(self.directory / "postgres", version)
        self.database = Database(self.postgres, "postgres")
        self.seconds_to_start = 0.0
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Self:
        began = time.monotonic()
        with contextlib.ExitStack() as started:
            started.callback(shutil.rmtree, self.directory, ignore_errors=True)
            # The slowest first: they start while Postgres does.
            self.aws = Aws(self.directory)
            started.callback(self.aws.stop)
            self.storage = StorageServer(self.directory)
            started.callback(self.storage.stop)
            started.enter_context(self.postgres)
            self.postgres.install()
            self.storage.wait_until_ready()
            self.storage.use(self.database.url("supabase_storage_admin"))
            create_buckets(self.storage.url, self.keys.service_role)
            self.aws.wait_until_ready()
            self._exit = started.pop_all()
        self.seconds_to_start = time.monotonic() - began
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def put_parameters(self, **overrides: str) -> None:
        """Write the whole parameter tree of stage ``local``, as ``write_parameters`` does; cycles run as the worker."""
        database_url = self.database.url("storage_cleanup_worker")
        write_parameters(self.aws, self.storage.url, self.keys.service_role, database_url, overrides)


def parameter_name(name: str) -> str:
    """Return the name of a parameter that is written as Python has it."""
    return name.replace("__", "/").replace("_", "-")


def write_parameters(
    aws: Aws, storage_url: str, service_role_key: str, database_url: str, overrides: Mapping[str, str]
) -> None:
    """Write the whole parameter tree of stage ``local``, as ``parameter_tree`` composes it."""
    values = parameter_tree(storage_url, service_role_key, database_url, overrides)
    aws.put_parameters(PARAMETER_PATH, values, SECRETS)


def parameter_tree(
    storage_url: str, service_role_key: str, database_url: str, overrides: Mapping[str, str]
) -> dict[str, str]:
    """Return a whole parameter tree: the defaults, where the project is, and the overrides.

    Names of overrides may be written as Python has them: ``limits__max_deletions_per_run`` is
    ``limits/max-deletions-per-run``.
    """
    return {
        **DEFAULTS,
        "supabase/url": storage_url,
        "supabase/service-role-key": service_role_key,
        "database/url": database_url,
        **{parameter_name(name): value for name, value in overrides.items()},
    }


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
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(directory, ignore_errors=True)
    return STACK_DIRECTORY / f"{purpose}-{os.getpid()}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
