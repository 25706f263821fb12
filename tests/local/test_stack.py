"""The servers of the embedded stack come up, and never stay behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from supabase import ClientOptions, create_client

from local.aws import Aws
from local.postgres import Database, Postgres
from local.process import answers
from local.stack import PARAMETER_PATH, own_directory, running_stack
from storage_cleanup.config.parameters import PARAMETERS
from tests.conftest import Servers

START_AND_WAIT = """
import signal, sys, time
from pathlib import Path
from local.postgres import Postgres
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it
cluster = Postgres(Path(sys.argv[1]))
cluster.start()
print(cluster.port, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory(stack_directory: Path, request: pytest.FixtureRequest) -> Path:
    return stack_directory / "".join(c if c.isalnum() else "-" for c in request.node.name)


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[[], tuple[subprocess.Popen[str], int]]]:
    """Start a cluster from another process, as if somebody ran a command; return the process and the port."""
    started = []

    def run() -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, "-c", START_AND_WAIT, str(directory)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout
        return process, int(process.stdout.readline())

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_its_starter(
    start: Callable[[], tuple[subprocess.Popen[str], int]], how: signal.Signals
) -> None:
    process, port = start()
    assert answers(port)
    process.send_signal(how)
    process.wait()
    wait_until(lambda: not answers(port))


def test_a_stale_cluster_is_replaced(start: Callable[[], tuple[subprocess.Popen[str], int]], directory: Path) -> None:
    process, port = start()
    # The worst case: starter and guardian die together, and the server lives on.
    for guardian in psutil.Process(process.pid).children(recursive=True):
        if guardian.name() == "sh":
            guardian.kill()
    process.kill()
    process.wait()
    assert answers(port)
    with Postgres(directory) as cluster:
        assert not answers(port)
        assert answers(cluster.port)


@pytest.mark.parametrize("version", [16, 18])
def test_versions(directory: Path, version: int) -> None:
    with Postgres(directory, version, settings={"max_connections": "17"}) as cluster:
        cluster.prepare_template()
        cluster.create_database("copy")
        with Database(cluster, "copy").connect() as connection:
            row = connection.execute(
                "select current_setting('server_version_num')::int / 10000, current_setting('max_connections'),"
                " to_regclass('public.render_jobs')::text, to_regclass('storage.objects')::text"
            ).fetchone()
            assert row == (version, "17", "render_jobs", "storage.objects")
    assert not answers(cluster.port)


def test_an_unknown_version_is_refused(directory: Path) -> None:
    with pytest.raises(ValueError, match="14"):
        Postgres(directory, 14)


def test_a_new_database_is_a_copy_of_the_template_and_not_installed_again(postgres: Postgres) -> None:
    """Whatever the installation had made anew would have another number."""
    made = []
    for name in ("one", "another"):
        postgres.create_database(name)
        with Database(postgres, name).connect() as connection:
            made.append(connection.execute("select 'storage_cleanup.run'::regclass::oid").fetchone())
        postgres.drop_database(name)
    assert made[0] == made[1]


def test_stack() -> None:
    with running_stack() as stack:
        stack.put_parameters("storage_cleanup_worker", profile="testing", limits__max_deletions_per_run="7")
        parameters = read_parameters(stack.aws)
        assert parameters.keys() == PARAMETERS.keys()
        assert (parameters["profile"], parameters["limits/max-deletions-per-run"]) == ("testing", "7")
        with psycopg.connect(parameters["database/url"]) as worker:
            assert worker.execute("select storage_cleanup.schema_version()").fetchone() == (1,)
        with stack.database.connect() as connection:
            assert connection.execute("select id, public from storage.buckets order by id").fetchall() == [
                ("images", False),
                ("storage-cleanup", False),
                ("videos", True),
            ]
        assert stack.aws.environment()["AWS_ENDPOINT_URL"] == stack.aws.url
    assert not stack.directory.exists()


def test_aws_holds_rules(aws: Aws) -> None:
    aws.put_rule("cleanup", 60)
    assert aws.rule_expression("cleanup") == "rate(60 minutes)"
    aws.put_rule("cleanup", 1)
    assert aws.rule_expression("cleanup") == "rate(1 minute)"


def test_the_client_library_works(servers: Servers) -> None:
    with httpx.Client() as http:
        client = create_client(servers.storage.url, servers.keys.service_role, ClientOptions(httpx_client=http))
        images = client.storage.from_("images")
        images.upload("a/b c.png", b"bytes", {"content-type": "image/png"})
        assert images.download("a/b c.png") == b"bytes"
        assert images.exists("a/b c.png")
        assert not images.exists("a/none.png")
        assert [entry["name"] for entry in images.list("a")] == ["b c.png"]
        assert str(images.create_signed_url("a/b c.png", 60)["signedURL"]).startswith(servers.storage.url)
        images.move("a/b c.png", "d.png")
        assert [row["name"] for row in images.remove(["d.png", "none.png"])] == ["d.png"]
        client.storage.empty_bucket("images")
        client.storage.delete_bucket("images")
        assert [bucket.id for bucket in client.storage.list_buckets()] == ["storage-cleanup", "videos"]


def test_directories_of_dead_processes_go(stack_directory: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    left_behind = stack_directory.parent / f"stack-{process.pid}"
    left_behind.mkdir()
    assert own_directory("stack").name == f"stack-{os.getpid()}"
    assert not left_behind.exists()


def read_parameters(aws: Aws) -> dict[str, str]:
    pages = aws.ssm.get_paginator("get_parameters_by_path").paginate(
        Path=PARAMETER_PATH, Recursive=True, WithDecryption=True
    )
    return {
        parameter["Name"].removeprefix(f"{PARAMETER_PATH}/"): parameter["Value"]
        for page in pages
        for parameter in page["Parameters"]
    }


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
