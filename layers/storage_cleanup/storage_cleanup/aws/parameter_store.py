"""The adapter to AWS Systems Manager Parameter Store; nothing that it reads is ever cached."""

from typing import Any

from storage_cleanup.aws.clients import AWS_ERRORS, error_code
from storage_cleanup.aws.clients import client as make_client
from storage_cleanup.errors import ConfigurationError, ThrottledError

_THROTTLED = dict.fromkeys(("ThrottlingException", "RequestLimitExceeded"), "Parameter Store throttled the request")
_HINTS = {
    **_THROTTLED,
    "AccessDeniedException": "the function's role lacks a permission",
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
        A client of ``ssm``; `storage_cleanup.aws.clients.client` unless given.

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
            self._client = client or make_client("ssm")
        except AWS_ERRORS as error:
            raise _unreadable(self._path, error) from error

    def tree(self) -> dict[str, str]:
        """Return the values of all parameters below the path, decrypted, by their names relative to it.

        Raises
        ------
        ConfigurationError
            When the tree can't be read, or is empty.
        """
        pages = self._client.get_paginator("get_parameters_by_path").paginate(
            Path=self._path, Recursive=True, WithDecryption=True
        )
        try:
            tree = {each["Name"]: each["Value"] for page in pages for each in page.get("Parameters", ())}
        except AWS_ERRORS as error:
            raise _unreadable(self._path, error) from error
        if not tree:
            raise ConfigurationError([f"there are no parameters below {self._path}"])
        return {name.removeprefix(f"{self._path}/"): value for name, value in tree.items()}

    def enabled(self) -> bool:
        """Tell whether the kill switch allows deleting: anything but a clear ``true`` doesn't.

        Raises
        ------
        ConfigurationError
            When Parameter Store can't be asked, which must stop the run as well.
        ThrottledError
            When it takes no more requests just now.
        """
        name = f"{self._path}/enabled"
        try:
            answer = self._client.get_parameter(Name=name, WithDecryption=True)
        except AWS_ERRORS as error:
            if error_code(error) == "ParameterNotFound":
                return False
            raise _unreadable(name, error) from error
        return str(answer.get("Parameter", {}).get("Value")).lower() == "true"


def _unreadable(name: str, error: Exception) -> ConfigurationError:
    code = error_code(error)
    hint = _HINTS.get(code, "it failed")
    return (ThrottledError if code in _THROTTLED else ConfigurationError)(
        [f"{name} can't be read from Parameter Store: {hint} ({error})"]
    )
