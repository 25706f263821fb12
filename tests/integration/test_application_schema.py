"""The application's tables may have columns of any name, and triggers that write again: what they say now counts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from local.application import Application, Link, Render
from local.postgres import ROOT
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Health
from tests.integration.direct import compare

pytestmark = pytest.mark.usefixtures("earlier_run")
Connection = psycopg.Connection[Any]

FUNCTIONS = sorted((ROOT / "database" / "functions").glob("*.sql"))
SYSTEM_COLUMNS = {"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"}


@pytest.fixture
def owner(servers: Servers) -> Iterator[Connection]:
    """The owner of the application's tables."""
    with servers.database.connect() as connection:
        yield connection


def words_of(files: list[Path]) -> set[str]:
    """Return every word of the code, with the names of tables, columns, variables and parameters among them."""
    code = " ".join(re.sub(r"--.*|'[^']*'", " ", file.read_text()) for file in files)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b", code))


def url(application: Application, render: Render) -> str:
    """Return the render's URL, as another row may hold it."""
    return application.link(render.bucket, render.name, Link.PUBLIC)


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["text default 'x'", "jsonb default '{}'", "boolean default true", "integer default 7"]
)
def test_no_column_of_the_application_is_taken_for_a_name_in_the_functions(
    application: Application, cleanup: Cleanup, health: Health, owner: Connection, kind: str
) -> None:
    """Every word of the functions is a column of both tables."""
    for table in ("render_jobs", "user_assets"):
        present = {
            name for (name,) in owner.execute("select attname from pg_attribute where attrelid = %s::regclass", [table])
        }
        added = sorted(words_of(FUNCTIONS) - present - SYSTEM_COLUMNS)
        columns = ", ".join(f'add column "{name}" {kind}' for name in added)
        owner.execute(f"alter table {table} {columns}".encode())

    orphan, planned, saved, named = (application.render() for _ in range(4))
    application.save(saved)
    application.save(application.render(), metadata={"path": named.name})
    fileless = application.add_job(output_url=None)
    plan = cleanup(dry_run=True)
    assert plan["phases"]["storage_files"]["planned"] == 3  # the third is the one whose asset names another file
    answer = cleanup(override=plan["run_id"])
    assert answer["status"] == "succeeded"
    assert answer["phases"]["storage_files"]["reasons"]["kept"] == {}
    assert {job for job in (orphan.job_id, planned.job_id, fileless) if job in application.jobs()} == set()
    assert {name for _, name in application.files()} == {saved.name, named.name}
    assert health()["status"] != "failed"


def test_an_override_claims_nothing_outside_its_plan_when_jobs_have_a_column_of_that_name(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    owner.execute("alter table render_jobs add column plan uuid")
    plan = cleanup(dry_run=True)
    render = application.render()
    assert cleanup(override=plan["run_id"])["phases"]["storage_files"]["deleted"] == 0
    assert application.download(render) == render.content


@pytest.mark.parametrize("kind", ["text default 'x'", "boolean default true"])
def test_the_first_look_takes_no_column_for_a_name_in_the_functions(owner: Connection, kind: str) -> None:
    """What was written before the triggers is noted, whatever the columns are called."""
    owner.execute("alter table user_assets disable trigger storage_cleanup_asset_inserted")
    owner.execute("alter table render_jobs disable trigger storage_cleanup_job_inserted")
    for table in ("render_jobs", "user_assets"):
        for name in ("first", "beyond", "look", "blocks", "now_like", "jobs", "assets", "source", "fields"):
            owner.execute(f"alter table {table} add column {name} {kind}".encode())
    job = owner.execute(
        "insert into render_jobs (user_id, status, output_url) "
        "values (gen_random_uuid(), 'completed', 'images/a.png') returning id"
    ).fetchone()
    owner.execute(
        "insert into user_assets (user_id, asset_type, metadata) "
        """values (gen_random_uuid(), 'image', '{"path": "images/b.png"}')"""
    )
    owner.execute("alter table user_assets enable trigger storage_cleanup_asset_inserted")
    owner.execute("alter table render_jobs enable trigger storage_cleanup_job_inserted")
    compare(owner)
    assert owner.execute("select job_id from storage_cleanup.holder").fetchone() == job
    assert owner.execute("select storage_cleanup.needed_among(array['images/b.png'])").fetchone() == ("images/b.png",)


# -- statements within statements: the outer one's trigger comes last, and its rows may no longer be so ----------------


def test_an_asset_that_a_trigger_rewrites_keeps_what_it_says_in_the_end(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    asset = application.save(application.render(), metadata={"path": "nothing/yet.png"})
    render = application.render(name=f"shared/{uuid4()}.png")
    owner.execute(
        "create function sync() returns trigger language plpgsql as $$ begin "
        "update user_assets "
        "set metadata = jsonb_build_object('path', (new.metadata ->> 'folder') || '/' || (new.metadata ->> 'file')) "
        "where id = new.id; return null; end $$; "
        "create trigger sync after update on user_assets for each row "
        "when (pg_trigger_depth() = 0) execute function sync()"
    )
    folder, _, file = render.name.rpartition("/")
    said = json.dumps({"folder": folder, "file": file})
    owner.execute("update user_assets set metadata = %s where id = %s", (said, asset))
    assert owner.execute("select metadata ->> 'path' from user_assets").fetchall() == [(render.name,)]
    cleanup()
    assert application.download(render) == render.content


@pytest.mark.parametrize("event", ["insert", "update"])
def test_a_saved_job_that_a_trigger_rewrites_keeps_the_file_that_it_has_in_the_end(
    application: Application, cleanup: Cleanup, owner: Connection, event: str
) -> None:
    render = application.render()
    owner.execute(
        "create function canonical() returns trigger language plpgsql as $$ begin "
        "update render_jobs set output_url = replace(new.output_url, 'tmp:', '') where id = new.id; "
        "return null; end $$; "
        "create trigger canonical after insert or update of output_url on render_jobs for each row "
        "when (new.output_url like 'tmp:%') execute function canonical()"
    )
    written = "tmp:" + url(application, render)
    saved = application.add_job(output_url=written if event == "insert" else None)
    if event == "update":
        owner.execute("update render_jobs set output_url = %s where id = %s", (written, saved))
    assert owner.execute("select output_url from render_jobs where id = %s", (saved,)).fetchone() == (
        url(application, render),
    )
    application.save(Render(saved, render.user_id, "", "", b""))
    cleanup()
    assert application.download(render) == render.content


def test_an_asset_that_a_trigger_puts_back_keeps_its_file(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    render = application.render()
    asset = application.save(application.render(), metadata={"path": render.name})
    owner.execute(
        "create function keep() returns trigger language plpgsql as $$ begin "
        "insert into user_assets select old.*; return null; end $$; "
        "create trigger keep after delete on user_assets for each row execute function keep()"
    )
    owner.execute("delete from user_assets where id = %s", (asset,))
    assert owner.execute("select count(*) from user_assets where id = %s", (asset,)).fetchone() == (1,)
    cleanup()
    assert application.download(render) == render.content


def test_a_merge_that_replaces_an_asset_under_its_id_keeps_the_new_file(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    render = application.render()
    asset: UUID = application.save(application.render(), metadata={"path": "old/one.png"})
    owner.execute(
        "merge into user_assets as a "
        "using (values (%(id)s::uuid, null), (gen_random_uuid(), %(path)s)) as s (id, path) on a.id = s.id "
        "when matched then delete "
        "when not matched then insert (id, user_id, asset_type, metadata) "
        "values (%(id)s, %(user)s, 'image', jsonb_build_object('path', s.path))",
        {"id": asset, "path": render.name, "user": render.user_id},
    )
    assert owner.execute("select metadata ->> 'path' from user_assets").fetchall() == [(render.name,)]
    cleanup()
    assert application.download(render) == render.content
