"""Clients of AWS, all made here and in one way, once an execution environment; and what goes wrong with them.

They share one session, because a session reads a megabyte of endpoints before its first client is there. It is
``botocore``'s: ``boto3`` on top would add resources and transfers of files, which take time to import.
"""

from functools import cache
from typing import Any, Final

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage_cleanup.limits import IN_A_CYCLE, Patience

AWS_ERRORS: Final = (BotoCoreError, ClientError)
"""What making or using a client raises: nothing could be asked, or a service refused."""


@cache
def client(service: str, patience: Patience = IN_A_CYCLE) -> Any:
    """Return the client of a service, such as ``ssm``, in the region of the function.

    Raises
    ------
    AWS_ERRORS
        When there is no region.
    """
    config = Config(
        connect_timeout=patience.connect_seconds,
        read_timeout=patience.read_seconds,
        retries={"mode": "standard", "total_max_attempts": patience.attempts},
    )
    return _session().create_client(service, config=config)


def error_code(error: Exception) -> str:
    """Return AWS's code for what went wrong, or the name of the transport's exception."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


@cache
def _session() -> botocore.session.Session:
    return botocore.session.get_session()
