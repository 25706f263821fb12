"""Files that columns of other tables refer to stay as well, once the parameter ``references`` names these columns."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors as pg

from database.install import install
from database.status import status
from local.application import Application, Link, Render
from tests.conftest import Servers
from tests.integration.conftest import Cleanup, Configure, Health
from tests.integration.direct import compare

pytestmark = pytest.mark.usefixtures("earlier_run")
Connection = psycopg.Connection[Any]

COVER = "public.posts.cover"
TABLES = {
    "posts": "create table posts (id bigint generated always as identity primary key, user_id uuid, title text, "
    "cover text)",
    "pairs": "create table pairs (a integer, b text, cover text, primary key (b, a))",
}


@pytest.fixture
def owner(servers: Servers) -> Iterator[Connection]:
    """The owner of the application's tables, one of which is ``posts``."""
    with servers.database.connect() as connection:
        connection.execute(TABLES["posts"].encode())
        yield connection


@pytest.fixture
def guarded(owner: Connection, configure: Configure) -> Connection:
    """The same, with the column ``cover`` protected."""
    owner.execute("select storage_cleanup.protect(%s)", (COVER,))
    configure(references=f"public.user_assets,{COVER}")
    return owner


def path(render: Render) -> str:
    return f"{render.bucket}/{render.name}"


def publish(owner: Connection, cover: str) -> int:
    return int(next(owner.execute("insert into posts (cover, title) values (%s, 'x') returning id", (cover,)))[0])


def kept(answer: dict[str, Any]) -> dict[str, int]:
    return dict(answer["phases"]["storage_files"]["reasons"]["kept"])


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_a_file_that_a_listed_column_names_stays(
    application: Application, cleanup: Cleanup, guarded: Connection
) -> None:
    render = application.render()
    publish(guarded, application.link(render.bucket, render.name, Link.PUBLIC))
    assert kept(cleanup()) == {"asset_points_at_file": 1}
    assert application.download(render) == render.content


def test_a_job_that_a_listed_column_names_stays(
    application: Application, cleanup: Cleanup, guarded: Connection
) -> None:
    render = application.render()
    publish(guarded, str(render.job_id).upper())
    assert kept(cleanup()) == {"saved": 1}
    assert application.download(render) == render.content


def test_what_a_listed_table_says_in_another_column_keeps_nothing(
    application: Application, cleanup: Cleanup, guarded: Connection
) -> None:
    render = application.render()
    guarded.execute("insert into posts (title) values (%s)", (path(render),))
    cleanup()
    assert application.files() == set()


def test_what_was_said_before_the_column_was_listed_counts(
    application: Application, cleanup: Cleanup, owner: Connection, configure: Configure
) -> None:
    render = application.render()
    publish(owner, path(render))
    owner.execute("select storage_cleanup.protect(%s)", (COVER,))
    configure(references=COVER)
    assert kept(cleanup()) == {"asset_points_at_file": 1}


@pytest.mark.parametrize(
    "statement",
    ["delete from posts", "truncate posts", "update posts set cover = null", "update posts set cover = 'images/b.png'"],
)
def test_a_file_goes_when_nobody_refers_to_it_any_more(
    application: Application, cleanup: Cleanup, guarded: Connection, statement: str
) -> None:
    render = application.render()
    publish(guarded, path(render))
    guarded.execute(statement.encode())
    cleanup()
    assert application.files() == set()


def test_its_grace_begins_when_the_last_reference_goes(
    application: Application, cleanup: Cleanup, guarded: Connection, configure: Configure
) -> None:
    configure(references=COVER, production__unsaved_grace_minutes="5")
    render = application.render()
    publish(guarded, path(render))
    guarded.execute("delete from posts")
    cleanup()
    assert application.download(render) == render.content
    configure(references=COVER)
    cleanup()
    assert application.files() == set()


def test_a_row_with_a_key_of_several_columns_keeps_its_file(
    application: Application, cleanup: Cleanup, owner: Connection
) -> None:
    owner.execute(TABLES["pairs"].encode())
    owner.execute("select storage_cleanup.protect('public.pairs.cover')")
    mine, other = application.render(), application.render()
    owner.execute("insert into pairs values (1, 'x, y', %s), (2, 'x, y', %s)", (path(mine), path(other)))
    owner.execute("update pairs set b = ']' where a = 1")
    owner.execute("delete from pairs where a = 2")
    cleanup()
    assert application.files() == {(mine.bucket, mine.name)}
    assert compare(owner) == 0
    assert owner.execute("select storage_cleanup.needed_among(%s)", ([path(mine)],)).fetchone() == (path(mine),)


def test_what_a_trigger_of_the_application_writes_into_the_row_counts(
    application: Application, cleanup: Cleanup, guarded: Connection
) -> None:
    render = application.render()
    guarded.execute(
        "create function stamp() returns trigger language plpgsql as $$ begin "
        f"update posts set cover = '{path(render)}' where id = new.id and cover is null; return null; end $$"
    )
    guarded.execute("create trigger a after insert on posts for each row execute function stamp()")
    guarded.execute("create trigger z after insert on posts for each row execute function stamp()")
    guarded.execute("insert into posts (title) values ('x')")
    assert kept(cleanup()) == {"asset_points_at_file": 1}


def test_rows_that_replication_applies_count(
    application: Application, cleanup: Cleanup, guarded: Connection, servers: Servers
) -> None:
    render = application.render()
    with servers.database.connect("supabase_admin", autocommit=False) as replication:
        replication.execute("set local session_replication_role = replica")
        publish(replication, path(render))
    assert kept(cleanup()) == {"asset_points_at_file": 1}


# -- against a claim -------------------------------------------------------------------------------------------------


def test_a_column_cannot_name_a_file_that_is_being_removed(
    application: Application, servers: Servers, guarded: Connection
) -> None:
    orphan = application.render()
    compare(guarded)
    outcome = guarded.execute(
        "select outcome from storage_cleanup.claim(gen_random_uuid(), %s, %s, '1 hour', false, null)",
        ([orphan.job_id], [path(orphan)]),
    ).fetchone()
    assert outcome == ("claimed",)
    with pytest.raises(pg.ForeignKeyViolation):
        publish(guarded, path(orphan))


def test_a_claim_passes_over_a_file_that_a_column_is_about_to_name(
    application: Application, cleanup: Cleanup, guarded: Connection, servers: Servers
) -> None:
    render = application.render()
    with servers.database.connect(autocommit=False) as writer:
        publish(writer, path(render))
        assert kept(cleanup()) == {"locked": 1}
        writer.commit()
    assert kept(cleanup()) == {"asset_points_at_file": 1}


# -- what isn't guarded ----------------------------------------------------------------------------------------------


def test_nothing_goes_while_a_listed_column_is_not_guarded(
    application: Application, cleanup: Cleanup, owner: Connection, configure: Configure
) -> None:
    configure(references=COVER)
    application.render()
    answer = cleanup()
    assert answer["status"] == "failed"
    assert f"references names {COVER}, which isn't guarded yet" in answer["message"]
    assert f"make install-database REFERENCES={COVER}" in answer["message"]
    assert len(application.files()) == 1


def test_nothing_goes_while_a_trigger_of_a_listed_table_is_off(
    application: Application, cleanup: Cleanup, guarded: Connection
) -> None:
    application.render()
    guarded.execute("alter table posts disable trigger storage_cleanup_place_written")
    answer = cleanup()
    assert "trigger storage_cleanup_place_written on public.posts is different" in answer["message"]
    assert len(application.files()) == 1


def test_what_was_written_while_the_trigger_was_off_counts(
    application: Application, cleanup: Cleanup, guarded: Connection
) -> None:
    render, former = application.render(), application.render()
    publish(guarded, path(former))
    guarded.execute("alter table posts disable trigger storage_cleanup_place_written")
    guarded.execute("delete from posts")
    publish(guarded, path(render))
    guarded.execute("alter table posts enable always trigger storage_cleanup_place_written")
    assert kept(cleanup()) == {"asset_points_at_file": 1}
    assert application.files() == {(render.bucket, render.name)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("alter table posts drop column cover", "public.posts has no column cover"),
        ("create table special_posts () inherits (posts)", "public.posts is no ordinary table"),
        ("alter table posts drop constraint posts_pkey", "public.posts has no primary key"),
        ("drop table posts", "is gone, whose columns were protected"),
    ],
    ids=["no column", "a child", "no key", "no table"],
)
def test_nothing_goes_while_a_guarded_column_cannot_be_read(
    application: Application, cleanup: Cleanup, guarded: Connection, change: str, sentence: str
) -> None:
    render = application.render()
    publish(guarded, path(render))
    compare(guarded)
    guarded.execute(change.encode())
    answer = cleanup()
    assert answer["status"] == "failed"
    assert sentence in answer["message"]
    assert application.download(render) == render.content


def test_a_column_whose_table_is_gone_is_forgotten_by_hand(
    application: Application, cleanup: Cleanup, guarded: Connection, configure: Configure
) -> None:
    publish(guarded, path(application.render()))
    guarded.execute("drop table posts")
    guarded.execute("select storage_cleanup.forget_gone_places()")
    configure()
    cleanup()
    assert application.files() == set()


def test_a_column_that_is_no_longer_protected_keeps_nothing(
    application: Application, cleanup: Cleanup, guarded: Connection, configure: Configure
) -> None:
    publish(guarded, path(application.render()))
    guarded.execute("select storage_cleanup.unprotect(%s)", (COVER,))
    configure()
    cleanup()
    assert application.files() == set()
    assert guarded.execute("select count(*) from pg_trigger where tgrelid = 'posts'::regclass").fetchone() == (0,)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        ("posts.cover", "posts.cover names no column"),
        ("public.post.cover", "public.post.cover names no table"),
        ("public.posts.cower", "public.posts has no column cower"),
        ("storage.objects.name", "storage.objects isn't the application's"),
        ("public.nokey.x", "public.nokey has no primary key"),
        ("public.view.cover", "public.view is no ordinary table"),
    ],
)
def test_what_cannot_be_protected_is_refused_in_a_sentence(owner: Connection, column: str, sentence: str) -> None:
    owner.execute("create table nokey (x text)")
    owner.execute("create view view as select * from posts")
    with pytest.raises(pg.InvalidParameterValue, match=sentence):
        owner.execute("select storage_cleanup.protect(%s)", (column,))
    assert owner.execute("select count(*) from storage_cleanup.place").fetchone() == (0,)


# -- installing, and health ------------------------------------------------------------------------------------------


def test_the_installation_protects_the_columns_that_it_is_given(servers: Servers, owner: Connection) -> None:
    lines: list[str] = []
    install(servers.database.url(), say=lines.append, references=[COVER])
    assert f"column {COVER}: protected" in lines
    assert not install(servers.database.url(), say=lines.append, references=[COVER])
    assert owner.execute("select storage_cleanup.unprotected_among(%s)", ([COVER],)).fetchall() == []
    assert [fault for _, fault in status(servers.database.url()) if fault] == []


def test_health_names_columns_that_seem_to_hold_paths(
    application: Application, health: Health, owner: Connection, configure: Configure
) -> None:
    configure()
    render = application.render()
    owner.execute("alter table posts add column gallery jsonb, add column body text, add column tags text[]")
    owner.execute(
        "insert into posts (title, cover, gallery, body, tags) values ('a/b.c', %s, %s, %s, %s)",
        (
            render.name,
            json.dumps({"pages": [path(render)]}),
            f"See {application.link('images', 'else.png', Link.PUBLIC)}",
            ["a/b", path(render)],
        ),
    )
    check = health()["checks"]["references"]
    assert check["status"] == "warning"
    assert check["value"]["unlisted"] == [f"public.posts.{name}" for name in ("body", "cover", "gallery", "tags")]
    configure(references__ignored=",".join(check["value"]["unlisted"]))
    assert health()["checks"]["references"]["status"] == "ok"


def test_health_says_what_is_listed_and_not_guarded(health: Health, owner: Connection, configure: Configure) -> None:
    configure(references=COVER)
    check = health()["checks"]["references"]
    assert check["status"] == "critical"
    assert f"make install-database REFERENCES={COVER}" in check["sentence"]
    owner.execute("select storage_cleanup.protect(%s)", (COVER,))
    assert health()["checks"]["references"]["status"] == "ok"


# -- a row that is put back while a comparison forgets it --------------------------------------------------------------


def test_an_asset_that_is_put_back_while_a_comparison_forgets_it_keeps_its_file(
    application: Application, servers: Servers
) -> None:
    """It says what is noted of it already, so nothing is noted again; and the comparison has seen it gone."""
    render, asset = application.render(), uuid4()
    insert = "insert into user_assets (id, user_id, asset_type, metadata) values (%s, %s, 'x', %s)"
    row = (asset, render.user_id, json.dumps({"path": path(render)}))
    with servers.database.connect() as owner, servers.database.connect(autocommit=False) as writer:
        owner.execute(insert, row)
        owner.execute("alter table user_assets disable trigger storage_cleanup_asset_deleted")
        owner.execute("delete from user_assets where id = %s", (asset,))
        owner.execute("alter table user_assets enable trigger storage_cleanup_asset_deleted")
        writer.execute(insert, row)
        compare(owner)
        writer.commit()
        assert owner.execute("select storage_cleanup.needed_among(%s)", ([path(render)],)).fetchone() == (path(render),)
