"""Every check, in the order in which a reader wants them: finds the values that `storage_cleanup.health.checks` judges.

One question that fails leaves its checks unanswered, and no others.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from storage_cleanup.aws.clients import AWS_ERRORS, error_code
from storage_cleanup.config.parameters import phase_parameter
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import ConfigurationError, StorageCleanupError
from storage_cleanup.health import checks
from storage_cleanup.health.checks import Check, Status
from storage_cleanup.model.origin import own_origins
from storage_cleanup.model.vocabulary import Phase
from storage_cleanup.postgres.observer import Finding, LastCycle, Observer, Orders
from storage_cleanup.scheduling.rate import Interval

_Question = tuple[tuple[str, ...], Callable[[], Iterator[Check]]]


@dataclass(frozen=True)
class HealthAnswer:
    """What was found.

    Attributes
    ----------
    figures
        What alarms count, by the name of the metric.
    """

    checks: list[Check]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def status(self) -> Status:
        """The most urgent status of all checks."""
        return checks.overall(self.checks)

    def count(self, status: Status) -> int:
        """Return how many checks have that status."""
        return sum(check.status is status for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON-ready values."""
        return {
            "status": self.status.value,
            "critical": self.count(Status.CRITICAL),
            "warnings": self.count(Status.WARNING),
            "checks": {check.name: _without_name(check) for check in self.checks},
        }


def refused(error: ConfigurationError) -> HealthAnswer:
    """Return the answer when the parameters can't be read: nothing else can be asked then."""
    return HealthAnswer([checks.judge_parameters(error.faults)])


def examine(settings: Settings, observer: Observer, *, events: Any, rule_name: str) -> HealthAnswer:
    """Ask everything.

    Parameters
    ----------
    events
        A client of ``events``.
    rule_name
        The rule that starts cycles.
    """
    examination = _Examination(settings, observer)
    found = [
        checks.judge_parameters(()),
        checks.judge_switches(switched_off(settings)),
        _schedule(settings, events, rule_name),
        *examination.database(),
    ]
    return HealthAnswer(found, examination.figures)


def switched_off(settings: Settings) -> list[str]:
    """Return the parameters that keep cycles from their whole work, each with its value."""
    off = [] if settings.enabled else ["enabled is false"]
    if settings.dry_run:
        off.append("dry-run is true")
    return off + [f"{phase_parameter(phase)} is false" for phase in Phase if phase not in settings.phases]


def differences(settings: Settings, orders: Orders | None) -> list[str]:
    """Return how what the last scheduled cycle was told differs from the parameters of now."""
    if orders is None:
        return []
    now = {
        "max_age_minutes": settings.active.max_age_minutes,
        "origin": settings.supabase_url,
        "buckets": sorted(settings.buckets),
    }
    then = {**orders.options, **orders.scope}
    return [f"{name} was {then.get(name)}, now {value}" for name, value in now.items() if then.get(name) != value]


@dataclass
class _Examination:
    settings: Settings
    observer: Observer
    figures: dict[str, float] = field(default_factory=dict)

    def database(self) -> Iterator[Check]:
        """Yield the checks that the database answers, or one that says why it doesn't."""
        try:
            self.observer.assert_schema()
        except StorageCleanupError as error:
            sentence = f"The database can't be asked, so cycles don't work either: {error}."
            yield Check("database", None, None, Status.CRITICAL, sentence)
            return
        yield checks.told("database", True, "The database answers, and has this release's schema.")
        for names, ask in self._questions():
            try:
                yield from ask()
            except StorageCleanupError as error:
                yield from (checks.unanswered(name, str(error)) for name in names)

    def _questions(self) -> list[_Question]:
        """Return the names of checks with the question that answers them; the longest question comes last."""
        return [
            (("last_cycle", "last_run", "failed_cycles", "breaker"), self._last_cycle),
            (("success_rate", "cycles_by_day"), self._cycles),
            (("cycle_seconds", "query_seconds"), self._durations),
            (("guard",), self._guard),
            (("triggers",), self._triggers),
            (("indexes",), self._indexes),
            (("foreign_keys",), self._foreign_keys),
            (("privileges",), self._privileges),
            (("locks",), self._locks),
            (("stuck_claims",), self._stuck),
            (("stored_bytes", "stored_by_bucket", "usage_history"), self._stored),
            (("saved_assets",), self._saved_assets),
            (("completed_jobs",), self._completed),
            (("assets_by_day",), self._assets),
            (("orphan_bytes",), self._orphan_bytes),
            (("orphans_left", "orphans_by_day"), self._orphans),
            (
                ("saved_job_missing", "saved_file_missing", "row_without_file", "object_unknown", "url_not_understood"),
                self._integrity,
            ),
        ]

    @property
    def _grace(self) -> timedelta:
        """The time within which a cycle must have come by."""
        return timedelta(minutes=self.settings.active.interval_minutes)

    @property
    def _max_age(self) -> timedelta:
        return timedelta(minutes=self.settings.active.max_age_minutes)

    def _last_cycle(self) -> Iterator[Check]:
        last, failed = self.observer.last_cycle(), self.observer.failed_cycles()
        minutes = last.minutes if last else None
        interval = self.settings.active.interval_minutes
        yield checks.judge_last_cycle(minutes, interval, enabled=self.settings.enabled)
        yield checks.judge_last_run(differences(self.settings, self.observer.last_scheduled()))
        yield checks.judge_failed_cycles(failed, last.message if last else None)
        yield checks.judge_breaker(_breaker_message(last))

    def _cycles(self) -> Iterator[Check]:
        days = self.observer.cycles_by_day()
        failed = sum(day.failed for day in days)
        yield checks.judge_success_rate(sum(day.succeeded + day.partial for day in days) + failed, failed)
        value = {
            day.day.isoformat(): {"succeeded": day.succeeded, "partial": day.partial, "failed": day.failed}
            for day in days
        }
        yield checks.told("cycles_by_day", value, "Cycles of the last seven days (UTC), by how they ended.")

    def _durations(self) -> Iterator[Check]:
        slowest = self.observer.slowest()
        yield checks.judge_cycle_seconds(slowest.cycle)
        yield checks.judge_query_seconds(slowest.query)

    def _guard(self) -> Iterator[Check]:
        yield checks.judge_guard(self.observer.distrust())

    def _triggers(self) -> Iterator[Check]:
        yield checks.judge_triggers(self.observer.triggers_off())

    def _indexes(self) -> Iterator[Check]:
        indexes = self.observer.indexes()
        scans = {index.name: index.used for index in indexes}
        yield checks.judge_indexes(scans, [index.name for index in indexes if not index.is_valid])

    def _foreign_keys(self) -> Iterator[Check]:
        yield checks.judge_foreign_keys(self.observer.foreign_keys_without_index())

    def _privileges(self) -> Iterator[Check]:
        role = self.observer.role()
        yield checks.judge_privileges(role.name, role.missing, role.excessive)

    def _locks(self) -> Iterator[Check]:
        locks = self.observer.locks()
        yield checks.judge_locks(locks.waiting, locks.long_running)

    def _stuck(self) -> Iterator[Check]:
        yield checks.judge_stuck_claims(self.observer.stuck())

    def _stored(self) -> Iterator[Check]:
        stored, before = self.observer.stored(self.settings.buckets), self.observer.usage_before(self.settings.buckets)
        total = sum(bucket.bytes for bucket in stored)
        growth = checks.growth_percent(total, before.bytes, before.hours)
        self.figures["StoredBytes"] = total
        if growth is not None:
            self.figures["StoredBytesGrowthPercent"] = growth
        yield checks.judge_stored_bytes(total, before.bytes, before.hours)
        value = {bucket.bucket_id: {"objects": bucket.objects, "bytes": bucket.bytes} for bucket in stored}
        yield checks.told("stored_by_bucket", value, "What lies in the listed buckets now.")
        yield checks.judge_usage_history(before.newest_hours)

    def _saved_assets(self) -> Iterator[Check]:
        saved, before = self.observer.saved_count(), self.observer.last_saved_count()
        yield checks.judge_saved_assets(saved, before, self.settings.max_saved_drop_percent)

    def _completed(self) -> Iterator[Check]:
        completed = self.observer.completed()
        value = {"saved": completed.saved, "not_saved": completed.not_saved}
        yield checks.told("completed_jobs", value, "Completed jobs of the last 24 hours that still have a row.")

    def _assets(self) -> Iterator[Check]:
        value: dict[str, dict[str, Any]] = {}
        for row in self.observer.assets():
            value.setdefault(row.day.isoformat(), {})[row.asset_type] = {"assets": row.assets, "bytes": row.bytes}
        yield checks.told("assets_by_day", value, "Assets of the last seven days (UTC), by type.")

    def _orphan_bytes(self) -> Iterator[Check]:
        found = self.observer.orphan_bytes()
        value = {"this_month": found.this_month, "last_month": found.last_month}
        yield checks.told("orphan_bytes", value, "Bytes of the orphans that cycles took this month and last (UTC).")

    def _orphans(self) -> Iterator[Check]:
        days = self.observer.orphans(self._max_age, self._grace)
        left = sum(day.orphans for day in days)
        self.figures["OrphansLeft"] = left
        yield checks.judge_orphans_left(left)
        value = {day.day.isoformat() if day.day else "unknown": day.orphans for day in days[-7:]}
        yield checks.told(
            "orphans_by_day", value, "Orphans left, by the day (UTC) of their render; seven days at most."
        )

    def _integrity(self) -> Iterator[Check]:
        found = self.observer.integrity(_origins(self.settings), self.settings.buckets, self._max_age, self._grace)
        jobs, files = found.get("saved_job_missing", Finding()), found.get("saved_file_missing", Finding())
        self.figures["SavedAssetsMissing"] = jobs.found + files.found
        yield checks.judge_saved_jobs(jobs)
        yield checks.judge_saved_files(files)
        yield checks.judge_rows_without_file(found.get("row_without_file", Finding()))
        yield checks.judge_unknown_objects(found.get("object_unknown", Finding()))
        odd, elsewhere = found.get("url_not_understood", Finding()), found.get("url_in_other_bucket", Finding())
        yield checks.judge_urls(odd, elsewhere)


def _schedule(settings: Settings, events: Any, rule_name: str) -> Check:
    expected = Interval(settings.active.interval_minutes)
    try:
        rule: Mapping[str, Any] = events.describe_rule(Name=rule_name)
    except AWS_ERRORS as error:
        if error_code(error) == "ResourceNotFoundException":
            return checks.judge_schedule(None, None, expected.expression, agrees=False)
        return checks.unanswered("schedule", f"the rule {rule_name} can't be read ({error})")
    expression = rule.get("ScheduleExpression", "")
    return checks.judge_schedule(
        expression, rule.get("State"), expected.expression, agrees=_interval(expression) == expected
    )


def _interval(expression: str) -> Interval | None:
    try:
        return Interval.from_expression(expression)
    except ValueError:
        return None


def _breaker_message(last: LastCycle | None) -> str | None:
    return (last.message or "it gave no reason") if last and last.breaker_open else None


def _origins(settings: Settings) -> Collection[str]:
    """Return the beginnings that an absolute URL of this project may have, in lower case."""
    own = own_origins(settings.supabase_url)
    return [*own, *(each.partition(":")[2] for each in own)]


def _without_name(check: Check) -> dict[str, Any]:
    answer = check.as_dict()
    del answer["name"]
    return answer
