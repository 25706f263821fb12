"""What each check has found: values, which the table of checks holds against their thresholds."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from storage_cleanup.cleanup.preflight import assert_key_sees, assert_same_project
from storage_cleanup.config.parameters import phase_parameter
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import ScheduleError, StorageCleanupError, UnsafeError
from storage_cleanup.health.model import Found, Limit, Status
from storage_cleanup.health.sources import Sources
from storage_cleanup.model.vocabulary import Phase
from storage_cleanup.postgres.adapter import Bucket
from storage_cleanup.postgres.observer import Finding, Observer, Orders
from storage_cleanup.scheduling.rate import Interval

_OVERDUE_INTERVALS, _OVERDUE_MINUTES = 1.25, 2
_MOST_SHOWN = 3
_WHERE_TO_READ = "it said nothing to the database, so read the saved query failures"


def listed(faults: Collection[str], status: Status) -> Found:
    """Return a list that ought to be empty, and the status that it has otherwise."""
    return Found(list(faults), case=status if faults else Status.OK)


def number(value: int) -> Found:
    """Return a number for a limit."""
    return Found(value, value)


def figures(row: Any) -> Found:
    """Return a row of figures as it is."""
    return Found(asdict(row))


def found_of(finding: Finding, *shown: str) -> Found:
    """Return a finding of integrity with those of its figures that are worth showing."""
    examples = f" (such as {', '.join(finding.examples[:_MOST_SHOWN])})" if finding.examples else ""
    figures = {name: getattr(finding, name) for name in shown}
    value = {"found": finding.found, **figures, "examples": list(finding.examples)}
    return Found(value, finding.found, words={"examples": examples})


def switched_off(settings: Settings) -> list[str]:
    """Return the parameters that keep cycles from their whole work, each with its value."""
    return [*settings.switched_off.values()] + [
        f"{phase_parameter(phase)} is false" for phase in Phase if phase not in settings.phases
    ]


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


def schedule(sources: Sources) -> Found:
    """Return what the rule is, and whether it fires as the parameters say."""
    expected, rule = Interval(sources.settings.active.interval_minutes), sources.rule()
    if rule is None:
        case = "missing"
    elif rule.state != "ENABLED":
        case = "disabled"
    else:
        case = Status.OK if _interval(rule.expression) == expected else Status.WARNING
    return Found(
        {"rule": rule.expression if rule else None, "state": rule.state if rule else None},
        case=case,
        threshold={"rule": expected.expression, "state": "ENABLED"},
        words={"expected": expected.expression},
    )


def _interval(expression: str) -> Interval | None:
    try:
        return Interval.from_expression(expression)
    except ValueError:
        return None


def database(sources: Sources) -> Found:
    """Return True, unless the schema is missing or another version."""
    sources.ask(Observer.assert_schema)
    return Found(True)


def storage(sources: Sources) -> Found:
    """Return what is wrong with key, buckets or project, as far as that can be seen without writing."""
    in_storage, listed_buckets = sources.buckets(), sources.settings.buckets
    try:
        assert_key_sees(in_storage, listed_buckets)
        if (known := _buckets_in_database(sources)) is not None:
            assert_same_project(in_storage, known, listed_buckets)
    except UnsafeError as error:
        return listed([str(error)], Status.CRITICAL)
    return Found([])


def _buckets_in_database(sources: Sources) -> list[Bucket] | None:
    try:
        return sources.ask(Observer.buckets)
    except StorageCleanupError:  # the database has a check of its own
        return None


def distrust(sources: Sources) -> Found:
    """Return why nothing may be deleted, but for what has a check of its own."""
    reasons = sources.ask(Observer.distrust)
    own = {"index", "changed"}
    return listed([reason.sentence for reason in reasons if reason.code not in own], Status.CRITICAL)


def changed(sources: Sources) -> Found:
    """Return what has to be compared before a cycle goes on."""
    reasons = sources.ask(Observer.distrust)
    is_all = all(reason.code == "changed" for reason in reasons)  # what else there is says more
    return listed([reason.sentence for reason in reasons if is_all], Status.WARNING)


def references(sources: Sources) -> Found:
    """Return the columns that ought to be guarded and aren't, and those that perhaps ought to be."""
    settings = sources.settings
    unguarded = sources.ask(Observer.unprotected_among, settings.references) if settings.references else []
    unlisted = sources.ask(Observer.columns_with_paths, [*settings.references, *settings.ignored_references])
    return Found(
        {"unguarded": unguarded, "unlisted": unlisted},
        case=Status.CRITICAL if unguarded else Status.WARNING if unlisted else Status.OK,
        words={"names": ",".join(unguarded or unlisted)},
    )


def last_cycle(sources: Sources) -> Found:
    """Return how many minutes ago the last cycle started, even a dry one; None when there never was one."""
    last, interval = sources.ask(Observer.last_cycle), sources.settings.active.interval_minutes
    minutes = last.minutes if last else None
    if not sources.settings.enabled:
        return Found(minutes, case="off")
    limit = Limit(critical=interval * _OVERDUE_INTERVALS + _OVERDUE_MINUTES)
    if minutes is None:
        return Found(None, case="never", threshold=limit, words={"interval": interval})
    return Found(round(minutes, 1), minutes, threshold=limit, words={"minutes": minutes, "interval": interval})


def failed_cycles(sources: Sources) -> Found:
    """Return how many cycles failed since the last one that didn't, by the database or by CloudWatch's figures."""
    recorded, last = sources.ask(Observer.failed_cycles), sources.ask(Observer.last_cycle)
    counted = 0
    with suppress(ScheduleError):  # which is the answer of a check of its own
        counted = sources.failures_since(recorded.last_good)
    failed = max(recorded.failed, counted)
    message = (last.message if last and recorded.failed else None) or _WHERE_TO_READ
    return Found(failed, failed, None if failed else "none", words={"message": message})


def unrecorded_cycles(sources: Sources) -> Found:
    """Return how many cycles of seven days failed before the database could be reached."""
    return number(sources.unrecorded_failures())


def unended_runs(sources: Sources) -> Found:
    """Return the runs of seven days that started and never ended."""
    runs = sources.ask(Observer.unended)
    examples = f" (such as {', '.join(runs[:_MOST_SHOWN])})" if runs else ""
    return Found({"found": len(runs), "examples": runs[:_MOST_SHOWN]}, len(runs), words={"examples": examples})


def breaker(sources: Sources) -> Found:
    """Return whether the last cycle was stopped by the circuit breaker."""
    last = sources.ask(Observer.last_cycle)
    if last is None or not last.breaker_open:
        return Found(False)
    return Found(True, case=Status.CRITICAL, words={"message": last.message or "it gave no reason"})


def success_rate(sources: Sources) -> Found:
    """Return the part of the last seven days' cycles that didn't fail."""
    days = sources.ask(Observer.cycles_by_day)
    failed = sum(day.failed for day in days)
    with suppress(ScheduleError):
        failed += sources.unrecorded_failures()
    cycles = sum(day.succeeded + day.partial for day in days) + failed
    if not cycles:
        return Found(None, case="none")
    percent = 100 * (cycles - failed) / cycles
    return Found(round(percent, 2), percent, words={"percent": percent, "failed": failed, "cycles": cycles})


def cycles_by_day(sources: Sources) -> Found:
    """Return how the cycles of each day ended."""
    return Found(
        {
            day.day.isoformat(): {"succeeded": day.succeeded, "partial": day.partial, "failed": day.failed}
            for day in sources.ask(Observer.cycles_by_day)
        }
    )


def seconds(value: float | None) -> Found:
    """Return a duration; None when no cycle recorded it."""
    if value is None:
        return Found(None, case="not_recorded")
    return Found(round(value, 3), value, words={"seconds": value})


def indexes(sources: Sources) -> Found:
    """Return how often each index was used, and those that are missing, invalid or outdated."""
    indexes = sources.ask(Observer.indexes)
    invalid = [index.name for index in indexes if not index.is_valid]
    unused = [index.name for index in indexes if not index.used]
    return Found(
        {"scans": {index.name: index.used for index in indexes}, "invalid": invalid},
        case=Status.CRITICAL if invalid else "unused" if unused else Status.OK,
        words={"number": len(indexes), "unused": unused},
    )


def privileges(sources: Sources) -> Found:
    """Return what the role may not do and must, and what it may and needn't."""
    role = sources.ask(Observer.role)
    return Found(
        {"role": role.name, "missing": role.missing, "excessive": role.excessive},
        case=Status.CRITICAL if role.missing else Status.WARNING if role.excessive else Status.OK,
    )


def locks(sources: Sources) -> Found:
    """Return the sessions that wait, and the transactions of more than five minutes."""
    locks = sources.ask(Observer.locks)
    return Found(asdict(locks), locks.waiting + locks.long_running)


def stored_bytes(sources: Sources) -> Found:
    """Return what lies in Storage, and by how much it grew in 24 hours."""
    stored, before = sum(bucket.bytes for bucket in sources.stored()), sources.usage_before()
    if not before.bytes or not before.hours:
        value = {"bytes": stored, "growth_percent": None}
        return Found(value, case="no_history", figures={"StoredBytes": stored})
    growth = 100 * (stored - before.bytes) / before.bytes * 24 / before.hours
    return Found(
        {"bytes": stored, "growth_percent": round(growth, 2)},
        growth,
        words={"growth": growth},
        figures={"StoredBytes": stored, "StoredBytesGrowthPercent": growth},
    )


def stored_by_bucket(sources: Sources) -> Found:
    """Return what lies in each listed bucket."""
    return Found({bucket.bucket_id: {"objects": bucket.objects, "bytes": bucket.bytes} for bucket in sources.stored()})


def usage_history(sources: Sources) -> Found:
    """Return the age of the newest figure of what is stored; None when there is none."""
    hours = sources.usage_before().newest_hours
    return Found(None, case="never") if hours is None else Found(round(hours, 1), hours, words={"hours": hours})


def saved_assets(sources: Sources) -> Found:
    """Return how many assets name a job, against the highest number that cycles saw in 7 days."""
    saved, before = sources.ask(Observer.saved_count), sources.ask(Observer.most_saved)
    most = sources.settings.max_saved_drop_percent
    has_fallen = before and (saved == 0 or 100 * (before - saved) / before > most)
    threshold = {"critical_drop_percent": most, "before": before}
    return Found(
        saved, case=Status.CRITICAL if has_fallen else Status.OK, threshold=threshold, words={"before": before}
    )


def assets_by_day(sources: Sources) -> Found:
    """Return the assets of each day by type."""
    days: dict[str, dict[str, dict[str, int]]] = {}
    for row in sources.ask(Observer.assets):
        days.setdefault(row.day.isoformat(), {})[row.asset_type] = {"assets": row.assets, "bytes": row.bytes}
    return Found(days)


def orphans_left(sources: Sources) -> Found:
    """Return how many orphans the cycles should have taken by now."""
    left = sum(day.orphans for day in sources.orphans())
    case = "none" if not left else None if sources.ask(Observer.has_worked) else "waiting"
    return Found(left, left, case, figures={"OrphansLeft": left})


def orphans_by_day(sources: Sources) -> Found:
    """Return those orphans by the day of their render."""
    days = sources.orphans()[-7:]
    return Found({day.day.isoformat() if day.day else "unknown": day.orphans for day in days})


def saved_job_missing(sources: Sources) -> Found:
    """Return the saved assets whose job is missing; critical where this system removed it."""
    found = sources.integrity("saved_job_missing")
    case = Status.CRITICAL if found.removed else Status.WARNING if found.found else Status.OK
    return replace(found_of(found, "removed"), case=case)


def saved_file_missing(sources: Sources) -> Found:
    """Return the saved assets whose file is missing, so that a user looks at a broken image."""
    files, jobs = sources.integrity("saved_file_missing"), sources.integrity("saved_job_missing")
    missing = {"SavedAssetsMissing": jobs.found + files.found}
    case = "removed" if files.removed else None
    if files.found and not files.removed and not sources.ask(Observer.has_worked):
        case = "waiting"
    return replace(found_of(files, "removed"), case=case, figures=missing)


def url_not_understood(sources: Sources) -> Found:
    """Return the completed jobs whose URL means no object of this project; those in other buckets are only told."""
    found = found_of(sources.integrity("url_not_understood"))
    elsewhere = sources.integrity("url_in_other_bucket")
    return replace(found, value={**found.value, "in_other_buckets": elsewhere.found})
