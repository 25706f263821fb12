"""The checks, in the order in which a reader wants them; the longest question comes last.

The thresholds are those that operators know (``reference/operations.md``). A new check is an entry of the table and, if
nobody has put it yet, a question to the observer. Its name must not change afterwards: alarms and guides rely on it.
"""

from collections.abc import Collection
from dataclasses import asdict, replace

from storage_cleanup.config.settings import Settings, phase_parameter
from storage_cleanup.health.model import Check, Found, Limit, Status
from storage_cleanup.health.sources import Sources
from storage_cleanup.model.vocabulary import Phase
from storage_cleanup.postgres.observer import Finding, Observer, Orders
from storage_cleanup.scheduling.rate import Interval

ORPHANS_LEFT = Limit(warning=50, critical=100)
FAILED_IN_A_ROW = Limit(critical=3)
GROWTH_PERCENT = Limit(warning=10, critical=20)
CYCLE_SECONDS = Limit(warning=30)
QUERY_SECONDS = Limit(warning=5)
SUCCESS_PERCENT = 99.9
_NONE_WARNS = Limit(warning=0)
_NONE_IS_CRITICAL = Limit(critical=0)
_UNKNOWN_OBJECTS = Limit(warning=50)
_USAGE_HOURS = Limit(warning=48)
_OVERDUE_INTERVALS, _OVERDUE_MINUTES = 1.25, 2
_MOST_SHOWN = 3

_OK, _WARNING, _CRITICAL = Status.OK, Status.WARNING, Status.CRITICAL
_INSTALL = "run database/install.sql as postgres"
_NOT_RECORDED = (_OK, "No cycle of the last 24 hours has recorded it.")


# -- what is found -----------------------------------------------------------------------------------------------------


def listed(faults: Collection[str], status: Status) -> Found:
    """Return a list that ought to be empty, and the status that it has otherwise."""
    return Found(list(faults), case=status if faults else _OK)


def number(value: int) -> Found:
    """Return a number for a limit."""
    return Found(value, value)


def found_of(finding: Finding, *shown: str) -> Found:
    """Return a finding of integrity with those of its figures that are worth showing."""
    examples = f" (such as {', '.join(finding.examples[:_MOST_SHOWN])})" if finding.examples else ""
    figures = {name: getattr(finding, name) for name in shown}
    value = {"found": finding.found, **figures, "examples": list(finding.examples)}
    return Found(value, finding.found, words={"examples": examples})


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


def _schedule(sources: Sources) -> Found:
    expected, rule = Interval(sources.settings.active.interval_minutes), sources.rule()
    if rule is None:
        case = "missing"
    elif rule.state != "ENABLED":
        case = "disabled"
    else:
        case = _OK if _interval(rule.expression) == expected else _WARNING
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


def _database(sources: Sources) -> Found:
    sources.ask(Observer.assert_schema)
    return Found(True)


def _last_cycle(sources: Sources) -> Found:
    last, interval = sources.ask(Observer.last_cycle), sources.settings.active.interval_minutes
    minutes = last.minutes if last else None
    if not sources.settings.enabled:
        return Found(minutes, case="off")
    limit = Limit(critical=interval * _OVERDUE_INTERVALS + _OVERDUE_MINUTES)
    if minutes is None:
        return Found(None, case="never", threshold=limit)
    return Found(round(minutes, 1), minutes, threshold=limit, words={"minutes": minutes, "interval": interval})


def _failed_cycles(sources: Sources) -> Found:
    failed, last = sources.ask(Observer.failed_cycles), sources.ask(Observer.last_cycle)
    message = (last.message if last else None) or "it said nothing"
    return Found(failed, failed, None if failed else "none", words={"message": message})


def _breaker(sources: Sources) -> Found:
    last = sources.ask(Observer.last_cycle)
    if last is None or not last.breaker_open:
        return Found(False)
    return Found(True, case=_CRITICAL, words={"message": last.message or "it gave no reason"})


def _success_rate(sources: Sources) -> Found:
    days = sources.ask(Observer.cycles_by_day)
    failed = sum(day.failed for day in days)
    cycles = sum(day.succeeded + day.partial for day in days) + failed
    if not cycles:
        return Found(None, case="none")
    percent = 100 * (cycles - failed) / cycles
    case = _OK if percent >= SUCCESS_PERCENT else _WARNING
    return Found(round(percent, 2), case=case, words={"percent": percent, "failed": failed, "cycles": cycles})


def _cycles_by_day(sources: Sources) -> Found:
    return Found(
        {
            day.day.isoformat(): {"succeeded": day.succeeded, "partial": day.partial, "failed": day.failed}
            for day in sources.ask(Observer.cycles_by_day)
        }
    )


def _seconds(seconds: float | None) -> Found:
    if seconds is None:
        return Found(None, case="not_recorded")
    return Found(round(seconds, 3), seconds, words={"seconds": seconds})


def _indexes(sources: Sources) -> Found:
    indexes = sources.ask(Observer.indexes)
    invalid = [index.name for index in indexes if not index.is_valid]
    unused = [index.name for index in indexes if not index.used]
    return Found(
        {"scans": {index.name: index.used for index in indexes}, "invalid": invalid},
        case=_CRITICAL if invalid else "unused" if unused else _OK,
        words={"number": len(indexes), "unused": unused},
    )


def _privileges(sources: Sources) -> Found:
    role = sources.ask(Observer.role)
    return Found(
        {"role": role.name, "missing": role.missing, "excessive": role.excessive},
        case=_CRITICAL if role.missing else _WARNING if role.excessive else _OK,
    )


def _locks(sources: Sources) -> Found:
    locks = sources.ask(Observer.locks)
    return Found(asdict(locks), locks.waiting + locks.long_running)


def _stored_bytes(sources: Sources) -> Found:
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


def _stored_by_bucket(sources: Sources) -> Found:
    return Found({bucket.bucket_id: {"objects": bucket.objects, "bytes": bucket.bytes} for bucket in sources.stored()})


def _usage_history(sources: Sources) -> Found:
    hours = sources.usage_before().newest_hours
    return Found(None, case="never") if hours is None else Found(round(hours, 1), hours, words={"hours": hours})


def _saved_assets(sources: Sources) -> Found:
    saved, before = sources.ask(Observer.saved_count), sources.ask(Observer.last_saved_count)
    most = sources.settings.max_saved_drop_percent
    has_fallen = before and (saved == 0 or 100 * (before - saved) / before > most)
    threshold = {"critical_drop_percent": most, "before": before}
    return Found(saved, case=_CRITICAL if has_fallen else _OK, threshold=threshold, words={"before": before})


def _assets_by_day(sources: Sources) -> Found:
    days: dict[str, dict[str, dict[str, int]]] = {}
    for row in sources.ask(Observer.assets):
        days.setdefault(row.day.isoformat(), {})[row.asset_type] = {"assets": row.assets, "bytes": row.bytes}
    return Found(days)


def _orphans_left(sources: Sources) -> Found:
    left = sum(day.orphans for day in sources.orphans())
    return Found(left, left, None if left else "none", figures={"OrphansLeft": left})


def _orphans_by_day(sources: Sources) -> Found:
    days = sources.orphans()[-7:]
    return Found({day.day.isoformat() if day.day else "unknown": day.orphans for day in days})


def _saved_job_missing(sources: Sources) -> Found:
    found = sources.integrity("saved_job_missing")
    case = _CRITICAL if found.removed else _WARNING if found.found else _OK
    return replace(found_of(found, "removed"), case=case)


def saved_file_missing(found: Finding) -> Found:
    """Return the saved assets whose file is missing, whoever removed it."""
    return replace(found_of(found, "removed"), case="removed" if found.removed else None)


def _saved_file_missing(sources: Sources) -> Found:
    files, jobs = sources.integrity("saved_file_missing"), sources.integrity("saved_job_missing")
    return replace(saved_file_missing(files), figures={"SavedAssetsMissing": jobs.found + files.found})


def _url_not_understood(sources: Sources) -> Found:
    found = found_of(sources.integrity("url_not_understood"))
    elsewhere = sources.integrity("url_in_other_bucket")
    return replace(found, value={**found.value, "in_other_buckets": elsewhere.found})


# -- the table ---------------------------------------------------------------------------------------------------------

CHECKS = (
    Check(
        "parameters",
        lambda _: listed([], _CRITICAL),
        [],
        ok="All parameters can be read and agree with each other.",
        critical="Cycles refuse to work until the parameters are right: {value:; }.",
    ),
    Check(
        "switches",
        lambda sources: listed(switched_off(sources.settings), _WARNING),
        [],
        ok="Every phase is on, and nothing is a dry run.",
        warning="Less than everything is cleaned: {value}. Put the parameter back when the reason is gone.",
    ),
    Check(
        "schedule",
        _schedule,
        ok="The rule fires as the parameters say, {value[rule]}.",
        warning="The rule has {value[rule]}, the parameters ask for {expected}: "
        "look why schedule-sync doesn't repair it.",
        cases={
            "missing": (_CRITICAL, "The rule that starts cycles is missing, so none start: deploy the stack again."),
            "disabled": (
                _CRITICAL,
                "The rule that starts cycles is disabled, so none start: enable it in EventBridge.",
            ),
        },
    ),
    Check(
        "database",
        _database,
        ok="The database answers, and has this release's schema.",
        cases={"unanswered": (_CRITICAL, "The database can't be asked, so cycles don't work either: {error}.")},
        is_essential=True,
    ),
    Check(
        "last_cycle",
        _last_cycle,
        ok="The last cycle started {minutes:.0f} minutes ago; one is due every {interval}.",
        critical="No cycle has started for {minutes:.0f} minutes, and one is due every {interval}: "
        "see docs/emergency.md, No cycles.",
        cases={
            "off": (_OK, "Cycles are switched off by the parameter enabled, so none is due."),
            "never": (_WARNING, "No cycle has run yet: wait for the schedule, or invoke one by hand."),
        },
    ),
    Check(
        "last_run",
        lambda sources: listed(differences(sources.settings, sources.ask(Observer.last_scheduled)), _WARNING),
        [],
        ok="The last scheduled cycle worked by the parameters of now.",
        warning="The last scheduled cycle worked by other parameters ({value:; }): "
        "if the next one does too, the function reads another path.",
    ),
    Check(
        "failed_cycles",
        _failed_cycles,
        FAILED_IN_A_ROW,
        ok="The last {value} cycles failed, the last because: {message}.",
        critical="The last {value} cycles failed, the last because: {message}. "
        "Nothing is lost meanwhile; see docs/emergency.md.",
        cases={"none": (_OK, "The last cycle didn't fail.")},
    ),
    Check(
        "breaker",
        _breaker,
        False,
        ok="The circuit breaker is closed.",
        critical="The last cycle was stopped by the circuit breaker: {message}. "
        "Find out why before you go on; see docs/emergency.md, Saved assets affected.",
    ),
    Check(
        "success_rate",
        _success_rate,
        {"warning": SUCCESS_PERCENT},
        ok="{percent:.1f} % of cycles succeeded.",
        warning=("{failed} of {cycles} cycles of the last seven days failed: look for their reason in the failures."),
        cases={"none": (_OK, "No cycle has run in the last seven days.")},
    ),
    Check("cycles_by_day", _cycles_by_day, ok="Cycles of the last seven days (UTC), by how they ended."),
    Check(
        "cycle_seconds",
        lambda sources: _seconds(sources.ask(Observer.slowest).cycle),
        CYCLE_SECONDS,
        ok="The longest cycle of 24 hours took {seconds:.1f} s.",
        warning="The longest cycle of 24 hours took {seconds:.1f} s: "
        "that is normal while a backlog is worked off; else look at the slowest query.",
        cases={"not_recorded": _NOT_RECORDED},
    ),
    Check(
        "query_seconds",
        lambda sources: _seconds(sources.ask(Observer.slowest).query),
        QUERY_SECONDS,
        ok="The slowest statement of a cycle in 24 hours took {seconds:.1f} s.",
        warning="The slowest statement of a cycle in 24 hours took {seconds:.1f} s: "
        "look at indexes and locks below, and at the database's load.",
        cases={"not_recorded": _NOT_RECORDED},
    ),
    Check(
        "guard",
        lambda sources: listed(sources.ask(Observer.distrust), _CRITICAL),
        [],
        ok="The guard trigger is there and on, and the database sees every row.",
        critical="Cycles delete nothing until this is repaired: {value:; }.",
    ),
    Check(
        "triggers",
        lambda sources: listed(sources.ask(Observer.triggers_off), _WARNING),
        [],
        ok="The triggers that find new orphans are on.",
        warning=f"{{value}} missing or off, so orphans are found once a day only: {_INSTALL}.",
    ),
    Check(
        "indexes",
        _indexes,
        {"invalid": []},
        ok="All {number} indexes are there and valid and used.",
        critical=f"{{value[invalid]}} missing or invalid, so cycles are slow or refuse to work: {_INSTALL}.",
        cases={
            "unused": (
                _OK,
                "All {number} indexes are there and valid; not used since the server's statistics began: {unused}.",
            )
        },
    ),
    Check(
        "privileges",
        _privileges,
        {"missing": [], "excessive": []},
        ok="Role {value[role]} may do what is needed, and nothing else.",
        warning="Role {value[role]} {value[excessive]}: put storage_cleanup_worker into database/url.",
        critical=f"Role {{value[role]}} may not execute {{value[missing]}}: {_INSTALL}, "
        "and use storage_cleanup_worker.",
    ),
    Check(
        "locks",
        _locks,
        _NONE_WARNS,
        ok="Nobody waits for a lock on render_jobs or user_assets.",
        warning="On render_jobs and user_assets, {value[waiting]:session} wait for a lock and "
        "{value[long_running]:transaction} run for over five minutes: look into pg_stat_activity.",
    ),
    Check(
        "stuck_claims",
        lambda sources: number(sources.ask(Observer.stuck)),
        _NONE_WARNS,
        ok="Every claim gets finished.",
        warning="{value:claim} failed three times or more, and their jobs can't be saved meanwhile: "
        "read last_error in storage_cleanup.deletion.",
    ),
    Check(
        "stored_bytes",
        _stored_bytes,
        GROWTH_PERCENT,
        ok="Stored bytes changed by {growth:+.1f} % in 24 hours.",
        warning="Stored bytes changed by {growth:+.1f} % in 24 hours: see docs/emergency.md, Storage spike.",
        cases={"no_history": (_OK, "There is no figure of yesterday to compare with yet; cycles take one a day.")},
    ),
    Check("stored_by_bucket", _stored_by_bucket, ok="What lies in the listed buckets now."),
    Check(
        "usage_history",
        _usage_history,
        _USAGE_HOURS,
        ok="What is stored was last remembered {hours:.0f} hours ago.",
        warning="What is stored was last remembered {hours:.0f} hours ago: "
        "the trend has a gap; it goes on with the next cycle that isn't dry.",
        cases={
            "never": (
                _WARNING,
                "What is stored hasn't been remembered yet, so there is no trend: the next cycle does it.",
            )
        },
    ),
    Check(
        "saved_assets",
        _saved_assets,
        ok="{value:asset} are saved and name a job.",
        critical="Saved assets fell from {before} to {value} since the last good cycle, "
        "so cycles delete nothing: "
        "find out who deleted them; see docs/emergency.md, Saved assets affected.",
    ),
    Check(
        "completed_jobs",
        lambda sources: Found(asdict(sources.ask(Observer.completed))),
        ok="Completed jobs of the last 24 hours that still have a row.",
    ),
    Check("assets_by_day", _assets_by_day, ok="Assets of the last seven days (UTC), by type."),
    Check(
        "orphan_bytes",
        lambda sources: Found(asdict(sources.ask(Observer.orphan_bytes))),
        ok="Bytes of the orphans that cycles took this month and last (UTC).",
    ),
    Check(
        "orphans_left",
        _orphans_left,
        ORPHANS_LEFT,
        ok="{value:orphan} of more than the age and one interval left; the next cycle takes them.",
        warning="{value:orphan} left that cycles should have taken: see docs/emergency.md, Files not going.",
        cases={"none": (_OK, "No orphan is older than the age and one interval.")},
    ),
    Check("orphans_by_day", _orphans_by_day, ok="Orphans left, by the day (UTC) of their render; seven days at most."),
    Check(
        "saved_job_missing",
        _saved_job_missing,
        {"warning": 0, "critical_removed": 0},
        ok="Every saved asset has its job.",
        warning="{value[found]:saved asset} name a job that is missing{examples}: "
        "the ledger doesn't know it, so ask who else deletes rows.",
        critical="{value[removed]:saved asset} lost a job that this system removed{examples}: "
        "switch it off and see docs/emergency.md, Saved assets affected.",
    ),
    Check(
        "saved_file_missing",
        _saved_file_missing,
        _NONE_IS_CRITICAL,
        ok="Every saved asset has its file.",
        critical="{value[found]:saved asset} lost the file (this system didn't remove them){examples}: "
        "switch the system off and see docs/emergency.md, Saved assets affected.",
        cases={
            "removed": (
                _CRITICAL,
                "{value[found]:saved asset} lost the file (this system removed {value[removed]}){examples}: "
                "switch the system off and see docs/emergency.md, Saved assets affected.",
            )
        },
    ),
    Check(
        "row_without_file",
        lambda sources: found_of(sources.integrity("row_without_file")),
        _NONE_WARNS,
        ok="No row names a file that is gone.",
        warning="{value[found]:row} of unsaved jobs name a file that is gone{examples}: "
        "the next cycle deletes them, unless a foreign key or the phase render_jobs keeps them.",
    ),
    Check(
        "object_unknown",
        lambda sources: found_of(sources.integrity("object_unknown"), "bytes"),
        _UNKNOWN_OBJECTS,
        ok="{value[found]:object} in the listed buckets that no job and no asset knows.",
        warning="{value[found]:object} in the listed buckets that no job and no asset knows{examples}: "
        "nobody cleans them up; find out who writes them, or delete them by hand.",
    ),
    Check(
        "url_not_understood",
        _url_not_understood,
        _NONE_WARNS,
        ok="Every output_url of a completed job is understood.",
        warning="{value[found]:output_url} of completed jobs aren't understood{examples}: "
        "they are never touched; correct them, or delete those rows by hand.",
    ),
)

NAMED = {check.name: check for check in CHECKS}
