"""The adapter to AWS Systems Manager Parameter Store; nothing that it reads is ever cached."""

from typing import Any

from aws_lambda_powertools.utilities.parameters import SSMProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from storage_cleanup.errors import ConfigurationError

_HINTS = {
    "AccessDeniedException": "the function's role lacks a permission",
    "ThrottlingException": "Parameter Store throttled the request",
    "RequestLimitExceeded": "Parameter Store throttled the request",
    "InvalidKeyId": "the key of a SecureString can't be used",
    "EndpointConnectionError": "Parameter Store can't be reached",
    "ConnectTimeoutError": "Parameter Store can't be reached",
    "ReadTimeoutError": "Parameter Store didn't answer in time",
    "NoCredentialsError": "there are no AWS credentials",
}


class ParameterStore:
    """The parameters under one path.

    Parameters
    ----------
    path
        Such as ``/storage-cleanup/production``; a slash at its end makes no difference.
    client
        A boto3 client for ``ssm``; one with short timeouts is made unless given.

    Raises
    ------
    ConfigurationError
        When the path isn't absolute or names the whole store, or no client can be made.
    """

    def __init__(self, path: str, client: Any | None = None) -> None:
        self._path = path.rstrip("/")
        if not self._path.startswith("/"):
            raise ConfigurationError([f"the path {path!r} isn't one; it accepts /storage-cleanup/<stage>"])
        try:
            # Short, because the kill switch is read in the middle of a run and has to work within ten seconds.
            config = Config(connect_timeout=2, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2})
            self._provider = SSMProvider(boto3_client=client, boto_config=config)
        except BotoCoreError as error:
            raise self._unreadable(self._path, error) from error

    def tree(self) -> dict[str, str]:
        """Return the values of all parameters below the path, decrypted, by their names relative to it.

        Raises
        ------
        ConfigurationError
            When the tree can't be read, or is empty.
        """
        try:
            tree = self._provider.get_multiple(self._path, max_age=0, force_fetch=True, recursive=True, decrypt=True)
        except GetParameterError as error:
            raise self._unreadable(self._path, error) from error
        if not tree:
            raise ConfigurationError([f"there are no parameters below {self._path}"])
        return {name: str(value) for name, value in tree.items()}

    def enabled(self) -> bool:
        """Tell whether the kill switch allows deleting: anything but a clear ``true`` doesn't.

        Raises
        ------
        ConfigurationError
            When Parameter Store can't be asked, which must stop the run as well.
        """
        name = f"{self._path}/enabled"
        try:
            value = self._provider.get(name, max_age=0, force_fetch=True, decrypt=True)
        except GetParameterError as error:
            if _code(error) == "ParameterNotFound":
                return False
            raise self._unreadable(name, error) from error
        return isinstance(value, str) and value.lower() == "true"

    @staticmethod
    def _unreadable(name: str, error: Exception) -> ConfigurationError:
        hint = _HINTS.get(_code(error), "it failed")
        return ConfigurationError([f"{name} can't be read from Parameter Store: {hint} ({error})"])


def _code(error: Exception) -> str:
    """Return AWS's code, or the name of the transport's exception; Powertools keeps both only as the context."""
    cause = error.__context__ if isinstance(error, GetParameterError) else error
    if isinstance(cause, ClientError):
        return str(cause.response.get("Error", {}).get("Code", ""))
    return type(cause).__name__
