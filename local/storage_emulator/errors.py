"""The error answers of the Storage server."""

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


class PoolExhaustedError(Exception):
    """No connection to the database came free in time."""


def invalid_request(message: str, *, error: str = "Error") -> StorageError:
    """Return the answer to a request that the server can't read."""
    return StorageError(400, error, message, "InvalidRequest")


def unauthorized(message: str) -> StorageError:
    """Return the answer to a key that the server doesn't accept."""
    return StorageError(403, "Unauthorized", message, "AccessDenied")


def invalid_key(name: str) -> StorageError:
    """Return the answer to a name that objects may not have."""
    return StorageError(400, "InvalidKey", f"Invalid key: {name}", "InvalidKey")


def no_such_bucket() -> StorageError:
    """Return the answer to a bucket that is missing, or that the caller may not see."""
    return StorageError(404, "Bucket not found", "Bucket not found", "NoSuchBucket")


def no_such_object() -> StorageError:
    """Return the answer to an object that is missing, or that the caller may not see."""
    return StorageError(404, "not_found", "Object not found", "NoSuchKey")


def duplicate(code: str) -> StorageError:
    """Return the answer to a name that is taken."""
    return StorageError(409, "Duplicate", "The resource already exists", code)


def body_too_large() -> StorageError:
    """Return the answer to more JSON than the server reads."""
    return StorageError(413, "Error", "Request body is too large", "InvalidRequest")


def object_too_large() -> StorageError:
    """Return the answer to an object above its bucket's limit."""
    return StorageError(413, "Payload too large", "The object exceeded the maximum allowed size", "EntityTooLarge")


def internal() -> StorageError:
    """Return the answer to whatever the server has no words for."""
    return StorageError(500, "Internal", "Internal Server Error", "InternalError")


def database_timeout() -> StorageError:
    """Return the answer of a server that waited too long for its database."""
    return StorageError(544, "DatabaseTimeout", "The connection to the database timed out", "DatabaseTimeout")


def too_many_connections() -> StorageError:
    """Return the answer of a server whose database has no slot left."""
    return StorageError(
        429, "too_many_connections", "Too many connections issued to the database", "TooManyConnections"
    )


def read_only() -> StorageError:
    """Return the answer of a server whose database takes no writes."""
    return StorageError(503, "DatabaseReadOnly", "The database is in read-only mode", "DatabaseReadOnly")


def no_related_resource() -> StorageError:
    """Return the answer to a request for something in a bucket that is missing."""
    return StorageError(404, "InvalidRequest", "The related resource does not exist", "InvalidRequest")


def slow_down() -> StorageError:
    """Return the answer of a server whose backend is overloaded."""
    return StorageError(503, "Please reduce your request rate.", "SlowDown", "SlowDown")


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
