"""Clients of AWS, made once an execution environment.

They share one session, because a session reads a megabyte of endpoints before its first client is there. It is
``botocore``'s: ``boto3`` on top would add resources and transfers of files, which take time to import.
"""

from functools import cache
from typing import Any

import botocore.session
from botocore.config import Config

# Short, because the kill switch is read in the middle of a run and has to work within ten seconds.
_CONFIG = Config(connect_timeout=2, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2})


@cache
def client(service: str) -> Any:
    """Return the client of a service, such as ``ssm``, in the region of the function.

    Raises
    ------
    botocore.exceptions.BotoCoreError
        When there is no region.
    """
    return _session().create_client(service, config=_CONFIG)


@cache
def _session() -> botocore.session.Session:
    return botocore.session.get_session()
