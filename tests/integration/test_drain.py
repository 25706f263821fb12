"""A drain's workers as processes of their own, on one database and one Storage server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from local.application import Application
from local.stack import PARAMETER_PATH
from storage_cleanup.scheduling.drain import deal
from tests.conftest import Servers
from tests.integration.conftest import Configure

ROOT = Path(__file__).resolve().parents[2]

# What a worker of functions/backlog_drain.asl.json does.
WORKER = """
import json, sys
from local.functions import Context, load_function
cycles, most = map(int, sys.argv[1:])
app = load_function("cleanup")
event = {"action": "cleanup", "phases": ["storage_files", "render_jobs"], "max_deletions": most}
total = 0
for _ in range(cycles):
    answer = app.lambda_handler(event, Context())
    if answer["status"] in ("failed", "skipped"):
        break
    done = [answer["phases"][phase]["deleted"] for phase in ("storage_files", "render_jobs")]
    total += done[0]
    if answer["remaining"] == 0 or not any(done):
        break
print(json.dumps({"total": total, "status": answer["status"]}))
"""
Drain = Callable[[int, int, int], list[dict[str, Any]]]


@pytest.fixture
def drain(servers: Servers, configure: Configure) -> Drain:
    """Run so many workers at once with shares of a budget; return what each did."""
    configure()
    path = f"{ROOT}:{ROOT / 'layers/storage_cleanup'}"
    environment = {**os.environ, **servers.aws.environment(), "PARAMETER_PATH": PARAMETER_PATH, "PYTHONPATH": path}

    def run(budget: int, workers: int, most_a_cycle: int) -> list[dict[str, Any]]:
        shares = deal(budget, workers, most_a_cycle)
        command = [sys.executable, "-c", WORKER, str(shares.cycles), str(shares.max_deletions)]
        processes = [
            subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            for _ in range(shares.workers)
        ]
        return [json.loads(process.communicate(timeout=60)[0].splitlines()[-1]) for process in processes]

    return run


def test_workers_remove_each_file_once_and_leave_what_is_saved(
    application: Application, servers: Servers, drain: Drain
) -> None:
    saved = application.render_many(100)
    application.save_many(saved)
    application.render_many(3000)
    done = drain(1_000_000, 3, 400)
    assert sum(worker["total"] for worker in done) == 3000
    assert all(worker["total"] > 0 for worker in done)
    assert application.jobs() == {render.job_id for render in saved}
    assert len(application.files()) == 100
    assert set(servers.storage.stats()["removals"].values()) == {1}


@pytest.mark.usefixtures("earlier_run")
def test_workers_together_keep_to_the_budget(application: Application, drain: Drain) -> None:
    application.render_many(1000)
    done = drain(600, 3, 100)
    assert sum(worker["total"] for worker in done) == 600
    assert len(application.files()) == len(application.jobs()) == 400


def test_workers_do_nothing_while_the_switch_is_off(application: Application, servers: Servers, drain: Drain) -> None:
    application.render_many(50)
    servers.aws.put_parameters(PARAMETER_PATH, {"enabled": "false"})
    assert drain(1000, 3, 100) == [{"total": 0, "status": "skipped"}] * 3
    assert len(application.files()) == 50
