"""One event through the real handler.

Without further variables it runs on a new embedded stack, on which the sample application has been at work. With
SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY and DATABASE_URL it runs on that Supabase project; nothing is installed there:
run database/install.sql first. Parameter Store and EventBridge are played on this machine either way.

Parameters have their defaults. Each can be set by a variable: STORAGE_CLEANUP_ and its name in capitals, with __ for
a slash and _ for a hyphen, such as

    STORAGE_CLEANUP_PROFILE=testing
    STORAGE_CLEANUP_BUCKETS=renders,clips
    STORAGE_CLEANUP_LIMITS__MAX_DELETIONS_PER_RUN=100

One that is set but empty, or that names no parameter, is an error. temp/directories is a new and empty directory
unless set.

The log goes to standard error, the answer to standard output. The exit code is 1 when the handler raised or the run
failed, and 2 when there was nothing to invoke it with.
"""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from local.aws import Aws
from local.clock import PRODUCTION, Clock
from local.functions import Functions, function_for
from local.project import parameter_name, project_in
from local.scenario import embedded
from local.stack import PARAMETER_PATH, workspace
from storage_cleanup.config.parameters import PARAMETERS, SECRETS
from storage_cleanup.errors import StorageCleanupError

PREFIX = "STORAGE_CLEANUP_"
"""What the variables that set parameters begin with."""


class UsageError(Exception):
    """There is nothing to invoke, or nothing to invoke it on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Invoke the function that the event is for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m local.invoke", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("event", type=Path, help="a JSON file, such as events/manual-dry-run.json")
    path = parser.parse_args(arguments).event
    try:
        event, parameters = _read(path), parameters_in(os.environ)
        with _stack(os.environ, parameters) as (aws, functions):
            Clock(aws, functions).deploy(PRODUCTION)
            return _invoke(functions, event)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2


def parameters_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that variables set, by their names as ``Project.parameters`` takes them.

    Raises
    ------
    UsageError
        A variable is empty, or names no parameter: whoever set it meant something, and nobody knows what.
    """
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
    names = {name: name.removeprefix(PREFIX).lower() for name in given}
    faults = [f"{name} is set, but empty: give it a value, or unset it" for name in given if not given[name].strip()]
    faults += [
        f"{name} names no parameter; each is {PREFIX} and its name in capitals, __ for a slash, _ for a hyphen"
        for name in given
        if parameter_name(names[name]) not in PARAMETERS
    ]
    if faults:
        raise UsageError("; ".join(faults))
    return {names[name]: value for name, value in given.items()}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read as an event: {error}") from error


@contextmanager
def _stack(environment: Mapping[str, str], parameters: Mapping[str, str]) -> Iterator[tuple[Aws, Functions]]:
    """Yield AWS and the functions, for the project that the variables name or an embedded one."""
    try:
        project = project_in(environment)
    except ValueError as error:
        raise UsageError(error) from error
    if not project:
        print("Starting the embedded stack; people render and save ...", file=sys.stderr)
        with embedded(**parameters) as scene:
            yield scene.stack.aws, scene.functions(sys.stderr)
        return
    with workspace("invoke") as directory, Aws(directory) as aws:
        temp = directory / "temp"
        temp.mkdir()
        own = project.parameters(**{"temp__directories": str(temp), **parameters})
        aws.put_parameters(PARAMETER_PATH, own, SECRETS)
        yield aws, Functions(aws, sys.stderr)


def _invoke(functions: Functions, event: Any) -> int:
    try:
        answer = functions.invoke(function_for(event), event)
    except Exception as error:  # noqa: BLE001 - Lambda, too, answers whatever a handler raises
        if not isinstance(error, StorageCleanupError):
            traceback.print_exc()
        print(json.dumps({"errorType": type(error).__name__, "errorMessage": str(error)}, indent=2))
        return 1
    print(json.dumps(answer, indent=2))
    return 1 if answer.get("status") == "failed" else 0


if __name__ == "__main__":
    sys.exit(main())
