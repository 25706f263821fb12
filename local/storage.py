"""Storage on this machine: the emulator in a process of its own."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from local.keys import JWT_SECRET
from local.process import Server


class StorageServer(Server):
    """A running emulator, steered over HTTP.

    Parameters
    ----------
    directory
        Where it keeps its log and, unless ``use`` says otherwise, its bytes.
    """

    def __init__(self, directory: Path) -> None:
        self._bytes = directory / "bytes"
        super().__init__(
            [sys.executable, "-m", "local.storage_emulator"],
            log=directory / "storage.log",
            environment={"STORAGE_JWT_SECRET": JWT_SECRET},
        )
        self._control = httpx.Client(base_url=f"{self.url}/_control", timeout=10)

    def stop(self) -> None:
        """End the server. Stopping twice is fine."""
        self._control.close()
        super().stop()

    def use(
        self,
        database_url: str,
        directory: Path | None = None,
        *,
        pool_size: int = 20,
        statement_timeout_ms: int = 30_000,
    ) -> None:
        """Serve a database, as ``supabase_storage_admin``, from now on, with all counters at zero and no faults."""
        target = {"database_url": database_url, "directory": str(directory or self._bytes)}
        self._steer("PUT", "/target", {**target, "pool_size": pool_size, "statement_timeout_ms": statement_timeout_ms})

    def release(self) -> None:
        """Let go of the database, so that it can be dropped at once."""
        self._steer("DELETE", "/target")

    def inject(self, probabilities: Mapping[str, float] | None = None, **settings: Any) -> None:
        """Inject faults from now on; ``local.storage_emulator.faults.Faults`` lists the settings."""
        self._steer("PUT", "/faults", {"probabilities": dict(probabilities or {}), **settings})

    def heal(self) -> None:
        """Inject no faults any more."""
        self._steer("DELETE", "/faults")

    def stats(self) -> dict[str, Any]:
        """Return the counters that ``local.storage_emulator.stats.Stats.as_dict`` lists."""
        return self._steer("GET", "/stats")

    def reset_stats(self) -> None:
        """Set all counters to zero."""
        self._steer("DELETE", "/stats")

    def _steer(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        answer = self._control.request(method, path, json=body)
        answer.raise_for_status()
        result: dict[str, Any] = answer.json()
        return result
