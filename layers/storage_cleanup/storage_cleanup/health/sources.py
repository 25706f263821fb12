"""What checks look at: the parameters, the rule, the cycles' figures, Storage and the database."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar

from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import StorageCleanupError
from storage_cleanup.model.origin import own_origins
from storage_cleanup.postgres.observer import Finding, Observer, OrphansOfDay, Stored, UsageBefore

_Answer = TypeVar("_Answer")
_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True)
class Rule:
    """The rule that starts cycles, as EventBridge has it."""

    expression: str
    state: str | None


@dataclass(frozen=True)
class Sources:
    """What checks look at.

    Parameters
    ----------
    rule
        Reads the rule that starts cycles; None where there is none.
    failures
        Reads how many cycles failed in each minute of seven days, as CloudWatch has counted them; a cycle that can't
        reach the database is counted nowhere else.
    buckets
        Asks Storage for its buckets, and when they were made.
    """

    settings: Settings
    observer: Observer
    rule: Callable[[], Rule | None]
    failures: Callable[[], Mapping[datetime, float]]
    buckets: Callable[[], Mapping[str, datetime]]
    _answers: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    def ask(
        self,
        question: Callable[Concatenate[Observer, _Arguments], _Answer],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Answer:
        """Put a question to the database, once: all checks that have it get the same answer, or the same error."""
        return self._once(question, lambda: question(self.observer, *arguments, **named))

    def failures_since(self, when: datetime | None) -> int:
        """Return how many cycles CloudWatch has counted as failed since then; None: in seven days."""
        minutes = self._once(self.failures, self.failures)
        return int(sum(count for minute, count in minutes.items() if when is None or minute > when))

    def unrecorded_failures(self) -> int:
        """Return how many cycles of seven days failed without a trace in the database."""
        return max(0, self.failures_since(None) - self.ask(Observer.failures_reported))

    def _once(self, question: Callable[..., Any], look: Callable[[], _Answer]) -> _Answer:
        if question not in self._answers:
            try:
                self._answers[question] = look()
            except StorageCleanupError as error:
                self._answers[question] = error
        answer: _Answer | StorageCleanupError = self._answers[question]
        if isinstance(answer, StorageCleanupError):
            raise answer
        return answer

    def stored(self) -> list[Stored]:
        """Return what lies in the listed buckets now."""
        return self.ask(Observer.stored, self.settings.buckets)

    def usage_before(self) -> UsageBefore:
        """Return what lay in the listed buckets about a day ago."""
        return self.ask(Observer.usage_before, self.settings.buckets)

    def orphans(self) -> list[OrphansOfDay]:
        """Return the orphans that cycles should have taken by now."""
        unsaved_grace = timedelta(minutes=self.settings.active.unsaved_grace_minutes)
        return self.ask(Observer.orphans, self._max_age, self._grace, unsaved_grace)

    def integrity(self, name: str) -> Finding:
        """Return one of the findings of comparing assets, jobs and objects; an empty one where there is nothing."""
        origins, buckets = _origins(self.settings), self.settings.buckets
        return self.ask(Observer.integrity, origins, buckets, self._max_age, self._grace).get(name, Finding())

    @property
    def _grace(self) -> timedelta:
        """The time within which a cycle must have come by."""
        return timedelta(minutes=self.settings.active.interval_minutes)

    @property
    def _max_age(self) -> timedelta:
        return timedelta(minutes=self.settings.active.max_age_minutes)


def _origins(settings: Settings) -> Collection[str]:
    """Return the beginnings that an absolute URL of this project may have, in lower case."""
    own = own_origins(settings.supabase_url)
    return [*own, *(each.partition(":")[2] for each in own)]
