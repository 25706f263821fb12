"""Health and reports: reads the database, the parameters and the schedule, and says how the system is."""

import os
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from storage_cleanup.aws.clients import client
from storage_cleanup.aws.parameter_store import ParameterStore
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import ConfigurationError, NotConfiguredYetError, RequestError
from storage_cleanup.events.health import Period, ReportRequest, parse_health_event
from storage_cleanup.health.model import HealthAnswer, Status
from storage_cleanup.health.runner import examine, refused
from storage_cleanup.limits import ASKING_STORAGE, REPORT_RESERVE_SECONDS, WATCHING
from storage_cleanup.model.pricing import price_per_gigabyte_month
from storage_cleanup.postgres.observer import Observer
from storage_cleanup.storage.object_store import Backoff, ObjectStore
from storage_cleanup.telemetry import instrumented, logger, record_figures, record_refusal, record_unknown

_BACKOFF = Backoff(attempts=3)


@instrumented
def lambda_handler(event: Any, context: LambdaContext) -> dict[str, Any]:
    """Answer every check, or make a report; refuse an event that can't be meant."""
    try:
        request = parse_health_event(event)
    except RequestError as refusal:
        record_refusal(refusal)
        raise
    seconds = context.get_remaining_time_in_millis() / 1000 - REPORT_RESERVE_SECONDS
    if isinstance(request, ReportRequest):
        try:
            return _report(request.period, seconds)
        except NotConfiguredYetError as waiting:
            _record(refused(waiting))
            return {"status": "skipped", "message": "; ".join(waiting.faults)}
    return _health(seconds).as_dict()


def _health(seconds: float) -> HealthAnswer:
    """Examine everything; parameters that can't be read are an answer as well."""
    try:
        settings = _settings()
    except ConfigurationError as error:
        answer = refused(error)
    else:
        with _observer(settings, seconds) as observer:
            answer = _examine(settings, observer)
    _record(answer)
    return answer


def _report(period: Period, seconds: float) -> dict[str, Any]:
    # The chart library is for reports only, and takes time to import.
    from storage_cleanup.reports.delivery import Address, deliver  # noqa: PLC0415
    from storage_cleanup.reports.figures import gather, make_report  # noqa: PLC0415
    from storage_cleanup.reports.page import render_page  # noqa: PLC0415

    settings = _settings()
    stage = os.environ["PARAMETER_PATH"].rstrip("/").rpartition("/")[2]
    price = price_per_gigabyte_month()
    with _observer(settings, seconds) as observer:
        material = gather(observer, period=period, buckets=settings.buckets, stage=stage, price=price)
        health = _examine(settings, observer)
    _record(health)
    report = make_report(material, health)
    page = render_page(report)
    address = Address(os.environ.get("REPORT_BUCKET", ""), os.environ.get("REPORT_TOPIC_ARN", ""))
    places = deliver(report, page, address)
    logger.info("Report made", extra={"period": period.value, "sentences": report.sentences, "places": places})
    answer: dict[str, Any] = {"status": "succeeded", "places": places, "figures": report.as_dict()}
    return answer if places else {**answer, "page": page}


def _examine(settings: Settings, observer: Observer) -> HealthAnswer:
    key = settings.service_role_key.get_secret_value()
    with ObjectStore(settings.supabase_url, key, backoff=_BACKOFF, patience=ASKING_STORAGE) as store:
        return examine(
            settings,
            observer,
            store,
            events=client("events"),
            cloudwatch=client("cloudwatch", WATCHING),
            rule_name=os.environ["RULE_NAME"],
        )


def _record(answer: HealthAnswer) -> None:
    """Emit what alarms need, and log each check that isn't well."""
    record_figures(answer.figures)
    for check in answer.checks:
        if check.status is not Status.OK:
            logger.warning(check.sentence, extra={"check": check.name, "status": check.status.value})


def _settings() -> Settings:
    path = os.environ["PARAMETER_PATH"]
    settings = Settings.from_parameters(ParameterStore(path).tree(), path=path)
    record_unknown(settings.unknown)
    return settings


def _observer(settings: Settings, seconds: float) -> Observer:
    return Observer(settings.database_url.get_secret_value(), seconds=seconds)
