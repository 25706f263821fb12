"""Records what a function asks of AWS, and holds it against the policies of its role."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from unittest import mock

from botocore.client import BaseClient

# Used by Lambda and by services on the role's behalf, never by a call of the code.
NOT_CALLED = {
    "WriteLogs": "Lambda writes the log",
    "SendFailures": "Lambda sends to the on-failure destination",
    "Trace": "Lambda's daemon sends the segments",
    "JoinVpc": "Lambda makes the interfaces",
    "MountSharedFiles": "Lambda mounts the EFS",
    "DecryptParameters": "Parameter Store decrypts with the caller's rights",
}


@dataclass(frozen=True)
class Call:
    """One call: an IAM action, and the resources that IAM would ask about."""

    action: str
    resources: tuple[str, ...]


@contextmanager
def recorded_calls(account: str = "123456789012") -> Iterator[list[Call]]:
    """Yield a list that grows with every boto3 call in this process, of whatever session and client."""
    calls: list[Call] = []
    original = BaseClient._make_api_call  # type: ignore[attr-defined]  # every call of every client passes here

    def record(self: Any, operation: str, parameters: Mapping[str, Any]) -> Any:
        calls.append(
            as_call(self.meta.service_model.service_name, operation, parameters, self.meta.region_name, account)
        )
        return original(self, operation, parameters)

    with mock.patch.object(BaseClient, "_make_api_call", record):
        yield calls


def as_call(service: str, operation: str, parameters: Mapping[str, Any], region: str, account: str) -> Call:
    """Return a call as IAM sees it.

    Raises
    ------
    LookupError
        For an operation whose resources aren't known here yet: add it.
    """
    service = {"stepfunctions": "states"}.get(service, service)  # IAM's name of it
    base = f"arn:aws:{service}:{region}:{account}:"
    resources: Mapping[tuple[str, str], Callable[[], list[str]]] = {
        ("ssm", "GetParameter"): lambda: [f"{base}parameter{parameters['Name']}"],
        ("ssm", "GetParameters"): lambda: [f"{base}parameter{name}" for name in parameters["Names"]],
        ("ssm", "PutParameter"): lambda: [f"{base}parameter{parameters['Name']}"],
        ("ssm", "GetParametersByPath"): lambda: [f"{base}parameter{parameters['Path']}"],
        ("events", "DescribeRule"): lambda: [f"{base}rule/{parameters['Name']}"],
        ("events", "PutRule"): lambda: [f"{base}rule/{parameters['Name']}"],
        ("cloudwatch", "GetMetricData"): lambda: ["*"],
        ("s3", "PutObject"): lambda: [f"arn:aws:s3:::{parameters['Bucket']}/{parameters['Key']}"],
        ("sns", "Publish"): lambda: [parameters["TopicArn"]],
        ("states", "ListExecutions"): lambda: [parameters["stateMachineArn"]],
        ("states", "StartExecution"): lambda: [parameters["stateMachineArn"]],
    }
    if (service, operation) not in resources:
        raise LookupError(f"Which resources does {service}:{operation} touch? Teach tests/infrastructure/iam.py.")
    return Call(f"{service}:{operation}", tuple(resources[service, operation]()))


def faults(statements: Iterable[Mapping[str, Any]], calls: Iterable[Call]) -> list[str]:
    """Return every call that no statement allows, and everything allowed that no call needed."""
    statements, calls = list(statements), list(calls)
    pairs = [(call.action, resource) for call in calls for resource in call.resources]
    found = [
        f"{action} on {resource} is called and not allowed"
        for action, resource in dict.fromkeys(pairs)
        if not any(_allows(statement, action, resource) for statement in statements)
    ]
    for statement in statements:
        if statement.get("Sid") in NOT_CALLED:
            continue
        found += [
            f"{statement['Sid']} allows {action}, which is never called"
            for action in as_list(statement["Action"])
            if not any(_matches(action, called) for called, _ in pairs)
        ]
        found += [
            f"{statement['Sid']} allows {pattern}, which is never touched"
            for pattern in as_list(statement["Resource"])
            if not any(_allows({**statement, "Resource": pattern}, *pair) for pair in pairs)
        ]
    return found


def as_list(value: Any) -> list[Any]:
    """Return IAM's lists of one, which may be written without brackets, as lists."""
    return value if isinstance(value, list) else [value]


def _allows(statement: Mapping[str, Any], action: str, resource: str) -> bool:
    return (
        statement["Effect"] == "Allow"
        and any(_matches(pattern, action) for pattern in as_list(statement["Action"]))
        and any(_matches(pattern, resource) for pattern in as_list(statement["Resource"]))
    )


def _matches(pattern: str, value: str) -> bool:
    # IAM's only wildcards are * and ?; brackets are letters.
    return fnmatchcase(value, pattern.replace("[", "[[]"))
