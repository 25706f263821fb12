"""The parameters of a stage: no resources of the stack, created by what hears its deploys, and the operators' own."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from operations.parameters import report
from storage_cleanup.config.parameters import DEFAULTS, MARKERS, PARAMETERS
from storage_cleanup.errors import ConfigurationError
from storage_cleanup.scheduling import setup
from tests.infrastructure.conftest import PATH, STAGE, Stack, Template

Sync = Callable[..., dict[str, Any]]


def settings_of(stack: Stack) -> dict[str, str]:
    return {name: value for name, value in stack.tree().items() if name not in MARKERS}


def test_the_stack_has_no_parameters(translated: Template) -> None:
    assert not [each for each in translated["Resources"].values() if each["Type"] == "AWS::SSM::Parameter"]


@pytest.mark.parametrize("event", ["stack-change", "parameter-change"], ids=["deploy", "lost-event"])
def test_a_first_deploy_makes_the_whole_tree_visible_and_starts_dry(stack: Stack, sync: Sync, event: str) -> None:
    assert stack.tree() == {}
    sync(event)
    assert settings_of(stack) == DEFAULTS
    assert (stack.parameter("enabled"), stack.parameter("dry-run")) == ("true", "true")
    age = datetime.now(UTC) - datetime.fromisoformat(stack.parameter("setup/begun"))
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_each_is_described(stack: Stack, sync: Sync) -> None:
    sync("stack-change")
    pages = boto3.client("ssm").get_paginator("describe_parameters").paginate()
    found = {
        each["Name"].removeprefix(f"{PATH}/"): each["Description"] for page in pages for each in page["Parameters"]
    }
    assert {name: found[name] for name in DEFAULTS} == {name: PARAMETERS[name].meaning for name in DEFAULTS}


def test_a_deploy_creates_what_is_missing_and_changes_nothing_else(stack: Stack, sync: Sync) -> None:
    sync("stack-change")
    stack.put("limits/max-deletions-per-run", "77")
    stack.put("something/else", "1")
    boto3.client("ssm").delete_parameter(Name=f"{PATH}/buckets")
    before = stack.tree()
    sync("stack-change")
    assert stack.tree() == {**before, "buckets": DEFAULTS["buckets"]}


def test_a_deploy_does_not_bring_a_removed_kill_switch_back_as_permission(stack: Stack, sync: Sync) -> None:
    sync("stack-change")
    stack.put("dry-run", "false")
    boto3.client("ssm").delete_parameters(Names=[f"{PATH}/enabled", f"{PATH}/setup/begun"])
    sync("stack-change")
    assert stack.parameter("enabled") == "false"


def test_a_minute_without_a_deploy_creates_nothing_once_the_stage_is_there(stack: Stack, sync: Sync) -> None:
    sync("stack-change")
    boto3.client("ssm").delete_parameter(Name=f"{PATH}/buckets")
    sync()
    assert "buckets" not in stack.tree()


def test_a_creation_that_stopped_half_way_is_finished_a_minute_later(stack: Stack, sync: Sync) -> None:
    original, puts = BaseClient._make_api_call, []  # type: ignore[attr-defined]

    def throttled(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if operation == "PutParameter":
            puts.append(parameters["Name"])
            if len(puts) > 5:
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "Rate exceeded"}}, operation)
        return original(self, operation, parameters)

    with (
        mock.patch.object(BaseClient, "_make_api_call", throttled),
        pytest.raises(ConfigurationError, match=f"{PATH}/.* can't be created"),
    ):
        sync("stack-change")
    assert len(stack.tree()) == 5
    sync()
    assert settings_of(stack) == DEFAULTS


def test_what_an_operator_puts_at_the_same_moment_stays(
    stack: Stack, sync: Sync, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.put("enabled", "false")
    monkeypatch.setattr(setup, "read_values", lambda *_: {})  # it looked a moment earlier
    sync("stack-change")
    assert stack.parameter("enabled") == "false"
    assert stack.parameter("buckets") == DEFAULTS["buckets"]


def test_that_a_stage_has_got_its_project_is_noted_once(stack: Stack, sync: Sync) -> None:
    sync("stack-change")
    assert "setup/done" not in stack.tree()
    stack.put("supabase/url", "https://abc.supabase.co")
    sync()
    noted = stack.parameter("setup/done")
    boto3.client("ssm").delete_parameter(Name=f"{PATH}/supabase/url")
    sync()
    assert stack.parameter("setup/done") == noted


def test_deploys_that_change_tags_leave_what_an_operator_changed(stack: Stack, sync: Sync) -> None:
    sync("stack-change")
    stack.put("profile", "testing")
    before = stack.tree()
    for team in ("one", "two"):
        stack.update(deepcopy(stack.template), team=team)
        sync("stack-change")
        assert stack.tree() == before


def test_by_hand_the_same_is_created_and_differences_are_listed_without_secrets(stack: Stack) -> None:
    ssm = boto3.client("ssm")
    stack.put_secrets(supabase_url="https://abc.supabase.co", key="sb_secret_hushhush", database_url="postgresql://x")
    assert set(report(ssm, STAGE)) == {f"created {PATH}/{name}" for name in (*DEFAULTS, "setup/begun")}
    stack.put("profile", "testing")
    assert report(ssm, STAGE) == [f"{PATH}/profile is testing (default production)"]
