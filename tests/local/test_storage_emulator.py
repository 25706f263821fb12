"""What the emulator does beyond the recorded contract: limits, transactions, row-level security, faults."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from local.keys import Keys
from local.postgres import ROOT, Database
from local.storage import StorageServer


@pytest.fixture
def client(storage: StorageServer, keys: Keys) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {keys.service_role}"}
    with httpx.Client(base_url=f"{storage.url}/storage/v1", headers=headers, timeout=10) as http:
        yield http


@pytest.fixture
def upload(client: httpx.Client) -> Callable[..., str]:
    def put(name: str, content: str = "x", *, bucket: str = "images", upsert: bool = False) -> str:
        headers = {"x-upsert": "true"} if upsert else {}
        answer = client.post(f"/object/{bucket}/{name}", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["Id"])

    return put


def remove(client: httpx.Client, names: list[str], bucket: str = "images", **options: Any) -> httpx.Response:
    return client.request("DELETE", f"/object/{bucket}", json={"prefixes": names}, **options)


def fill(database: Database, count: int) -> list[str]:
    """Add rows without bytes."""
    with database.connect("supabase_storage_admin") as connection:
        connection.execute(
            "insert into storage.objects (bucket_id, name, version)"
            " select 'images', 'n/' || n, gen_random_uuid() from generate_series(1, %s) as n",
            (count,),
        )
    return [f"n/{n}" for n in range(1, count + 1)]


def names_left(database: Database) -> list[str]:
    with database.connect() as connection:
        return [name for (name,) in connection.execute("select name from storage.objects order by name")]


def body_of(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    return answer.status_code, body["statusCode"], body["error"]


class TestRemove:
    """``DELETE /object/{bucket}``."""

    def test_a_failure_in_the_second_500_leaves_the_first_deleted(
        self, client: httpx.Client, database: Database
    ) -> None:
        names = fill(database, 600)
        answer = remove(client, [*names, "a\0b"])
        assert body_of(answer) == (500, "500", "DatabaseError")
        assert len(names_left(database)) == 100
        assert len(remove(client, names).json()) == 100

    def test_more_than_a_mebibyte_is_refused(self, client: httpx.Client) -> None:
        answer = remove(client, ["n" * 1024 * 1024])
        assert (answer.status_code, answer.json()["statusCode"]) == (413, "413")

    def test_a_row_locked_for_too_long_is_a_timeout(
        self, client: httpx.Client, storage: StorageServer, database: Database
    ) -> None:
        names = fill(database, 2)
        storage.use(database.url("supabase_storage_admin"), statement_timeout_ms=100)
        with database.connect(autocommit=False) as connection:
            connection.execute("select from storage.objects where name = %s for update", names[:1])
            assert body_of(remove(client, names)) == (544, "544", "DatabaseTimeout")
        assert len(remove(client, names).json()) == 2

    def test_bytes_that_are_missing_do_not_matter(self, client: httpx.Client, database: Database) -> None:
        names = fill(database, 1)
        assert [row["name"] for row in remove(client, names).json()] == names

    def test_bytes_go_with_the_row(self, client: httpx.Client, upload: Callable[..., str], tmp_path: Path) -> None:
        upload("a.png")
        upload("b.png")
        (removed,) = remove(client, ["a.png"]).json()
        files = [path.name for path in (tmp_path / "bytes").iterdir()]
        assert len(files) == 1
        assert removed["version"] not in files

    def test_overlapping_removals_remove_each_name_once(
        self, client: httpx.Client, storage: StorageServer, database: Database
    ) -> None:
        names = fill(database, 800)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda shift: remove(client, names[shift:] + names[:shift]), range(0, 800, 100)))
        assert {answer.status_code for answer in answers} == {200}
        assert sum(len(answer.json()) for answer in answers) == 800
        assert set(storage.stats()["removals"].values()) == {1}

    def test_a_client_that_gives_up_does_not_cancel(
        self, client: httpx.Client, storage: StorageServer, database: Database
    ) -> None:
        names = fill(database, 1)
        storage.inject(latency_ms=300)
        with pytest.raises(httpx.ReadTimeout):
            remove(client, names, timeout=0.1)
        wait_until(lambda: not names_left(database))

    def test_a_key_without_a_role_removes_nothing(self, client: httpx.Client, database: Database, keys: Keys) -> None:
        names = fill(database, 1)
        answer = remove(client, names, headers={"Authorization": f"Bearer {keys.without_role}"})
        assert (answer.status_code, answer.json()) == (200, [])
        assert names_left(database) == names


class TestDatabase:
    """What the database refuses, and what becomes of it."""

    def test_out_of_slots(self, client: httpx.Client, storage: StorageServer, database: Database) -> None:
        with database.connect("supabase_admin") as connection:
            connection.execute("alter role supabase_storage_admin connection limit 0")
            try:
                storage.use(database.url("supabase_storage_admin"))
                assert body_of(remove(client, ["a"])) == (429, "429", "too_many_connections")
            finally:
                connection.execute("alter role supabase_storage_admin connection limit -1")

    def test_pool_exhausted(self, client: httpx.Client, storage: StorageServer, database: Database) -> None:
        names = fill(database, 1)
        storage.use(database.url("supabase_storage_admin"), pool_size=1)
        with ThreadPoolExecutor(1) as threads, database.connect(autocommit=False) as connection:
            connection.execute("select from storage.objects for update")
            waiting = threads.submit(remove, client, names)
            wait_until(lambda: is_waiting_for_a_lock(database))
            assert body_of(remove(client, names)) == (544, "544", "DatabaseTimeout")
            connection.rollback()
            assert len(waiting.result().json()) == 1

    def test_read_only(self, client: httpx.Client, storage: StorageServer, database: Database) -> None:
        with database.connect() as connection:
            connection.execute(f"alter database {database.name} set default_transaction_read_only = on")
        storage.use(database.url("supabase_storage_admin"))
        assert body_of(remove(client, ["a"])) == (400, "503", "DatabaseReadOnly")

    def test_down(self, client: httpx.Client, storage: StorageServer) -> None:
        storage.use("postgresql://supabase_storage_admin@127.0.0.1:1/postgres")
        assert body_of(remove(client, ["a"])) == (500, "500", "Internal")

    @pytest.mark.parametrize("role", ["postgres", "service_role", "authenticated", "anon", "supabase_storage_admin"])
    def test_a_direct_delete_is_refused_for_everyone(
        self, storage: StorageServer, database: Database, role: str
    ) -> None:
        fill(database, 1)
        with database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            connection.execute("delete from storage.objects")
        assert refused.value.sqlstate == "42501"
        assert len(names_left(database)) == 1

    def test_row_level_security_blinds_other_roles_without_an_error(
        self, storage: StorageServer, database: Database
    ) -> None:
        fill(database, 1)
        with database.connect("supabase_admin") as connection:
            connection.execute("create role blind login")
            connection.execute("grant usage on schema storage to blind")
            connection.execute("grant select on storage.objects to blind")
        look = "select count(*), row_security_active('storage.objects') from storage.objects"
        try:
            for role, seen in {"blind": (0, True), "anon": (0, True), "postgres": (1, False)}.items():
                with database.connect(role) as connection:
                    assert connection.execute(look).fetchone() == seen
        finally:
            with database.connect("supabase_admin") as connection:
                connection.execute("drop owned by blind")
                connection.execute("drop role blind")

    def test_postgres_is_no_superuser_and_does_not_own_the_table(self, database: Database) -> None:
        with database.connect() as connection:
            assert connection.execute(
                "select rolsuper, rolbypassrls from pg_roles where rolname = 'postgres'"
            ).fetchone() == (
                False,
                True,
            )
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("create index on storage.objects (created_at)")

    def test_people_see_their_own_rows_only(self, database: Database) -> None:
        me, other = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
        with database.connect() as connection:
            connection.execute("insert into render_jobs (user_id) values (%s), (%s)", (me, other))
        with database.connect("authenticated") as connection:
            connection.execute("select set_config('request.jwt.claims', %s, false)", (json.dumps({"sub": me}),))
            assert [str(user) for (user,) in connection.execute("select user_id from render_jobs")] == [me]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("insert into user_assets (user_id, asset_type) values (%s, 'upload')", (other,))


class TestObjects:
    """Uploading, moving, reading."""

    COLUMNS = "id::text, created_at, updated_at, version"

    def row(self, database: Database) -> tuple[Any, ...]:
        with database.connect() as connection:
            row = connection.execute(f"select {self.COLUMNS} from storage.objects").fetchone()
            assert row
            return row

    def test_an_upsert_keeps_id_and_creation_and_changes_the_rest(
        self, database: Database, client: httpx.Client, upload: Callable[..., str]
    ) -> None:
        first = upload("a.png", "old")
        _, created, updated, version = self.row(database)
        assert upload("a.png", "new", upsert=True) == first
        after = self.row(database)
        assert after[:2] == (first, created)
        assert after[2] > updated
        assert after[3] != version
        assert client.get("/object/images/a.png").text == "new"

    def test_a_move_keeps_id_and_creation_and_bytes(
        self, database: Database, client: httpx.Client, upload: Callable[..., str]
    ) -> None:
        upload("a.png", "bytes")
        before = self.row(database)
        move = {"bucketId": "images", "sourceKey": "a.png", "destinationBucket": "videos", "destinationKey": "/b"}
        assert client.post("/object/move", json=move).json() == {"message": "Successfully moved"}
        after = self.row(database)
        assert after[:2] == before[:2]
        assert after[2] > before[2]
        assert after[3] != before[3]
        assert client.get("/object/videos//b").text == "bytes"

    def test_a_download_touches_nothing(
        self, database: Database, client: httpx.Client, upload: Callable[..., str]
    ) -> None:
        upload("a.png")
        before = self.row(database)
        client.get("/object/authenticated/images/a.png").raise_for_status()
        assert self.row(database) == before

    @pytest.mark.parametrize("character", '"#%<>[\\]^{|}~`\té')
    def test_illegal_characters_are_refused(self, client: httpx.Client, character: str) -> None:
        encoded = "".join(f"%{byte:02X}" for byte in character.encode())
        assert client.post(f"/object/images/a{encoded}b", content="x").json()["code"] == "InvalidKey"

    @pytest.mark.parametrize(
        "path",
        [
            "/object/public/videos/{}",
            "/object/authenticated/videos/{}",
            "/object/videos/{}",
            "/render/image/public/videos/{}?width=10",
            "/render/image/authenticated/videos/{}",
        ],
    )
    def test_url_shapes(self, client: httpx.Client, upload: Callable[..., str], path: str) -> None:
        upload("a b+c%3F.png", "bytes", bucket="videos")
        assert client.get(path.format("a%20b+c%3F.png")).text == "bytes"

    @pytest.mark.parametrize("prefix", ["/object", "/render/image"])
    def test_signed_url(self, client: httpx.Client, upload: Callable[..., str], prefix: str) -> None:
        upload("a.png", "bytes")
        signed = client.post("/object/sign/images/a.png", json={"expiresIn": 60}).json()["signedURL"]
        path = signed.replace("/object", prefix)
        assert client.get(path).text == "bytes"
        assert client.get(path.replace("a.png", "b.png")).json()["code"] == "InvalidSignature"

    def test_a_bucket_limits_the_size_of_an_object(self, client: httpx.Client) -> None:
        client.post("/bucket", json={"name": "small", "file_size_limit": 5}).raise_for_status()
        assert client.post("/object/small/a", content="bytes").status_code == 200
        answer = client.post("/object/small/b", content="bytes!")
        assert (answer.status_code, answer.json()["code"]) == (413, "EntityTooLarge")
        assert client.get("/object/info/small/b").json()["code"] == "NoSuchKey"

    def test_signed_upload(self, client: httpx.Client) -> None:
        url = client.post("/object/upload/sign/images/a.png").json()["url"]
        assert client.put(url, content="bytes").json()["Key"] == "images/a.png"


class TestFaults:
    """Faults on demand."""

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            ("too_many_connections", (429, "429", "too_many_connections")),
            ("internal", (500, "500", "Internal")),
            ("database_timeout", (544, "544", "DatabaseTimeout")),
            ("slow_down", (400, "503", "Please reduce your request rate.")),
        ],
    )
    def test_refusals_do_nothing(
        self,
        client: httpx.Client,
        storage: StorageServer,
        database: Database,
        fault: str,
        expected: tuple[int, str, str],
    ) -> None:
        names = fill(database, 1)
        storage.inject({fault: 1})
        assert body_of(remove(client, names)) == expected
        assert names_left(database) == names
        assert storage.stats()["faults"] == {fault: 1}

    def test_a_gateway_answers_html(self, client: httpx.Client, storage: StorageServer) -> None:
        storage.inject({"bad_gateway": 1})
        answer = remove(client, ["a"])
        assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")

    @pytest.mark.parametrize(("fault", "left"), [("timeout_before", 1), ("timeout_after", 0)])
    def test_timeouts(
        self, client: httpx.Client, storage: StorageServer, database: Database, fault: str, left: int
    ) -> None:
        names = fill(database, 1)
        storage.inject({fault: 1})
        with pytest.raises(httpx.ReadTimeout):
            remove(client, names, timeout=0.3)
        assert len(names_left(database)) == left

    def test_a_request_that_hangs_ends_without_an_answer(self, client: httpx.Client, storage: StorageServer) -> None:
        storage.inject({"timeout_before": 1}, hang_seconds=0.1)
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            remove(client, ["a"])

    def test_the_connection_is_cut_in_mid_answer(
        self, client: httpx.Client, storage: StorageServer, database: Database
    ) -> None:
        names = fill(database, 3)
        storage.inject({"cut": 1})
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            remove(client, names)
        assert names_left(database) == []

    def test_deleted_but_says_nothing(self, client: httpx.Client, storage: StorageServer, database: Database) -> None:
        names = fill(database, 3)
        storage.inject({"empty_answer": 1})
        assert remove(client, names).json() == []
        assert names_left(database) == []

    def test_half_of_the_batch(self, client: httpx.Client, storage: StorageServer, database: Database) -> None:
        names = fill(database, 4)
        storage.inject({"half": 1})
        assert remove(client, names).status_code == 500
        assert names_left(database) == names[2:]

    def test_a_poisoned_name_spoils_its_batch(
        self, client: httpx.Client, storage: StorageServer, database: Database
    ) -> None:
        names = fill(database, 4)
        storage.inject(poisoned_names=[names[2]])
        assert remove(client, names).status_code == 500
        assert names_left(database) == names
        assert len(remove(client, names[:2]).json()) == 2

    def test_operations_can_be_chosen(self, client: httpx.Client, storage: StorageServer) -> None:
        storage.inject({"internal": 1}, operations=["remove"])
        assert client.get("/bucket").status_code == 200
        assert remove(client, ["a"]).status_code == 500
        storage.heal()
        assert remove(client, ["a"]).status_code == 200
        assert storage.stats()["requests"] == {"list_buckets": 1, "remove": 2}

    def test_a_seed_repeats_itself(self, client: httpx.Client, storage: StorageServer) -> None:
        def statuses() -> list[int]:
            storage.inject({"internal": 0.3, "database_timeout": 0.3}, seed=7)
            return [remove(client, ["a"]).status_code for _ in range(20)]

        first = statuses()
        assert first == statuses()
        assert set(first) == {200, 500, 544}

    def test_latency(self, client: httpx.Client, storage: StorageServer) -> None:
        storage.inject(latency_ms=200)
        began = time.monotonic()
        remove(client, ["a"])
        assert time.monotonic() - began >= 0.2

    def test_an_unknown_fault_is_refused(self, storage: StorageServer) -> None:
        with pytest.raises(httpx.HTTPStatusError):
            storage.inject({"gremlins": 1})
        with pytest.raises(httpx.HTTPStatusError, match="400"):
            storage.inject(probability=1)


def test_the_emulator_needs_nothing_of_this_project() -> None:
    program = "import sys, local.storage_emulator.__main__; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    own = [name for name in done.stdout.split() if name.startswith(("local.", "storage_cleanup"))]
    assert [name for name in own if not name.startswith("local.storage_emulator")] == []


def is_waiting_for_a_lock(database: Database) -> bool:
    with database.connect() as connection:
        waiting = connection.execute(
            "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        )
        return waiting.fetchone() is not None


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
