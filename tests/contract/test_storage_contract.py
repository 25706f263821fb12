"""Replays what a real Storage server was asked, and compares the answers.

Against the emulator, or against the Supabase named by ``SUPABASE_URL`` and ``SUPABASE_SERVICE_ROLE_KEY``. With
``SUPABASE_JWT_SECRET`` also the steps that need other keys run there.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from local.keys import JWT_SECRET, Keys
from local.postgres import Database, Postgres
from local.storage import StorageServer

STEPS = json.loads(Path(__file__).with_name("storage-contract.json").read_text())["steps"]
BUCKETS = ("contract-a", "contract-b")
_NAMES = re.compile(r"<(\d+) names: n/0\.bin … n/\d+\.bin>")


@dataclass
class Server:
    """The server that is held against the recording."""

    client: httpx.Client
    keys: dict[str, str | None]
    apikey: str | None = None
    """What the gateway of a hosted project wants in a header of its own, beside the key that Storage looks at."""

    def send(self, step: dict[str, Any]) -> httpx.Response:
        headers = dict(step.get("headers", {}))
        headers |= self.identify(step["key"])
        if "json" in step:
            headers["Content-Type"] = "application/json"
            content = json.dumps(expand(step["json"])).encode()
        else:
            content = step.get("body", "").encode()
        return self.client.request(step["method"], step["path"], headers=headers, content=content)

    def identify(self, name: str) -> dict[str, str]:
        """Return the headers of a key. Without one there is no ``apikey`` either: a gateway would accept it alone."""
        key = self.keys[name]
        if key is None:
            return {}
        return {"Authorization": f"Bearer {key}"} | ({"apikey": self.apikey} if self.apikey else {})

    def remove_buckets(self) -> None:
        headers = self.identify("service")
        for bucket in BUCKETS:
            while rows := self._list(bucket, headers):
                names = [row["name"] for row in rows]
                self.client.request("DELETE", f"/object/{bucket}", headers=headers, json={"prefixes": names})
            self.client.delete(f"/bucket/{bucket}", headers=headers)

    def _list(self, bucket: str, headers: dict[str, str]) -> list[dict[str, Any]]:
        answer = self.client.post(f"/object/list-v2/{bucket}", headers=headers, json={"prefix": "", "limit": 500})
        rows: list[dict[str, Any]] = answer.json().get("objects", [])
        return rows


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if os.environ.get("SUPABASE_URL"):
        yield from real_server()
    else:
        yield from emulated_server(request, tmp_path_factory.mktemp("bytes"))


def real_server() -> Iterator[Server]:
    service_key = os.environ["SUPABASE_SERVICE_ROLE_KEY"]
    with httpx.Client(base_url=f"{os.environ['SUPABASE_URL'].rstrip('/')}/storage/v1", timeout=60) as client:
        server = Server(client, key_ring(os.environ.get("SUPABASE_JWT_SECRET"), service_key), apikey=service_key)
        server.remove_buckets()
        yield server
        server.remove_buckets()


def emulated_server(request: pytest.FixtureRequest, directory: Path) -> Iterator[Server]:
    postgres: Postgres = request.getfixturevalue("postgres")
    emulator: StorageServer = request.getfixturevalue("storage_server")
    postgres.create_database("contract")
    emulator.use(Database(postgres, "contract").url("supabase_storage_admin"), directory)
    with httpx.Client(base_url=f"{emulator.url}/storage/v1", timeout=10) as client:
        yield Server(client, key_ring(JWT_SECRET))
    emulator.release()
    postgres.drop_database("contract")


def key_ring(secret: str | None, service_key: str | None = None) -> dict[str, str | None]:
    """Return the keys by the recording's names; those that would have to be minted only with a secret."""
    keys: dict[str, str | None] = {"none": None, "garbage": "garbage"}
    if secret:
        minted = Keys(secret)
        keys |= {
            "service": minted.service_role,
            "anon": minted.anon,
            "authenticated": minted.authenticated(str(uuid4())),
            "expired": minted.expired,
            "foreign": minted.foreign,
        }
    if service_key:
        keys["service"] = service_key
    return keys


@pytest.mark.parametrize(
    "step", [pytest.param(step, id=f"{number:02} {step['note']}") for number, step in enumerate(STEPS, 1)]
)
def test_answers_as_recorded(server: Server, step: dict[str, Any]) -> None:
    if step["key"] not in server.keys:
        pytest.skip(f"without SUPABASE_JWT_SECRET there is no {step['key']} key")
    answer = server.send(step)
    expected = step["answer"]
    assert (answer.status_code, answer.headers["content-type"]) == (expected["status"], expected["content_type"])
    actual = answer.json() if "json" in expected["content_type"] else {"<not json>": answer.text}
    assert_matches(actual, expected["json"])


def test_no_key_means_none() -> None:
    """A gateway turns an ``apikey`` into an authorization: a step without a key once took a file."""

    def seen(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=dict(request.headers))

    with httpx.Client(base_url="https://a", transport=httpx.MockTransport(seen)) as client:
        server = Server(client, {"none": None, "service": "secret"}, apikey="secret")
        headers = {key: server.send({"key": key, "method": "GET", "path": "/"}).json() for key in server.keys}
    assert not {"apikey", "authorization"} & headers["none"].keys()
    assert (headers["service"]["apikey"], headers["service"]["authorization"]) == ("secret", "Bearer secret")


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ({"id": "no uuid"}, {"id": "<uuid>"}),
        ({"at": "yesterday"}, {"at": "<timestamp>"}),
        ({"at": None}, {"at": "<timestamp>"}),
        ({"url": "/a?token="}, {"url": "/a?token=<token>"}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ([{"a": 1}], [{"a": 2}]),
        ([{"a": 1}], {"<list>": 2, "first": {"a": 1}}),
        ([{"a": 2}], {"<list>": 1, "first": {"a": 1}}),
    ],
)
def test_comparison_finds_differences(actual: object, expected: object) -> None:
    with pytest.raises(AssertionError):
        assert_matches(actual, expected)


def expand(body: dict[str, Any]) -> dict[str, Any]:
    """Write out the lists of names that the recording abbreviates."""
    names = body.get("prefixes")
    abbreviated = _NAMES.fullmatch(names) if isinstance(names, str) else None
    return {**body, "prefixes": [f"n/{n}.bin" for n in range(int(abbreviated[1]))]} if abbreviated else body


def assert_matches(actual: Any, expected: Any) -> None:
    """Compare an answer with a recorded one, in which volatile values are masked and long lists cut short."""
    match expected:
        case {"<list>": length, "first": first}:
            assert len(actual) == length
            assert any(matches(item, first) for item in actual), f"nothing like {first} in {actual}"
        case dict():
            assert isinstance(actual, dict)
            assert actual.keys() == expected.keys()
            for name, value in expected.items():
                assert_matches(actual[name], value)
        case list():
            # Order is not part of the contract: each recorded item has to have a partner of its own.
            assert len(actual) == len(expected)
            unmatched = list(actual)
            for item in expected:
                partner = next((other for other in unmatched if matches(other, item)), None)
                assert partner is not None, f"nothing like {item} in {unmatched}"
                unmatched.remove(partner)
        case "<uuid>":
            assert is_uuid(actual), f"no UUID: {actual!r}"
        case "<timestamp>":
            assert is_timestamp(actual), f"no timestamp: {actual!r}"
        case str() if "<token>" in expected:
            pattern = re.escape(expected).replace("<token>", r"[\w-]+\.[\w-]+\.[\w-]+")
            assert re.fullmatch(pattern, actual), f"{actual!r} is not like {expected!r}"
        case _:
            assert actual == expected


def matches(actual: Any, expected: Any) -> bool:
    try:
        assert_matches(actual, expected)
    except AssertionError:
        return False
    return True


def is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(UUID(value)) == value
    except ValueError:
        return False


def is_timestamp(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
