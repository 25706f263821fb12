"""Cleanup: a scheduled or manual event → one cycle over temporary files, Supabase Storage and ``render_jobs``."""

import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from storage_cleanup.cycle import run_cycle
from storage_cleanup.database import Database
from storage_cleanup.errors import ConfigurationError, RequestError
from storage_cleanup.object_store import ObjectStore
from storage_cleanup.observability import count, logger, metrics, record_run, traced
from storage_cleanup.parameters import ParameterStore
from storage_cleanup.request import parse_cleanup_event, resolve
from storage_cleanup.settings import Settings
from storage_cleanup.watch import Watch


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics(raise_on_empty_metrics=False)
@traced
def lambda_handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Run one cycle and return its account; refuse an event or a configuration that can't be trusted."""
    try:
        request = parse_cleanup_event(event)
        parameters = ParameterStore(os.environ["PARAMETER_PATH"])
        settings = Settings.from_parameters(parameters.tree())
        options = resolve(request, settings)
        watch = Watch(context.get_remaining_time_in_millis, parameters.enabled)
        with (
            Database(settings.database_url.get_secret_value()) as database,
            ObjectStore(
                settings.supabase_url, settings.service_role_key.get_secret_value(), give_up=watch.stop_reason
            ) as store,
        ):
            result = run_cycle(settings, options, database=database, store=store, watch=watch)
    except (ConfigurationError, RequestError) as refusal:
        count(type(refusal).__name__)
        logger.error(str(refusal), extra={"faults": refusal.faults})
        raise
    record_run(result)
    return result.as_dict()
