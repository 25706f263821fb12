"""The error answers of the Storage server."""

import functools
from collections.abc import Callable, Mapping

import psycopg
from psycopg import errors as postgres

# Only these pass through as HTTP status; all other errors are a 400 whose body carries the real status.
_PASSED_THROUGH = frozenset({413, 429, 500, 544})


class StorageError(Exception):
    """An error as the server words it.

    Parameters
    ----------
    status
        The real status, which the body carries.
    error, message, code
        The body's other fields.
    """

    def __init__(self, status: int, error: str, message: str, code: str) -> None:
        self.status = status
        self.body = {"statusCode": str(status), "error": error, "message": message, "code": code}
        super().__init__(message)

    @property
    def http_status(self) -> int:
        """The status of the HTTP answer."""
        return self.status if self.status in _PASSED_THROUGH else 400


def invalid_request(message: str, *, error: str = "Error") -> StorageError:
    """Return the answer to a request that the server can't read."""
    return StorageError(400, error, message, "InvalidRequest")


def unauthorized(message: str) -> StorageError:
    """Return the answer to a key that the server doesn't accept."""
    return StorageError(403, "Unauthorized", message, "AccessDenied")


def invalid_key(name: str) -> StorageError:
    """Return the answer to a name that objects may not have."""
    return StorageError(400, "InvalidKey", f"Invalid key: {name}", "InvalidKey")


def duplicate(code: str) -> StorageError:
    """Return the answer to a name that is taken."""
    return StorageError(409, "Duplicate", "The resource already exists", code)


def _worded(status: int, error: str, message: str, code: str) -> Callable[[], StorageError]:
    return functools.partial(StorageError, status, error, message, code)


# Missing, or hidden from the caller.
no_such_bucket = _worded(404, "Bucket not found", "Bucket not found", "NoSuchBucket")
no_such_object = _worded(404, "not_found", "Object not found", "NoSuchKey")
no_related_resource = _worded(404, "InvalidRequest", "The related resource does not exist", "InvalidRequest")
# Not as it should be.
bucket_not_empty = _worded(409, "ResourceNotEmpty", "The bucket you tried to delete is not empty", "ResourceNotEmpty")
body_too_large = _worded(413, "Error", "Request body is too large", "InvalidRequest")
object_too_large = _worded(413, "Payload too large", "The object exceeded the maximum allowed size", "EntityTooLarge")
invalid_signature = _worded(400, "InvalidSignature", "The signature doesn't match the URL", "InvalidSignature")
not_emulated = _worded(501, "NotImplemented", "The emulator lists without folders, by name", "NotImplemented")
# The server's own trouble, with its database or its backend.
internal = _worded(500, "Internal", "Internal Server Error", "InternalError")
database_timeout = _worded(544, "DatabaseTimeout", "The connection to the database timed out", "DatabaseTimeout")
too_many_connections = _worded(
    429, "too_many_connections", "Too many connections issued to the database", "TooManyConnections"
)
read_only = _worded(503, "DatabaseReadOnly", "The database is in read-only mode", "DatabaseReadOnly")
slow_down = _worded(503, "Please reduce your request rate.", "SlowDown", "SlowDown")


def translate(error: psycopg.Error) -> StorageError:
    """Return the server's answer to an error of its database."""
    # Refused before a session exists, when there is no SQLSTATE yet.
    if any(phrase in str(error) for phrase in ("too many clients", "too many connections", "connection slots")):
        return too_many_connections()
    for kind, answer in _DATABASE_ERRORS.items():
        if isinstance(error, kind):
            return answer()
    if error.sqlstate is None and isinstance(error, psycopg.OperationalError):
        return internal()
    # The driver refuses a NUL before the server gets to see it.
    state = error.sqlstate or postgres.CharacterNotInRepertoire.sqlstate
    return StorageError(500, "DatabaseError", f"database error, code: {state}", "DatabaseError")


_DATABASE_ERRORS: Mapping[type[psycopg.Error], Callable[[], StorageError]] = {
    postgres.QueryCanceled: database_timeout,
    postgres.ReadOnlySqlTransaction: read_only,
    postgres.InsufficientPrivilege: lambda: unauthorized("new row violates row-level security policy"),
    postgres.ForeignKeyViolation: no_related_resource,
    postgres.UniqueViolation: lambda: duplicate("ResourceAlreadyExists"),
}
