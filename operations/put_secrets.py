"""Puts what a template can't hold into Parameter Store: the project's URL, the service key and the database's URL.

Asks without echo; nothing shows on the screen, in the shell's history or in the list of processes.
"""

import argparse
import getpass
from collections.abc import Callable
from typing import Any

import boto3

from operations.region import region
from storage_cleanup.config.parameters import PARAMETERS


def put_secrets(client: Any, stage: str, key: str | None, ask: Callable[[str], str]) -> list[str]:
    """Ask for each value and put it; an empty answer keeps what is there. Returns the names that were put."""
    put = []
    for parameter in PARAMETERS.values():
        if parameter.default is not None:
            continue
        value = ask(f"{parameter.name} ({parameter.accepts}): ").strip()
        if not value:
            continue
        path = f"/storage-cleanup/{stage}/{parameter.name}"
        kind = "SecureString" if parameter.secret else "String"
        options = {"KeyId": key} if key and parameter.secret else {}
        client.put_parameter(Name=path, Value=value, Type=kind, Overwrite=True, **options)
        put.append(path)
    return put


def main() -> None:
    """Read the stage from the command line and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", help="such as testing or production")
    parser.add_argument("--key", help="customer managed KMS key, the same as the stack's SecretsKeyArn")
    arguments = parser.parse_args()
    client = boto3.client("ssm", region_name=region())
    print("An empty answer keeps the value that is there.")
    for path in put_secrets(client, arguments.stage, arguments.key, getpass.getpass):
        print(f"put {path}")


if __name__ == "__main__":
    main()
