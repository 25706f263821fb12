"""Keys, buckets and databases of another project or role: recognised before anything is claimed."""

import json
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from local.application import Application
from local.postgres import Postgres
from storage_cleanup.errors import ConfigurationError, ObjectStoreError
from storage_cleanup.model.vocabulary import Status
from storage_cleanup.storage.client import StorageClient
from storage_cleanup.storage.paths import OWN_BUCKET
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure, nothing_happened
from tests.integration.direct import cycle, ledger

ROOT = Path(__file__).resolve().parents[2]
SCHEDULED = json.loads((ROOT / "events" / "scheduled.json").read_text())


pytestmark = pytest.mark.usefixtures("impatience")


@pytest.mark.parametrize("kind", ["anon", "authenticated", "expired", "without_role"])
def test_a_key_that_shows_its_fault_refuses_the_configuration(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers, kind: str
) -> None:
    application.render_many(3)
    key = getattr(servers.keys, kind)
    configure(supabase__service_role_key=key() if callable(key) else key)
    with pytest.raises(ConfigurationError, match="supabase/service-role-key"):
        cleanup()
    assert (len(application.files()), ledger(servers)) == (3, [])


@pytest.mark.parametrize("kind", ["foreign", "garbage"])
def test_a_key_that_the_server_refuses_deletes_nothing_and_is_named(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers, kind: str
) -> None:
    application.render_many(3)
    configure(supabase__service_role_key=servers.keys.foreign if kind == "foreign" else "sb_secret_of_nobody")
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert "supabase/service-role-key" in answer["message"]
    assert ledger(servers) == []


def test_a_scheduled_run_proves_the_key_before_its_first_claim(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers
) -> None:
    application.render_many(3)
    configure(supabase__service_role_key="sb_secret_of_nobody")
    nothing_happened(cleanup(SCHEDULED), application, files=3)
    assert ledger(servers) == []


def test_a_scheduled_run_that_finds_nothing_does_not_ask_storage(
    application: Application, cleanup: Cleanup, servers: Servers
) -> None:
    application.save(application.render())
    assert cleanup()["status"] == "succeeded"
    asked = servers.storage.stats()["requests"]
    assert cleanup(SCHEDULED)["status"] == "succeeded"
    assert servers.storage.stats()["requests"] == asked


def test_a_wrong_key_is_told_to_who_asks_by_hand_even_when_there_is_nothing_to_do(
    cleanup: Cleanup, configure: Configure
) -> None:
    configure(supabase__service_role_key="sb_secret_of_nobody")
    assert "supabase/service-role-key" in cleanup()["message"]


@pytest.mark.parametrize("kind", ["anon", "without_role"])
def test_a_key_that_sees_no_buckets_is_recognised_whatever_it_looks_like(
    application: Application, servers: Servers, kind: str
) -> None:
    application.render_many(3)
    result = cycle(servers, key=getattr(servers.keys, kind))
    nothing_happened(result.as_dict(), application, files=3)
    assert "supabase/service-role-key sees no buckets" in str(result.message)
    assert ledger(servers) == []


def test_a_key_that_stops_working_in_the_middle_of_a_run_fails_it(
    application: Application, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.render_many(3)

    original = StorageClient.remove

    def refuse(self: StorageClient, bucket: str, names: Sequence[str]) -> set[str]:
        if bucket == OWN_BUCKET:
            return original(self, bucket, names)
        raise ObjectStoreError('"exp" claim timestamp check failed', status=403, code="unauthorized")

    monkeypatch.setattr(StorageClient, "remove", refuse)
    result = cycle(servers)
    assert result.status is Status.FAILED
    assert len(application.files()) == len(application.jobs()) == 3
    assert [state for state, _, _ in ledger(servers)] == ["claimed"] * 3


def test_a_database_of_another_project_is_recognised(
    application: Application, cleanup: Cleanup, configure: Configure, servers: Servers, postgres: Postgres
) -> None:
    application.render_many(3)
    postgres.create_database("another_project")
    try:
        url = postgres.url("postgres", "another_project")
        with psycopg.connect(postgres.url("supabase_storage_admin", "another_project"), autocommit=True) as connection:
            connection.execute(
                "insert into storage.buckets (id, name, created_at) values "
                "('images', 'images', now() - interval '1 day'), ('videos', 'videos', now() - interval '1 day')"
            )
        configure(database__url=url)
        answer = cleanup()
    finally:
        postgres.drop_database("another_project")
    nothing_happened(answer, application, files=3)
    assert "supabase/url and database/url belong to different projects" in answer["message"]


def test_a_bucket_that_storage_does_not_have_is_named(
    application: Application, cleanup: Cleanup, configure: Configure
) -> None:
    application.render_many(3)
    configure(buckets="images,vidoes")
    answer = cleanup()
    nothing_happened(answer, application, files=3)
    assert "buckets names vidoes" in answer["message"]
