"""The adapter to Parameter Store: the whole tree, always fresh, and failures in words."""

from collections.abc import Iterator

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.stub import Stubber
from moto import mock_aws
from mypy_boto3_ssm import SSMClient

from storage_cleanup.aws.parameter_store import ParameterStore
from storage_cleanup.errors import ConfigurationError

PATH = "/storage-cleanup/testing"


def make_client() -> SSMClient:
    return boto3.client("ssm", region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")


@pytest.fixture
def client() -> Iterator[SSMClient]:
    with mock_aws():
        yield make_client()


def put(client: SSMClient, name: str, value: str, kind: str = "String") -> None:
    client.put_parameter(Name=name, Value=value, Type=kind, Overwrite=True)  # type: ignore[arg-type]


def test_the_tree_is_read_at_any_depth_by_relative_names(client: SSMClient) -> None:
    put(client, f"{PATH}/profile", "testing")
    put(client, f"{PATH}/testing/max-age-minutes", "3")
    assert ParameterStore(PATH, client).tree() == {"profile": "testing", "testing/max-age-minutes": "3"}


def test_the_tree_is_read_beyond_the_first_page(client: SSMClient) -> None:
    for number in range(25):
        put(client, f"{PATH}/p{number}", "x")
    assert len(ParameterStore(PATH, client).tree()) == 25


def test_secure_strings_are_decrypted(client: SSMClient) -> None:
    put(client, f"{PATH}/database/url", "hush", "SecureString")
    assert ParameterStore(PATH, client).tree() == {"database/url": "hush"}


def test_another_stage_whose_name_begins_alike_is_not_read(client: SSMClient) -> None:
    put(client, f"{PATH}/profile", "testing")
    put(client, f"{PATH}2/profile", "production")
    assert ParameterStore(f"{PATH}/", client).tree() == {"profile": "testing"}


def test_the_tree_is_never_cached(client: SSMClient) -> None:
    store = ParameterStore(PATH, client)
    put(client, f"{PATH}/profile", "testing")
    store.tree()
    put(client, f"{PATH}/profile", "production")
    assert store.tree() == {"profile": "production"}


def test_an_empty_tree_is_refused_by_its_path(client: SSMClient) -> None:
    with pytest.raises(ConfigurationError, match=f"no parameters below {PATH}"):
        ParameterStore(PATH, client).tree()


@pytest.mark.parametrize("path", ["", "/", "//", "storage-cleanup/testing"])
def test_the_path_is_absolute_and_not_the_whole_store(client: SSMClient, path: str) -> None:
    with pytest.raises(ConfigurationError, match="path"):
        ParameterStore(path, client)


@pytest.mark.parametrize(
    ("value", "enabled"),
    [("true", True), ("True", True), ("false", False), ("yes", False), ("1", False), ("true ", False)],
)
def test_the_kill_switch_allows_only_by_a_clear_true(client: SSMClient, value: str, *, enabled: bool) -> None:
    put(client, f"{PATH}/enabled", value)
    assert ParameterStore(PATH, client).enabled() is enabled


def test_a_missing_kill_switch_does_not_allow(client: SSMClient) -> None:
    assert ParameterStore(PATH, client).enabled() is False


def test_the_kill_switch_is_never_cached(client: SSMClient) -> None:
    store = ParameterStore(PATH, client)
    put(client, f"{PATH}/enabled", "true")
    assert store.enabled()
    put(client, f"{PATH}/enabled", "false")
    assert not store.enabled()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("AccessDeniedException", "lacks a permission"),
        ("ThrottlingException", "throttled"),
        ("InvalidKeyId", "key of a SecureString"),
        ("InternalServerError", "it failed"),
    ],
)
def test_a_refusal_of_aws_names_the_path_and_the_reason(code: str, reason: str) -> None:
    client = make_client()
    with Stubber(client) as stubber:
        stubber.add_client_error("get_parameters_by_path", code)
        stubber.add_client_error("get_parameter", code)
        store = ParameterStore(PATH, client)
        with pytest.raises(ConfigurationError, match=f"{PATH} can't be read.*{reason}"):
            store.tree()
        with pytest.raises(ConfigurationError, match=f"{PATH}/enabled can't be read.*{reason}"):
            store.enabled()


def test_an_endpoint_out_of_reach_is_named() -> None:
    class Unreachable:
        def get_parameter(self, **_: object) -> None:
            raise EndpointConnectionError(endpoint_url="http://nowhere")

    with pytest.raises(ConfigurationError, match=r"can't be reached.*nowhere"):
        ParameterStore(PATH, Unreachable()).enabled()


def test_a_missing_region_is_a_fault_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(ConfigurationError, match="region"):
        ParameterStore(PATH)
