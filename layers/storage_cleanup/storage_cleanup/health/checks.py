"""The checks, in the order in which a reader wants them; the longest question comes last.

A new check is an entry of this table and, if nobody has put it yet, a question to the observer. The thresholds are
those of docs/monitoring.md; names stay, because alarms and guides rely on them.
"""

from storage_cleanup.health import findings as found
from storage_cleanup.health.model import Check, Limit, Status
from storage_cleanup.postgres.observer import Observer

ORPHANS_LEFT = Limit(warning=50, critical=100)
FAILED_IN_A_ROW = Limit(critical=3)
GROWTH_PERCENT = Limit(warning=10, critical=20)
CYCLE_SECONDS = Limit(warning=30)
QUERY_SECONDS = Limit(warning=5)
SUCCESS_PERCENT = 99.9
_SUCCESS = Limit(warning=SUCCESS_PERCENT, is_floor=True)
_NONE_WARNS = Limit(warning=0)
_NONE_IS_CRITICAL = Limit(critical=0)
_UNKNOWN_OBJECTS = Limit(warning=50)
_USAGE_HOURS = Limit(warning=48)

_OK, _WARNING, _CRITICAL = Status.OK, Status.WARNING, Status.CRITICAL
_INSTALL = "run database/install.sql as postgres"
_NOT_RECORDED = (_OK, "No cycle of the last 24 hours has recorded it.")

CHECKS = (
    Check(
        "parameters",
        lambda sources: found.listed(sources.settings.unknown, _WARNING),
        [],
        ok="All parameters can be read and agree with each other.",
        warning="Some parameters have no effect: {value:; }. Correct their names.",
        critical="Cycles refuse to work until the parameters are right: {value:; }.",
        cases={"waiting": (_WARNING, "No cycle runs yet: {value:; }.")},
    ),
    Check(
        "switches",
        lambda sources: found.listed(found.switched_off(sources.settings), _WARNING),
        [],
        ok="Every phase is on, and nothing is a dry run.",
        warning="Less than everything is cleaned: {value}. Put the parameter back when the reason is gone; "
        "on a new stage, set dry-run to false once a plan has been looked at.",
    ),
    Check(
        "schedule",
        found.schedule,
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
        "storage",
        found.storage,
        [],
        ok="Storage accepts the key, has every listed bucket, and belongs to the database's project.",
        critical="Cycles remove no file until this is right: {value:; }.",
        cases={
            "unanswered": (
                _CRITICAL,
                "Storage can't be asked, so cycles remove no file: {error}. See docs/emergency.md, Files not going.",
            )
        },
    ),
    Check(
        "database",
        found.database,
        ok="The database answers, and has this release's schema.",
        cases={"unanswered": (_CRITICAL, "The database can't be asked, so cycles don't work either: {error}.")},
        is_essential=True,
    ),
    Check(
        "last_cycle",
        found.last_cycle,
        ok="The last cycle started {minutes:.0f} minutes ago; one is due every {interval}.",
        critical="No cycle has started for {minutes:.0f} minutes, and one is due every {interval}: "
        "see docs/emergency.md, No cycles.",
        cases={
            "off": (_OK, "Cycles are switched off by the parameter enabled, so none is due."),
            "never": (_WARNING, "Waiting for the first cycle: the schedule starts one every {interval} minutes."),
        },
    ),
    Check(
        "last_run",
        lambda sources: found.listed(
            found.differences(sources.settings, sources.ask(Observer.last_scheduled)), _WARNING
        ),
        [],
        ok="The last scheduled cycle worked by the parameters of now.",
        warning="The last scheduled cycle worked by other parameters ({value:; }): "
        "if the next one does too, the function reads another path.",
    ),
    Check(
        "failed_cycles",
        found.failed_cycles,
        FAILED_IN_A_ROW,
        ok="The last {value} cycles failed, the last because: {message}.",
        critical="The last {value} cycles failed, the last because: {message}. "
        "Nothing is lost meanwhile; see docs/emergency.md.",
        cases={"none": (_OK, "The last cycle didn't fail.")},
    ),
    Check(
        "unrecorded_cycles",
        found.unrecorded_cycles,
        _NONE_WARNS,
        ok="Every cycle of the last seven days that failed is recorded in the database.",
        warning="{value:cycle} of the last seven days failed before the database could be reached, "
        "as CloudWatch has counted them: read the saved query failures.",
    ),
    Check(
        "unended_runs",
        found.unended_runs,
        _NONE_WARNS,
        ok="Every run of the last seven days has ended.",
        warning="{value[found]:run} of the last seven days started and never ended{examples}: Lambda ended the "
        "invocation, so read the saved query failures. Later runs finish what had been claimed.",
    ),
    Check(
        "breaker",
        found.breaker,
        False,
        ok="The circuit breaker is closed.",
        critical="The last cycle was stopped by the circuit breaker: {message}. "
        "Find out why before you go on; see docs/emergency.md, Saved assets affected.",
    ),
    Check(
        "success_rate",
        found.success_rate,
        _SUCCESS,
        ok="{percent:.1f} % of cycles succeeded.",
        warning=("{failed} of {cycles} cycles of the last seven days failed: look for their reason in the failures."),
        cases={"none": (_OK, "No cycle has run in the last seven days.")},
    ),
    Check("cycles_by_day", found.cycles_by_day, ok="Cycles of the last seven days (UTC), by how they ended."),
    Check(
        "cycle_seconds",
        lambda sources: found.seconds(sources.ask(Observer.slowest).cycle),
        CYCLE_SECONDS,
        ok="The longest cycle of 24 hours took {seconds:.1f} s.",
        warning="The longest cycle of 24 hours took {seconds:.1f} s: "
        "that is normal while a backlog is worked off; else look at the slowest query.",
        cases={"not_recorded": _NOT_RECORDED},
    ),
    Check(
        "query_seconds",
        lambda sources: found.seconds(sources.ask(Observer.slowest).query),
        QUERY_SECONDS,
        ok="The slowest statement of a cycle in 24 hours took {seconds:.1f} s.",
        warning="The slowest statement of a cycle in 24 hours took {seconds:.1f} s: "
        "look at indexes and locks below, and at the database's load.",
        cases={"not_recorded": _NOT_RECORDED},
    ),
    Check(
        "guard",
        found.distrust,
        [],
        ok="All triggers are there and on, and the database sees every row.",
        critical="Cycles delete nothing until this is repaired: {value:; }.",
    ),
    Check(
        "comparison",
        found.changed,
        [],
        ok="Triggers and tables are what they were when everything was last compared.",
        warning="Cycles compare everything before they go on: {value:; }.",
    ),
    Check(
        "indexes",
        found.indexes,
        {"invalid": []},
        ok="All {number} indexes are there and valid and used.",
        critical=f"{{value[invalid]}} missing, invalid or outdated, so cycles refuse to work: {_INSTALL}.",
        cases={
            "unused": (
                _OK,
                "All {number} indexes are there and valid; not used since the server's statistics began: {unused}.",
            )
        },
    ),
    Check(
        "foreign_keys",
        lambda sources: found.listed(sources.ask(Observer.foreign_keys_without_index), _WARNING),
        [],
        ok="Every foreign key that references render_jobs has an index.",
        warning="Deleting jobs scans every row of what references them: add an index on {value}.",
    ),
    Check(
        "privileges",
        found.privileges,
        {"missing": [], "excessive": []},
        ok="Role {value[role]} may do what is needed, and nothing else.",
        warning="Role {value[role]} {value[excessive]}: put storage_cleanup_worker into database/url.",
        critical=f"Role {{value[role]}} may not execute {{value[missing]}}: {_INSTALL}, "
        "and use storage_cleanup_worker.",
    ),
    Check(
        "locks",
        found.locks,
        _NONE_WARNS,
        ok="Nobody waits for a lock on render_jobs or user_assets.",
        warning="On render_jobs and user_assets, {value[waiting]:session} wait for a lock and "
        "{value[long_running]:transaction} run for over five minutes: look into pg_stat_activity.",
    ),
    Check(
        "stuck_claims",
        lambda sources: found.number(sources.ask(Observer.stuck)),
        _NONE_WARNS,
        ok="Every claim gets finished.",
        warning="{value:claim} failed three times or more, and their jobs can't be saved meanwhile: "
        "read last_error in storage_cleanup.deletion.",
    ),
    Check(
        "stored_bytes",
        found.stored_bytes,
        GROWTH_PERCENT,
        ok="Stored bytes changed by {growth:+.1f} % in 24 hours.",
        warning="Stored bytes changed by {growth:+.1f} % in 24 hours: see docs/emergency.md, Storage spike.",
        cases={"no_history": (_OK, "There is no figure of yesterday to compare with yet; cycles take one a day.")},
    ),
    Check("stored_by_bucket", found.stored_by_bucket, ok="What lies in the listed buckets now."),
    Check(
        "usage_history",
        found.usage_history,
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
        found.saved_assets,
        ok="{value:asset} are saved and name a job.",
        critical="Saved assets fell from {before}, their highest number in 7 days, to {value}, "
        "so cycles delete nothing: "
        "find out who deleted them; see docs/emergency.md, Saved assets affected.",
    ),
    Check(
        "completed_jobs",
        lambda sources: found.figures(sources.ask(Observer.completed)),
        ok="Completed jobs of the last 24 hours that still have a row.",
    ),
    Check("assets_by_day", found.assets_by_day, ok="Assets of the last seven days (UTC), by type."),
    Check(
        "orphan_bytes",
        lambda sources: found.figures(sources.ask(Observer.orphan_bytes)),
        ok="Bytes of the orphans that cycles took this month and last (UTC).",
    ),
    Check(
        "orphans_left",
        found.orphans_left,
        ORPHANS_LEFT,
        ok="{value:orphan} of more than the age and one interval left; the next cycle takes them.",
        warning="{value:orphan} left that cycles should have taken: see docs/emergency.md, Files not going.",
        cases={
            "none": (_OK, "No orphan is older than the age and one interval."),
            "waiting": (_OK, "{value:orphan} wait for the first cycle that isn't dry."),
        },
    ),
    Check(
        "orphans_by_day", found.orphans_by_day, ok="Orphans left, by the day (UTC) of their render; seven days at most."
    ),
    Check(
        "saved_job_missing",
        found.saved_job_missing,
        {"warning": 0, "critical_removed": 0},
        ok="Every saved asset has its job.",
        warning="{value[found]:saved asset} name a job that is missing{examples}: "
        "the ledger doesn't know it, so ask who else deletes rows.",
        critical="{value[removed]:saved asset} lost a job that this system removed{examples}: "
        "switch it off and see docs/emergency.md, Saved assets affected.",
    ),
    Check(
        "saved_file_missing",
        found.saved_file_missing,
        _NONE_IS_CRITICAL,
        ok="Every saved asset has its file.",
        critical="{value[found]:saved asset} lost the file (this system didn't remove them){examples}: "
        "switch the system off and see docs/emergency.md, Saved assets affected.",
        cases={
            "removed": (
                _CRITICAL,
                "{value[found]:saved asset} lost the file (this system removed {value[removed]}){examples}: "
                "switch the system off and see docs/emergency.md, Saved assets affected.",
            ),
            "waiting": (
                _WARNING,
                "{value[found]:saved asset} lost the file before this system has removed anything{examples}: "
                "ask who else deletes files.",
            ),
        },
    ),
    Check(
        "row_without_file",
        lambda sources: found.found_of(sources.integrity("row_without_file")),
        _NONE_WARNS,
        ok="No row names a file that is gone.",
        warning="{value[found]:row} of unsaved jobs name a file that is gone{examples}: "
        "the next cycle deletes them, unless a foreign key, a trigger or the phase render_jobs keeps them.",
    ),
    Check(
        "object_unknown",
        lambda sources: found.found_of(sources.integrity("object_unknown"), "bytes"),
        _UNKNOWN_OBJECTS,
        ok="{value[found]:object} in the listed buckets that no job and no asset knows.",
        warning="{value[found]:object} in the listed buckets that no job and no asset knows{examples}: "
        "nobody cleans them up; find out who writes them.",
    ),
    Check(
        "url_not_understood",
        found.url_not_understood,
        _NONE_WARNS,
        ok="Every output_url of a completed job is understood.",
        warning="{value[found]:output_url} of completed jobs aren't understood{examples}: "
        "they are never touched; find out who writes such URLs.",
    ),
    Check(
        "references",
        found.references,
        {"unguarded": [], "unlisted": []},
        ok="Every column that seems to hold paths of files is guarded, or known to keep none.",
        warning="{names} seem to hold paths of files, and don't keep them: "
        "name them in the parameter references, and run "
        "`make install-database REFERENCES={names}`; or name them in references/ignored.",
        critical="Cycles delete nothing until what the parameter references names is guarded: "
        "run `make install-database REFERENCES={names}`.",
    ),
)

NAMED = {check.name: check for check in CHECKS}
