"""The way of a report to its readers: page and figures into S3, and the three sentences to a topic."""

import json
from dataclasses import dataclass

from storage_cleanup.aws.clients import AWS_ERRORS, client
from storage_cleanup.errors import DeliveryError
from storage_cleanup.limits import DELIVERING, MAX_SUBJECT_LENGTH
from storage_cleanup.reports.model import Report


@dataclass(frozen=True)
class Address:
    """Where reports go; an empty name leaves that way out."""

    bucket: str = ""
    topic_arn: str = ""


def deliver(report: Report, page: str, address: Address) -> dict[str, str]:
    """Store page and figures beside each other, then announce them.

    Returns
    -------
    dict
        ``html`` and ``json``, the addresses in S3; empty without a bucket.

    Raises
    ------
    DeliveryError
        S3 or SNS refuses.
    """
    try:
        places = _store(report, page, address.bucket) if address.bucket else {}
        if address.topic_arn:
            _announce(report, places, address.topic_arn)
    except AWS_ERRORS as error:
        raise DeliveryError(f"The report couldn't be delivered: {error}") from error
    return places


def _store(report: Report, page: str, bucket: str) -> dict[str, str]:
    base = f"reports/{report.period.value}/{report.until:%Y-%m-%dT%H%MZ}"
    figures = json.dumps(report.as_dict(), indent=2)
    contents = {"html": (page, "text/html; charset=utf-8"), "json": (figures, "application/json")}
    s3 = client("s3", DELIVERING)
    for suffix, (text, kind) in contents.items():
        s3.put_object(Bucket=bucket, Key=f"{base}.{suffix}", Body=text.encode(), ContentType=kind)
    return {suffix: f"s3://{bucket}/{base}.{suffix}" for suffix in contents}


def _announce(report: Report, places: dict[str, str], topic_arn: str) -> None:
    subject = f"Storage Cleanup {report.stage}: {report.period.value} report, {report.health.status.value}"
    lines = list(report.sentences)
    if places:
        lines += ["", "The page:", f"aws s3 cp {places['html']} ."]
    client("sns", DELIVERING).publish(
        TopicArn=topic_arn, Subject=subject[:MAX_SUBJECT_LENGTH], Message="\n".join(lines)
    )
