"""Where campaigns take place: the servers of ``local.ground``, and cycles, with no breaker in the way."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from local import ground, project
from local.postgres import Database


@dataclass
class Project(project.Project):
    """A project whose cycles no breaker stops.

    Attributes
    ----------
    user_url
        The database's URL as ``authenticated``, under row-level security.
    """

    user_url: str

    def parameters(self, **overrides: str) -> dict[str, str]:
        """Return the parameters of a deployment for this project."""
        own = {
            "phases/temp-files": "false",
            "limits/max-saved-drop-percent": "100",
            "limits/max-failure-percent": "100",
        }
        return super().parameters(**own | overrides)


class Ground(ground.Ground):
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
