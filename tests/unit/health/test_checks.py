"""The table of checks, and how one of its entries is judged."""

import re

import pytest
from botocore.exceptions import ClientError

from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import DatabaseError, ObjectStoreError
from storage_cleanup.health.checks import CHECKS, NAMED
from storage_cleanup.health.model import Check, Found, HealthAnswer, Limit, Status
from storage_cleanup.health.runner import examine
from storage_cleanup.health.sources import Sources
from storage_cleanup.postgres.observer import Finding, Observer
from storage_cleanup.storage.object_store import ObjectStore
from tests.unit.examples import PARAMETERS

CLAIMS = Check(
    "claims",
    lambda _: Found(0),
    Limit(warning=1, critical=3),
    ok="{value:claim}.",
    warning="{value:claim} of {names} ({names:; }).",
    cases={"closed": (Status.OK, "The ledger is closed.")},
)
NAMES = {"names": ["a", "b"]}


@pytest.mark.parametrize(
    ("value", "status", "sentence"),
    [
        (1, Status.OK, "1 claim."),
        (3, Status.WARNING, "3 claims of a, b (a; b)."),
        (1234, Status.CRITICAL, "1,234 claims of a, b (a; b)."),
    ],
)
def test_a_limit_decides_the_status_and_with_it_the_sentence(value: int, status: Status, sentence: str) -> None:
    result = CLAIMS.judge(Found(value, value, words=NAMES))
    assert (result.status, result.sentence) == (status, sentence)
    assert result.threshold == {"warning": 1, "critical": 3}


def test_a_floor_is_the_least_that_a_value_may_be() -> None:
    floor = Limit(warning=99.9, is_floor=True)
    assert [floor.status(value) for value in (99.89, 99.9, 100)] == [Status.WARNING, Status.OK, Status.OK]


def test_a_case_goes_before_the_limit() -> None:
    result = CLAIMS.judge(Found(9, 9, case="closed"))
    assert (result.status, result.sentence) == (Status.OK, "The ledger is closed.")


def test_what_is_found_is_never_taken_for_a_format() -> None:
    result = CLAIMS.judge(Found(2, 2, words={"names": ["{value}", "%s"]}))
    assert result.sentence == "2 claims of {value}, %s ({value}; %s)."


def test_a_check_without_an_answer_is_a_warning_with_the_reason() -> None:
    result = CLAIMS.unanswered(DatabaseError("claims: {timeout}"))
    assert (result.status, result.value) == (Status.WARNING, None)
    assert result.sentence == "This couldn't be checked: claims: {timeout}."


def test_every_check_has_a_name_of_its_own_and_a_complete_sentence_for_each_case() -> None:
    assert len(NAMED) == len(CHECKS)
    for check in CHECKS:
        for _, sentence in check.by_case().values():
            assert not sentence or sentence[0] == "{" or sentence[0].isupper(), sentence
            assert not sentence or sentence.endswith("."), sentence


def test_no_sentence_advises_to_destroy_anything() -> None:
    advice = re.compile(r"(?:[:;.,]|\band|\bor)\s+(delete|drop|truncate|remove|purge|empty)\b", re.IGNORECASE)
    for check in CHECKS:
        for _, sentence in check.by_case().values():
            assert not advice.search(sentence), sentence


def test_a_key_that_sees_no_buckets_is_not_the_service_role() -> None:
    settings, observer = Settings.from_parameters(PARAMETERS), Observer("postgresql:///", seconds=1)
    sources = Sources(settings, observer, rule=lambda: None, failures=dict, buckets=dict)
    result = NAMED["storage"].judge(NAMED["storage"].look(sources))
    assert result.status is Status.CRITICAL
    assert "supabase/service-role-key sees no buckets at supabase/url" in result.sentence


class Schedule:
    """EventBridge with the rule that the parameters ask for."""

    def describe_rule(self, **_: str) -> dict[str, str]:
        return {"ScheduleExpression": "rate(1 hour)", "State": "ENABLED"}


class Unreadable:
    """CloudWatch for a role that may not read its figures."""

    def get_paginator(self, _: str) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetMetricData")


def answers(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> HealthAnswer:
    """Return the answer of a database that fails at every question but two, and note what it was asked."""

    def question(name: str) -> None:
        def ask(*_: object) -> object:
            asked.append(name)
            if name == "assert_schema":
                return None
            if name == "integrity":
                return {"saved_file_missing": Finding(2, 1)}
            raise DatabaseError(f"{name}: timeout")

        monkeypatch.setattr(Observer, name, ask)

    for name in dir(Observer):
        if not name.startswith("_") and name != "close":
            question(name)
    settings = Settings.from_parameters(PARAMETERS)
    observer, store = Observer("postgresql:///", seconds=1), ObjectStore("https://nowhere.example", "key")

    def unreachable() -> None:
        raise ObjectStoreError("no answer")

    monkeypatch.setattr(store, "buckets", unreachable)
    return examine(settings, observer, store, events=Schedule(), cloudwatch=Unreadable(), rule_name="rule")


def test_a_question_is_put_once_however_many_checks_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answers(monkeypatch, asked)
    assert len(asked) == len(set(asked))
    assert {"integrity", "slowest", "stored"} <= set(asked)


def test_a_question_that_fails_leaves_its_own_checks_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = answers(monkeypatch, []).as_dict()["checks"]
    assert list(checks) == [check.name for check in CHECKS]
    assert checks["query_seconds"]["sentence"] == "This couldn't be checked: slowest: timeout."
    assert checks["switches"]["status"] == "ok"
    assert checks["unrecorded_cycles"]["sentence"].startswith("This couldn't be checked: The figures of the cycles")
    assert checks["storage"]["status"] == "critical"
    assert "Storage can't be asked, so cycles remove no file: no answer." in checks["storage"]["sentence"]
    assert checks["saved_job_missing"]["status"] == "ok"
    assert checks["saved_file_missing"]["status"] == "critical"
