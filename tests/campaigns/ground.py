"""Where campaigns take place: the servers and cycles of ``local.ground``, with no breaker in the way."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import local.ground
from local.postgres import Database


@dataclass(frozen=True)
class Project(local.ground.Project):
    """A project whose cycles no breaker stops.

    Attributes
    ----------
    user_url
        The database's URL as ``authenticated``, under row-level security.
    """

    user_url: str

    def parameters(self, **overrides: str) -> dict[str, str]:
        """Return the parameters of a deployment for this project."""
        breakers = {"limits/max-saved-drop-percent": "100", "limits/max-failure-percent": "100"}
        return super().parameters(**breakers, **overrides)


class Ground(local.ground.Ground):
    """Running servers, on which projects come and go."""

    def project(self, database: Database) -> Project:
        """Describe the project of a database."""
        return Project(self.storage.url, self.keys.service_role, database.url(), database.url("authenticated"))


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of what cycles log."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)
