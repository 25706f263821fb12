"""Roles may do what their functions do, and nothing else."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from local.application import Application
from local.functions import Context, load_function
from local.keys import Keys
from local.postgres import Database
from local.storage import StorageServer
from storage_cleanup.config.parameters import DEFAULTS, MARKERS
from tests.infrastructure.conftest import STACK, STAGE, Stack, Template
from tests.infrastructure.iam import Call, as_list, faults, recorded_calls


def _statements(value: Any) -> Iterator[dict[str, Any]]:
    """Find statements wherever they hide, conditional ones too."""
    if isinstance(value, dict):
        if {"Effect", "Action", "Resource"} <= value.keys() and value["Effect"] == "Allow":
            yield value
        for each in value.values():
            yield from _statements(each)
    elif isinstance(value, list):
        for each in value:
            yield from _statements(each)


def unexplained_wildcards(template: Template) -> list[str]:
    found = []
    for name, resource in template["Resources"].items():
        reasons = resource.get("Metadata", {}).get("WildcardReasons", {})
        for statement in _statements(resource.get("Properties", {})):
            wild = any("*" in json.dumps(each) for each in as_list(statement["Resource"]))
            if wild and not reasons.get(statement.get("Sid", ""), "").strip():
                found.append(f"{name}: {statement.get('Sid')} has a wildcard resource and no reason")
            if any("*" in action for action in as_list(statement["Action"])):
                found.append(f"{name}: {statement.get('Sid')} has a wildcard action")
    return found


def test_a_wildcard_resource_has_a_written_reason(translated: Template) -> None:
    assert unexplained_wildcards(translated) == []


def test_a_wildcard_without_a_reason_is_found(translated: Template) -> None:
    broken = json.loads(json.dumps(translated))
    del broken["Resources"]["ScheduleSyncRole"]["Metadata"]["WildcardReasons"]["ReadFigures"]
    assert unexplained_wildcards(broken) == ["ScheduleSyncRole: ReadFigures has a wildcard resource and no reason"]


def test_every_function_has_a_role_of_its_own_without_managed_policies(translated: Template) -> None:
    resources = translated["Resources"]
    functions = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::Lambda::Function"]
    roles = [function["Role"]["Fn::GetAtt"][0] for function in functions]
    assert len(functions) == 4
    assert len(set(roles)) == 4
    assert not any("ManagedPolicyArns" in resources[role]["Properties"] for role in roles)


def test_schedule_sync_may_do_exactly_what_it_does(stack: Stack, sync: Callable[..., dict[str, Any]]) -> None:
    stack.put("supabase/url", "https://abc.supabase.co")
    with recorded_calls() as calls:
        stack_calls = len(calls)
        sync()
    stack.put("profile", "testing")
    with recorded_calls() as more:
        sync()
        sync()  # under a fast schedule, the cycles' figures are read every minute
    assert stack_calls == 0
    assert faults(stack.statements("schedule-sync"), [*calls, *more]) == []


def test_cleanup_may_do_exactly_what_it_does(
    stack: Stack, database: Database, storage: StorageServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole cycle that finds work, with a rule that has drifted, and a drain, so that every call is made."""
    stack.put_secrets(supabase_url=storage.url, key=keys.service_role, database_url=database.url())
    for name, value in (("profile", "testing"), ("enabled", "true"), ("dry-run", "false")):
        stack.put(name, value)
    stack.point_to("cleanup", monkeypatch)
    with closing(Application(database, storage.url, keys.service_role)) as application:
        application.render()
        with recorded_calls() as calls:
            handler = load_function("cleanup").lambda_handler
            answer = handler({"action": "cleanup"}, Context())
            handler({"action": "drain", "max_deletions": 10}, Context())
    assert answer["phases"]["storage_files"]["deleted"] == 1
    assert faults(stack.statements("cleanup"), calls) == []


def test_health_may_do_exactly_what_it_does(
    stack: Stack, database: Database, storage: StorageServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.put_secrets(supabase_url=storage.url, key=keys.service_role, database_url=database.url())
    stack.point_to("health", monkeypatch)
    handler = load_function("health").lambda_handler
    with recorded_calls() as calls:
        assert handler({"action": "health"}, Context())["checks"]
        assert handler({"action": "report", "period": "weekly"}, Context())["places"]
    assert faults(stack.statements("health"), calls) == []


def test_only_schedule_sync_may_put_parameters_and_none_that_exists_or_holds_a_secret(stack: Stack) -> None:
    puts = {
        function: statement
        for function in ("cleanup", "schedule-sync", "health", "restore")
        for statement in stack.statements(function)
        if "ssm:PutParameter" in as_list(statement["Action"])
    }
    assert puts.keys() == {"schedule-sync"}
    statement = puts["schedule-sync"]
    assert statement["Condition"] == {"StringNotEquals": {"ssm:Overwrite": "true"}}
    allowed = {each.partition(f":parameter/storage-cleanup/{STAGE}/")[2] for each in as_list(statement["Resource"])}
    assert allowed == DEFAULTS.keys() | MARKERS


def test_what_is_not_built_may_do_nothing(stack: Stack) -> None:
    assert faults(stack.statements("restore"), []) == []


def test_faults_are_found(stack: Stack) -> None:
    calls = [Call("ssm:GetParameter", (f"arn:aws:ssm:eu-central-1:123456789012:parameter/{STACK}/database/url",))]
    found = faults(stack.statements("schedule-sync"), calls)
    assert any("database/url is called and not allowed" in fault for fault in found)
    assert "SetSchedule allows events:PutRule, which is never called" in found
