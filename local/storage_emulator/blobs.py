"""Bytes on disk."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path


class Blobs:
    """A flat directory with one file a version of an object.

    A version is a UUID that the server makes up, so no object's name, however odd, ever reaches the file system, and
    a new upload never writes over bytes that somebody is reading.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def write(self, version: str, content: bytes) -> None:
        """Store the bytes of a new version."""
        (self.directory / version).write_bytes(content)

    def read(self, version: str) -> bytes | None:
        """Return the bytes of a version, or None if there are none."""
        try:
            return (self.directory / version).read_bytes()
        except FileNotFoundError:
            return None

    def duplicate(self, version: str, new_version: str) -> bool:
        """Give the bytes a second version; tell whether there were any."""
        try:
            os.link(self.directory / version, self.directory / new_version)
        except FileNotFoundError:
            return False
        return True

    def remove(self, versions: Iterable[str]) -> None:
        """Remove the bytes of versions; that some are missing is no error."""
        for version in versions:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{version}")  # noqa: PTH108 - three times as fast, and bulk removal counts
