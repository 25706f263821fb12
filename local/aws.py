"""AWS on this machine: moto's server."""

import functools
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx

from local.process import Server

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_ssm import SSMClient

REGION = "eu-central-1"

_CREDENTIAL = "embedded"


class Aws(Server):
    """A running server that plays AWS, and helpers to fill it.

    Parameters
    ----------
    directory
        Where it keeps its log.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p"], log=directory / "aws.log")
        # Credentials that are good here only, so that no mistake can reach a real account.
        self._session = boto3.Session(
            aws_access_key_id=_CREDENTIAL, aws_secret_access_key=_CREDENTIAL, region_name=REGION
        )

    def stop(self) -> None:
        """End the server. Stopping twice is fine."""
        for name in ("ssm", "events"):
            if client := self.__dict__.pop(name, None):
                client.close()
        super().stop()

    def reset(self) -> None:
        """Forget everything that was put in."""
        httpx.post(f"{self.url}/moto-api/reset", timeout=10).raise_for_status()

    def environment(self) -> dict[str, str]:
        """Return the variables with which any AWS SDK talks to this server, and to no other."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": _CREDENTIAL,
            "AWS_SECRET_ACCESS_KEY": _CREDENTIAL,
            "AWS_SESSION_TOKEN": _CREDENTIAL,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            # Somebody's own profile must not get in between.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @functools.cached_property
    def ssm(self) -> "SSMClient":
        """A client of Parameter Store."""
        return self._session.client("ssm", endpoint_url=self.url)

    @functools.cached_property
    def events(self) -> "EventBridgeClient":
        """A client of EventBridge."""
        return self._session.client("events", endpoint_url=self.url)

    def put_parameters(self, path: str, values: Mapping[str, str], secure: Collection[str] = ()) -> None:
        """Write parameters below a path, over what is there; those named in ``secure`` as SecureString."""
        for name, value in values.items():
            self.ssm.put_parameter(
                Name=f"{path.rstrip('/')}/{name}",
                Value=value,
                Type="SecureString" if name in secure else "String",
                Overwrite=True,
            )

    def put_rule(self, name: str, minutes: int) -> None:
        """Create a rule that fires every so many minutes, or change its interval."""
        self.events.put_rule(
            Name=name, ScheduleExpression=f"rate({minutes} minute{'' if minutes == 1 else 's'})", State="ENABLED"
        )

    def rule_expression(self, name: str) -> str:
        """Return a rule's schedule."""
        return self.events.describe_rule(Name=name)["ScheduleExpression"]
