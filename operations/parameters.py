"""Creates the parameters of a stage that are missing, and lists those that differ from their defaults.

The function schedule_sync does the same after each deploy. Nothing is overwritten or deleted, and no secret is shown.
"""

import argparse
from datetime import UTC, datetime

import boto3

from operations.region import region
from storage_cleanup.config.parameters import DEFAULTS
from storage_cleanup.scheduling.setup import create_missing, differences, read_values


def report(client: object, stage: str) -> list[str]:
    """Create what is missing; return a line for each parameter that was created or differs from its default."""
    path = f"/storage-cleanup/{stage}"
    created = create_missing(client, path, datetime.now(UTC))
    changed = differences(read_values(client, path, DEFAULTS))
    return [
        *(f"created {path}/{name}" for name in created),
        *(f"{path}/{name} is {value} (default {DEFAULTS[name]})" for name, value in changed.items()),
    ]


def main() -> None:
    """Read the stage from the command line, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", help="such as testing or production")
    stage = parser.parse_args().stage
    print("\n".join(report(boto3.client("ssm", region_name=region()), stage)) or "Every parameter has its default.")


if __name__ == "__main__":
    main()
