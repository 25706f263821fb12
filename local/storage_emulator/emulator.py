"""The state of a Storage server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from local.storage_emulator import errors
from local.storage_emulator.auth import Caller
from local.storage_emulator.blobs import Blobs
from local.storage_emulator.faults import Faults
from local.storage_emulator.pool import Cursor, Pool, PoolExhaustedError
from local.storage_emulator.stats import Stats


class Emulator:
    """A Storage server's database and bytes, which tests may exchange, its secret, its faults and its counters."""

    def __init__(self, jwt_secret: str) -> None:
        self.jwt_secret = jwt_secret
        self.stats = Stats()
        self.faults = Faults(self.stats)
        self._pool: Pool | None = None
        self._blobs: Blobs | None = None

    def use(self, database_url: str, directory: str, *, pool_size: int, statement_timeout_ms: int) -> None:
        """Work on a database and a directory from now on, with all counters at zero and no faults."""
        self.release()
        self._pool = Pool(database_url, size=pool_size, statement_timeout_ms=statement_timeout_ms)
        self._blobs = Blobs(Path(directory))
        self.faults.configure()
        self.stats.reset()

    def release(self) -> None:
        """Let go of the database, so that it can be dropped."""
        if self._pool:
            self._pool.close()
        self._pool = None

    @property
    def blobs(self) -> Blobs:
        """The bytes."""
        if self._blobs is None:
            raise errors.internal()
        return self._blobs

    @contextmanager
    def transaction(self, caller: Caller) -> Iterator[Cursor]:
        """Run a transaction as the caller; an error of the database becomes the server's answer to it."""
        if self._pool is None:
            raise errors.internal()
        try:
            with self._pool.transaction(caller) as cursor:
                yield cursor
        except PoolExhaustedError:
            raise errors.database_timeout() from None
        except psycopg.Error as error:
            raise errors.translate(error) from error
