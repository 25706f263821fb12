"""The adapter to Storage on the wire: what it sends, whom it trusts, and what it makes of answers."""

import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from storage_cleanup.errors import ObjectStoreError
from storage_cleanup.storage.object_store import Backoff, ObjectStore

Answer = tuple[int, dict[str, str], bytes]
NO_BUCKETS: Answer = (200, {}, b"[]")


class Server(ThreadingHTTPServer):
    """Gives one answer to every request, and notes what it was asked."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about a client that leaves because it doesn't trust this server."""


class Handler(BaseHTTPRequestHandler):
    """A connection to a `Server`; it stays open."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        status, headers, body = self.server.answer
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(
            (self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, asked)
        )
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET  # noqa: N815  (the base class looks for them)

    def log_message(self, *arguments: Any) -> None: ...


@contextmanager
def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(answer)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def address_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def store_of(server: Server, scheme: str = "http", host: str = "127.0.0.1") -> ObjectStore:
    return ObjectStore(f"{scheme}://{host}:{server.server_port}", "sb_secret_hush", pause=lambda _: None)


def test_buckets_are_listed_with_the_key() -> None:
    row = {
        "id": "images",
        "name": "images",
        "owner": "",
        "public": False,
        "type": "STANDARD",
        "created_at": "2026-11-24T10:00:00.123Z",
        "updated_at": "2026-11-24T10:00:00.123Z",
        "file_size_limit": None,
        "allowed_mime_types": None,
    }
    with serving((200, {}, json.dumps([row]).encode())) as server, store_of(server) as store:
        assert store.buckets() == {"images": datetime(2026, 11, 24, 10, 0, 0, 123000, tzinfo=UTC)}
    [(method, path, headers, _)] = server.requests
    assert (method, path) == ("GET", "/storage/v1/bucket")
    assert headers["apikey"] == "sb_secret_hush"
    assert headers["authorization"] == "Bearer sb_secret_hush"


def test_names_are_sent_as_they_are_and_the_bucket_as_a_part_of_the_path() -> None:
    with serving((200, {}, b'[{"name": "a/b c+%.png"}]')) as server, store_of(server) as store:
        assert store.remove("my videos?", ["a/b c+%.png", "x"]).removed == {"a/b c+%.png"}
    [(method, path, headers, body)] = server.requests
    assert (method, path) == ("DELETE", "/storage/v1/object/my%20videos%3F")
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"prefixes": ["a/b c+%.png", "x"]}


def test_an_upload_takes_the_place_of_one_that_a_lost_answer_may_have_made() -> None:
    with serving((200, {}, b'{"Key": "images/a/b", "Id": "1"}')) as server, store_of(server) as store:
        store.upload("images", "a/b", b"bytes")
    [(method, path, headers, body)] = server.requests
    assert (method, path, headers["x-upsert"]) == ("POST", "/storage/v1/object/images/a/b", "true")
    assert b"\r\n\r\nbytes\r\n" in body


def test_a_compressed_answer_is_understood() -> None:
    answer: Answer = 200, {"Content-Encoding": "gzip"}, gzip.compress(b'[{"name": "a"}]')
    with serving(answer) as server, store_of(server) as store:
        assert store.remove("images", ["a"]).removed == {"a"}


def test_the_key_does_not_follow_a_redirect() -> None:
    with serving(NO_BUCKETS) as other:
        answer = 307, {"Location": f"http://127.0.0.1:{other.server_port}/"}, b""
        with serving(answer) as server, store_of(server) as store, pytest.raises(ObjectStoreError) as refusal:
            store.buckets()
    assert refusal.value.status == 307
    assert other.requests == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_parameter(status: int) -> None:
    answer: Answer = (
        400,
        {},
        json.dumps({"message": "jwt expired", "error": "Unauthorized", "statusCode": str(status)}).encode(),
    )
    with serving(answer) as server, store_of(server) as store:
        with pytest.raises(ObjectStoreError, match="supabase/url refuses supabase/service-role-key: jwt expired"):
            store.remove("images", ["a"])
        with pytest.raises(ObjectStoreError) as refusal:
            store.buckets()
    assert (refusal.value.status, refusal.value.code) == (status, "unauthorized")


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"[]", b"null", b'{"message": "?"}', b"\xff"])
def test_what_a_gateway_says_keeps_the_status_of_http(body: bytes) -> None:
    with serving((502, {}, body)) as server, store_of(server) as store:
        [error] = store.remove("images", ["a"]).failed.values()
    assert (error.status, error.code) == (502, "internal_error")


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for ``localhost`` that nobody has signed, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(minutes=1))
        .not_valid_after(datetime.now(UTC) + timedelta(minutes=5))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + secret)
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def test_a_certificate_that_nobody_signed_is_refused(tls: ssl.SSLContext) -> None:
    with (
        serving(NO_BUCKETS, tls) as server,
        store_of(server, "https", "localhost") as store,
        pytest.raises(ObjectStoreError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        store.buckets()
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_another_host_is_refused(tls: ssl.SSLContext) -> None:
    with (
        serving(NO_BUCKETS, tls) as server,
        store_of(server, "https", "127.0.0.1") as store,
        pytest.raises(ObjectStoreError, match="certificate"),
    ):
        store.buckets()
    assert server.requests == []


@pytest.mark.usefixtures("trusted")
def test_a_trusted_certificate_is_accepted(tls: ssl.SSLContext) -> None:
    with serving(NO_BUCKETS, tls) as server, store_of(server, "https", "localhost") as store:
        assert store.buckets() == {}


# -- Patience ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503, 544])
def test_a_request_that_fails_is_tried_as_often_as_allowed_with_pauses_between(status: int) -> None:
    pauses: list[float] = []
    backoff = Backoff(attempts=4, first_seconds=1, longest_seconds=3)
    with (
        serving((status, {}, b"")) as server,
        ObjectStore(address_of(server), "key", backoff=backoff, pause=pauses.append) as store,
    ):
        with pytest.raises(ObjectStoreError) as failure:
            store.buckets()
        assert failure.value.status == status
    assert len(server.requests) == 4
    assert [0.25 <= pauses[0] <= 1, 0.5 <= pauses[1] <= 2, 0.75 <= pauses[2] <= 3] == [True, True, True]
    assert len(pauses) == 3


def test_a_reason_to_give_up_ends_the_attempts_before_the_pause() -> None:
    pauses: list[float] = []
    with (
        serving((503, {}, b"")) as server,
        ObjectStore(address_of(server), "key", give_up=lambda: "time_is_short", pause=pauses.append) as store,
    ):
        assert store.remove("images", ["a", "b"]).failed.keys() == {"a", "b"}
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize(("status", "times"), [(429, 2), (503, 2), (544, 2), (500, 0)])
def test_only_a_server_that_asks_for_it_slows_the_run_down(status: int, times: int) -> None:
    pushbacks: list[None] = []
    with (
        serving((status, {}, b"")) as server,
        ObjectStore(
            address_of(server),
            "key",
            backoff=Backoff(attempts=2),
            on_pushback=lambda: pushbacks.append(None),
            pause=lambda _: None,
        ) as store,
    ):
        store.remove("images", ["a"])
    assert len(pushbacks) == times


def test_a_request_that_the_server_refuses_as_wrong_is_not_tried_again() -> None:
    with serving((404, {}, b"")) as server, store_of(server) as store, pytest.raises(ObjectStoreError):
        store.buckets()
    assert len(server.requests) == 1


def test_a_batch_that_always_fails_is_halved_with_few_requests_and_fails_as_a_whole() -> None:
    names = [f"{number}.png" for number in range(500)]
    with serving((400, {}, b"")) as server, store_of(server) as store:
        assert store.remove("images", names).failed.keys() == set(names)
    assert len(server.requests) < 50
