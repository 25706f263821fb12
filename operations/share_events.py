"""Puts the samples of ``events/`` beside a stage's functions, so that the console's Test button has them."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from operations.deploy import SAM, stack_of
from operations.region import region

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = {
    "CleanupFunction": (
        *("scheduled", "manual-cleanup", "manual-dry-run", "manual-single-phase"),
        "drain",
    ),
    "ScheduleSyncFunction": ("parameter-change", "stack-change"),
    "HealthFunction": ("health", "report-weekly"),
    "RestoreFunction": ("restore-run",),
}
"""Which function each sample is for, by logical id."""


def commands(stage: str) -> Iterator[list[str]]:
    """Yield the command for each sample; what is there under its name is replaced."""
    for function, names in SAMPLES.items():
        for name in names:
            file = str(ROOT / f"events/{name}.json")
            put = [str(SAM), "remote", "test-event", "put", function, "--stack-name", stack_of(stage)]
            yield [*put, "--name", name, "--file", file, "--force"]


def main() -> int:
    """Put each; stop at the first that can't be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    stage = parser.parse_args().stage
    environment = os.environ | {"AWS_DEFAULT_REGION": region()}
    for command in commands(stage):
        if code := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
