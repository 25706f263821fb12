"""Cleanup: a scheduled or manual event → one cycle over temporary files, Supabase Storage and ``render_jobs``.

The event ``drain`` starts the state machine that runs cycles side by side until a backlog is gone.
"""

import os
from datetime import timedelta
from typing import Any
from uuid import UUID

from aws_lambda_powertools.utilities.typing import LambdaContext

from storage_cleanup.aws.clients import client
from storage_cleanup.aws.parameter_store import ParameterStore
from storage_cleanup.cleanup.cycle import run_cycle
from storage_cleanup.cleanup.deadline import Watch
from storage_cleanup.cleanup.options import resolve
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import NotConfiguredYetError, RefusedError
from storage_cleanup.events.cleanup import CleanupRequest, DrainRequest, parse_cleanup_event, parse_drain_event
from storage_cleanup.limits import KEEP_HISTORY
from storage_cleanup.model.account import RunResult
from storage_cleanup.postgres.ledger import Database
from storage_cleanup.scheduling.drain import start_drain
from storage_cleanup.scheduling.rate import Interval
from storage_cleanup.scheduling.rule import repair_rule
from storage_cleanup.storage.object_store import ObjectStore
from storage_cleanup.telemetry import (
    begin_run,
    count,
    crash_recorded,
    instrumented,
    record_refusal,
    record_run,
    record_schedule,
    record_unknown,
    record_waiting,
)

_KEEP_HISTORY = timedelta(days=int(os.environ.get("HISTORY_DAYS") or KEEP_HISTORY.days))


@instrumented
def lambda_handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Run one cycle and return its account; refuse an event or a configuration that can't be trusted."""
    try:
        if drain := parse_drain_event(event):
            return _drain(drain)
        request = parse_cleanup_event(event)
        with crash_recorded():
            result = _clean(request, begin_run(request.trigger), context)
    except NotConfiguredYetError as waiting:
        return record_waiting(waiting)
    except RefusedError as refusal:
        record_refusal(refusal)
        raise
    record_run(result)
    return result.as_dict()


def _drain(request: DrainRequest) -> dict[str, Any]:
    settings = _settings(_parameters())
    answer = start_drain(request, settings, states=client("stepfunctions"), state_machine=os.environ.get("DRAIN_ARN"))
    count("DrainStarted")
    return answer


def _clean(request: CleanupRequest, run: UUID, context: LambdaContext) -> RunResult:
    parameters = _parameters()
    settings = _settings(parameters)
    options = resolve(request, settings)
    record_schedule(repair_rule(os.environ.get("RULE_NAME"), Interval(settings.active.interval_minutes)))
    watch = Watch(context.get_remaining_time_in_millis, parameters.enabled)
    key, url = settings.service_role_key.get_secret_value(), settings.database_url.get_secret_value()
    with (
        Database(url, watch.seconds_for) as database,
        ObjectStore(settings.supabase_url, key, give_up=watch.stop_reason, seconds_for=watch.seconds_for) as store,
    ):
        return run_cycle(
            settings, options, run=run, database=database, store=store, watch=watch, keep_history=_KEEP_HISTORY
        )


def _settings(parameters: ParameterStore) -> Settings:
    settings = Settings.from_parameters(parameters.tree(), path=os.environ["PARAMETER_PATH"])
    record_unknown(settings.unknown)
    return settings


def _parameters() -> ParameterStore:
    return ParameterStore(os.environ["PARAMETER_PATH"])
