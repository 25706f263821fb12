"""The application goes on changing its tables after the installation, and everything goes on working."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from local.application import Application
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Health

Connection = psycopg.Connection[tuple[Any, ...]]

MIGRATIONS = [
    "alter table render_jobs alter created_at type timestamp",
    "alter table render_jobs alter created_at type timestamptz(3)",
    "alter table render_jobs alter output_url type varchar(2000)",
    "alter table render_jobs alter status type varchar(20)",
    "alter table render_jobs drop completed_at, add finished_at timestamptz, alter progress type integer",
    "alter table render_jobs rename model to engine",
    "alter table user_assets alter metadata type json using metadata::json",
    "alter table user_assets alter metadata type jsonb using metadata || '{}'",
    "alter table user_assets alter file_size type numeric, alter created_at type timestamp",
    "alter table user_assets drop title, add name text",
    "alter table user_assets rename deleted_at to gone_at",
]


@pytest.fixture
def session(servers: Servers, application: Application) -> Iterator[Connection]:
    """A session of the application that has been open since before the migration."""
    with servers.database.connect() as connection:
        _live(connection)
        yield connection


def _live(session: Connection) -> None:
    """Render, save, save something else, and delete that."""
    (job,) = session.execute(
        "insert into render_jobs (user_id, status) values (gen_random_uuid(), 'running') returning id"
    ).fetchone() or (None,)
    session.execute(
        "update render_jobs set status = 'completed', output_url = '/object/public/images/x.png' where id = %s", (job,)
    )
    session.execute("update render_jobs set progress = 100 where id = %s", (job,))
    (asset,) = session.execute(
        "insert into user_assets (user_id, asset_type, metadata) values (gen_random_uuid(), 'saved', %s) returning id",
        (json.dumps({"render_job_id": str(job)}),),
    ).fetchone() or (None,)
    session.execute("update user_assets set metadata = '{}' where id = %s", (asset,))
    session.execute("delete from user_assets where id = %s", (asset,))


@pytest.mark.parametrize("migration", MIGRATIONS)
def test_a_migration_is_possible_and_all_goes_on(
    session: Connection, application: Application, cleanup: Cleanup, health: Health, servers: Servers, *, migration: str
) -> None:
    saved, orphan = application.render(), application.render()
    application.save(saved)
    cleanup(dry_run=True)
    servers.execute(migration)
    _live(session)
    answer = cleanup()
    assert answer["status"] == "succeeded"
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {"saved": 1}
    assert application.files() == {("images", saved.name)}
    assert orphan.job_id not in application.jobs()
    unanswered = [check for check in health()["checks"].values() if "couldn't be checked" in check["sentence"]]
    assert [check for check in unanswered if "rule" not in check["sentence"]] == []


def test_a_trigger_that_watches_single_columns_is_not_trusted(servers: Servers, application: Application) -> None:
    servers.execute(
        "create or replace trigger storage_cleanup_asset_applied "
        "after insert or update of title or delete on user_assets for each row "
        "execute function storage_cleanup.asset_applied()"
    )
    servers.execute("alter table user_assets enable replica trigger storage_cleanup_asset_applied")
    with pytest.raises(pg.ObjectNotInPrerequisiteState, match="is different"):
        servers.execute("select storage_cleanup.assert_trust()")


def test_the_tables_can_be_dropped(servers: Servers) -> None:
    servers.execute("drop table user_assets, render_jobs")
